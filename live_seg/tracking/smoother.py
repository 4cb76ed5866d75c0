"""Steady masks: what the network says of a track, averaged over time as far as the track stands still."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_seg.errors import UsageError
from live_seg.masks import gaussian_blur, resample
from live_seg.tracking.tracker import MOST
from live_seg.types import Instances

Floats = NDArray[np.float32]

SLOWEST = 0.15
"""Hertz, the cutoff for what stands still: a time constant of a second."""

HASTE = 3.5
"""Hertz by which the cutoff rises with the square of the speed, which is counted in sizes of a box, or whole
ranges of a mask's cell, a second. The paper's rise is linear; squared, it tells jitter better from motion."""

SPEED_CUTOFF = 1.0
"""Hertz, the cutoff of the speed itself, as in the paper: jitter cancels out in it, motion adds up."""

NEIGHBOURS = 1.4
"""Standard deviation, in cells, of the filter over a mask's speeds: parts move together, noise does not."""

SCORE_SECONDS = 0.5
"""Time constant of the average of a score."""

KEEP = 0.75
"""Share of the least score at which a track that is shown stops being shown."""

FORGET_AFTER = 1.5
"""Seconds after which nothing is known any more of a track that is not seen."""


class Smoother:
    """Takes the flicker out of tracked instances. Not for two threads at once.

    Each edge of a box, and each point of a mask, is averaged over about a second while it is still, and
    hardly when it moves, so that no lag is seen: see `one_euro`. Scores are averaged. A track is shown once
    its score reaches `min_score`, 0..1, and until it falls below KEEP of that, for which the network must
    deliver such. Raises UsageError for another value.
    """

    def __init__(self, min_score: float = 0.0) -> None:
        if not 0 <= min_score <= 1:
            raise UsageError(f"min_score is {min_score}: give the least score shown, 0 to 1.")
        self.min_score = min_score
        """May be changed between two updates."""
        self._tracks = _Tracks.begin(Instances.empty(), np.zeros(0, np.int32), 0.0)

    def update(self, instances: Instances, seconds: float) -> Instances:
        """Return those of `instances` that are shown, in their order, smoothed; ids and classes stay.

        `seconds` is the frame's time in its source; it does not go back. Raises UsageError without track ids.
        """
        self._tracks = self._tracks[seconds - self._tracks.seen <= FORGET_AFTER]
        if not len(instances):
            return instances
        if instances.track_ids is None:
            raise UsageError("Instances are smoothed by their track ids: let a Tracker give them some.")
        found = _Tracks.begin(instances, instances.track_ids, seconds)
        if found.masks.shape[1:] != self._tracks.masks.shape[1:]:
            self._tracks = found[:0]
        now = self._filtered(found)
        least = np.where(now.shown, KEEP * self.min_score, self.min_score)
        now = replace(now, shown=now.scores >= least)
        self._tracks = now.joined(self._tracks[~np.isin(self._tracks.numbers, now.numbers)])[:MOST]
        return replace(instances, boxes=now.boxes, masks=now.masks, scores=now.scores)[now.shown]

    def _filtered(self, found: "_Tracks") -> "_Tracks":
        """`found`, with what was known before."""
        row, before = np.nonzero(found.numbers[:, None] == self._tracks.numbers)
        new = np.setdiff1d(np.arange(len(found.numbers)), row)
        filtered = self._tracks[before].after(found[row])
        return filtered.joined(found[new])[np.argsort(np.concatenate([row, new]))]


@dataclass(frozen=True, eq=False)
class _Tracks:
    """What is known of K tracks, row by row."""

    numbers: NDArray[np.int32]  # (K,) from 1
    seen: NDArray[np.float64]  # (K,) seconds
    shown: NDArray[np.bool_]  # (K,)
    scores: Floats  # (K,)
    boxes: Floats  # (K, 4)
    box_speed: Floats  # (K, 4) sizes of the box a second
    masks: Floats  # (K, M, M), each in its box of `boxes`
    mask_speed: Floats  # (K, M, M) a second

    @classmethod
    def begin(cls, instances: Instances, numbers: NDArray[np.int32], seconds: float) -> "_Tracks":
        n, boxes, masks = len(instances), instances.boxes, instances.masks
        still = np.zeros_like(boxes), np.zeros_like(masks)
        seen, shown = np.full(n, seconds), np.zeros(n, bool)
        return cls(numbers, seen, shown, instances.scores, boxes, still[0], masks, still[1])

    def __getitem__(self, chosen: Any) -> "_Tracks":
        return _Tracks(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def joined(self, other: "_Tracks") -> "_Tracks":
        columns = ([getattr(one, field.name) for one in (self, other)] for field in fields(self))
        return _Tracks(*map(np.concatenate, columns))

    def after(self, found: "_Tracks") -> "_Tracks":
        """The same tracks, filtered with what was `found` of each now."""
        elapsed = np.maximum(found.seen - self.seen, 1e-6).astype(np.float32)
        at, side = _filled(found.boxes), found.masks.shape[1]
        size = np.tile(at[:, 2:] - at[:, :2], 2)
        boxes, box_speed = one_euro(self.boxes, self.box_speed, at, elapsed, size)
        # Averaged in the picture, not in the box: when an arm is raised, the rest of a person stays.
        masks, mask_speed = (
            resample(_filled(self.boxes), old, boxes, side) for old in (self.masks, self.mask_speed)
        )
        latest = resample(at, found.masks, boxes, side)
        masks, mask_speed = one_euro(masks, mask_speed, latest, elapsed, np.float32(1))
        scores = self.scores - np.expm1(-elapsed / SCORE_SECONDS) * (found.scores - self.scores)
        return _Tracks(self.numbers, found.seen, self.shown, scores, boxes, box_speed, masks, mask_speed)


def one_euro(
    values: Floats, speed: Floats, latest: Floats, elapsed: Floats, unit: Floats | np.float32
) -> tuple[Floats, Floats]:
    """One step of the 1 euro filter (Casiez, Roussel & Vogel 2012, algorithm 1): the new values and speed.

    It is a low-pass filter whose cutoff rises with the speed. All are (N, ...): the filtered `values`, their
    `speed`, in `unit` a second, and the `latest` measurements. `elapsed` (N,) are the seconds since the last
    step, above 0. The speeds of grids (N, M, M) are averaged among neighbours.
    """
    seconds = elapsed.reshape(-1, *[1] * (values.ndim - 1))
    ahead = latest - values
    speed = speed + _share(SPEED_CUTOFF, seconds) * (ahead / unit / seconds - speed)
    common = gaussian_blur(speed[..., None], NEIGHBOURS)[..., 0] if speed.ndim == 3 else speed
    return values + _share(SLOWEST + HASTE * common**2, seconds) * ahead, speed


def _share(cutoff: Any, seconds: Floats) -> Any:
    """Share of the latest measurement in a first-order low-pass filter with this cutoff in hertz."""
    return -np.expm1(-2 * np.pi * cutoff * seconds)


def _filled(boxes: Floats) -> Floats:
    """`boxes` (N, 4), made at least a thousandth of a pixel wide and high."""
    return np.concatenate([boxes[:, :2], np.maximum(boxes[:, 2:], boxes[:, :2] + np.float32(1e-3))], axis=1)
