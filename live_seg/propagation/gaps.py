"""Propagation of tracks to the frames in which they were missed, forwards and backwards in time."""

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_seg.errors import UsageError
from live_seg.propagation.flow import Flow, Step
from live_seg.propagation.motion import MovingInstances
from live_seg.propagation.open_frame import MIN_VISIBLE, Filled, OpenFrame, ids_of
from live_seg.types import Image, Instances

HOLD = 0.5
"""Seconds by which a track is propagated past its first and last detection."""

WATCH = 1.5
"""Seconds after its last detection for which a lost track may still be in the picture: as long as the tracker
can find it again."""

SLACK = 1e-6
"""Seconds by which times may be off through rounding."""

MAX_FRAMES = 300
"""Maximum number of frames that wait for later ones. At 16:9 each takes 0.6 MB."""


class GapFiller:
    """Propagate each confirmed track to the frames in which it was missed, along the optical flow.

    Gaps between two detections are filled backwards, and forwards for the first `hold` seconds; the two
    results are united. A track is also propagated `hold` seconds past its first and last detection. A frame
    is completed once a frame at least `delay` seconds later arrived: what is found later does not reach back
    to it. With a `delay` of 0, tracks are propagated forwards only. Times are seconds of the source.

    Not thread-safe. Raises UsageError for a negative `delay` or `hold`.
    """

    def __init__(self, delay: float, *, hold: float = HOLD) -> None:
        if not (delay >= 0 and hold >= 0):
            raise UsageError(f"delay is {delay} and hold {hold}: expected seconds, 0 or more.")
        self._delay, self._hold = delay, hold
        self._flow = Flow(both=True)
        self._waiting: deque[OpenFrame] = deque()
        self._count = 0  # frames completed
        self._latest: OpenFrame | None = None
        self._missing = _Missing()
        self._tracks: dict[int, _Track] = {}

    def update(self, image: Image, seconds: float, instances: Instances) -> list[Filled]:
        """Add the next frame, (H, W, 3) uint8 BGR, and return the frames completed by it, in order.

        `seconds` must not decrease. Neither image nor frame is kept. Raises UsageError without track ids.
        """
        if instances.track_ids is None and len(instances):
            raise UsageError("Filling gaps needs track ids: pass the instances through a Tracker first.")
        frame = OpenFrame(seconds, image.shape[:2], self._flow.step(image), instances)
        self._propagate_missing(frame)
        self._waiting.append(frame)
        self._propagate_back(frame)
        self._latest = frame
        completed = []
        while self._waiting and (
            self._waiting[0].seconds <= seconds - self._delay + SLACK or len(self._waiting) > MAX_FRAMES
        ):
            completed.append(self._completed())
        return completed

    def finish(self) -> list[Filled]:
        """Return the remaining frames, in order, after the last one was added."""
        return [self._completed() for _ in range(len(self._waiting))]

    def _propagate_missing(self, frame: OpenFrame) -> None:
        """Propagate tracks forwards to `frame` that it lacks."""
        before = self._latest
        if before is not None and before.size == frame.size:
            lost = before.rows(before.confirmed_ids - frame.ids)
            self._missing = self._missing.without(frame.ids, frame.seconds).joined(lost, before)
        else:
            self._missing = _Missing()
        since = frame.seconds - self._hold - SLACK
        self._missing = self._missing.follow(frame.step, since)
        self._missing.guess(frame, since)

    def _propagate_back(self, frame: OpenFrame) -> None:
        """Propagate tracks back from `frame`, or from their first detection, to where they were missed."""
        index = self._count + len(self._waiting) - 1
        begin: dict[int, dict[int, int]] = {}  # first index of each track to propagate, by index of its key
        for track, score, confirmed in frame.tracks():
            known = self._tracks.setdefault(track, _Track(index, index, frame.seconds))
            if confirmed and known.last < index - 1:
                begin.setdefault(index, {})[track] = known.last + 1
            if confirmed and known.first is not None:
                begin.setdefault(known.first, {})[track] = self._index_at(known.first)
                known.first = None
            known.last, known.seconds, known.best = index, frame.seconds, max(known.best, score)
        for key, firsts in begin.items():
            self._walk_back(key, firsts)
        kept = frame.seconds - max(self._delay, WATCH) - self._hold
        self._tracks = {track: known for track, known in self._tracks.items() if known.seconds >= kept}

    def _index_at(self, key: int) -> int:
        """Return the index of the first frame at most `hold` seconds before frame `key`."""
        if key < self._count:
            return key
        times = [frame.seconds for frame in self._waiting]
        return self._count + int(np.searchsorted(times, times[key - self._count] - self._hold - SLACK))

    def _walk_back(self, key: int, firsts: dict[int, int]) -> None:
        """Propagate tracks from frame `key` back to the frame with index firsts[track]."""
        place = key - self._count
        if place < 1:
            return
        later = self._waiting[place]
        rows = later.rows(firsts.keys())
        moving = later.moving(rows)
        start = np.array([firsts[track] for track in ids_of(rows)]) - self._count
        while place > max(0, start.min(initial=place)) and self._waiting[place - 1].size == later.size:
            place -= 1
            frame = self._waiting[place]
            moving = _followed(moving, Step(frame.step.image, later.step.back))
            moving, start = moving[start <= place], start[start <= place]
            frame.guess(moving, moving.visible, np.ones(len(start), bool))
            later = frame

    def _completed(self) -> Filled:
        self._count += 1
        frame = self._waiting.popleft()
        best = {track: known.best for track, known in self._tracks.items()}
        return frame.filled(best)


@dataclass(eq=False)
class _Track:
    first: int | None
    """Index of the first detection until the track has been propagated back from it."""
    last: int
    """Index of the latest detection."""
    seconds: float
    """Time of the latest detection."""
    best: float = 0.0
    """Highest score."""


class _Missing:
    """Tracks that are missing now, and the time at which each was last found."""

    def __init__(self, moving: MovingInstances | None = None, since: NDArray[Any] | None = None) -> None:
        self._moving = moving
        self._since = np.zeros(0) if since is None else since

    def without(self, found: set[int], seconds: float) -> "_Missing":
        """Drop the tracks `found` again, and those last found more than WATCH seconds ago."""
        if self._moving is None:
            return self
        kept = ~np.isin(ids_of(self._moving.key), list(found)) & (self._since >= seconds - WATCH - SLACK)
        return _Missing(self._moving[kept], self._since[kept])

    def joined(self, rows: Instances, frame: OpenFrame) -> "_Missing":
        """Add instances last found in `frame`."""
        if not len(rows):
            return self
        moving = frame.moving(rows)
        if self._moving is not None:
            moving = self._moving.joined(moving)
        return _Missing(moving, np.concatenate([self._since, np.full(len(rows), frame.seconds)]))

    def follow(self, step: Step, since: float) -> "_Missing":
        """Move on to the frame of `step`; tracks last found before `since` stay where they are."""
        if self._moving is None:
            return self
        followed = _followed(self._moving, step)
        held = self._since < since
        points = np.where(held[:, None, None, None], self._moving.points, followed.points)
        return _Missing(replace(followed, points=points), self._since)

    def guess(self, frame: OpenFrame, since: float) -> None:
        """Add the tracks to `frame`, visibly if they were found at `since` or later."""
        if self._moving is not None:
            shown = self._since >= since
            frame.guess(self._moving, np.where(shown, self._moving.visible, 0), shown)


def _followed(moving: MovingInstances, step: Step) -> MovingInstances:
    """Follow `moving` to the frame of `step`. What is not visible stays where it was, instead of drifting."""
    if step.flow is None:  # a cut, or the light went out
        return replace(moving, visible=np.zeros_like(moving.visible))
    followed = moving.follow(step)
    hidden = followed.visible < MIN_VISIBLE
    return replace(followed, points=np.where(hidden[:, None, None, None], moving.points, followed.points))
