"""Broadcast of the newest item in an event loop."""

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Feed(Generic[T]):
    """Broadcast of the newest item to any number of watchers, in one event loop."""

    def __init__(self) -> None:
        self._newest: list[T] = []
        self._count = 0
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, item: T) -> None:
        """Send `item` to all watchers; it replaces an item that a watcher has not taken yet."""
        self._newest = [item]
        self._count += 1
        self._wake()

    async def watch(self) -> AsyncIterator[T]:
        """Yield the newest item, if any, then later ones. Skip items while the caller is busy."""
        seen = 0
        while not self._closed:
            if seen < self._count:
                seen = self._count
                yield self._newest[0]
            else:
                await self._changed.wait()

    def close(self) -> None:
        """End the iteration of all watchers."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
