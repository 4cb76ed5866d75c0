"""Normalized coordinates and the anchors of a feature pyramid, in NumPy.

Boxes are normalized y1 x1 y2 x2: 0..1 from the first to the last pixel.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_normalized(boxes: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Normalize `boxes` (..., 4) y1 x1 y2 x2 in pixels, y2 and x2 exclusive -> (..., 4).

    `size` is the image's (height, width). The last pixel, not its far edge, is at 1 (Matterport
    `utils.norm_boxes`).
    """
    height, width = size
    scale = np.array([height - 1, width - 1, height - 1, width - 1])
    normalized: NDArray[np.float32] = ((boxes - [0, 0, 1, 1]) / scale).astype(np.float32)
    return normalized


def to_pixels(boxes: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Invert `to_normalized`, without rounding. (..., 4) -> (..., 4)."""
    height, width = size
    scale = np.array([height - 1, width - 1, height - 1, width - 1])
    pixels: NDArray[np.float32] = (boxes * scale + [0, 0, 1, 1]).astype(np.float32)
    return pixels


@lru_cache(maxsize=16)
def pyramid_anchors(
    size: tuple[int, int],
    strides: tuple[int, ...],
    scales: tuple[tuple[float, ...], ...],
    ratios: tuple[float, ...],
) -> NDArray[np.float32]:
    """Compute the anchors of all cells of all pyramid levels for an image of `size` (height, width).

    `scales` are the sides of the square anchors of each stride, in pixels; a ratio is width / height. Returns
    (A, 4) normalized, ordered as the RPN's outputs: level, row, column, scale, ratio (Matterport
    `utils.generate_pyramid_anchors`).
    """
    levels = [
        _level_anchors(size, stride, sides, ratios) for stride, sides in zip(strides, scales, strict=True)
    ]
    return to_normalized(np.concatenate(levels), size)


def _level_anchors(
    size: tuple[int, int], stride: int, scales: Sequence[float], ratios: Sequence[float]
) -> NDArray[np.float64]:
    rows, columns = (-(-side // stride) for side in size)
    roots = np.sqrt(ratios)
    sides = np.asarray(scales)[:, None]
    half = np.stack([sides / roots, sides * roots], axis=2).reshape(-1, 2) / 2  # half height, half width
    grid = np.moveaxis(np.mgrid[0:rows, 0:columns], 0, -1)[:, :, None, :] * stride  # (rows, columns, 1, 2)
    return np.concatenate([grid - half, grid + half], axis=-1).reshape(-1, 4)
