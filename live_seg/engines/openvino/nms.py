"""Top-k and non-maximum suppression in NumPy: OpenVINO sorts long lists slowly."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def top_k(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Return the positions of the `count` highest of `scores` (A,), best first; ties in their order."""
    if count < len(scores):
        least = np.partition(scores, -count)[-count]
        chosen = np.nonzero(~(scores < least))[0]  # includes ties, of which black margins have many, and NaN
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
    """Apply greedy NMS within each class; return the positions of at most `keep` boxes, best first.

    boxes (M, 4) normalized y1 x1 y2 x2, class_ids (M,), scores (M,). Background and scores below `min_score`
    are ignored, as in `maskrcnn.roi.select`.
    """
    order = np.nonzero((class_ids > 0) & (scores >= min_score))[0]
    order = order[np.argsort(-scores[order], kind="stable")]
    sides, class_ids = np.ascontiguousarray(boxes[order].T), class_ids[order]
    left = np.ones(len(order), bool)
    kept: list[np.intp] = []
    for best in range(len(order)):
        if left[best]:
            kept.append(order[best])
            if len(kept) == keep:
                break
            rivals = class_ids[best:] == class_ids[best]
            left[best:] &= ~(rivals & (_iou(sides[:, best], sides[:, best:]) > max_iou))
    return np.array(kept, np.intp)


def _iou(box: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the IoU of one box (4,) with others (4, N) -> (N,), as `maskrcnn.boxes.iou`."""
    height = np.maximum(np.minimum(box[2], others[2]) - np.maximum(box[0], others[0]), 0)
    width = np.maximum(np.minimum(box[3], others[3]) - np.maximum(box[1], others[1]), 0)
    shared = height * width
    iou: NDArray[np.float32] = shared / np.maximum(_area(box) + _area(others) - shared, 1e-12)
    return iou


def _area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    area: NDArray[np.float32] = (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])
    return area
