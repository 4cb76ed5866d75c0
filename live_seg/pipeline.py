"""Threads: read ahead, segment in batches, hand back in order, stop cleanly.

    source --Frame--> Channel --up to a batch--> segment --(Frame, Instances)--> Channel --> the caller's loop
    reader thread                                worker thread                               main thread

Data, end and failure of a stage travel the same channel, in that order.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Generic, Literal, Self, TypeVar

from live_seg.errors import UsageError
from live_seg.structures import Frame, Instances, Segment

T = TypeVar("T")

Policy = Literal["all", "latest"]
"""What to do with frames that come faster than they are segmented: let them wait, or drop the oldest."""

BATCHES_AHEAD = 2
"""Batches of frames kept ready under `all`: one to go on with, one being filled, so that one slow read (a
key frame) does not stall the model. Under `latest` it is one batch: what waits longer is no longer live."""

BATCHES_BEHIND = 1
"""Batches of results kept for the caller: the model starts the next batch while the caller draws this one."""

CTRL_C_WITHIN = 1.0
"""Seconds after which a waiting thread looks up: a Ctrl-C in the instant before a wait does not end the wait,
and would otherwise only be seen when something arrives."""

IDLE_EVERY = 0.05
"""Seconds between calls of `idle` while nothing arrives: a window wants to be served 20 times a second."""

Idle = Callable[[], bool]
"""What the caller's loop does while it waits, to serve a window; False when it shall wait no longer."""


@dataclass(frozen=True, eq=False)
class _End:
    """The last thing in a channel: nothing comes any more, because of `error` if there was one."""

    error: BaseException | None = None


class Channel(Generic[T]):
    """A bounded line of things from one thread to one other: ended by its writer, or given up by its reader.

    `size` is the most things that wait. The line is made of SimpleQueues, one for the things and one for
    the free places, because a single call of theirs cannot be cut in two by Ctrl-C. A Condition can: then its
    lock stays taken, and the threads that need it hang.
    """

    def __init__(self, size: int, *, drop_oldest: bool = False) -> None:
        self.dropped = 0
        self._drop_oldest = drop_oldest
        self._abandoned = False
        self._things: SimpleQueue[T | _End] = SimpleQueue()
        self._places: SimpleQueue[None] = SimpleQueue()
        for _ in range(size):
            self._places.put(None)

    def put(self, thing: T) -> bool:
        """Add `thing`, waiting for a free place or dropping the oldest. False: nobody wants it any more."""
        if self._drop_oldest and self._places.empty():
            self._drop_one()
        self._places.get()
        if self._abandoned:
            self._places.put(None)
            return False
        self._things.put(thing)
        return True

    def _drop_one(self) -> None:
        with contextlib.suppress(Empty):  # the reader was quicker: its place comes free by itself
            thing = self._things.get_nowait()
            if isinstance(thing, _End):
                self._things.put(thing)  # another stage failed: that is for the reader
                return
            self.dropped += 1
            self._places.put(None)

    def take(self, limit: int = 1, *, wait: bool = True, idle: Idle | None = None) -> list[T]:
        """Wait for one thing and return all that are ready, up to `limit`, in order; empty means the end.

        Without `wait`, empty means that nothing is ready. `idle` is called every IDLE_EVERY seconds while
        nothing comes; its False is the end for good. Raises what it raises, and the error the channel was
        closed with, once everything put before it has been taken.
        """
        taken: list[T] = []
        while len(taken) < limit and not ((taken or not wait) and self._things.empty()):
            if self._abandoned:
                return []
            thing = self._next(idle)
            if isinstance(thing, _End):
                self._things.put(thing)  # it stays the last, for whoever asks again
                if thing.error is not None and not taken:
                    raise thing.error
                break
            taken.append(thing)
            self._places.put(None)
        return taken

    def _next(self, idle: Idle | None) -> T | _End:
        while True:
            with contextlib.suppress(Empty):
                return self._things.get(timeout=IDLE_EVERY if idle else CTRL_C_WITHIN)
            if idle is not None and not idle():
                return _End()

    def close(self, error: BaseException | None = None) -> None:
        """For the writer, or a stage that fails beside it: nothing follows, because of `error` if any."""
        self._things.put(_End(error))

    def abandon(self) -> None:
        """For the reader, or anyone: wake both sides; from now on `put` says False and `take` the end."""
        self._abandoned = True
        self._places.put(None)
        self._things.put(_End())


class Stages:
    """Threads with channels between them; a `with` block starts them, leaving it stops and joins them.

    `stages` are the threads by name: what each does, and the channel that hears how it ended. `channels` are
    all that a thread may wait for. Of a call that cannot be interrupted the end is waited for.
    """

    def __init__(
        self, channels: Sequence[Channel[Any]], **stages: tuple[Callable[[], None], Channel[Any]]
    ) -> None:
        self._channels = channels
        self._threads = [
            Thread(target=_run, args=stage, name=f"live_seg {name}") for name, stage in stages.items()
        ]

    def __enter__(self) -> Self:
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _check_entered(self) -> None:
        if self._threads[0].ident is None:
            name = type(self).__name__
            raise RuntimeError(f"A pipeline runs inside a with block: with {name}(...) as results.")

    def _stop(self) -> None:
        for channel in self._channels:
            channel.abandon()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()


class Pipeline(Stages):
    """Segments the frames of `source` in two threads and hands them back in order.

        with Pipeline(source, segment) as results:
            for frame, instances in results:
                ...

    `source` is iterated by the reader thread alone, `segment` called by the worker thread alone, with 1 to
    `batch` images: as many as are ready, of whatever sizes they have. Policy `all` makes the source wait for
    the caller; `latest` reads on and drops the oldest waiting frame.

    Leaving the `with` block, for whatever reason, stops and joins both threads. A call of `source` or
    `segment` that is under way cannot be interrupted: it is waited for, so a source needs its own timeout.
    While no result comes, the loop calls `idle` now and then, if given, and ends when that returns False.
    Raises UsageError when `batch` is below 1.
    """

    def __init__(
        self,
        source: Iterable[Frame],
        segment: Segment,
        *,
        batch: int = 4,
        policy: Policy = "all",
        idle: Idle | None = None,
    ) -> None:
        if batch < 1:
            raise UsageError(f"A batch needs at least 1 frame. Got {batch}.")
        self._idle = idle
        live = policy == "latest"
        self._frames: Channel[Frame] = Channel(batch if live else BATCHES_AHEAD * batch, drop_oldest=live)
        self._results: Channel[tuple[Frame, Instances]] = Channel(BATCHES_BEHIND * batch)
        super().__init__(
            (self._frames, self._results),
            reader=(partial(read, source, self._frames), self._frames),
            worker=(partial(work, self._frames, segment, self._results, batch=batch), self._results),
        )

    @property
    def dropped(self) -> int:
        """Frames read but never segmented because newer ones came: 0 unless the policy is `latest`."""
        return self._frames.dropped

    def __iter__(self) -> Iterator[tuple[Frame, Instances]]:
        """Yield (frame, its instances) in the order of the source.

        Raises the first error of the source or of `segment`, with its traceback, after every result finished
        before it; ValueError when `segment` returns another number of results than it was given images.
        """
        self._check_entered()
        while pair := self._results.take(idle=self._idle):
            yield from pair


def read(source: Iterable[Frame], frames: Channel[Frame]) -> None:
    """Put what `source` gives into `frames`: the reader thread's stage."""
    for frame in source:
        if not frames.put(frame):
            return


def work(
    frames: Channel[Frame], segment: Segment, results: Channel[tuple[Frame, Instances]], *, batch: int
) -> None:
    """Segment what is in `frames`, up to `batch` at once, into `results`: the worker thread's stage.

    Raises ValueError when `segment` returns another number of results than it was given images.
    """
    while taken := frames.take(batch):
        instances = segment([frame.image for frame in taken])
        if len(instances) != len(taken):
            raise ValueError(f"segment returned {len(instances)} results for {len(taken)} images.")
        for pair in zip(taken, instances, strict=True):
            if not results.put(pair):
                return


def _run(stage: Callable[[], None], output: Channel[Any]) -> None:
    """Run one thread's `stage`; how it ended, SystemExit and MemoryError included, goes into its `output`."""
    try:
        stage()
    except BaseException as error:
        output.close(error)
    else:
        output.close()
