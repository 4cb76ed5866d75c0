"""The first stage: the region proposal network (Faster R-CNN: Ren et al., arXiv 1506.01497)."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers, ops

from live_seg.maskrcnn.boxes import Tensor, apply_deltas, clip
from live_seg.maskrcnn.ops import nms

WHOLE = np.array([0, 0, 1, 1], np.float32)
"""The box of the whole image, normalized."""


class RegionProposals(keras.Layer):
    """RPN head: objectness logits and box deltas of every anchor."""

    def __init__(self, channels: int, anchors_per_cell: int) -> None:
        super().__init__(name="rpn")
        self.shared = layers.Conv2D(channels, 3, padding="same", activation="relu", name="shared")
        self.objectness = layers.Conv2D(2 * anchors_per_cell, 1, dtype="float32", name="objectness")
        self.deltas = layers.Conv2D(4 * anchors_per_cell, 1, dtype="float32", name="deltas")

    def call(self, pyramid: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits (B, A, 2), background and object, and deltas (B, A, 4) for pyramid maps."""
        logits: list[Tensor] = []
        deltas: list[Tensor] = []
        for level in pyramid:
            x = self.shared(level)
            batch, height, width, _ = level.shape
            for outputs, conv, last in ((logits, self.objectness, 2), (deltas, self.deltas, 4)):
                # While a graph is traced, either the number of images or their size may be unknown.
                count = -1 if height is None else height * width * conv.filters // last
                outputs.append(ops.reshape(conv(x), (-1 if batch is None else batch, count, last)))
        return ops.concatenate(logits, axis=1), ops.concatenate(deltas, axis=1)


def best_anchors(
    scores: Tensor, deltas: Tensor, anchors: np.ndarray, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores, deltas and boxes of the top `count` of all anchors (A, 4), best first.

    scores (B, A), deltas (B, A, 4) -> (B, count), (B, count, 4), (B, count, 4); all if A < `count`.
    """
    scores, order = ops.top_k(scores, min(count, anchors.shape[0]))
    return scores, ops.take_along_axis(deltas, order[..., None], axis=1), ops.take(anchors, order, axis=0)


def propose(scores: Tensor, deltas: Tensor, anchors: Tensor, *, keep: int, max_iou: float) -> Tensor:
    """Turn anchors into proposals for the second stage. scores (B, N), deltas and anchors (B, N, 4).

    Applies the deltas, clips to the image, applies NMS at `max_iou` and keeps at most `keep` -> (B, keep, 4),
    best first, padded with zeros (Matterport `ProposalLayer`).
    """
    boxes = clip(apply_deltas(anchors, deltas), WHOLE)
    kept, valid = nms(boxes, scores, keep, max_iou)
    return ops.where(valid[..., None], ops.take_along_axis(boxes, kept[..., None], axis=1), 0.0)
