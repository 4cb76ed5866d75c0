"""Files of a training run: the state to resume from, and the model with its card."""

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
    """State of a training run after an epoch, complete enough to resume with the same result."""

    epoch: int  # number of finished epochs
    config: MaskRCNNConfig
    class_names: tuple[str, ...]
    network: Arrays
    trainer: Arrays  # optimizer, averages and random seeds; empty at the start of a stage


def write_state(state: State, path: Path) -> None:
    """Write a state to the `.npz` file `path`, atomically. Raises SinkError."""
    about = {"epoch": state.epoch, "config": asdict(state.config), "class_names": state.class_names}
    named: dict[str, Any] = {
        f"{kind}{i}": array
        for kind, arrays in (("network", state.network), ("trainer", state.trainer))
        for i, array in enumerate(arrays)
    }
    with replacing(path) as partial:
        np.savez(partial, about=np.array(json.dumps(about)), **named)


def read_state(path: Path) -> State:
    """Read a state written by `write_state`. Raises SourceError if the file is missing or damaged."""
    try:
        # Opened here because NumPy leaves a damaged file open.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            arrays = [
                [file[f"{kind}{i}"] for i in range(sum(name.startswith(kind) for name in file.files))]
                for kind in ("network", "trainer")
            ]
        config = MaskRCNNConfig.from_json(about["config"])
        return State(about["epoch"], config, tuple(about["class_names"]), *arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise SourceError(
            f"Cannot resume from {path}: {error}. Start a new training in another folder."
        ) from error


def save(
    model: MaskRCNN,
    class_names: Sequence[str],
    path: Path,
    facts: dict[str, Any],
    min_score: float | None = None,
) -> None:
    """Write the weights to `path`, NAME.weights.h5, and the card NAME.json beside it, for `live_seg.load`.

    `facts` (origin, licence, measured AP, ...) are added to the card. `min_score`, 0..1, replaces the
    config's score threshold. Both files are written atomically. Raises SinkError.
    """
    with replacing(path) as partial:
        model.save_weights(partial)
        digest = hashlib.sha256(partial.read_bytes()).hexdigest()
    config = model.config if min_score is None else replace(model.config, min_score=min_score)
    card = {"class_names": list(class_names), "config": asdict(config), **facts, "sha256": digest}
    with replacing(card_of(path)) as partial:
        partial.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
