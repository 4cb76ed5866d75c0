"""Workers of Ray: the same output as in one process, also when workers, machines and the driver are lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from live_seg.cli.options import StreamOptions
from live_seg.errors import UsageError
from live_seg.fleet import remote
from live_seg.fleet.executor import Work
from live_seg.fleet.remote import RayWorkers
from tests.clips import clip, names
from tests.stand_ins import ROOT
from tests.test_fleet import Bright, Recorded, fleet, jobs_in

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""The signal that no process can handle, where there is one."""

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


def test_without_ray_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(remote, "import_module", missing)
    with pytest.raises(UsageError, match=r"live-seg\[ray\]"):
        RayWorkers(cast("Any", Bright), 2)


@dataclass(frozen=True)
class Changed:
    """Work that does something else first: once, if there is no file `marker` yet."""

    work: Work
    marker: Path
    first: Callable[[], Any]

    def __call__(self, model: Callable[[], Any]) -> Any:
        if not self.marker.exists():
            self.marker.write_text(str(os.getpid()))
            self.first()
        return self.work(model)


def die() -> None:
    os.kill(os.getpid(), KILL)


def fill_the_disk() -> None:
    raise OSError(28, "No space left on device")


class Faulty(RayWorkers):
    """Workers of which one does something else before a piece of work."""

    def __init__(self, workers: int, marker: Path, first: Callable[[], Any]) -> None:
        super().__init__(cast("Any", Bright), workers)
        self._marker, self._first = marker, first
        self.handed: list[str] = []

    def start(self, worker: str, work: Work) -> None:
        self.handed.append(worker)
        changed = Changed(work, self._marker, self._first) if len(self.handed) == 3 else work
        super().start(worker, changed)


def wait_for_both(executor: RayWorkers) -> None:
    """Wait until two workers run: one that starts late would find nothing left to do."""
    while len(executor.alive()) < 2:
        assert executor.wait(0.5) == []


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ray", reason="needs live-seg[ray]")
    path = tmp_path_factory.mktemp("clips") / "moving.mp4"
    return clip(path, rate="24000/1001", seconds=3.0, audio=1, encode=("-g", "10"))


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("first", [die, fill_the_disk])
def test_a_worker_that_fails_is_replaced(moving: Path, tmp_path: Path, first: Callable[[], Any]) -> None:
    alone, job = jobs_in(tmp_path / "alone", moving), jobs_in(tmp_path / "out", moving)
    fleet([alone], StreamOptions(), tmp_path / "work-alone", Recorded())
    executor = Faulty(2, tmp_path / "marker", first)
    try:
        wait_for_both(executor)
        progress, failures = fleet([job], StreamOptions(), tmp_path / "work", cast("Any", executor))
    finally:
        executor.close()
    assert (tmp_path / "marker").exists()
    assert not failures
    assert progress.totals.retried == 1
    assert len(set(executor.handed)) == 2
    assert (tmp_path / "out" / "a.jsonl").read_bytes() == (tmp_path / "alone" / "a.jsonl").read_bytes()
    assert (tmp_path / "out" / "a.mp4").read_bytes() == (tmp_path / "alone" / "a.mp4").read_bytes()


@POSIX
@pytest.mark.slow
def test_a_machine_that_is_removed(moving: Path, tmp_path: Path) -> None:
    ray: Any = pytest.importorskip("ray", reason="needs live-seg[ray]")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        removed: list[str] = []

        class Losing(RayWorkers):
            def start(self, worker: str, work: Work) -> None:
                super().start(worker, work)
                if not removed and len(self._busy) == 2:
                    removed.append(worker)
                    cluster.remove_node(second, allow_graceful=False)

        executor = Losing(cast("Any", Bright), 2, cluster.address)
        wait_for_both(executor)
        job = jobs_in(tmp_path / "out", moving)
        try:
            progress, failures = fleet([job], StreamOptions(), tmp_path / "work", cast("Any", executor))
        finally:
            executor.close()
    finally:
        ray.shutdown()
        cast("Any", cluster).shutdown()
    assert removed
    assert not failures
    assert progress.totals.retried >= 1
    assert len((tmp_path / "out" / "a.jsonl").read_text().splitlines()) == 72


PROGRAM = """
import sys, time
from pathlib import Path
from typing import Any, cast
from live_seg.cli.options import StreamOptions
from live_seg.fleet.remote import RayWorkers
from tests.test_fleet import Bright, fleet, jobs_in

class Slow(Bright):
    def __call__(self, images):
        time.sleep(0.1 * len(images))
        return super().__call__(images)

class Counting(RayWorkers):
    def start(self, worker, work):
        print(type(work).__name__, flush=True)
        super().start(worker, work)

if __name__ == "__main__":
    folder, source = Path(sys.argv[1]), Path(sys.argv[2])
    executor = Counting(Slow, 2)
    fleet([jobs_in(folder / "out", source)], StreamOptions(), folder / "work", executor)
    executor.close()
"""


@POSIX
@pytest.mark.slow
def test_a_driver_that_is_killed_continues(moving: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(moving)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver:
        deadline = time.monotonic() + 250
        while not list(tmp_path.glob("work/*/*.detected")) and time.monotonic() < deadline:
            time.sleep(0.1)
        driver.send_signal(KILL)
    done = len(list(tmp_path.glob("work/*/*.detected")))
    assert done >= 1
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    chunks = json.loads((tmp_path / "work" / "progress.json").read_text())["files"][0]["chunks_total"]
    assert again.stdout.splitlines().count("Detect") == chunks - done
    assert len((tmp_path / "out" / "a.jsonl").read_text().splitlines()) == 72


COMMAND = """
import time
from types import SimpleNamespace
from live_seg.cli.options import StreamOptions
from live_seg.cli.start import main
from tests.test_fleet import Bright

class Slow(Bright):
    def __call__(self, images):
        time.sleep(0.05 * len(images))
        return super().__call__(images)

if __name__ == "__main__":
    StreamOptions.with_network_threshold = lambda _: SimpleNamespace(load=Slow)
    main()
"""


@POSIX
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_is_interrupted_ends_its_workers_and_continues(
    tmp_path: Path, number: int, code: int
) -> None:
    pytest.importorskip("ray", reason="needs live-seg[ray]")
    source = clip(tmp_path / "in.mp4", rate="5", seconds=36, audio=1)
    outputs = ("-o", "out.mp4", "--json", "out.jsonl")
    command = [sys.executable, "-c", COMMAND, "video", str(source), *outputs, "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as driver:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("*.work/*/*.detected")) and time.monotonic() < deadline:
            time.sleep(0.1)
        started = psutil.Process(driver.pid).children(recursive=True)
        assert len(started) > 2  # with the processes of Ray itself
        driver.send_signal(number)
        assert driver.wait(timeout=60) == code
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive
    assert names(tmp_path) == ["in.mp4", "out.mp4.work"]
    state = json.loads((tmp_path / "out.mp4.work" / "progress.json").read_text())
    assert (state["state"], state["workers"]) == ("interrupted", 2)
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert names(tmp_path) == ["in.mp4", "out.jsonl", "out.mp4"]
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 180
