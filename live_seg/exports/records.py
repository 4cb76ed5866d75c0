"""Read JSON Lines as `sinks.json_lines.JsonLines` writes them: see docs/json-lines.schema.json."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from live_seg.errors import SourceError
from live_seg.files import reading


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


def read_records(path: Path) -> Iterator[Record]:
    """Yield the frames of the JSON Lines file `path`. Raises SourceError, which names the invalid line."""
    with reading(path), path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield _record(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise SourceError(
                        f"Line {number} of {path} is not what --json writes: {error!r}. Expected one JSON "
                        "object with index, seconds, size and instances."
                    ) from error


def _record(line: dict[str, Any]) -> Record:
    width, height = map(int, line["size"])
    return Record(
        int(line["index"]),
        float(line["seconds"]),
        (width, height),
        [_found(one) for one in line["instances"]],
    )


def _found(one: dict[str, Any]) -> Found:
    left, top, right, bottom = map(float, one["box"])
    height, width = map(int, one["mask"]["size"])
    rle = {"size": [height, width], "counts": str(one["mask"]["counts"])}
    track_id = one.get("track_id")  # missing in files of version 0.2
    return Found(
        (left, top, right, bottom),
        float(one["score"]),
        str(one["class"]),
        None if track_id is None else int(track_id),
        rle,
    )


def categories(records: list[Record]) -> dict[str, int]:
    """Return the class names that occur, sorted, with ids from 1."""
    names = sorted({one.class_name for record in records for one in record.instances})
    return {name: number for number, name in enumerate(names, start=1)}
