"""What a training leaves on disk: the state to go on from, and the model with its card."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from live_seg.errors import SourceError
from live_seg.files import replacing
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.maskrcnn.model import MaskRCNN
from live_seg.models.card import card_of

Arrays = list[NDArray[Any]]


class State(NamedTuple):
    """All that a training needs to go on as if it had never stopped."""

    epoch: int  # epochs done
    config: MaskRCNNConfig
    class_names: tuple[str, ...]
    network: Arrays
    trainer: Arrays  # of optimizer, averages and sampling; none where a stage of the training begins


def write_state(state: State, path: Path) -> None:
    """Write a state to the `.npz` file `path`, whole or not at all. Raises SinkError."""
    about = {"epoch": state.epoch, "config": asdict(state.config), "class_names": state.class_names}
    named: dict[str, Any] = {
        f"{kind}{i}": array
        for kind, arrays in (("network", state.network), ("trainer", state.trainer))
        for i, array in enumerate(arrays)
    }
    with replacing(path) as partial:
        np.savez(partial, about=np.array(json.dumps(about)), **named)


def read_state(path: Path) -> State:
    """Read what `write_state` wrote. Raises SourceError."""
    try:
        # Opened here: NumPy leaves a damaged file open.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            arrays = [
                [file[f"{kind}{i}"] for i in range(sum(name.startswith(kind) for name in file.files))]
                for kind in ("network", "trainer")
            ]
        config = MaskRCNNConfig.from_json(about["config"])
        return State(about["epoch"], config, tuple(about["class_names"]), *arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise SourceError(f"Cannot go on from {path}: {error}. Begin anew in another folder.") from error


def save(
    model: MaskRCNN,
    class_names: Sequence[str],
    path: Path,
    facts: dict[str, Any],
    min_score: float | None = None,
) -> None:
    """Write `path`, NAME.weights.h5, and its card NAME.json beside it, as `live_seg.load` takes them.

    `facts` (origin, licence, measured AP, ...) go into the card as they are, `min_score`, 0..1, in place of
    the config's own. Neither file is ever half-written under its name. Raises SinkError.
    """
    with replacing(path) as partial:
        model.save_weights(partial)
        digest = hashlib.sha256(partial.read_bytes()).hexdigest()
    config = model.config if min_score is None else replace(model.config, min_score=min_score)
    card = {"class_names": list(class_names), "config": asdict(config), **facts, "sha256": digest}
    with replacing(card_of(path)) as partial:
        partial.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
