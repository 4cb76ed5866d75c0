"""The first stage: where might something be? (Ren et al., arXiv 1506.01497)."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers, ops

from live_seg.maskrcnn.boxes import Tensor, apply_deltas, clip
from live_seg.maskrcnn.ops import nms

DELTA_SCALE = np.array([0.1, 0.1, 0.2, 0.2], np.float32)
"""Standard deviation of dy dx dh dw: both stages' deltas are divided by it (Matterport `BBOX_STD_DEV`)."""

WHOLE = np.array([0, 0, 1, 1], np.float32)
"""The box of a whole picture, normalised."""


class RegionProposals(keras.Layer):
    """Judges every anchor: is there an object, and how must the anchor move to hold it?"""

    def __init__(self, channels: int, anchors_per_cell: int) -> None:
        super().__init__(name="rpn")
        self.shared = layers.Conv2D(channels, 3, padding="same", activation="relu", name="shared")
        self.objectness = layers.Conv2D(2 * anchors_per_cell, 1, dtype="float32", name="objectness")
        self.deltas = layers.Conv2D(4 * anchors_per_cell, 1, dtype="float32", name="deltas")

    def call(self, pyramid: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Pyramid maps -> logits (B, A, 2): background, object; deltas (B, A, 4) in units of DELTA_SCALE."""
        logits: list[Tensor] = []
        deltas: list[Tensor] = []
        for level in pyramid:
            x = self.shared(level)
            cells = level.shape[1] * level.shape[2]
            for outputs, conv, last in ((logits, self.objectness, 2), (deltas, self.deltas, 4)):
                per_cell = conv.filters // last
                outputs.append(ops.reshape(conv(x), (-1, cells * per_cell, last)))
        return ops.concatenate(logits, axis=1), ops.concatenate(deltas, axis=1)


def propose(
    logits: Tensor,
    deltas: Tensor,
    anchors: np.ndarray,
    *,
    candidates: int,
    keep: int,
    max_iou: float,
) -> Tensor:
    """Choose the boxes that the second stage looks at. logits (B, A, 2), deltas (B, A, 4), anchors (A, 4).

    The best `candidates` anchors, moved by their deltas and cut to the picture, then NMS at `max_iou`, at
    most `keep` -> (B, keep, 4), best first, filled up with zeros (Matterport `ProposalLayer`).
    """
    scores = ops.softmax(logits)[..., 1]
    scores, order = ops.top_k(scores, min(candidates, anchors.shape[0]))
    deltas = ops.take_along_axis(deltas, order[..., None], axis=1) * DELTA_SCALE
    boxes = clip(apply_deltas(ops.take(anchors, order, axis=0), deltas), WHOLE)
    kept, valid = nms(boxes, scores, keep, max_iou)
    return ops.where(valid[..., None], ops.take_along_axis(boxes, kept[..., None], axis=1), 0.0)
