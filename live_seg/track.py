"""Steady ids: instances matched with those of earlier frames by the overlap of their masks."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_seg.errors import UsageError
from live_seg.structures import Instances

GRID = 32
"""Samples along each side of the box around two masks: their IoU is mostly within 0.02 of that of full-size
masks, at worst 0.05."""


class Tracker:
    """Give instances ids, counted from 1, that stay with them from frame to frame.

    An instance continues the track of its own class whose last mask it overlaps most, by an IoU of `min_iou`,
    more than 0 to 1, at least. Pairs are taken greedily, best first. A track that is not seen is remembered
    for `forget_after` seconds of source time. Raises UsageError for other values.
    """

    def __init__(self, min_iou: float = 0.3, forget_after: float = 1.0) -> None:
        if not 0 < min_iou <= 1:
            raise UsageError(f"min_iou is {min_iou}: give an overlap of masks, more than 0 and at most 1.")
        if not forget_after >= 0:
            raise UsageError(f"forget_after is {forget_after}: give seconds, 0 or more.")
        self._min_iou = min_iou
        self._forget_after = forget_after
        self._tracks = Instances.empty()
        self._ids = np.zeros(0, np.int32)
        self._seen = np.zeros(0)
        self._newest = 0

    def update(self, instances: Instances, seconds: float) -> Instances:
        """Return the same `instances`, in the same order, with `track_ids` (N,) int32.

        `seconds` is the frame's time in its source; it does not go back.
        """
        self._keep(seconds - self._seen <= self._forget_after)
        overlap = mask_iou(instances, self._tracks)
        overlap[instances.class_ids[:, None] != self._tracks.class_ids] = 0
        ids = np.zeros(len(instances), np.int32)
        missed = np.ones(len(self._tracks), bool)
        for position, track in _best_pairs(overlap, self._min_iou):
            ids[position] = self._ids[track]
            missed[track] = False
        unknown = np.flatnonzero(ids == 0)
        ids[unknown] = self._newest + 1 + np.arange(len(unknown))
        self._newest += len(unknown)
        self._keep(missed)
        self._tracks = _join(instances, self._tracks)
        self._ids = np.concatenate([ids, self._ids])
        self._seen = np.concatenate([np.full(len(ids), seconds), self._seen])
        return replace(instances, track_ids=ids)

    def _keep(self, chosen: NDArray[np.bool_]) -> None:
        self._tracks, self._ids, self._seen = self._tracks[chosen], self._ids[chosen], self._seen[chosen]


def mask_iou(a: Instances, b: Instances) -> NDArray[np.float32]:
    """Overlap of the masks of every pair: area in common over area of both. (N, M) float32, 0..1.

    Counted at GRID x GRID points of the box around each pair whose boxes overlap, where a mask resized
    bilinearly is at least 0.5, the rule of `Instances.soft`; boxes are not rounded. Two empty masks: 0.
    """
    corner = np.maximum(a.boxes[:, None, :2], b.boxes[:, :2])  # (N, M, 2)
    touching = np.all(corner < np.minimum(a.boxes[:, None, 2:], b.boxes[:, 2:]), axis=2)  # (N, M)
    overlap = np.zeros((len(a), len(b)), np.float32)
    for position in np.flatnonzero(np.any(touching, axis=1)):
        near = np.flatnonzero(touching[position])
        least = np.minimum(a.boxes[position, :2], b.boxes[near, :2])
        most = np.maximum(a.boxes[position, 2:], b.boxes[near, 2:])
        hull = np.concatenate([least, most], axis=1)
        one = _sampled(a.boxes[position], a.masks[position], hull)
        other = _sampled(b.boxes[near], b.masks[near], hull)
        either = np.count_nonzero(one | other, axis=(1, 2))
        overlap[position, near] = np.count_nonzero(one & other, axis=(1, 2)) / np.maximum(either, 1)
    return overlap


def _sampled(boxes: NDArray[Any], masks: NDArray[Any], hulls: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether the centres of GRID x GRID cells of each hull (P, 4) lie on its mask. (P, GRID, GRID)

    `boxes` (P, 4) and `masks` (P, M, M) belong to the hulls one by one, or one box and mask to all of them.
    """
    side = masks.shape[-1]
    steps = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID
    points = hulls[:, :2, None] + (hulls[:, 2:] - hulls[:, :2])[..., None] * steps  # (P, 2, GRID)
    start, size = boxes[..., :2, None], (boxes[..., 2:] - boxes[..., :2])[..., None]
    inside = (points - start) / size * side - 0.5  # in cells of the mask
    weights = np.maximum(0, 1 - np.abs(inside[..., None] - np.arange(side, dtype=np.float32)))
    columns, rows = weights[:, 0], weights[:, 1]  # (P, GRID, M): the bilinear filter's share of each cell
    return np.asarray(rows @ masks @ columns.swapaxes(1, 2) >= 0.5)


def _best_pairs(overlap: NDArray[np.float32], least: float) -> Iterator[tuple[int, int]]:
    """Rows and columns of `overlap` (N, M) of at least `least`, best first, none used twice."""
    rows, columns = np.nonzero(overlap >= least)
    rows_left, columns_left = set(rows.tolist()), set(columns.tolist())
    for best in np.argsort(-overlap[rows, columns], kind="stable"):
        row, column = int(rows[best]), int(columns[best])
        if row in rows_left and column in columns_left:
            rows_left.remove(row)
            columns_left.remove(column)
            yield row, column


def _join(first: Instances, second: Instances) -> Instances:
    """Boxes, masks, classes and scores of both; an empty one may have masks of another size."""
    if not len(first) or not len(second):
        return first if len(first) else second
    return Instances(
        boxes=np.concatenate([first.boxes, second.boxes]),
        masks=np.concatenate([first.masks, second.masks]),
        class_ids=np.concatenate([first.class_ids, second.class_ids]),
        scores=np.concatenate([first.scores, second.scores]),
    )
