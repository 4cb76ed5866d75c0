"""The instances of a chunk as one file, with masks of 8 bits."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_seg.errors import LiveSegError
from live_seg.types import MASK_SIDE, Instances

LEVELS = 255
"""Steps of a mask's probabilities. A value is on the same side of 0.5 before and after rounding."""

LARGEST = 20 * 2**20
"""Bytes of a file."""

COARSE = 15
"""Steps of the masks where LEVELS would take more than LARGEST bytes; odd, which keeps the sides of 0.5."""


@dataclass(frozen=True, eq=False)
class Results:
    """Times of all F frames of a chunk, and the instances of its K segmented ones."""

    times: NDArray[np.float64]
    """(F,): seconds."""
    size: tuple[int, int]
    """(width, height) of the frames."""
    segmented: NDArray[np.int64]
    """(K,): positions of the segmented frames among the F."""
    instances: Sequence[Instances]
    """Instances of each segmented frame."""
    class_names: tuple[str, ...]
    device: str
    """Name of the engine and of the processor that ran it."""

    def pack(self) -> bytes:
        """Return the content of a file, of at most LARGEST bytes in all usual cases."""
        packed = self._pack(LEVELS)
        return packed if len(packed) <= LARGEST else self._pack(COARSE)

    def _pack(self, levels: int) -> bytes:
        columns: dict[str, Any] = {
            "times": self.times,
            "size": self.size,
            "segmented": self.segmented,
            "counts": [len(one) for one in self.instances],
            "class_names": self.class_names,
            "device": self.device,
            "levels": levels,
            "padded": any(one.padded for one in self.instances),
        }
        found = [one for one in self.instances if len(one)]
        for name in ("boxes", "class_ids", "scores", "track_ids", "confirmed"):
            if found and getattr(found[0], name) is not None:
                columns[name] = np.concatenate([getattr(one, name) for one in found])
        if found:
            masks = np.concatenate([one.masks for one in found])
            columns["masks"] = np.rint(masks * np.float32(levels)).astype(np.uint8)
        file = io.BytesIO()
        arrays: dict[str, Any] = {name: np.asarray(column) for name, column in columns.items()}
        np.savez_compressed(file, **arrays)
        return file.getvalue()

    @classmethod
    def unpack(cls, packed: bytes) -> "Results":
        """Return the results in a file's content. Raises LiveSegError if it is damaged."""
        try:
            with np.load(io.BytesIO(packed), allow_pickle=False) as file:
                columns = dict(file)
            return cls._of(columns)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise LiveSegError(
                f"The results of a chunk are damaged: {error}. Run the command with --no-resume."
            ) from error

    @classmethod
    def _of(cls, columns: dict[str, NDArray[Any]]) -> "Results":
        counts = columns["counts"]
        names = tuple(str(name) for name in columns["class_names"])
        everything = _instances(columns, names) if counts.sum() else None
        ends = np.cumsum(counts)
        width, height = columns["size"].tolist()
        return cls(
            times=columns["times"],
            size=(width, height),
            segmented=columns["segmented"],
            instances=[
                _none(names) if everything is None or not count else everything[int(end - count) : int(end)]
                for count, end in zip(counts.tolist(), ends.tolist(), strict=True)
            ],
            class_names=names,
            device=str(columns["device"]),
        )


def _instances(columns: dict[str, NDArray[Any]], names: tuple[str, ...]) -> Instances:
    return Instances(
        boxes=columns["boxes"],
        masks=columns["masks"].astype(np.float32) / np.float32(columns["levels"]),
        class_ids=columns["class_ids"],
        scores=columns["scores"],
        track_ids=columns.get("track_ids"),
        confirmed=columns.get("confirmed"),
        class_names=names,
        padded=bool(columns["padded"]),
    )


def _none(names: tuple[str, ...]) -> Instances:
    return Instances(
        boxes=np.zeros((0, 4), np.float32),
        masks=np.zeros((0, MASK_SIDE, MASK_SIDE), np.float32),
        class_ids=np.zeros(0, np.int32),
        scores=np.zeros(0, np.float32),
        class_names=names,
    )
