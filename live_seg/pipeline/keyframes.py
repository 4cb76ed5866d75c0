"""Every frame shown, only key frames segmented: instances are propagated from those to the frames between.

For Newest the key frame is the newest one whenever the network is free, and what there is no time to show is
dropped; for EveryNth it is frame 0, N, 2N, ... and the source waits.

    source --Frame--> Channel --> the caller's loop: correct, advance <--Instances-- Channel <-- segment
    reader thread                 main thread -------key Frame-------> Channel ----------------> worker thread
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Protocol

from live_seg.errors import UsageError
from live_seg.pipeline.channel import Channel, Idle
from live_seg.pipeline.stages import Stages, read, work
from live_seg.types import Frame, Instances, Segment

FRAMES_BEHIND = 2
"""Most frames of a live source that wait for the caller: one late picture is not lost, and a caller that is
always too slow lags no further behind."""

FRAMES_AHEAD = 32
"""Most frames read ahead for EveryNth, though `batch` key frames may span more: 200 MB at full HD."""


class Propagation(Protocol):
    """Takes instances along from frame to frame; called by one thread alone."""

    def advance(self, frame: Frame, /) -> Instances:
        """Go on to `frame`, the next in order, and return the instances propagated to it."""

    def correct(self, index: int, instances: Instances, /) -> None:
        """Take over what was found in frame `index`: the last one `advance` had, or one before."""


Identify = Callable[[Instances, float], Instances]
"""Gives the instances found at so many seconds their ids, called in the order of the frames."""


class Newest(Stages):
    """Hands on every frame at the source's own pace, while the newest is segmented in the background.

        with Newest(camera, segment, propagator, tracker.update) as results:
            for frame, instances in results:
                ...

    `source` is iterated by the reader thread alone, `segment` called by the worker thread alone, with one
    image; `propagator` and `identify` are called in the caller's loop. A caller slower than the source loses
    the oldest waiting frame. Leaving the `with` block stops and joins both threads, as with a Pipeline; a
    frame that is being segmented then is waited for, and its result dropped. `idle` is called while no frame
    comes, as by a Pipeline.
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
        self._frames: Channel[Frame] = Channel(FRAMES_BEHIND, drop_oldest=True)
        self._key: Channel[Frame] = Channel(1, drop_oldest=True)
        self._results: Channel[tuple[Frame, Instances]] = Channel(1)
        super().__init__(
            (self._frames, self._key, self._results),
            reader=(partial(read, source, self._frames), self._frames),
            # Its failure goes where the caller waits, or it would only be seen with the next frame.
            worker=(partial(work, self._key, segment, self._results, batch=1), self._frames),
        )

    @property
    def dropped(self) -> int:
        """Frames read but never handed on because newer ones came."""
        return self._frames.dropped

    def __iter__(self) -> Iterator[tuple[Frame, Instances]]:
        """Yield (frame, the instances propagated to it) in the order of the source; at first there are none.

        Raises the first error of the source or of `segment`, with its traceback, after the frames that wait;
        whatever `propagator` and `identify` raise; ValueError when `segment` returns more or less than one.
        """
        self._check_entered()
        while frames := self._frames.take(idle=self._idle):
            (frame,) = frames
            for past, found in self._results.take(wait=False):
                self._propagator.correct(past.index, self._identify(found, past.seconds))
            # From here, not from the reader: the propagator must know every frame that is segmented.
            self._key.put(frame)
            yield frame, self._propagator.advance(frame)


class EveryNth(Stages):
    """Hands on every frame in order, of which 0, N, 2N, ... were segmented: for sources that can wait.

    Used like Newest. `segment` gets 1 to `batch` images: as many key frames as are ready, out of at most
    FRAMES_AHEAD frames read ahead. Raises UsageError when `every`, the N, or `batch` is below 1.
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
            raise UsageError(f"Both every and batch need at least 1 frame. Got every {every}, batch {batch}.")
        self._propagator = propagator
        self._identify = identify
        self._idle = idle
        self._every = every
        ahead = min(2 * batch * every, FRAMES_AHEAD)
        self._frames: Channel[Frame] = Channel(ahead)
        # What is in these waits in `_frames`, too, or is in the hands of reader or caller: never full.
        self._keys: Channel[Frame] = Channel(ahead + 2)
        self._results: Channel[tuple[Frame, Instances]] = Channel(ahead + 2)
        super().__init__(
            (self._frames, self._keys, self._results),
            reader=(partial(read, self._sorted(source), self._frames), self._frames),
            worker=(partial(work, self._keys, segment, self._results, batch=batch), self._results),
        )

    def __iter__(self) -> Iterator[tuple[Frame, Instances]]:
        """Yield (frame, its instances, found in it or propagated to it) in the order of the source.

        Raises the first error of the source or of `segment`, with its traceback, after every frame before it;
        whatever `propagator` and `identify` raise; ValueError when `segment` miscounts.
        """
        self._check_entered()
        while frames := self._frames.take(idle=self._idle):
            (frame,) = frames
            instances = self._propagator.advance(frame)
            if self._is_key(frame):
                if not (results := self._results.take(idle=self._idle)):
                    return
                ((_, found),) = results
                instances = self._identify(found, frame.seconds)
                self._propagator.correct(frame.index, instances)
            yield frame, instances

    def _is_key(self, frame: Frame) -> bool:
        return frame.index % self._every == 0

    def _sorted(self, source: Iterable[Frame]) -> Iterator[Frame]:
        """Yield the frames of `source`, each key frame after the worker has it."""
        for frame in source:
            if self._is_key(frame):
                self._keys.put(frame)
            yield frame
