"""Steady ids: instances matched with those of earlier frames, by their masks and by how their boxes move."""

from collections import deque
from dataclasses import replace
from statistics import median_low
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_seg.errors import UsageError
from live_seg.masks import resample
from live_seg.types import Instances

GRID = 32
"""Samples along each side of the box around two masks: their IoU is mostly within 0.02 of that of full-size
masks, at worst 0.05."""

SETTLING = 0.3
"""Seconds, the time constant with which a track's velocity follows the motion of its box, which jitters."""

SLACK = 0.25
"""How far a box may be from where its track should be, in sizes: geometric means of a box's sides."""

PACE = 1.5
"""Sizes by which that distance may grow for each second out of sight, a walking person's pace; at most 1."""

SIMILAR = 0.5
"""Least share of one box's width, and height, to the other's, where the motion alone tells they are one."""

PATIENCE = 3.5
"""Usual intervals between updates for which a track is remembered at least: slow networks take seconds."""

INTERVALS = 5
"""Intervals between updates whose median is the usual one: one long gap, of a lost source, does not count."""

MOST = 300
"""Tracks remembered at most, newest first: three frames full of instances, should none continue another."""


class Tracker:
    """Give instances ids, counted from 1, that stay with them from frame to frame.

    An instance continues a track of its own class. A track is expected where its velocity takes it in the
    seconds since it was last seen. First come the pairs whose masks overlap there by an IoU of `min_iou`,
    more than 0 to 1, at least; then, of those left, the pairs whose boxes are near each other and alike. So
    an id survives a short occlusion, a fast move and an empty mask. Pairs are taken greedily, best first.

    A track is `confirmed` from its second detection on, so that a false alarm of a single frame never is.
    No two tracks share an id, ever. A track that is not seen is
    remembered for `forget_after` seconds of source time, or PATIENCE intervals between updates. Raises
    UsageError for other values.

    Greedy matching by overlap and a velocity: SORT (Bewley et al. 2016) without its Kalman filter. Surer
    instances before less sure ones, as in ByteTrack (Zhang et al. 2022).
    """

    def __init__(self, min_iou: float = 0.3, forget_after: float = 1.5) -> None:
        if not 0 < min_iou <= 1:
            raise UsageError(f"min_iou is {min_iou}: give an overlap of masks, more than 0 and at most 1.")
        if not forget_after >= 0:
            raise UsageError(f"forget_after is {forget_after}: give seconds, 0 or more.")
        self._min_iou = min_iou
        self._forget_after = forget_after
        self._tracks = Instances.empty()  # as each was last seen
        self._seen = np.zeros(0)
        self._velocity = np.zeros((0, 4), np.float32)  # pixels a second of x1 y1 x2 y2
        self._newest = 0
        self._now: float | None = None  # seconds of the last update
        self._intervals: deque[float] = deque(maxlen=INTERVALS)

    def update(self, instances: Instances, seconds: float) -> Instances:
        """Return the same `instances`, in the same order, with `track_ids` and `confirmed`; see the class.

        `seconds` is the frame's time in its source; it does not go back.
        """
        self._keep(seconds - self._seen <= max(self._forget_after, PATIENCE * self._interval(seconds)))
        track = self._matched(instances, seconds - self._seen)
        known = track >= 0
        ids = self._newest + np.cumsum(~known, dtype=np.int32)
        self._newest += int(np.count_nonzero(~known))
        velocity = np.zeros((len(instances), 4), np.float32)
        if self._tracks.track_ids is not None:
            ids[known] = self._tracks.track_ids[track[known]]
            velocity[known] = self._steered(track[known], instances.boxes[known], seconds)
        tracked = replace(instances, track_ids=ids, confirmed=known)
        self._keep(~np.isin(np.arange(len(self._tracks)), track))
        self._tracks = tracked.joined(self._tracks)[:MOST]
        self._seen = np.concatenate([np.full(len(ids), seconds), self._seen])[:MOST]
        self._velocity = np.concatenate([velocity, self._velocity])[:MOST]
        return tracked

    def _interval(self, seconds: float) -> float:
        """The usual seconds between updates, of which one comes now."""
        if self._now is not None:
            self._intervals.append(seconds - self._now)
        self._now = seconds
        return median_low(self._intervals) if self._intervals else 0.0

    def _matched(self, instances: Instances, elapsed: NDArray[Any]) -> NDArray[np.intp]:
        """Find the track that each instance continues, (N,), -1 for none, `elapsed` (M,) seconds later."""
        if self._tracks.confirmed is None:
            return np.full(len(instances), -1)
        moved = self._velocity * elapsed[:, None]
        expected = replace(self._tracks, boxes=np.asarray(self._tracks.boxes + moved, np.float32))
        same = instances.class_ids[:, None] == expected.class_ids
        overlap = mask_iou(instances, expected)
        sure = overlap * (1 + instances.scores[:, None])
        track = _best_pairs(np.where(same & (overlap >= self._min_iou), sure, 0))
        near = closeness(instances.boxes, expected.boxes, np.minimum(SLACK + PACE * elapsed, 1)) * same
        near[track >= 0] = 0
        near[:, track[track >= 0]] = 0
        near += (near > 0) & self._tracks.confirmed  # a track seen once may be a false alarm
        return np.maximum(track, _best_pairs(near))

    def _steered(self, track: NDArray[np.intp], boxes: NDArray[Any], seconds: float) -> NDArray[np.float32]:
        """Velocities (P, 4) of tracks (P,) that are now seen at `boxes` (P, 4)."""
        elapsed = np.maximum(seconds - self._seen[track], 1e-6)[:, None]
        latest = (boxes - self._tracks.boxes[track]) / elapsed
        gain = -np.expm1(-elapsed / SETTLING)
        return np.asarray(self._velocity[track] + gain * (latest - self._velocity[track]), np.float32)

    def _keep(self, chosen: NDArray[np.bool_]) -> None:
        self._tracks, self._seen = self._tracks[chosen], self._seen[chosen]
        self._velocity = self._velocity[chosen]


def mask_iou(a: Instances, b: Instances) -> NDArray[np.float32]:
    """Overlap of the masks of every pair: area in common over area of both. (N, M) float32, 0..1.

    Counted at GRID x GRID points of the box around each pair whose boxes overlap, where a mask resized
    bilinearly is at least 0.5, the rule of `Instances.soft_masks`; boxes are not rounded. Two empty masks: 0.
    """
    corner = np.maximum(a.boxes[:, None, :2], b.boxes[:, :2])  # (N, M, 2)
    touching = np.all(corner < np.minimum(a.boxes[:, None, 2:], b.boxes[:, 2:]), axis=2)  # (N, M)
    overlap = np.zeros((len(a), len(b)), np.float32)
    for position in np.flatnonzero(np.any(touching, axis=1)):
        near = np.flatnonzero(touching[position])
        least = np.minimum(a.boxes[position, :2], b.boxes[near, :2])
        most = np.maximum(a.boxes[position, 2:], b.boxes[near, 2:])
        hull = np.concatenate([least, most], axis=1)
        one = resample(a.boxes[position], a.masks[position], hull, GRID) >= 0.5
        other = resample(b.boxes[near], b.masks[near], hull, GRID) >= 0.5
        either = np.count_nonzero(one | other, axis=(1, 2))
        overlap[position, near] = np.count_nonzero(one & other, axis=(1, 2)) / np.maximum(either, 1)
    return overlap


def closeness(boxes: NDArray[Any], others: NDArray[Any], reach: NDArray[Any]) -> NDArray[Any]:
    """How near the centres of every pair of boxes (N, 4) and (M, 4) are: (N, M), 1 for one place, else less.

    It falls to 0 at a distance of `reach` (M,), in sizes of the other box, and is 0 where the boxes are not
    SIMILAR.
    """
    sizes, others_sizes = boxes[:, 2:] - boxes[:, :2], others[:, 2:] - others[:, :2]
    smaller = np.minimum(sizes[:, None], others_sizes)
    alike = np.all(smaller >= SIMILAR * np.maximum(sizes[:, None], others_sizes), axis=2)
    apart = (boxes[:, None, :2] + boxes[:, None, 2:] - others[:, :2] - others[:, 2:]) / 2
    size = np.sqrt(np.maximum(np.prod(others_sizes, axis=1), 1e-6))
    return np.asarray(alike * np.maximum(1 - np.hypot(apart[..., 0], apart[..., 1]) / (size * reach), 0))


def _best_pairs(affinity: NDArray[Any]) -> NDArray[np.intp]:
    """For each row of `affinity` (N, M) the column it is paired with, (N,), or -1.

    Pairs are taken best first, if above 0; no column is used twice.
    """
    paired = np.full(len(affinity), -1)
    rows, columns = np.nonzero(affinity > 0)
    for best in np.argsort(-affinity[rows, columns], kind="stable"):
        if paired[rows[best]] < 0 and columns[best] not in paired:
            paired[rows[best]] = columns[best]
    return paired
