"""Where work runs: the interface of executors, and one that runs it in this process."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from live_seg.segmenter import Segmenter

Work = Callable[[Callable[[], Segmenter]], Any]
"""Called on a worker with the function that returns its model, which is loaded once."""


@dataclass(frozen=True)
class Done:
    """The end of one piece of work."""

    worker: str
    value: Any = None
    error: Exception | None = None


class Executor(Protocol):
    """A set of workers, which have names. Each does one piece of work at a time."""

    def free(self) -> Sequence[str]:
        """Return the workers that wait for work."""

    def alive(self) -> Collection[str]:
        """Return the workers that work or wait; not those that are starting or lost."""

    def start(self, worker: str, work: Work) -> None:
        """Let a free worker do `work`."""

    def wait(self, seconds: float) -> list[Done]:
        """Return what has ended, after waiting up to `seconds` for the first."""

    def close(self) -> None:
        """Stop all workers."""


class InProcess(Executor):
    """One worker: this process, with the model that `load` returns. The work is done within `wait`."""

    NAME = "this process"

    def __init__(self, load: Callable[[], Segmenter]) -> None:
        self._model = cache(load)
        self._work: Work | None = None

    def free(self) -> Sequence[str]:
        """Return the worker unless it has work."""
        return [] if self._work else [self.NAME]

    def alive(self) -> Collection[str]:
        """Return the worker."""
        return [self.NAME]

    def start(self, worker: str, work: Work) -> None:  # noqa: ARG002
        """Keep `work` until `wait`."""
        self._work = work

    def wait(self, seconds: float) -> list[Done]:  # noqa: ARG002
        """Do the work, if any, and return its result."""
        work, self._work = self._work, None
        if work is None:
            return []
        try:
            return [Done(self.NAME, work(self._model))]
        except Exception as error:  # reported by the driver, which may try again
            return [Done(self.NAME, error=error)]

    def close(self) -> None:
        """Do nothing."""
