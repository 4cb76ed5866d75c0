"""Several sources with one model: the newest frames of all are segmented together.

source --Frame--> SourceLane --> the caller's loop: correct, advance <--Instances--+
(one reader thread each)         main thread --newest keyframe--> SharedModel: segment a batch
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from live_seg.channel import IDLE_INTERVAL, Idle
from live_seg.errors import SourceError, UsageError
from live_seg.pipeline.member import Member
from live_seg.pipeline.shared import SharedModel
from live_seg.types import Frame, Image, Instances, Segment

logger = logging.getLogger(__name__)

LOOP_SHARE = 1 / 4
"""Share of the processor's time for frames between segmented ones, including the caller's work on them."""


class WakeUps:
    """Wake a thread that waits. Tokens are limited, because one is enough to make it look everywhere."""

    LIMIT = 64

    def __init__(self) -> None:
        self._tokens: SimpleQueue[None] = SimpleQueue()

    def __call__(self) -> None:
        """Wake the thread. May be called in any thread."""
        if self._tokens.qsize() < self.LIMIT:
            self._tokens.put(None)

    def wait(self, seconds: float) -> None:
        """Wait for a call since the last wait, at most `seconds`."""
        with contextlib.suppress(Empty):
            self._tokens.get(timeout=max(seconds, 0.0))
            while True:
                self._tokens.get_nowait()


class Budget:
    """Limits the `share` of its time, 0..1, that a loop spends on work that can be left out."""

    def __init__(self, share: float) -> None:
        self._pause = 1 / share - 1  # seconds for each second of work
        self._free = 0.0

    @property
    def left(self) -> float:
        """Seconds until there is time for more; 0 or less if there is."""
        return self._free - time.monotonic()

    def spend(self, seconds: float) -> None:
        """Count `seconds` of work that have just ended."""
        self._free = max(self._free, time.monotonic()) + seconds * self._pause


class SharedKeyframes:
    """Return frames of all `members` as they arrive; segment their newest frames together.

        with SharedKeyframes(members, segment, batch=8) as results:
            for position, frame, instances in results:
                ...

    A `SharedModel` calls `segment` with up to `batch` images, at most one of each source: those that have
    waited longest for a turn. A source whose frame the model has taken moves on to a new one at once. Other
    frames are returned in turn; if there are several sources, while the loop and the caller take less than
    LOOP_SHARE of the processor's time, because the model needs the rest. A source that ends, or fails with a
    SourceError, does not affect the others; the error is logged, and `on_end` is called with its position and
    the error, if any. `idle` works as for Pipeline. Leaving the `with` block stops and joins the threads.

    Raises UsageError when `batch` is below 1 or there are no members.
    """

    on_end: Callable[[int, SourceError | None], None] | None = None

    def __init__(
        self, members: Sequence[Member], segment: Segment, *, batch: int = 8, idle: Idle | None = None
    ) -> None:
        if batch < 1 or not members:
            raise UsageError(f"Expected a batch of at least 1 and a source. Got {batch}, {len(members)}.")
        self._members, self._batch = members, batch
        self._idle, self._wake = idle, WakeUps()
        self._model = SharedModel(segment, batch)
        self._waits = False  # a request whose turn has not come
        self._turns = list(members)  # for the model: those that have waited longest come first
        self._left = dict(enumerate(members))
        self._shown = len(members) - 1  # position of the source that had the last turn
        self._late = False  # whether frames had to wait for the budget
        self._budget = Budget(1 if len(members) == 1 else min(1, LOOP_SHARE * (os.cpu_count() or 1)))
        self._error: SourceError | None = None  # the first one of a source
        self._failure: BaseException | None = None  # of the model
        self._running = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._model)
            stack.callback(self._close_lanes)
            for member in self._members:
                member.lane.start(self._wake)
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
        while self._left:
            if self._failure is not None:
                raise self._failure
            found = self._next()
            if found is not None:
                began = time.thread_time()
                position, frame = found
                instances = self._members[position].advance(frame)
                self._request()
                yield position, frame, instances
                self._budget.spend(time.thread_time() - began)
            elif self._left:
                self._wake.wait(self._budget.left if self._late else IDLE_INTERVAL)
                if self._idle is not None and not self._idle():
                    return
        if self._error is not None:
            raise self._error

    def _next(self) -> tuple[int, Frame] | None:
        """Return the position of a source and its next frame, if there is one to show."""
        limited = self._budget.left > 0
        self._late = self._late or limited
        for position in sorted(self._left, key=lambda place: (place <= self._shown, place)):
            member = self._members[position]
            if limited and member.keyframe.waiting and not member.lane.ending:
                continue
            if (frame := self._take_from(position)) is not None:
                self._shown = position
                return position, frame
        self._late = limited
        return None

    def _take_from(self, position: int) -> Frame | None:
        """Return the next frame of a source, if there is one. Notice its end."""
        member, failure = self._members[position], None
        try:
            frame, ended = member.lane.take(newest=self._late)
        except SourceError as error:
            logger.error("%s ends. %s", member.lane.name, error)
            self._error, failure, frame, ended = self._error or error, error, None, True
        if ended:
            del self._left[position]
            member.lane.abandon()
            if self.on_end is not None:
                self.on_end(position, failure)
        return frame

    def _request(self) -> None:
        """Ask for the results of the newest frames, unless such a request waits for its turn."""
        if self._waits or not any(member.keyframe.waiting for member in self._members):
            return
        self._waits = True
        taken: list[tuple[Member, Frame]] = []
        self._model.submit(partial(self._choose, taken)).add_done_callback(partial(self._answered, taken))

    def _choose(self, taken: list[tuple[Member, Frame]]) -> list[Image]:
        """Move the newest frames to `taken` and return their images. Runs in the model's thread."""
        self._waits = False  # first, so that a frame that arrives from now on makes a new request
        chosen = [member for member in self._turns if member.keyframe.waiting][: self._batch]
        self._turns = [member for member in self._turns if member not in chosen] + chosen
        taken.extend((member, frame) for member in chosen for frame in member.keyframe.take(wait=False))
        self._wake()
        return [frame.image for _, frame in taken]

    def _answered(self, taken: list[tuple[Member, Frame]], answer: Future[list[Instances]]) -> None:
        """Pass the results on to the members. Runs in the model's thread."""
        if answer.cancelled():
            return
        if (error := answer.exception()) is not None:
            self._failure = error
        else:
            for (member, frame), instances in zip(taken, answer.result(), strict=True):
                member.segmented += 1
                member.results.append((frame, instances))
            self._request()
        self._wake()

    def _close_lanes(self) -> None:
        for member in self._members:
            member.lane.abandon()
        for member in self._members:
            member.lane.close()
