"""Normalized coordinates and the anchors of a feature pyramid, in NumPy.

Boxes are normalized y1 x1 y2 x2. With `last_pixel` 1 (Matterport) the image spans 0..1 from its first to its
last pixel, with 0 (torchvision) from edge to edge.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_normalized(boxes: NDArray[Any], size: tuple[int, int], last_pixel: int = 1) -> NDArray[np.float32]:
    """Normalize `boxes` (..., 4) y1 x1 y2 x2 in pixels, y2 and x2 exclusive -> (..., 4).

    `size` is the image's (height, width). As Matterport's `utils.norm_boxes` where `last_pixel` is 1.
    """
    shift, scale = _axes(size, last_pixel)
    normalized: NDArray[np.float32] = ((boxes - shift) / scale).astype(np.float32)
    return normalized


def to_pixels(boxes: NDArray[Any], size: tuple[int, int], last_pixel: int = 1) -> NDArray[np.float32]:
    """Invert `to_normalized`, without rounding. (..., 4) -> (..., 4)."""
    shift, scale = _axes(size, last_pixel)
    pixels: NDArray[np.float32] = (boxes * scale + shift).astype(np.float32)
    return pixels


def _axes(size: tuple[int, int], last_pixel: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    height, width = size[0] - last_pixel, size[1] - last_pixel
    return np.array([0, 0, last_pixel, last_pixel]), np.array([height, width, height, width])


@lru_cache(maxsize=16)
def pyramid_anchors(
    size: tuple[int, int],
    strides: tuple[int, ...],
    scales: tuple[tuple[float, ...], ...],
    ratios: tuple[float, ...],
    *,
    from_cells: bool = False,
    last_pixel: int = 1,
    by_level: bool = True,
) -> tuple[NDArray[np.float32], ...]:
    """Compute the anchors of all cells of each pyramid level for an image of `size` (height, width).

    `scales` are the sides of the square anchors of each stride, in pixels; a ratio is width / height. Returns
    (A, 4) normalized of each level, or of all together unless `by_level`, ordered as the RPN's outputs: row,
    column, scale, ratio (Matterport `utils.generate_pyramid_anchors`). With `from_cells` the corners around a
    cell are rounded, and cells are size // cells pixels apart (torchvision `AnchorGenerator`): less than the
    stride where it does not divide the size.
    """
    levels = tuple(
        to_normalized(_level_anchors(size, stride, sides, ratios, from_cells), size, last_pixel)
        for stride, sides in zip(strides, scales, strict=True)
    )
    return levels if by_level else (np.concatenate(levels),)


def _level_anchors(
    size: tuple[int, int], stride: int, scales: Sequence[float], ratios: Sequence[float], from_cells: bool
) -> NDArray[np.float64]:
    rows, columns = (-(-side // stride) for side in size)
    roots = np.sqrt(ratios)
    sides = np.asarray(scales)[:, None]
    half = np.stack([sides / roots, sides * roots], axis=2).reshape(-1, 2) / 2  # half height, half width
    distance = np.array([stride, stride])
    if from_cells:
        half, distance = np.round(half), np.array([size[0] // rows, size[1] // columns])
    grid = np.moveaxis(np.mgrid[0:rows, 0:columns], 0, -1)[:, :, None, :] * distance  # (rows, columns, 1, 2)
    return np.concatenate([grid - half, grid + half], axis=-1).reshape(-1, 4)
