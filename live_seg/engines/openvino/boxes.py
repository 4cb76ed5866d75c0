"""The arithmetic of boxes between the converted models, in NumPy: choose proposals, refine them, pick levels.

It follows `maskrcnn.rpn` and `maskrcnn.roi`. Counts are free here, and lists are sorted and filtered faster.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from live_seg.engines.openvino.nms import best_first, top_k
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.maskrcnn.rules import (
    CANONICAL_LEVEL,
    CANONICAL_SIDE,
    LARGEST_STRETCH,
    LEVEL_MARGIN,
    MOVE_UNIT,
    SMALLEST_SIDE,
    STRETCH_UNIT,
)

Floats = NDArray[np.float32]

WHOLE = np.array([0, 0, 1, 1], np.float32)


class Refined(NamedTuple):
    """Candidates for detections: boxes (M, 4), class ids (M,) and scores (M,)."""

    boxes: Floats
    class_ids: NDArray[np.int32]
    scores: Floats


def propose(
    scores: Floats, deltas: Floats, groups: tuple[Floats, ...], window: Floats, config: MaskRCNNConfig
) -> Floats:
    """Choose proposals (R, 4), best first, from scores (A,) and deltas (A, 4) of all anchors.

    `groups` are the anchors: see `MaskRCNNConfig.anchors`. window (4,) is the image on its canvas.
    """
    rules, chosen, members, places = config.rules, [], [], []
    start = 0
    for number, anchors in enumerate(groups, start=1):
        best = top_k(scores[start : start + len(anchors)], config.candidates)
        chosen.append(best + start)
        members.append(np.full(len(best), number))
        places.append(anchors[best])
        start += len(anchors)
    order, group = np.concatenate(chosen), np.concatenate(members)
    moved = _moved(np.concatenate(places), deltas[order])
    boxes = _clipped(moved, window if rules.clip_to_window else WHOLE)
    if rules.drop_empty:
        kept = _has_area(boxes)
        boxes, group, order = boxes[kept], group[kept], order[kept]
    best = best_first(
        boxes, group, scores[order], keep=config.proposals, min_score=-np.inf, max_iou=config.proposal_iou
    )
    proposals = boxes[best]
    if not rules.drop_empty:  # Matterport pads with empty boxes, which the box head sees, too
        proposals = np.pad(proposals, [(0, config.proposals - len(proposals)), (0, 0)])
    return proposals


def refine(
    proposals: Floats, probabilities: Floats, deltas: Floats, window: Floats, config: MaskRCNNConfig
) -> Refined:
    """Apply the deltas of each proposal's classes, or of its most probable class.

    proposals (R, 4), probabilities (R, classes), deltas (R, classes, 4), window (4,).
    """
    if config.most_pairs is None:
        owner, class_ids = np.arange(len(proposals)), probabilities.argmax(axis=1)
    else:
        owner, class_ids = np.nonzero(probabilities >= config.min_score)
        owner, class_ids = owner[class_ids > 0], class_ids[class_ids > 0]
        best = top_k(probabilities[owner, class_ids], config.most_pairs)
        owner, class_ids = owner[best], class_ids[best]
    boxes = _clipped(_moved(proposals[owner], deltas[owner, class_ids]), window)
    refined = Refined(boxes, class_ids.astype(np.int32), probabilities[owner, class_ids])
    if not config.rules.drop_empty:
        return refined
    return Refined(*(column[_has_area(boxes)] for column in refined))


def by_level(
    boxes: Floats, size: tuple[int, int], levels: int, config: MaskRCNNConfig
) -> tuple[list[Floats], NDArray[np.intp]]:
    """Group boxes (K, 4) by the pyramid level they are read from, as the converted models take them.

    `size` is the canvas' (height, width). Returns x1 y1 x2 y2 for each of the `levels`, finest first, and the
    position among all of each box given (K,). In cells of the map if RoIAlign takes several samples, else
    normalized.
    """
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    scaled = np.sqrt(sides[:, 0] * sides[:, 1]) * np.float32(math.sqrt(size[0] * size[1]) / CANONICAL_SIDE)
    steps = np.log2(np.maximum(scaled, 1e-12))
    averaged = config.rules.samples > 1
    whole = np.floor(steps + np.float32(LEVEL_MARGIN)) if averaged else np.round(steps)
    finest = config.first_level - config.finer_levels
    level = np.clip(CANONICAL_LEVEL - finest + whole.astype(np.int32), 0, levels - 1)
    order = np.argsort(level, kind="stable")
    places = boxes[:, [1, 0, 3, 2]]
    groups = []
    for number in range(levels):
        height, width = (side / 2 ** (finest + number) if averaged else 1 for side in size)
        cells = np.array([width, height, width, height], np.float32)
        groups.append(np.ascontiguousarray(places[level == number] * cells))
    return groups, order


def _moved(boxes: Floats, deltas: Floats) -> Floats:
    """Apply deltas (N, 4) to boxes (N, 4): see `maskrcnn.boxes.apply_deltas`."""
    sides = boxes[:, 2:] - boxes[:, :2]
    centers = boxes[:, :2] + 0.5 * sides + deltas[:, :2] * np.float32(MOVE_UNIT) * sides
    stretch = np.minimum(deltas[:, 2:] * np.float32(STRETCH_UNIT), np.float32(LARGEST_STRETCH))
    sides = sides * np.exp(stretch)
    corner = centers - 0.5 * sides
    moved: Floats = np.concatenate([corner, corner + sides], axis=1)
    return moved


def _clipped(boxes: Floats, window: Floats) -> Floats:
    return boxes.clip(np.tile(window[:2], 2), np.tile(window[2:], 2))


def _has_area(boxes: Floats) -> NDArray[Any]:
    return np.asarray((boxes[:, 2:] - boxes[:, :2] >= SMALLEST_SIDE).all(axis=1))
