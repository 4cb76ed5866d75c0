"""Box arithmetic. Boxes are normalized y1 x1 y2 x2: see `anchors`."""

from typing import Any

from keras import ops

from live_seg.maskrcnn.rules import LARGEST_STRETCH, MOVE_UNIT, SMALLEST_SIDE, STRETCH_UNIT

Tensor = Any
"""A tensor of the active Keras backend. Docstrings give the shapes."""


def apply_deltas(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Apply `deltas` (..., 4), dy dx dh dw in MOVE_UNIT and STRETCH_UNIT, to `boxes` (..., 4).

    Formulas: R-CNN (arXiv 1311.2524), appendix C.
    """
    top_left, bottom_right = boxes[..., :2], boxes[..., 2:]
    sides = bottom_right - top_left
    centres = top_left + 0.5 * sides + deltas[..., :2] * MOVE_UNIT * sides
    sides = sides * ops.exp(ops.minimum(deltas[..., 2:] * STRETCH_UNIT, LARGEST_STRETCH))
    top_left = centres - 0.5 * sides
    return ops.concatenate([top_left, top_left + sides], axis=-1)


def deltas_between(boxes: Tensor, targets: Tensor) -> Tensor:
    """Return the deltas (..., 4) that turn `boxes` (..., 4) into `targets` (..., 4): see `apply_deltas`.

    All sides must be positive (Matterport `utils.box_refinement_graph`).
    """
    sides, target_sides = boxes[..., 2:] - boxes[..., :2], targets[..., 2:] - targets[..., :2]
    shift = (targets[..., :2] + 0.5 * target_sides) - (boxes[..., :2] + 0.5 * sides)
    return ops.concatenate([shift / sides / MOVE_UNIT, ops.log(target_sides / sides) / STRETCH_UNIT], axis=-1)


def clip(boxes: Tensor, window: Tensor) -> Tensor:
    """Clip `boxes` (..., 4) to `window` y1 x1 y2 x2, whose shape broadcasts against theirs."""
    low = ops.concatenate([window[..., :2], window[..., :2]], axis=-1)
    high = ops.concatenate([window[..., 2:], window[..., 2:]], axis=-1)
    return ops.maximum(ops.minimum(boxes, high), low)


def has_area(boxes: Tensor) -> Tensor:
    """Return whether both sides of boxes (..., 4) have at least SMALLEST_SIDE -> (...) bool."""
    return ops.min(boxes[..., 2:] - boxes[..., :2], axis=-1) >= SMALLEST_SIDE


def area(boxes: Tensor) -> Tensor:
    """Return the area of each box. (..., 4) -> (...)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the intersection area of all pairs. boxes (..., N, 4), others (..., M, 4) -> (..., N, M)."""
    boxes, others = boxes[..., :, None, :], others[..., None, :, :]
    top_left = ops.maximum(boxes[..., :2], others[..., :2])
    bottom_right = ops.minimum(boxes[..., 2:], others[..., 2:])
    sides = ops.maximum(bottom_right - top_left, 0.0)
    return sides[..., 0] * sides[..., 1]


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the IoU, 0..1, of all pairs. boxes (..., N, 4), others (..., M, 4) -> (..., N, M)."""
    shared = overlap(boxes, others)
    union = area(boxes)[..., :, None] + area(others)[..., None, :] - shared
    return shared / ops.maximum(union, 1e-12)
