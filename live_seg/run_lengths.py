"""Validation of compressed run lengths (RLE) of masks, as COCO has them.

pycocotools decodes them in C without checks: values beyond the image make it crash or run for minutes.
"""

from collections.abc import Sequence
from itertools import accumulate


def unpacked(text: str) -> list[int]:
    """Decode compressed run lengths (`rleFrString` in pycocotools' maskApi.c). Raises ValueError.

    A character holds five bits of a number, lowest first, and whether more follow; the last one is signed.
    From the fourth number on they are differences to the number before the previous one.
    """
    numbers, value, bits = [], 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or bits > 30:
            raise ValueError("run lengths that cannot be decoded")
        value |= (code & 31) << bits
        bits += 5
        if not code & 32:
            numbers.append(value - (1 << bits if code & 16 else 0))
            value = bits = 0
    if bits:
        raise ValueError("run lengths that cannot be decoded")
    lengths = numbers[:]
    lengths[2::2] = list(accumulate(numbers[2::2]))
    lengths[1::2] = list(accumulate(numbers[1::2]))
    return lengths


def check_cover(lengths: Sequence[int], size: tuple[int, int]) -> None:
    """Raise ValueError unless the run lengths cover an image of `size` (height, width)."""
    if min(lengths, default=0) < 0 or sum(lengths) != size[0] * size[1]:
        raise ValueError("run lengths that do not cover the image")
