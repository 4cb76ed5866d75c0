"""Bounded channel between two threads. Items, end and errors arrive in the order in which they were sent."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

INTERRUPT_INTERVAL = 1.0
"""Seconds between wake-ups of a thread that waits. A Ctrl-C just before the wait does not end the wait; it is
handled at the next wake-up."""

IDLE_INTERVAL = 0.05
"""Seconds between calls of `idle` and `watch` while nothing arrives: a window needs 20 updates a second."""

Idle = Callable[[], bool]
"""Callback of a reader that waits, for example to update a window. Returns False to stop waiting."""


@dataclass(frozen=True, eq=False)
class _End:
    """Mark the end of a channel, with the error that caused it if there was one."""

    error: BaseException | None = None


class Channel(Generic[T]):
    """Bounded queue from one writer thread to one reader thread.

    The writer ends it with `close`, the reader with `abandon`. At most `size` items wait. With
    `drop_oldest`, a full channel drops its oldest item instead of blocking the writer.

    It consists of two SimpleQueues, one for items and one for free slots, because Ctrl-C cannot interrupt a
    SimpleQueue call halfway. A threading.Condition can stay locked after a Ctrl-C, which is a deadlock.
    """

    def __init__(self, size: int, *, drop_oldest: bool = False) -> None:
        self.dropped = 0
        """Items dropped so far."""
        self.watch: Callable[[], None] | None = None
        """Called every IDLE_INTERVAL while the reader waits. Raises an error if the writer hangs."""
        self._drop_oldest = drop_oldest
        self._abandoned = False
        self._items: SimpleQueue[T | _End] = SimpleQueue()
        self._slots: SimpleQueue[None] = SimpleQueue()
        for _ in range(size):
            self._slots.put(None)

    @property
    def waiting(self) -> bool:
        """True if an item or the end waits for the reader."""
        return not self._items.empty()

    def put(self, item: T) -> bool:
        """Add `item`, waiting for a free slot or dropping the oldest item. Return False once abandoned."""
        if not self.ready():
            return False
        self._slots.get()
        self._items.put(item)
        return True

    def ready(self) -> bool:
        """Wait until `put` would not block. Return False once abandoned. For the writer."""
        if self._drop_oldest and self._slots.empty():
            self._drop_one()
        self._slots.get()
        self._slots.put(None)
        return not self._abandoned

    def _drop_one(self) -> None:
        with contextlib.suppress(Empty):  # the reader took the last item and will free its slot
            item = self._items.get_nowait()
            if isinstance(item, _End):
                self._items.put(item)  # the error of another stage: keep it for the reader
                return
            self.dropped += 1
            self._slots.put(None)

    def take(self, limit: int = 1, *, wait: bool = True, idle: Idle | None = None) -> list[T]:
        """Wait for an item and return all available items in order, at most `limit`. Empty means the end.

        Without `wait`, empty means that no item is available. While nothing arrives, `idle` is called every
        IDLE_INTERVAL; if it returns False the channel ends for the reader. Raises any error of `idle` or
        `watch`, and the error the channel was closed with once all earlier items have been taken.
        """
        taken: list[T] = []
        while len(taken) < limit and not ((taken or not wait) and self._items.empty()):
            if self._abandoned:
                return []
            item = self._next(idle)
            if isinstance(item, _End):
                self._items.put(item)  # keep it last, for later calls
                if item.error is not None and not taken:
                    raise item.error
                break
            taken.append(item)
            self._slots.put(None)
        return taken

    def _next(self, idle: Idle | None) -> T | _End:
        interval = IDLE_INTERVAL if idle or self.watch else INTERRUPT_INTERVAL
        while True:
            with contextlib.suppress(Empty):
                return self._items.get(timeout=interval)
            if self.watch is not None:
                self.watch()
            if idle is not None and not idle():
                return _End()

    def close(self, error: BaseException | None = None) -> None:
        """End the channel, with `error` if there was one. For the writer, or another stage that failed."""
        self._items.put(_End(error))

    def abandon(self) -> None:
        """Wake both threads: from now on `put` returns False and `take` nothing. May be called anywhere."""
        self._abandoned = True
        self._slots.put(None)
        self._items.put(_End())
