"""Several sources with one model: the newest frames of all are segmented together.

source --Frame--> SourceLane --> the caller's loop: correct, advance <--Instances--+
(one reader thread each)         main thread --newest keyframe--> SharedModel: segment a batch
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from live_seg.channel import IDLE_INTERVAL, Channel, Idle
from live_seg.errors import SourceError, UsageError
from live_seg.pipeline.keyframes import Identify, Propagation
from live_seg.pipeline.shared import SharedModel
from live_seg.sources.lane import SourceLane
from live_seg.types import Frame, Image, Instances, Segment

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
        """Use the results so far, offer `frame` to the model, and return the instances propagated to it."""
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

    A `SharedModel` calls `segment` with up to `batch` images, at most one of each source; a batch begins with
    the source after the last one, so that none is preferred. `wake` wakes the caller's loop; the members'
    lanes call it. A source that ends, or fails with a SourceError, does not affect the others; the error is
    logged, and `on_end` is called with its position and the error, if any. `idle` works as for Pipeline.
    Leaving the `with` block stops and joins the threads.

    Raises UsageError when `batch` is below 1 or there are no members.
    """

    on_end: Callable[[int, SourceError | None], None] | None = None

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
        self._members, self._batch = members, batch
        self._idle, self._wake = idle, wake
        self._model = SharedModel(segment, batch)
        self._waits = False  # a request whose turn has not come
        self._first = 0  # position at which the next batch begins
        self._failure: BaseException | None = None
        self._running = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._model)
            stack.callback(self._close_lanes)
            for member in self._members:
                member.lane.start()
            self._running = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def __iter__(self) -> Iterator[tuple[int, Frame, Instances]]:
        """Yield (position of the source, frame, instances propagated to it) until all sources have ended.

        Raises errors of `segment` and of sources at once, except SourceErrors: the first one of them is
        raised when all sources have ended.
        """
        left, first_error = dict(enumerate(self._members)), None
        while left:
            taken = False
            for position, member in list(left.items()):
                failure: SourceError | None = None
                try:
                    frame, ended = member.lane.take()
                except SourceError as error:
                    logger.error("%s ends. %s", member.lane.name, error)
                    first_error, failure, frame, ended = first_error or error, error, None, True
                if ended:
                    del left[position]
                    member.lane.abandon()
                    if self.on_end is not None:
                        self.on_end(position, failure)
                if frame is not None:
                    taken = True
                    instances = member.advance(frame)
                    self._request()
                    yield position, frame, instances
            if self._failure is not None:
                raise self._failure
            self._request()
            if not taken and left:
                self._wake.wait()
                if self._idle is not None and not self._idle():
                    return
        if first_error is not None:
            raise first_error

    def _request(self) -> None:
        """Ask for the results of the newest frames, unless such a request waits for its turn."""
        if self._waits or not any(member.keyframe.waiting for member in self._members):
            return
        self._waits = True
        taken: list[tuple[Member, Frame]] = []
        self._model.submit(partial(self._take, taken)).add_done_callback(partial(self._answered, taken))

    def _take(self, taken: list[tuple[Member, Frame]]) -> list[Image]:
        """Move the newest frames to `taken` and return their images. Runs in the model's thread."""
        self._waits = False  # first, so that a frame that arrives from now on makes a new request
        count = len(self._members)
        for position in [(self._first + step) % count for step in range(count)]:
            member = self._members[position]
            newest = member.keyframe.take(wait=False) if len(taken) < self._batch else []
            if newest:
                taken.append((member, newest[0]))
                self._first = (position + 1) % count
        return [frame.image for _, frame in taken]

    def _answered(self, taken: list[tuple[Member, Frame]], answer: Future[list[Instances]]) -> None:
        """Pass the results on to the members. Runs in the model's thread."""
        if answer.cancelled():
            return
        if (error := answer.exception()) is not None:
            self._failure = error
        else:
            for (member, frame), instances in zip(taken, answer.result(), strict=True):
                member.results.put((frame, instances))
                member.segmented += 1
        self._wake()

    def _close_lanes(self) -> None:
        for member in self._members:
            member.lane.abandon()
        for member in self._members:
            member.lane.close()
