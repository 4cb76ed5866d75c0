"""Multi-object tracking by mask overlap and box motion."""

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
"""Samples along each side of the union box of two masks. The IoU mostly differs by less than 0.02, at most
by 0.05, from that of full-size masks."""

VELOCITY_SECONDS = 0.3
"""Time constant of the filter on a track's velocity, which removes the jitter of boxes."""

REACH = 0.25
"""Maximum distance of a box centre from the predicted one, in box sizes (geometric means of the sides)."""

REACH_GROWTH = 1.5
"""Growth of REACH in box sizes per second since the last detection, up to 1: a person's walking speed."""

MIN_SIZE_RATIO = 0.5
"""Minimum ratio of the widths, and of the heights, of two boxes that are matched by distance."""

MIN_INTERVALS = 3.5
"""Minimum number of typical update intervals for which a track is remembered: slow networks take seconds."""

RECENT_INTERVALS = 5
"""Recent update intervals whose median is the typical one: a single gap of a lost source is ignored."""

MAX_TRACKS = 300
"""Maximum number of tracks remembered, most recent first: three frames of 100 unmatched instances."""


class Tracker:
    """Assign track ids, counted from 1, that stay the same from frame to frame.

    An instance can only continue a track of its own class. The position of a track is predicted from its
    velocity and the time since its last detection. Instances are matched first by mask overlap with the
    prediction, an IoU of at least `min_iou` (0 < min_iou <= 1); the rest are matched by the distance of boxes
    of similar size. Ids therefore survive short occlusions, fast motion and empty masks. Matching is greedy,
    best pairs first.

    A track is `confirmed` from its second detection on, so that a false positive in a single frame never is.
    Ids are never reused. A track without detections is remembered for `forget_after` seconds of source time,
    or MIN_INTERVALS update intervals if that is longer. Raises UsageError for invalid arguments.

    Based on SORT (Bewley et al. 2016) without its Kalman filter. Instances with a higher score take
    precedence, as in ByteTrack (Zhang et al. 2022).
    """

    def __init__(self, min_iou: float = 0.3, forget_after: float = 1.5) -> None:
        if not 0 < min_iou <= 1:
            raise UsageError(f"min_iou is {min_iou}: expected a mask IoU above 0 and up to 1.")
        if not forget_after >= 0:
            raise UsageError(f"forget_after is {forget_after}: expected seconds, 0 or more.")
        self._min_iou = min_iou
        self._forget_after = forget_after
        self._tracks = Instances.empty()  # each at its last detection
        self._seen = np.zeros(0)
        self._velocity = np.zeros((0, 4), np.float32)  # pixels per second of x1 y1 x2 y2
        self._newest = 0
        self._now: float | None = None  # seconds of the last update
        self._intervals: deque[float] = deque(maxlen=RECENT_INTERVALS)

    def update(self, instances: Instances, seconds: float) -> Instances:
        """Return `instances`, in the same order, with `track_ids` and `confirmed` set.

        `seconds` is the frame's time in its source and must not decrease.
        """
        self._keep(seconds - self._seen <= max(self._forget_after, MIN_INTERVALS * self._interval(seconds)))
        track = self._matched(instances, seconds - self._seen)
        known = track >= 0
        ids = self._newest + np.cumsum(~known, dtype=np.int32)
        self._newest += int(np.count_nonzero(~known))
        velocity = np.zeros((len(instances), 4), np.float32)
        if self._tracks.track_ids is not None:
            ids[known] = self._tracks.track_ids[track[known]]
            velocity[known] = self._velocity_at(track[known], instances.boxes[known], seconds)
        tracked = replace(instances, track_ids=ids, confirmed=known)
        self._keep(~np.isin(np.arange(len(self._tracks)), track))
        self._tracks = tracked.joined(self._tracks)[:MAX_TRACKS]
        self._seen = np.concatenate([np.full(len(ids), seconds), self._seen])[:MAX_TRACKS]
        self._velocity = np.concatenate([velocity, self._velocity])[:MAX_TRACKS]
        return tracked

    def _interval(self, seconds: float) -> float:
        """Return the typical seconds between updates, including the one at `seconds`."""
        if self._now is not None:
            self._intervals.append(seconds - self._now)
        self._now = seconds
        return median_low(self._intervals) if self._intervals else 0.0

    def _matched(self, instances: Instances, elapsed: NDArray[Any]) -> NDArray[np.intp]:
        """Return the track matched with each instance, (N,), or -1.

        `elapsed` (M,) are the seconds since the last detection of each track.
        """
        if self._tracks.confirmed is None:
            return np.full(len(instances), -1)
        moved = self._velocity * elapsed[:, None]
        expected = replace(self._tracks, boxes=np.asarray(self._tracks.boxes + moved, np.float32))
        same = instances.class_ids[:, None] == expected.class_ids
        overlap = mask_iou(instances, expected)
        weighted = overlap * (1 + instances.scores[:, None])
        track = _match_greedily(np.where(same & (overlap >= self._min_iou), weighted, 0))
        near = (
            closeness(instances.boxes, expected.boxes, np.minimum(REACH + REACH_GROWTH * elapsed, 1)) * same
        )
        near[track >= 0] = 0
        near[:, track[track >= 0]] = 0
        near += (near > 0) & self._tracks.confirmed  # an unconfirmed track may be a false positive
        return np.maximum(track, _match_greedily(near))

    def _velocity_at(
        self, track: NDArray[np.intp], boxes: NDArray[Any], seconds: float
    ) -> NDArray[np.float32]:
        """Return the velocities (P, 4) of tracks (P,) that are now detected at `boxes` (P, 4)."""
        elapsed = np.maximum(seconds - self._seen[track], 1e-6)[:, None]
        latest = (boxes - self._tracks.boxes[track]) / elapsed
        gain = -np.expm1(-elapsed / VELOCITY_SECONDS)
        return np.asarray(self._velocity[track] + gain * (latest - self._velocity[track]), np.float32)

    def _keep(self, chosen: NDArray[np.bool_]) -> None:
        self._tracks, self._seen = self._tracks[chosen], self._seen[chosen]
        self._velocity = self._velocity[chosen]


def mask_iou(a: Instances, b: Instances) -> NDArray[np.float32]:
    """Return the mask IoU of every pair of instances: (N, M) float32, 0..1.

    Masks are sampled bilinearly at GRID x GRID points of the union box of each pair whose boxes overlap, and
    thresholded at 0.5, as in `Instances.pasted`; boxes are not rounded. The IoU of two empty masks is 0.
    """
    corner = np.maximum(a.boxes[:, None, :2], b.boxes[:, :2])  # (N, M, 2)
    touching = np.all(corner < np.minimum(a.boxes[:, None, 2:], b.boxes[:, 2:]), axis=2)  # (N, M)
    overlap = np.zeros((len(a), len(b)), np.float32)
    for position in np.flatnonzero(np.any(touching, axis=1)):
        near = np.flatnonzero(touching[position])
        start = np.minimum(a.boxes[position, :2], b.boxes[near, :2])
        stop = np.maximum(a.boxes[position, 2:], b.boxes[near, 2:])
        union = np.concatenate([start, stop], axis=1)
        one = resample(a.boxes[position], a.masks[position], union, GRID) >= 0.5
        other = resample(b.boxes[near], b.masks[near], union, GRID) >= 0.5
        either = np.count_nonzero(one | other, axis=(1, 2))
        overlap[position, near] = np.count_nonzero(one & other, axis=(1, 2)) / np.maximum(either, 1)
    return overlap


def closeness(boxes: NDArray[Any], others: NDArray[Any], reach: NDArray[Any]) -> NDArray[Any]:
    """Return how close the centres of every pair of boxes (N, 4) and (M, 4) are: (N, M), 0..1.

    The value is 1 for equal centres and falls linearly to 0 at a distance of `reach` (M,), in sizes of the
    second box. It is 0 where widths or heights differ by more than MIN_SIZE_RATIO.
    """
    sizes, others_sizes = boxes[:, 2:] - boxes[:, :2], others[:, 2:] - others[:, :2]
    smaller = np.minimum(sizes[:, None], others_sizes)
    alike = np.all(smaller >= MIN_SIZE_RATIO * np.maximum(sizes[:, None], others_sizes), axis=2)
    apart = (boxes[:, None, :2] + boxes[:, None, 2:] - others[:, :2] - others[:, 2:]) / 2
    size = np.sqrt(np.maximum(np.prod(others_sizes, axis=1), 1e-6))
    return np.asarray(alike * np.maximum(1 - np.hypot(apart[..., 0], apart[..., 1]) / (size * reach), 0))


def _match_greedily(affinity: NDArray[Any]) -> NDArray[np.intp]:
    """Return the column matched with each row of `affinity` (N, M), or -1: (N,).

    Pairs above 0 are matched greedily, best first; every column is used at most once.
    """
    paired = np.full(len(affinity), -1)
    rows, columns = np.nonzero(affinity > 0)
    for best in np.argsort(-affinity[rows, columns], kind="stable"):
        if paired[rows[best]] < 0 and columns[best] not in paired:
            paired[rows[best]] = columns[best]
    return paired
