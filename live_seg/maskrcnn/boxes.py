"""Box arithmetic and anchors. Boxes are normalised y1 x1 y2 x2: 0..1 from the first to the last pixel."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

Tensor = Any
"""A tensor of whichever backend Keras runs on; shapes are given where one is used."""


def to_normalised(boxes: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Pixels, y2 and x2 exclusive, to normalised; `size` is the picture's (height, width). (..., 4) -> same.

    Matterport `utils.norm_boxes`: the last pixel, not its far edge, lies at 1.
    """
    height, width = size
    scale = np.array([height - 1, width - 1, height - 1, width - 1])
    normalised: NDArray[np.float32] = ((boxes - [0, 0, 1, 1]) / scale).astype(np.float32)
    return normalised


def to_pixels(boxes: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Invert `to_normalised`, without rounding. (..., 4) -> (..., 4)."""
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
    """Anchors of every cell of every pyramid level for a picture of `size` (height, width) -> (A, 4).

    Each stride has its scales (sides of the square anchors, pixels); a ratio is width / height. Ordered by
    level, row, column, scale, ratio: the order of the RPN's outputs (Matterport
    `utils.generate_pyramid_anchors`).
    """
    levels = [
        _level_anchors(size, stride, sides, ratios) for stride, sides in zip(strides, scales, strict=True)
    ]
    return to_normalised(np.concatenate(levels), size)


def _level_anchors(
    size: tuple[int, int], stride: int, scales: Sequence[float], ratios: Sequence[float]
) -> NDArray[np.float64]:
    rows, columns = (-(-side // stride) for side in size)
    roots = np.sqrt(ratios)
    sides = np.asarray(scales)[:, None]
    half = np.stack([sides / roots, sides * roots], axis=2).reshape(-1, 2) / 2  # half height, half width
    grid = np.moveaxis(np.mgrid[0:rows, 0:columns], 0, -1)[:, :, None, :] * stride  # (rows, columns, 1, 2)
    return np.concatenate([grid - half, grid + half], axis=-1).reshape(-1, 4)


def apply_deltas(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Move and stretch `boxes` (..., 4) by `deltas` (..., 4): dy dx dh dw.

    R-CNN (arXiv 1311.2524), appendix C.
    """
    top_left, bottom_right = boxes[..., :2], boxes[..., 2:]
    sides = bottom_right - top_left
    centres = top_left + 0.5 * sides + deltas[..., :2] * sides
    sides = sides * ops.exp(deltas[..., 2:])
    top_left = centres - 0.5 * sides
    return ops.concatenate([top_left, top_left + sides], axis=-1)


def deltas_between(boxes: Tensor, targets: Tensor) -> Tensor:
    """Find the deltas that `apply_deltas` would need to turn `boxes` (..., 4) into `targets` (..., 4).

    Both must have positive sides (Matterport `utils.box_refinement_graph`).
    """
    sides, target_sides = boxes[..., 2:] - boxes[..., :2], targets[..., 2:] - targets[..., :2]
    shift = (targets[..., :2] + 0.5 * target_sides) - (boxes[..., :2] + 0.5 * sides)
    return ops.concatenate([shift / sides, ops.log(target_sides / sides)], axis=-1)


def clip(boxes: Tensor, window: Tensor) -> Tensor:
    """Cut `boxes` (..., 4) to `window`, y1 x1 y2 x2, of a shape that broadcasts against them."""
    low = ops.concatenate([window[..., :2], window[..., :2]], axis=-1)
    high = ops.concatenate([window[..., 2:], window[..., 2:]], axis=-1)
    return ops.maximum(ops.minimum(boxes, high), low)


def area(boxes: Tensor) -> Tensor:
    """Area of each box. (..., 4) -> (...)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection area of every pair. boxes (..., N, 4), others (..., M, 4) -> (..., N, M)."""
    boxes, others = boxes[..., :, None, :], others[..., None, :, :]
    top_left = ops.maximum(boxes[..., :2], others[..., :2])
    bottom_right = ops.minimum(boxes[..., 2:], others[..., 2:])
    sides = ops.maximum(bottom_right - top_left, 0.0)
    return sides[..., 0] * sides[..., 1]


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of every pair, 0..1. boxes (..., N, 4), others (..., M, 4) -> (..., N, M)."""
    shared = overlap(boxes, others)
    union = area(boxes)[..., :, None] + area(others)[..., None, :] - shared
    return shared / ops.maximum(union, 1e-12)
