"""Read JSON Lines as `sinks.json_lines.JsonLines` writes them: see docs/json-lines.schema.json."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NotRequired, TypedDict

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from live_seg.errors import SourceError
from live_seg.files import LARGEST_IMAGE, reading
from live_seg.run_lengths import check_cover, unpacked


class Found(NamedTuple):
    """One instance in a frame."""

    box: tuple[float, float, float, float]
    """x1 y1 x2 y2 in pixels."""
    score: float
    class_name: str
    track_id: int | None
    rle: dict[str, Any]
    """COCO's compressed RLE: {"size": [height, width], "counts": str}."""

    @property
    def xywh(self) -> list[float]:
        """The box as COCO has it: left, top, width, height."""
        left, top, right, bottom = self.box
        return [left, top, round(right - left, 2), round(bottom - top, 2)]

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(coco_mask.area(self.rle))

    def runs(self) -> dict[str, Any]:
        """Return the mask as COCO's uncompressed RLE: {"size": [height, width], "counts": run lengths}."""
        cells = self.bitmap().ravel(order="F")
        ends = np.flatnonzero(np.diff(cells, prepend=False, append=not cells[-1]))
        return {"size": self.rle["size"], "counts": np.diff(ends, prepend=0).tolist()}

    def bitmap(self) -> NDArray[np.bool_]:
        """Return the mask (height, width)."""
        return np.asarray(coco_mask.decode(self.rle), bool)


class Record(NamedTuple):
    """One frame."""

    number: int
    """The frame's index in its source."""
    seconds: float
    size: tuple[int, int]
    """(width, height)."""
    instances: list[Found]


_Whole = Annotated[int, Meta(ge=-(2**53), le=2**53)]
_Side = Annotated[int, Meta(ge=1, le=2**20)]


class _Mask(TypedDict):
    size: tuple[_Side, _Side]
    counts: str


_Instance = TypedDict(
    "_Instance",
    {
        "box": tuple[float, float, float, float],
        "score": float,
        "class": str,
        "track_id": NotRequired[_Whole | None],  # missing in files of version 0.2
        "mask": _Mask,
    },
)


class _Line(TypedDict):
    """A line, see docs/json-lines.schema.json."""

    index: Annotated[int, Meta(ge=0, le=2**53)]
    seconds: float
    size: tuple[_Side, _Side]
    instances: list[_Instance]


def read_records(path: Path) -> Iterator[Record]:
    """Yield the frames of the JSON Lines file `path`. Raises SourceError, which names the invalid line."""
    with reading(path), path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield _record(msgspec.json.decode(line, type=_Line))
                except (ValueError, RecursionError) as error:
                    raise SourceError(
                        f"Line {number} of {path} is not what --json writes: {error}. Expected one JSON "
                        "object with index, seconds, size and instances."
                    ) from error


def _record(line: _Line) -> Record:
    width, height = line["size"]
    if width * height > LARGEST_IMAGE:
        raise ValueError(f"a frame of {width} x {height} pixels")
    found = [_found(one, (height, width)) for one in line["instances"]]
    return Record(line["index"], line["seconds"], (width, height), found)


def _found(one: _Instance, size: tuple[int, int]) -> Found:
    mask = one["mask"]
    if mask["size"] != size:
        raise ValueError("a mask of another size than its frame")
    check_cover(unpacked(mask["counts"]), size)
    rle = {"size": list(size), "counts": mask["counts"]}
    return Found(one["box"], one["score"], one["class"], one.get("track_id"), rle)


def categories(records: list[Record]) -> dict[str, int]:
    """Return the class names that occur, sorted, with ids from 1."""
    names = sorted({one.class_name for record in records for one in record.instances})
    return {name: number for number, name in enumerate(names, start=1)}
