"""How long the stages of a frame's way take, where somebody wants to know."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

_NOTHING = nullcontext()


class Timer:
    """No-op timer: `with timer("trunk"): ...` does nothing."""

    def __call__(self, stage: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """Surrounds `stage`."""
        return _NOTHING


class StageTimer(Timer):
    """Adds up the seconds of each stage. For one thread."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Surrounds `stage`; one that fails does not count."""
        begun = time.perf_counter()
        yield
        self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - begun

    def lap(self) -> dict[str, float]:
        """Seconds of the stages since the last lap."""
        seconds, self._seconds = self._seconds, {}
        return seconds


NO_TIMER = Timer()
