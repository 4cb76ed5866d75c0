"""Validation of masks in COCO's format: polygons and run lengths (RLE).

pycocotools decodes them in C without checks: values beyond the photo make it crash or run for minutes.
"""

import math
from itertools import accumulate
from typing import NotRequired, TypedDict

from pycocotools import mask as rle

from live_seg.evaluation.faults import Faults


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


class UnusableMaskError(ValueError):
    """A mask that cannot be used. The message is a kind of fault."""


def checked_mask(outline: Outline, size: tuple[int, int], faults: Faults, where: str) -> Mask:
    """Return a mask for a photo of `size` (height, width). Note an unusable one in `faults`: None then."""
    try:
        if isinstance(outline, dict):
            return _packed(outline, size)
        return _clipped(outline or [], size)
    except UnusableMaskError as error:
        faults.add(f"{error}, mask dropped", where)
    return None


def _clipped(rings: list[Ring], size: tuple[int, int]) -> list[Ring] | None:
    """Return rings of at least three points, clipped to the photo; None if there are none."""
    height, width = size
    kept = []
    for ring in rings:
        if len(ring) % 2:
            raise UnusableMaskError("polygon with an odd number of coordinates")
        if not all(map(math.isfinite, ring)):
            raise UnusableMaskError("polygon with NaN or infinity")
        limits = (width, height) * (len(ring) // 2)
        if len(ring) >= 6:
            kept.append([min(max(value, 0.0), limit) for value, limit in zip(ring, limits, strict=True)])
    return kept or None


def _packed(runs: Runs, size: tuple[int, int]) -> Packed:
    counts = runs.get("counts")
    if counts is None:
        raise UnusableMaskError("run lengths without counts")
    if runs.get("size") != list(size):
        raise UnusableMaskError("run lengths for a photo of another size")
    lengths = counts if isinstance(counts, list) else _unpacked(counts)
    if min(lengths, default=0) < 0 or sum(lengths) != math.prod(size):
        raise UnusableMaskError("run lengths that do not cover the photo")
    if isinstance(counts, list):
        counts = rle.frPyObjects({"size": list(size), "counts": counts}, *size)["counts"].decode("ascii")
    return {"size": list(size), "counts": counts}


def _unpacked(text: str) -> list[int]:
    """Decode compressed run lengths (`rleFrString` in pycocotools' maskApi.c).

    A character holds five bits of a number, lowest first, and whether more follow; the last one is signed.
    From the fourth number on they are differences to the number before the previous one.
    """
    numbers, value, bits = [], 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or bits > 30:
            raise UnusableMaskError("run lengths that cannot be decoded")
        value |= (code & 31) << bits
        bits += 5
        if not code & 32:
            numbers.append(value - (1 << bits if code & 16 else 0))
            value = bits = 0
    if bits:
        raise UnusableMaskError("run lengths that cannot be decoded")
    lengths = numbers[:]
    lengths[2::2] = list(accumulate(numbers[2::2]))
    lengths[1::2] = list(accumulate(numbers[1::2]))
    return lengths
