"""The places of a server, and the queue of visitors who wait for one."""

PATIENCE = 10.0
"""Seconds after which a waiting visitor who has not asked again leaves the queue."""

MAX_WAITING = 1000
"""Longest queue; later visitors are not remembered until it is shorter."""


class Places:
    """Admit at most `limit` visitors at a time, in the order in which they first asked. For one thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._admitted: set[str] = set()
        self._waiting: dict[str, float] = {}

    def ask(self, visitor: str, now: float) -> int:
        """Return 0 if `visitor` is admitted, else the position in the queue, from 1.

        `visitor` is a name that is sent with every request; `now` are seconds of a monotonic clock.
        """
        self._waiting = {name: at for name, at in self._waiting.items() if now - at <= PATIENCE}
        if visitor not in self._waiting and len(self._waiting) >= MAX_WAITING:
            return MAX_WAITING + 1
        self._waiting[visitor] = now  # an entry that exists keeps its place in the order
        position = list(self._waiting).index(visitor)
        if len(self._admitted) + position >= self._limit or visitor in self._admitted:
            return position + 1
        del self._waiting[visitor]
        self._admitted.add(visitor)
        return 0

    def leave(self, visitor: str) -> None:
        """Free the place of an admitted visitor. Ignore others."""
        self._admitted.discard(visitor)
