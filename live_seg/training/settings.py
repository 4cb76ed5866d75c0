"""How to train, as the user chose it; kept beside what comes of it."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from live_seg.choices import Layers
from live_seg.errors import SourceError, UsageError
from live_seg.files import replacing
from live_seg.maskrcnn.training import Sampling
from live_seg.training.augment import Augmentation
from live_seg.training.initial_weights import LAYERS, STRIDE

SAMPLING = Sampling(anchors=128, positive_anchors=64, proposals=64, positive_proposals=24, masks=12)
"""Fewer than Matterport's: several pictures in a step make up for it."""

AUGMENTATION = Augmentation()


@dataclass(frozen=True)
class Settings:
    """How to train. Raises UsageError for what cannot be used."""

    data: tuple[tuple[Path, Path], ...]
    """Folders of photos, each with its COCO instances file."""
    val: tuple[Path, Path] | None = None
    """Folder and file to measure on."""
    start: str = "person"
    """What to start from, as `starts.begin` takes it."""
    epochs: int = 30
    size: int | None = None
    """Side of training pictures, longest side later, in pixels; None: that of the start."""
    batch: int = 8
    learning_rate: float = 3e-4
    layers: Layers = "all"
    """What learns, as `starts.set_trainable` takes it."""
    heads_first: int | None = None
    """Epochs in which the heads learn alone; None: a sixth of all where something starts fresh."""
    seed: int = 0
    val_every: int = 1
    """Epochs from one measurement to the next; the last is always measured."""
    precision: str | None = None
    """Keras dtype policy; None: mixed_bfloat16 on GPUs that compute in it, else float32."""
    sampling: Sampling = SAMPLING
    augmentation: Augmentation = AUGMENTATION

    def __post_init__(self) -> None:
        if not self.data:
            raise UsageError("There is nothing to learn from: give photos and their annotations.")
        for name in ("epochs", "batch", "val_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: at least 1 is needed.")
        if self.size is not None and (self.size < STRIDE or self.size % STRIDE):
            raise UsageError(f"The size of training pictures is a multiple of {STRIDE}. Got {self.size}.")
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(f"A learning rate is above 0, such as 3e-4. Got {self.learning_rate}.")
        if self.layers not in LAYERS:
            raise UsageError(f"Unknown layers {self.layers!r}: expected {', '.join(LAYERS)}.")

    def stages(self) -> "list[Stage]":
        """The heads alone, if so, then the rest of the epochs."""
        split = min(self.heads_first or 0, self.epochs)
        both = Stage(0, split, "heads"), Stage(split, self.epochs, self.layers)
        return [stage for stage in both if stage.end > stage.first]


class Stage(NamedTuple):
    """Epochs `first` to `end`, which it excludes, in which `layers` learn, with a schedule of their own."""

    first: int
    end: int
    layers: Layers


def write_settings(settings: Settings, path: Path) -> None:
    """Write settings as JSON, with absolute paths. Raises SinkError."""
    text = json.dumps(asdict(settings), indent=2, default=lambda file: str(file.absolute())) + "\n"
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_settings(path: Path) -> Settings:
    """Read what `write_settings` wrote. Raises SourceError."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values["data"] = tuple((Path(images), Path(file)) for images, file in values["data"])
        values["val"] = values["val"] and (Path(values["val"][0]), Path(values["val"][1]))
        values["sampling"] = Sampling(**values["sampling"])
        jitter = values["augmentation"]
        values["augmentation"] = Augmentation(**(jitter | {"scale": tuple(jitter["scale"])}))
        return Settings(**values)
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise SourceError(
            f"{path.parent} holds no training to go on with: {error}. Expected a folder that "
            "`live-seg train` has begun to fill."
        ) from error
