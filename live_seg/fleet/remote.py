"""Workers as actors of Ray: processes on this machine, or on the machines of a cluster."""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from live_seg import __version__
from live_seg.errors import LiveSegError, UsageError
from live_seg.fleet.executor import Done, Executor, Work
from live_seg.segmenter import Segmenter

logger = logging.getLogger(__name__)

CONNECTIONS = 3
"""Times that Ray is started. It gives up when its helpers take 15 s, as on a busy machine."""

STARTS = 120
"""Times that a worker is asked whether it has started again, START_WAIT apart."""

START_WAIT = 1.0
"""Seconds."""

STORE_BYTES = 2**29
"""Shared memory for results on their way to the driver, on this machine."""

IDLE = 0.05
"""Seconds between two looks at the workers while none has work."""


class Worker:
    """The process of a worker: runs work with its own model."""

    def __init__(self, load: Callable[[], Segmenter]) -> None:
        self._model = cache(load)

    def version(self) -> str:
        """Return the version of live_seg on the worker's machine."""
        return __version__

    def run(self, work: Work) -> Any:
        """Return the result of `work`."""
        return work(self._model)


class RayWorkers(Executor):
    """Up to `workers` actors, each with a model that `load` returns.

    `address` is that of a cluster, or "auto"; None starts Ray on this machine. `workers` None is one for each
    GPU of the cluster, or for each machine if there are more. An actor whose process ends is started again,
    where there is room. Raises UsageError without Ray, LiveSegError if it cannot be started or reached.
    """

    def __init__(
        self, load: Callable[[], Segmenter], workers: int | None, address: str | None = None
    ) -> None:
        self._ray = _connected(address, workers)
        resources = self._ray.cluster_resources()
        machines = sum(node["Alive"] for node in self._ray.nodes())
        self.count = workers or max(int(resources.get("GPU", 0)), machines)
        """Number of workers."""
        gpus = int(100 * resources.get("GPU", 0) / self.count) / 100
        options = {"num_cpus": 1, "num_gpus": min(1.0, gpus), "scheduling_strategy": "SPREAD"}
        actor = self._ray.remote(max_restarts=-1, max_task_retries=0, **options)(Worker)
        self._actors = {f"worker {number}": actor.remote(load) for number in range(1, self.count + 1)}
        self._free: list[str] = []
        self._busy: dict[Any, str] = {}
        self._starting: dict[Any, str] = {}
        self._starts = dict.fromkeys(self._actors, 0)
        self._later: dict[str, float] = {}  # time.monotonic() at which to ask a worker
        for name in self._actors:
            self._begin(name)

    def free(self) -> Sequence[str]:
        """Return the workers that wait for work."""
        return tuple(self._free)

    def alive(self) -> Collection[str]:
        """Return the workers that work or wait."""
        return {*self._free, *self._busy.values()}

    def start(self, worker: str, work: Work) -> None:
        """Let a free worker do `work`."""
        self._free.remove(worker)
        self._busy[self._actors[worker].run.remote(work)] = worker

    def wait(self, seconds: float) -> list[Done]:
        """Return what has ended. Raises LiveSegError when no worker is left, or one has another version."""
        for worker in [name for name, when in self._later.items() if when <= time.monotonic()]:
            del self._later[worker]
            self._begin(worker)
        waiting = [*self._busy, *self._starting]
        if self._later:
            seconds = min(seconds, START_WAIT)
        if not waiting:
            if not self._free and not self._later:
                raise LiveSegError("No worker is left. See the logs of Ray: /tmp/ray/session_latest/logs")
            time.sleep(min(seconds, IDLE))
            return []
        ready, rest = self._ray.wait(waiting, timeout=seconds)
        if rest:
            ready += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        ended = []
        for call in ready:
            if call in self._busy:
                ended.append(self._end(call))
            else:
                self._started(call)
        return ended

    def close(self) -> None:
        """Stop the workers, and Ray if it was started here."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._ray.shutdown()

    def _begin(self, worker: str) -> None:
        self._starting[self._actors[worker].version.remote()] = worker

    def _started(self, call: Any) -> None:
        """Note that a worker has started, or try again."""
        worker = self._starting.pop(call)
        try:
            version = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            self._starts[worker] += 1
            again = isinstance(error, self._ray.exceptions.ActorUnavailableError)
            if again and self._starts[worker] < STARTS:
                self._later[worker] = time.monotonic() + START_WAIT
            else:
                logger.warning("%s is lost: %s", worker, _first_line(error))
            return
        if version != __version__:
            raise LiveSegError(
                f"A worker has live_seg {version}, but this machine {__version__}. Install the same version."
            )
        self._starts[worker] = 0
        self._free.append(worker)

    def _end(self, call: Any) -> Done:
        worker = self._busy.pop(call)
        errors = self._ray.exceptions
        try:
            done = Done(worker, self._ray.get(call))
        except errors.RayTaskError as error:
            cause = error.cause
            done = Done(worker, error=cause if isinstance(cause, Exception) else error)
        except errors.RayError as error:
            self._begin(worker)  # the actor is being restarted
            return Done(worker, error=LiveSegError(f"The worker was lost: {_first_line(error)}"))
        self._free.append(worker)
        return done


def _connected(address: str | None, workers: int | None) -> Any:
    """Return Ray's module, connected to the cluster at `address` or to workers started here."""
    try:
        ray: Any = import_module("ray")
    except ImportError:
        raise UsageError("More than one worker needs Ray: pip install 'live-seg[ray]'") from None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    for number in range(CONNECTIONS):
        try:
            if address is not None:
                context = ray.init(address, **quiet)
            else:
                context = ray.init(
                    num_cpus=workers, include_dashboard=False, object_store_memory=STORE_BYTES, **quiet
                )
        except Exception as error:  # Ray raises this class itself when a node does not start
            ray.shutdown()
            if address is not None or number + 1 == CONNECTIONS:
                where = f"reached at {address}" if address else "started"
                raise LiveSegError(
                    f"Ray cannot be {where}: {_first_line(error)} Check it with: ray status"
                ) from error
        else:
            if context.dashboard_url:
                logger.info("Ray's dashboard: http://%s", context.dashboard_url)
            return ray
    raise AssertionError


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
