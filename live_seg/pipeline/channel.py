"""Bounded channels between threads: data, end and failure travel the same way, in that order."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

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
