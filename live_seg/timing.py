"""Timers for the stages of processing a frame."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, get_args

InputStage = Literal["decode", "prepare"]
NetworkStage = Literal["trunk", "proposals", "suppression", "heads", "masks"]
OutputStage = Literal["to pixels", "track", "draw", "encode"]

Stage = InputStage | NetworkStage | OutputStage
"""Name of a stage. An engine times those network stages that it can separate."""

BEFORE: tuple[str, ...] = get_args(InputStage)
"""Stages before the network, in processing order."""
AFTER: tuple[str, ...] = get_args(OutputStage)
"""Stages after the network, in processing order."""

_NOTHING = nullcontext()


class Timer:
    """No-op timer: `with timer("trunk"): ...` does nothing."""

    def __call__(self, stage: Stage) -> AbstractContextManager[None]:  # noqa: ARG002
        """Return a context manager that does nothing."""
        return _NOTHING


class StageTimer(Timer):
    """Sum the seconds spent in each stage. Not thread-safe."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: Stage) -> Iterator[None]:
        """Return a context manager that adds its duration to `stage`, unless an exception is raised in it."""
        start = time.perf_counter()
        yield
        self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - start

    def lap(self) -> dict[str, float]:
        """Return the seconds of each stage since the last call, and reset them."""
        seconds, self._seconds = self._seconds, {}
        return seconds


NO_TIMER = Timer()
