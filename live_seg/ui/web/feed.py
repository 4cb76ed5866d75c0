"""Broadcast of the newest item between threads."""

from collections.abc import Generator
from threading import Lock
from typing import Generic, TypeVar

from live_seg.channel import Channel

T = TypeVar("T")


class Feed(Generic[T]):
    """Broadcast of the newest item to any number of watchers. A slow watcher never blocks `put`."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._watchers: set[Channel[T]] = set()
        self._newest: list[T] = []
        self._closed = False

    def put(self, item: T) -> None:
        """Send `item` to all watchers; it replaces an item that a watcher has not taken yet."""
        with self._lock:
            self._newest = [item]
            for watcher in self._watchers:
                watcher.put(item)

    def watch(self) -> Generator[T]:
        """Yield the newest item, if any, then later ones. Skip items while the caller is busy."""
        channel: Channel[T] = Channel(1, drop_oldest=True)
        with self._lock:
            if self._closed:
                return
            self._watchers.add(channel)
            for item in self._newest:
                channel.put(item)
        try:
            while items := channel.take():
                yield from items
        finally:
            with self._lock:
                self._watchers.discard(channel)

    def close(self) -> None:
        """End the iteration of all watchers."""
        with self._lock:
            self._closed = True
            for watcher in self._watchers:
                watcher.abandon()
