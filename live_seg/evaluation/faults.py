"""Faults of a file's entries, counted by kind."""

import logging
from pathlib import Path

from live_seg.errors import SourceError

logger = logging.getLogger(__name__)

MOST_KINDS = 5
"""Kinds of faults that a message lists."""


class Faults:
    """Faults of a file's entries: the number of each kind, and its first example."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, where: str) -> None:
        """Count a fault of `kind` at the place `where`."""
        count, first = self._found.get(kind, (0, where))
        self._found[kind] = (count + 1, first)

    def refuse(self, path: Path, fix: str) -> None:
        """Raise SourceError that lists the faults of the file `path`, if there are any."""
        if self._found:
            raise SourceError(f"{path} is invalid: {self._listed()}. {fix}")

    def warn(self, path: Path) -> None:
        """Log the faults of the file `path`, if there are any."""
        if self._found:
            logger.warning("%s: %s.", path, self._listed())

    def _listed(self) -> str:
        kinds = [f"{count} x {kind} (first: {first})" for kind, (count, first) in self._found.items()]
        more = [f"and {len(kinds) - MOST_KINDS} other kinds"] if len(kinds) > MOST_KINDS else []
        return "; ".join(kinds[:MOST_KINDS] + more)
