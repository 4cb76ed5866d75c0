"""Choosing the best, in NumPy: OpenVINO sorts long lists slowly, and short ones need no graph."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def likeliest(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Positions of the `count` highest of `scores` (A,), best first, of equals the earlier first."""
    if count < len(scores):
        least = np.partition(scores, -count)[-count]
        chosen = np.nonzero(~(scores < least))[0]  # its equals, too: black margins have many; and NaN
    else:
        chosen = np.arange(len(scores))
    return chosen[np.argsort(-scores[chosen], kind="stable")][:count]


def best_first(
    boxes: NDArray[np.float32],
    class_ids: NDArray[Any],
    scores: NDArray[np.float32],
    *,
    keep: int,
    min_score: float,
    max_iou: float,
) -> NDArray[np.intp]:
    """Greedy non-maximum suppression within each class: positions of at most `keep` boxes, best first.

    boxes (M, 4) normalised y1 x1 y2 x2, class_ids (M,), scores (M,). Background and scores below `min_score`
    take no part: the rule of `maskrcnn.roi.select`.
    """
    left = np.nonzero((class_ids > 0) & (scores >= min_score))[0]
    left = left[np.argsort(-scores[left], kind="stable")]
    kept: list[np.intp] = []
    while len(left) and len(kept) < keep:
        best, left = left[0], left[1:]
        kept.append(best)
        rivals = class_ids[left] == class_ids[best]
        left = left[~(rivals & (_iou(boxes[best], boxes[left]) > max_iou))]
    return np.array(kept, np.intp)


def _iou(box: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of one box (4,) with others (N, 4) -> (N,), as `maskrcnn.boxes.iou`."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1)
    iou: NDArray[np.float32] = shared / np.maximum(np.prod(box[2:] - box[:2]) + areas - shared, 1e-12)
    return iou
