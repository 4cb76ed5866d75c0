"""Keyframe pipelines: return every frame, segment only keyframes, and propagate instances to the others.

LatestKeyframe segments the newest frame whenever the network is free and drops frames that it has no time to
show. PeriodicKeyframes segments frames 0, N, 2N, ... and makes the source wait.

    source --Frame--> Channel --> the caller's loop: correct, advance <--Instances-- Channel <-- segment
    reader thread                 main thread -------keyframe--------> Channel ----------------> worker thread
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Protocol

from live_seg.channel import Channel, Idle
from live_seg.errors import UsageError
from live_seg.pipeline.stages import Stages, work
from live_seg.types import Frame, Instances, Segment

FRAMES_BEHIND = 2
"""Largest number of frames of a live source that wait for the caller. 2 frames absorb one late frame without
loss. A caller that is always too slow gets the newest of them."""

FRAMES_AHEAD = 32
"""Largest number of frames read ahead by PeriodicKeyframes, even if `batch` keyframes span more. At full HD
this is 200 MB."""


class Propagation(Protocol):
    """Propagate instances from frame to frame. Called by one thread only."""

    def advance(self, frame: Frame, /) -> Instances:
        """Move on to `frame`, the next in order, and return the instances propagated to it."""

    def correct(self, index: int, instances: Instances, /) -> None:
        """Replace the propagated instances by those detected in frame `index`, at most the latest frame."""


Identify = Callable[[Instances, float], Instances]
"""Assign track ids to the instances of a frame, given its time in seconds. Called in frame order."""


class LatestKeyframe(Stages):
    """Return every frame at the pace of the source while the newest one is segmented in the background.

        with LatestKeyframe(camera, segment, propagator, tracker.update) as results:
            for frame, instances in results:
                ...

    `source` is read in one thread and `segment` is called in another, with one image; `propagator` and
    `identify` are called in the caller's loop. If the caller is slower than the source, it gets the
    newest frame. Leaving the `with` block stops and joins the threads, as for Pipeline; a frame that is
    being segmented is waited for and its result discarded. `idle` works as for Pipeline.
    """

    def __init__(
        self,
        source: Iterable[Frame],
        segment: Segment,
        propagator: Propagation,
        identify: Identify,
        *,
        idle: Idle | None = None,
    ) -> None:
        self._propagator = propagator
        self._identify = identify
        self._idle = idle
        self._skipped = 0
        self._frames: Channel[Frame] = Channel(FRAMES_BEHIND, drop_oldest=True)
        self._keyframe: Channel[Frame] = Channel(1, drop_oldest=True)
        self._results: Channel[tuple[Frame, Instances]] = Channel(1)
        super().__init__(
            (self._frames, self._keyframe, self._results),
            source=source,
            frames=self._frames,
            # The worker's error goes to the channel that the caller waits for, to be raised without waiting
            # for the next frame.
            worker=(partial(work, self._keyframe, segment, self._results, batch=1), self._frames),
        )

    @property
    def dropped(self) -> int:
        """Number of frames read but not returned because newer ones arrived."""
        return self._frames.dropped + self._skipped

    def __iter__(self) -> Iterator[tuple[Frame, Instances]]:
        """Yield (frame, instances propagated to it) in source order. The first frames have none.

        After the waiting frames, raises the first error of the source or of `segment`, with its traceback.
        Also raises any error of `propagator` and `identify`, and ValueError when `segment` does not return
        one result.
        """
        self._check_entered()
        limit = 1
        while frames := self._frames.take(limit, idle=self._idle):
            frame, dropped = frames[-1], self._frames.dropped
            self._skipped += len(frames) - 1
            for past, detected in self._results.take(wait=False):
                self._propagator.correct(past.index, self._identify(detected, past.seconds))
            # Sent from here, not by the reader: the propagator must see every frame that is segmented.
            self._keyframe.put(frame)
            yield frame, self._propagator.advance(frame)
            limit = FRAMES_BEHIND if self._frames.dropped > dropped else 1


class PeriodicKeyframes(Stages):
    """Return every frame in order and segment frames 0, N, 2N, ...: for sources that can wait.

    Used like LatestKeyframe. `segment` gets 1 to `batch` images: the available keyframes among at most
    FRAMES_AHEAD frames read ahead. Raises UsageError when `every` (N) or `batch` is below 1.
    """

    def __init__(
        self,
        source: Iterable[Frame],
        segment: Segment,
        propagator: Propagation,
        identify: Identify,
        *,
        every: int,
        batch: int = 4,
        idle: Idle | None = None,
    ) -> None:
        if every < 1 or batch < 1:
            raise UsageError(f"Expected every and batch to be at least 1. Got every {every}, batch {batch}.")
        self._propagator = propagator
        self._identify = identify
        self._idle = idle
        self._every = every
        ahead = min(2 * batch * every, FRAMES_AHEAD)
        self._frames: Channel[Frame] = Channel(ahead)
        # Never full: each of their frames also waits in `_frames`, or is held by the reader or the caller.
        self._keyframes: Channel[Frame] = Channel(ahead + 2)
        self._results: Channel[tuple[Frame, Instances]] = Channel(ahead + 2)
        super().__init__(
            (self._frames, self._keyframes, self._results),
            source=self._selecting(source),
            frames=self._frames,
            worker=(partial(work, self._keyframes, segment, self._results, batch=batch), self._results),
        )

    def __iter__(self) -> Iterator[tuple[Frame, Instances]]:
        """Yield (frame, instances detected in it or propagated to it) in the order of the source.

        After all earlier frames, raises the first error of the source or of `segment`, with its traceback.
        Also raises any error of `propagator` and `identify`, and ValueError when `segment` does not return
        one result per image.
        """
        self._check_entered()
        while frames := self._frames.take(idle=self._idle):
            (frame,) = frames
            instances = self._propagator.advance(frame)
            if self._is_keyframe(frame):
                if not (results := self._results.take(idle=self._idle)):
                    return
                ((_, detected),) = results
                instances = self._identify(detected, frame.seconds)
                self._propagator.correct(frame.index, instances)
            yield frame, instances

    def _is_keyframe(self, frame: Frame) -> bool:
        return frame.index % self._every == 0

    def _selecting(self, source: Iterable[Frame]) -> Iterator[Frame]:
        """Yield the frames of `source`, after sending each keyframe to the worker."""
        for frame in source:
            if self._is_keyframe(frame):
                self._keyframes.put(frame)
            yield frame
