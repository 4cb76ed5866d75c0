"""Settings of a training run, stored as JSON in its folder."""

import json
import math
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from live_seg.choices import Layers
from live_seg.errors import SourceError, UsageError
from live_seg.files import replacing
from live_seg.maskrcnn.training import Sampling
from live_seg.training.augment import Augmentation
from live_seg.training.initial_weights import LAYERS, STRIDE

SAMPLING = Sampling(anchors=128, positive_anchors=64, proposals=64, positive_proposals=24, masks=12)
"""Fewer examples an image than Matterport's, as a step has several images."""

AUGMENTATION = Augmentation()

LARGEST_SIZE, LARGEST_BATCH = 4096, 1024
"""Pixels, and images of a step."""


@dataclass(frozen=True)
class Settings:
    """Settings of a training run. Raises UsageError for an invalid value."""

    data: tuple[tuple[Path, Path], ...]
    """Folders of photos, each with its COCO instances file. At least one."""
    val: tuple[Path, Path] | None = None
    """Folder of validation photos and its COCO instances file."""
    start: str = "small"
    """Initial weights, as `initial_weights.initial_network` takes them."""
    epochs: int = 30
    size: int | None = None
    """Side of training images in pixels, later the longest side of the input; None: that of the initial
    weights."""
    batch: int = 8
    learning_rate: float = 3e-4
    detector_rate: float = 1.0
    """Learning rate of the backbone, or of a one-stage network's detector, relative to `learning_rate`."""
    layers: Layers = "all"
    """Trainable layers, as `initial_weights.set_trainable` takes them."""
    extended_after: tuple[int, ...] = ()
    """Numbers of epochs after which the run was extended: see `extended`."""
    heads_first: int | None = None
    """Epochs in which only the heads are trained; None: a sixth of all if some layers have random weights."""
    seed: int = 0
    val_every: int = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    precision: str | None = None
    """Keras dtype policy; None: that of `best_precision`."""
    sampling: Sampling = SAMPLING
    augmentation: Augmentation = AUGMENTATION

    def __post_init__(self) -> None:
        if not self.data:
            raise UsageError("There is no training data: give photos and their annotations.")
        for name in ("epochs", "batch", "val_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1. Got {getattr(self, name)}.")
        if self.batch > LARGEST_BATCH:
            raise UsageError(f"batch must be at most {LARGEST_BATCH}. Got {self.batch}.")
        if self.size is not None and (not STRIDE <= self.size <= LARGEST_SIZE or self.size % STRIDE):
            raise UsageError(
                f"The size of training images must be a multiple of {STRIDE} up to {LARGEST_SIZE}. "
                f"Got {self.size}."
            )
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(f"The learning rate must be above 0, such as 3e-4. Got {self.learning_rate}.")
        if not 0 < self.detector_rate <= 1:
            raise UsageError(f"The detector's rate must be above 0 and at most 1. Got {self.detector_rate}.")
        if self.layers not in LAYERS:
            raise UsageError(f"Unknown layers {self.layers!r}: expected {', '.join(LAYERS)}.")

    def stages(self) -> "list[Stage]":
        """Return the stages of the run: the heads alone, if `heads_first`, `layers`, and each extension."""
        ends = (*self.extended_after, self.epochs)
        bounds = (0, min(self.heads_first or 0, ends[0]), *ends)
        layers: list[Layers] = ["heads", *[self.layers] * len(ends)]
        stages = [Stage(*part, chosen) for part, chosen in zip(pairwise(bounds), layers, strict=True)]
        return [stage for stage in stages if stage.end > stage.first]

    def extended(self, epochs: int) -> "Settings":
        """Return settings with `epochs` in all, the same ones if there are as many already.

        The epochs up to now keep their learning rates. The added ones are a stage with a schedule of its own,
        a warm restart (Loshchilov and Hutter 2017, arXiv 1608.03983). Raises UsageError for fewer epochs.
        """
        if epochs < self.epochs:
            raise UsageError(
                f"The run lasts to epoch {self.epochs}: give more epochs to extend it. Got {epochs}."
            )
        if epochs == self.epochs:
            return self
        return replace(self, epochs=epochs, extended_after=(*self.extended_after, self.epochs))


class Stage(NamedTuple):
    """Epochs `first` to `end` (exclusive) that train `layers` with a learning rate schedule of their own."""

    first: int
    end: int
    layers: Layers


def write_settings(settings: Settings, path: Path) -> None:
    """Write settings as JSON with absolute paths. Raises SinkError."""
    text = json.dumps(asdict(settings), indent=2, default=lambda file: str(file.absolute())) + "\n"
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_settings(path: Path) -> Settings:
    """Read settings written by `write_settings`. Raises SourceError if they are missing or invalid."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values["data"] = tuple((Path(images), Path(file)) for images, file in values["data"])
        values["val"] = values["val"] and (Path(values["val"][0]), Path(values["val"][1]))
        values["extended_after"] = tuple(values.get("extended_after", ()))  # missing in files of version 0.2
        values["sampling"] = Sampling(**values["sampling"])
        jitter = values["augmentation"]
        values["augmentation"] = Augmentation(**(jitter | {"scale": tuple(jitter["scale"])}))
        return Settings(**values)
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise SourceError(
            f"{path.parent} holds no training to resume: {error}. Expected a folder that `live-seg train` "
            "created."
        ) from error
