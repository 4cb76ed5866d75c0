"""A small cache of what was used most recently."""

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keep the values of the `limit` most recently used keys. Not safe for use by two threads at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[K, V] = {}

    def get(self, key: K, make: Callable[[], V]) -> V:
        """Return the value of `key`. A missing one is made, after the least recently used one was dropped."""
        if key in self._kept:
            value = self._kept.pop(key)
        else:
            while len(self._kept) >= self._limit:
                del self._kept[next(iter(self._kept))]
            value = make()
        self._kept[key] = value
        return value
