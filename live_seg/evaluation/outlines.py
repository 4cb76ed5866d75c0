"""Validation of masks in COCO's format: polygons and run lengths (RLE)."""

import math
from typing import NotRequired, TypedDict

from pycocotools import mask as rle

from live_seg.evaluation.faults import Faults
from live_seg.run_lengths import check_cover, unpacked


class Runs(TypedDict):
    """Run lengths of a mask, column by column, starting with those outside of it."""

    size: NotRequired[list[int]]
    counts: NotRequired[list[int] | str]


class Packed(TypedDict):
    """Compressed run lengths, as pycocotools takes them."""

    size: list[int]
    counts: str


Ring = list[float]
Outline = list[Ring] | Runs | None
Mask = list[Ring] | Packed | None
"""Rings of at least three points x y, at least one ring; or run lengths that cover the photo; or no mask."""


def checked_mask(outline: Outline, size: tuple[int, int], faults: Faults, where: str) -> Mask:
    """Return a mask for a photo of `size` (height, width). Note an unusable one in `faults`: None then."""
    try:
        if isinstance(outline, dict):
            return _packed(outline, size)
        return _clipped(outline or [], size)
    except ValueError as error:
        faults.add(f"{error}, mask dropped", where)
    return None


def _clipped(rings: list[Ring], size: tuple[int, int]) -> list[Ring] | None:
    """Return rings of at least three points, clipped to the photo; None if there are none."""
    height, width = size
    kept = []
    for ring in rings:
        if len(ring) % 2:
            raise ValueError("polygon with an odd number of coordinates")
        if not all(map(math.isfinite, ring)):
            raise ValueError("polygon with NaN or infinity")
        limits = (width, height) * (len(ring) // 2)
        if len(ring) >= 6:
            kept.append([min(max(value, 0.0), limit) for value, limit in zip(ring, limits, strict=True)])
    return kept or None


def _packed(runs: Runs, size: tuple[int, int]) -> Packed:
    counts = runs.get("counts")
    if counts is None:
        raise ValueError("run lengths without counts")
    if runs.get("size") != list(size):
        raise ValueError("run lengths for a photo of another size")
    check_cover(counts if isinstance(counts, list) else unpacked(counts), size)
    if isinstance(counts, list):
        counts = rle.frPyObjects({"size": list(size), "counts": counts}, *size)["counts"].decode("ascii")
    return {"size": list(size), "counts": counts}
