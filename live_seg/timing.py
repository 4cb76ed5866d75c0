"""Timers for the stages of processing a frame."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

_NOTHING = nullcontext()


class Timer:
    """No-op timer: `with timer("trunk"): ...` does nothing."""

    def __call__(self, stage: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """Return a context manager that does nothing."""
        return _NOTHING


class StageTimer(Timer):
    """Sum the seconds spent in each stage. Not thread-safe."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Return a context manager that adds its duration to `stage`, unless an exception is raised in it."""
        begun = time.perf_counter()
        yield
        self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - begun

    def lap(self) -> dict[str, float]:
        """Return the seconds of each stage since the last call, and reset them."""
        seconds, self._seconds = self._seconds, {}
        return seconds


NO_TIMER = Timer()
