"""The first stage: the region proposal network (Faster R-CNN: Ren et al., arXiv 1506.01497)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import keras
import numpy as np
from keras import layers, ops

from live_seg.maskrcnn.boxes import Tensor, apply_deltas, clip, has_area
from live_seg.maskrcnn.ops import LOWEST, nms

WHOLE = np.array([0, 0, 1, 1], np.float32)
"""The box of the whole image, normalized."""


class RegionProposals(keras.Layer):
    """RPN head: objectness logits and box deltas of every anchor."""

    def __init__(self, channels: int, anchors_per_cell: int, convs: int = 1, logits: int = 2) -> None:
        super().__init__(name="rpn")
        self.logits = logits
        self.shared, *self.further = [
            layers.Conv2D(channels, 3, padding="same", activation="relu", name=name)
            for name in ("shared", *(f"further{i}" for i in range(convs - 1)))
        ]
        self.objectness = layers.Conv2D(logits * anchors_per_cell, 1, dtype="float32", name="objectness")
        self.deltas = layers.Conv2D(4 * anchors_per_cell, 1, dtype="float32", name="deltas")

    def call(self, pyramid: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits (B, A, `logits`) and deltas (B, A, 4) for pyramid maps.

        The logits are of background and object, or of object alone.
        """
        logits: list[Tensor] = []
        deltas: list[Tensor] = []
        for level in pyramid:
            x = self.shared(level)
            for conv in self.further:
                x = conv(x)
            batch, height, width, _ = level.shape
            for outputs, conv, last in ((logits, self.objectness, self.logits), (deltas, self.deltas, 4)):
                # While a graph is traced, either the number of images or their size may be unknown.
                count = -1 if height is None else height * width * conv.filters // last
                outputs.append(ops.reshape(conv(x), (-1 if batch is None else batch, count, last)))
        return ops.concatenate(logits, axis=1), ops.concatenate(deltas, axis=1)


def objectness(logits: Tensor) -> Tensor:
    """Return scores that order anchors as their probabilities of objects do. (B, A, 1 or 2) -> (B, A).

    They are the probabilities, or the logits where there is one: it keeps differences that the probabilities
    round away.
    """
    return logits[..., 0] if logits.shape[-1] == 1 else ops.softmax(logits)[..., 1]


class Candidates(NamedTuple):
    """The best anchors of each group, best first, in G groups of N."""

    scores: Tensor  # (B, G, N); below LOWEST where a group has fewer anchors
    deltas: Tensor  # (B, G, N, 4)
    anchors: Tensor  # (B, G, N, 4)


def best_anchors(scores: Tensor, deltas: Tensor, groups: Sequence[np.ndarray], count: int) -> Candidates:
    """Return the top `count` anchors of each group, at most as many as the largest group has.

    scores (B, A), deltas (B, A, 4); the anchors of `groups` (A', 4) follow each other in A.
    """
    bounds = np.cumsum([0, *map(len, groups)])
    most = min(count, max(map(len, groups)))
    chosen = []
    for anchors, (start, end) in zip(groups, pairwise(bounds.tolist()), strict=True):
        own, order = ops.top_k(scores[:, start:end], min(most, end - start))
        parts = (
            own,
            ops.take_along_axis(deltas, order[..., None] + start, axis=1),
            ops.take(anchors, order, axis=0),
        )
        lacking = most - own.shape[1]
        chosen.append(
            [
                ops.pad(
                    part,
                    [(0, 0), (0, lacking), *[(0, 0)] * (part.ndim - 2)],
                    constant_values=2 * LOWEST if i == 0 else 0,
                )
                for i, part in enumerate(parts)
            ]
        )
    return Candidates(*(ops.stack(column, axis=1) for column in zip(*chosen, strict=True)))


def propose(
    candidates: Candidates, window: Tensor, *, keep: int, max_iou: float, drop_empty: bool = False
) -> Tensor:
    """Turn candidates into proposals for the second stage -> (B, keep, 4), best first, padded with zeros.

    Applies the deltas, clips to window (B or 1, 4), and applies NMS at `max_iou` within each group
    (Matterport `ProposalLayer`, torchvision `filter_proposals`).
    """
    scores, deltas, anchors = candidates
    boxes = clip(apply_deltas(anchors, deltas), window[:, None, None])
    if drop_empty:
        scores = ops.where(has_area(boxes), scores, 2 * LOWEST)
    groups, count = scores.shape[1:]
    flat_boxes, flat_scores = ops.reshape(boxes, (-1, count, 4)), ops.reshape(scores, (-1, count))
    kept, valid = nms(flat_boxes, flat_scores, keep, max_iou)
    boxes = ops.where(valid[..., None], ops.take_along_axis(flat_boxes, kept[..., None], axis=1), 0.0)
    if groups == 1:
        return boxes
    scores = ops.where(valid, ops.take_along_axis(flat_scores, kept, axis=1), 2 * LOWEST)
    _, order = ops.top_k(ops.reshape(scores, (-1, groups * keep)), keep)
    return ops.take_along_axis(ops.reshape(boxes, (-1, groups * keep, 4)), order[..., None], axis=1)
