"""One of several sources that share a model."""

from collections import deque
from dataclasses import dataclass, field

from live_seg.pipeline.keyframes import Identify, Propagation
from live_seg.sources.lane import SourceLane
from live_seg.types import Frame, Instances

CHOSEN_WAITING = 2
"""Chosen frames of a source that wait for the caller's loop. Beyond it, the model skips the source."""


@dataclass(eq=False)
class Member:
    """A source with a tracker and a propagator of its own.

    `choose` and `answer` are called in the model's thread, the other methods in the caller's loop. The model
    chooses the newest frame that has been read, whether the loop has reached it or not. The loop must move on
    to every chosen frame, because results are propagated from there.
    """

    lane: SourceLane
    propagator: Propagation
    identify: Identify
    segmented: int = 0
    """Frames segmented so far."""
    shown: int = 0
    """Frames that the loop has moved on to."""
    _latest: int = -1  # index of the last one of them
    _next: Frame | None = None  # taken from the lane, but a chosen frame comes first
    _busy: bool = False  # whether a frame is with the model
    _chosen: deque[Frame] = field(default_factory=deque)
    _results: deque[tuple[Frame, Instances]] = field(default_factory=deque)

    @property
    def dropped(self) -> int:
        """Number of frames skipped because newer ones had arrived."""
        return self._latest + 1 - self.shown

    @property
    def ready(self) -> bool:
        """Return whether there is a frame to choose."""
        return bool(self.lane.newest) and not self._busy and len(self._chosen) < CHOSEN_WAITING

    def choose(self) -> Frame:
        """Take the newest frame to be segmented. Only if `ready`."""
        self._busy = True
        frame = self.lane.newest.pop()
        self._chosen.append(frame)
        return frame

    def answer(self, frame: Frame, instances: Instances) -> None:
        """Pass on the result of a chosen frame."""
        self.segmented += 1
        self._results.append((frame, instances))
        self._busy = False

    @property
    def chosen(self) -> Frame | None:
        """The first chosen frame that the loop has not reached."""
        self._forget_reached()
        return self._chosen[0] if self._chosen else None

    def _forget_reached(self) -> None:
        while self._chosen and self._chosen[0].index <= self._latest:
            self._chosen.popleft()

    def take(self, *, newest: bool = False) -> tuple[Frame | None, bool]:
        """Return the next frame, if one has been read, and whether the source has ended.

        With `newest`, frames before the newest one are skipped, except chosen ones. Raises the error that
        ended the source.
        """
        frame, ended = self._next, False
        while frame is None or frame.index <= self._latest:
            frame, ended = self.lane.take(newest=newest)
            if frame is None:
                break
        self._next = frame
        chosen = self.chosen
        if chosen is not None and frame is not None and chosen.index < frame.index:
            return chosen, False
        return frame, ended

    def advance(self, frame: Frame) -> Instances:
        """Move on to `frame`, and return the instances propagated to it from the results so far."""
        while self._results and self._results[0][0].index <= self._latest:
            past, detected = self._results.popleft()
            self.propagator.correct(past.index, self.identify(detected, past.seconds))
        self._latest = frame.index
        self._forget_reached()
        self.shown += 1
        return self.propagator.advance(frame)
