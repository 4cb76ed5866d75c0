"""Temporal smoothing of boxes, masks and scores of tracks, adapted to their motion."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_seg.errors import UsageError
from live_seg.masks import gaussian_blur, resample
from live_seg.tracking.tracker import MAX_TRACKS
from live_seg.types import Instances

Floats = NDArray[np.float32]

MIN_CUTOFF = 0.15
"""Cutoff in hertz for a still value: a time constant of about a second."""

SPEED_GAIN = 3.5
"""Growth of the cutoff in hertz with the square of the speed, in box sizes, or full ranges of a mask cell,
per second. The growth is linear in the paper; the square separates jitter from motion better."""

SPEED_CUTOFF = 1.0
"""Cutoff in hertz of the filter on the speed itself, as in the paper: jitter averages out, motion remains."""

SPEED_BLUR = 1.4
"""Standard deviation in cells of the spatial filter on the speeds of a mask: unlike noise, motion is shared
by neighbouring cells."""

SCORE_SECONDS = 0.5
"""Time constant of the filter on scores."""

HYSTERESIS = 0.75
"""Fraction of the score threshold below which a visible track is hidden again."""

FORGET_AFTER = 1.5
"""Seconds after which the state of a track without detections is discarded."""


class Smoother:
    """Remove the flicker of tracked instances. Not thread-safe.

    Box edges and mask values are averaged over about a second while still and hardly at all while moving,
    which avoids visible lag: see `one_euro`. Scores are low-pass filtered. A track appears when its score
    reaches `min_score`, 0..1, and disappears below HYSTERESIS * min_score; the input must therefore contain
    instances down to that score. Raises UsageError for a `min_score` outside 0..1.
    """

    def __init__(self, min_score: float = 0.0) -> None:
        if not 0 <= min_score <= 1:
            raise UsageError(f"min_score is {min_score}: expected a score threshold from 0 to 1.")
        self.min_score = min_score
        """Score threshold; may be changed between updates."""
        self._tracks = _Tracks.begin(Instances.empty(), np.zeros(0, np.int32), 0.0)

    def update(self, instances: Instances, seconds: float) -> Instances:
        """Return the visible ones of `instances`, in the same order, with smoothed boxes, masks and scores.

        `seconds` is the frame's time in its source and must not decrease. Raises UsageError without ids.
        """
        self._tracks = self._tracks[seconds - self._tracks.seen <= FORGET_AFTER]
        if not len(instances):
            return instances
        if instances.track_ids is None:
            raise UsageError("Smoothing needs track ids: pass the instances through a Tracker first.")
        found = _Tracks.begin(instances, instances.track_ids, seconds)
        if found.masks.shape[1:] != self._tracks.masks.shape[1:]:
            self._tracks = found[:0]
        now = self._filtered(found)
        threshold = np.where(now.shown, HYSTERESIS * self.min_score, self.min_score)
        now = replace(now, shown=now.scores >= threshold)
        self._tracks = now.joined(self._tracks[~np.isin(self._tracks.track_ids, now.track_ids)])[:MAX_TRACKS]
        return replace(instances, boxes=now.boxes, masks=now.masks, scores=now.scores)[now.shown]

    def _filtered(self, found: "_Tracks") -> "_Tracks":
        """Return `found`, filtered with the previous state of each known track."""
        row, before = np.nonzero(found.track_ids[:, None] == self._tracks.track_ids)
        new = np.setdiff1d(np.arange(len(found.track_ids)), row)
        filtered = self._tracks[before].after(found[row])
        return filtered.joined(found[new])[np.argsort(np.concatenate([row, new]))]


@dataclass(frozen=True, eq=False)
class _Tracks:
    """State of K tracks, as columns of equal length."""

    track_ids: NDArray[np.int32]  # (K,) track ids
    seen: NDArray[np.float64]  # (K,) seconds
    shown: NDArray[np.bool_]  # (K,)
    scores: Floats  # (K,)
    boxes: Floats  # (K, 4)
    box_speed: Floats  # (K, 4) box sizes per second
    masks: Floats  # (K, M, M), each in its box of `boxes`
    mask_speed: Floats  # (K, M, M) per second

    @classmethod
    def begin(cls, instances: Instances, track_ids: NDArray[np.int32], seconds: float) -> "_Tracks":
        n, boxes, masks = len(instances), instances.boxes, instances.masks
        still = np.zeros_like(boxes), np.zeros_like(masks)
        seen, shown = np.full(n, seconds), np.zeros(n, bool)
        return cls(track_ids, seen, shown, instances.scores, boxes, still[0], masks, still[1])

    def __getitem__(self, chosen: Any) -> "_Tracks":
        return _Tracks(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def joined(self, other: "_Tracks") -> "_Tracks":
        columns = ([getattr(one, field.name) for one in (self, other)] for field in fields(self))
        return _Tracks(*map(np.concatenate, columns))

    def after(self, found: "_Tracks") -> "_Tracks":
        """Return the state of the same tracks after the new measurements `found`."""
        elapsed = np.maximum(found.seen - self.seen, 1e-6).astype(np.float32)
        at, side = _non_empty(found.boxes), found.masks.shape[1]
        size = np.tile(at[:, 2:] - at[:, :2], 2)
        boxes, box_speed = one_euro(self.boxes, self.box_speed, at, elapsed, size)
        # Average in frame coordinates, not in the box: a raised arm changes the box but not the torso.
        masks, mask_speed = (
            resample(_non_empty(self.boxes), old, boxes, side) for old in (self.masks, self.mask_speed)
        )
        latest = resample(at, found.masks, boxes, side)
        masks, mask_speed = one_euro(masks, mask_speed, latest, elapsed, np.float32(1))
        scores = self.scores - np.expm1(-elapsed / SCORE_SECONDS) * (found.scores - self.scores)
        return _Tracks(self.track_ids, found.seen, self.shown, scores, boxes, box_speed, masks, mask_speed)


def one_euro(
    values: Floats, speed: Floats, latest: Floats, elapsed: Floats, unit: Floats | np.float32
) -> tuple[Floats, Floats]:
    """Return values and speed after a step of the 1 euro filter (Casiez, Roussel & Vogel 2012, algorithm 1).

    It is a low-pass filter whose cutoff rises with the speed. The filtered `values`, their `speed` in `unit`
    per second and the `latest` measurements are (N, ...); `elapsed` (N,) are the seconds since the last step,
    above 0. Speeds of grids (N, M, M) are averaged over neighbouring cells.
    """
    seconds = elapsed.reshape(-1, *[1] * (values.ndim - 1))
    ahead = latest - values
    speed = speed + _share(SPEED_CUTOFF, seconds) * (ahead / unit / seconds - speed)
    common = gaussian_blur(speed[..., None], SPEED_BLUR)[..., 0] if speed.ndim == 3 else speed
    return values + _share(MIN_CUTOFF + SPEED_GAIN * common**2, seconds) * ahead, speed


def _share(cutoff: Any, seconds: Floats) -> Any:
    """Return the weight of the latest measurement in a first-order low-pass filter (`cutoff` in hertz)."""
    return -np.expm1(-2 * np.pi * cutoff * seconds)


def _non_empty(boxes: Floats) -> Floats:
    """Return `boxes` (N, 4) with a width and height of at least 0.001 pixels."""
    return np.concatenate([boxes[:, :2], np.maximum(boxes[:, 2:], boxes[:, :2] + np.float32(1e-3))], axis=1)
