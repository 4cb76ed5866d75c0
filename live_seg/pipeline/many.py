"""Several sources with one model: the newest frames of all are segmented together.

source --Frame--> SourceLane --> the caller's loop: correct, advance <--Instances--+
(one reader thread each)         main thread --newest keyframe--> one worker thread: segment a batch
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event, Thread
from types import TracebackType
from typing import Self

from live_seg.channel import IDLE_INTERVAL, Channel, Idle
from live_seg.errors import SourceError, UsageError
from live_seg.pipeline.keyframes import Identify, Propagation
from live_seg.sources.lane import SourceLane
from live_seg.types import Frame, Instances, Segment

logger = logging.getLogger(__name__)


class WakeUps:
    """Wake a thread that waits. Tokens are limited, because one is enough to make it look everywhere."""

    LIMIT = 64

    def __init__(self) -> None:
        self._tokens: SimpleQueue[None] = SimpleQueue()

    def __call__(self) -> None:
        """Wake the thread. May be called in any thread."""
        if self._tokens.qsize() < self.LIMIT:
            self._tokens.put(None)

    def wait(self) -> None:
        """Wait for a call, at most IDLE_INTERVAL."""
        try:
            self._tokens.get(timeout=IDLE_INTERVAL)
        except Empty:
            return


@dataclass(eq=False)
class Member:
    """One source of several, with a tracker and a propagator of its own."""

    lane: SourceLane
    propagator: Propagation
    identify: Identify
    segmented: int = 0
    """Frames segmented so far."""
    keyframe: Channel[Frame] = field(default_factory=lambda: Channel(1, drop_oldest=True))
    """The newest frame that has not been segmented."""
    results: SimpleQueue[tuple[Frame, Instances]] = field(default_factory=SimpleQueue)

    def advance(self, frame: Frame) -> Instances:
        """Use the results so far, offer `frame` to the worker, and return the instances propagated to it."""
        while not self.results.empty():
            past, detected = self.results.get()
            self.propagator.correct(past.index, self.identify(detected, past.seconds))
        self.keyframe.put(frame)
        return self.propagator.advance(frame)


class SharedKeyframes:
    """Return every frame of all `members` as it arrives; segment their newest frames in turn.

        with SharedKeyframes(members, segment, wake, batch=8) as results:
            for position, frame, instances in results:
                ...

    One worker thread calls `segment` with up to `batch` images, at most one of each source, and begins with
    the source after the last one, so that none is preferred. `wake` wakes the caller's loop; the members'
    lanes call it. A source that ends, or fails with a SourceError, does not affect the others; the error is
    logged. `idle` works as for Pipeline. Leaving the `with` block stops and joins the threads.

    Raises UsageError when `batch` is below 1 or there are no members.
    """

    def __init__(
        self,
        members: Sequence[Member],
        segment: Segment,
        wake: WakeUps,
        *,
        batch: int = 8,
        idle: Idle | None = None,
    ) -> None:
        if batch < 1 or not members:
            raise UsageError(f"Expected a batch of at least 1 and a source. Got {batch}, {len(members)}.")
        self._members, self._segment, self._batch = members, segment, batch
        self._idle, self._wake = idle, wake
        self._wanted, self._ending = WakeUps(), Event()
        self._failure: BaseException | None = None
        self._worker = Thread(target=self._run, name="live_seg worker")

    def __enter__(self) -> Self:
        try:
            self._worker.start()
            for member in self._members:
                member.lane.start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def __iter__(self) -> Iterator[tuple[int, Frame, Instances]]:
        """Yield (position of the source, frame, instances propagated to it) until all sources have ended.

        Raises errors of `segment` and of sources at once, except SourceErrors: the first one of them is
        raised when all sources have ended.
        """
        left, first_error = dict(enumerate(self._members)), None
        while left:
            taken = False
            for position, member in list(left.items()):
                try:
                    frame, ended = member.lane.take()
                except SourceError as error:
                    logger.error("%s ends. %s", member.lane.name, error)
                    first_error, frame, ended = first_error or error, None, True
                if ended:
                    del left[position]
                    member.lane.abandon()
                if frame is not None:
                    taken = True
                    instances = member.advance(frame)
                    self._wanted()
                    yield position, frame, instances
            if self._failure is not None:
                raise self._failure
            if not taken and left:
                self._wake.wait()
                if self._idle is not None and not self._idle():
                    return
        if first_error is not None:
            raise first_error

    def _run(self) -> None:
        """Segment batches until the end. Runs in the worker thread."""
        next_position = 0
        try:
            while not self._ending.is_set():
                taken = self._newest(next_position)
                if not taken:
                    self._wanted.wait()
                    continue
                next_position = (taken[-1][0] + 1) % len(self._members)
                self._segment_batch([(self._members[position], frame) for position, frame in taken])
        except BaseException as error:
            self._failure = error
            self._wake()

    def _newest(self, first: int) -> list[tuple[int, Frame]]:
        """Return up to a batch of (position, newest frame), starting at the position `first`."""
        count = len(self._members)
        taken: list[tuple[int, Frame]] = []
        for position in [(first + step) % count for step in range(count)]:
            if len(taken) < self._batch:
                taken += [(position, frame) for frame in self._members[position].keyframe.take(wait=False)]
        return taken

    def _segment_batch(self, batch: list[tuple[Member, Frame]]) -> None:
        found = self._segment([frame.image for _, frame in batch])
        if len(found) != len(batch):
            raise ValueError(f"segment returned {len(found)} results for {len(batch)} images.")
        for (member, frame), instances in zip(batch, found, strict=True):
            member.results.put((frame, instances))
            member.segmented += 1

    def _stop(self) -> None:
        self._ending.set()
        self._wanted()
        for member in self._members:
            member.lane.abandon()
        for member in self._members:
            member.lane.close()
        if self._worker.ident is not None:
            self._worker.join()
