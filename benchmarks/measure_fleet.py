"""Measure the driver of `live-seg video --workers`: time for each chunk, efficiency of many workers.

Workers are simulated. A clock adds up the CPU time of the driver and the time for which all workers would be
busy, so that a day of video takes minutes. The driver hands out, pickles and stores real results. Left out
are the demuxing of the sources, the joining of the outputs, and Ray itself. The files are alike: what
workers return is computed once for each chunk of a file.

    python benchmarks/measure_fleet.py --fps 30 --instances 4
"""

import argparse
import functools
import heapq
import pickle
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from live_seg.cli.options import StreamOptions
from live_seg.fleet import file_run
from live_seg.fleet.detect import Detect
from live_seg.fleet.driver import Driver, Report
from live_seg.fleet.executor import Done, Executor, Work
from live_seg.fleet.file_run import FileRun, Settings
from live_seg.fleet.jobs import Job
from live_seg.fleet.plan import Chunk
from live_seg.fleet.progress import Progress
from live_seg.fleet.render import Rendered, Style
from live_seg.fleet.results import Results
from live_seg.fleet.track import Track
from live_seg.sinks.codecs import X264
from live_seg.sinks.timeline import Timing
from live_seg.types import Instances

RATE = 25
"""Frames per second of the video."""

CHUNK_SECONDS = 60

RENDER_FPS = 125.0
"""Frames drawn and encoded per second: 720p on 2 cores."""


class Simulated(Executor):
    """Workers that segment `fps` frames per second, on a clock of their own."""

    def __init__(self, workers: int, fps: float, instances: int, track_ms: float | None) -> None:
        self._fps, self._instances, self._track_ms = fps, instances, track_ms
        self._free = [f"worker {number}" for number in range(workers)]
        self._busy: list[tuple[float, str, Any]] = []
        self._begun = time.process_time()
        self._skipped = self._result_seconds = 0.0
        self.work_seconds = 0.0

    def now(self) -> float:
        """Return the seconds since the start."""
        return self.driver_seconds + self._skipped

    @property
    def driver_seconds(self) -> float:
        """CPU time of the driver so far."""
        return time.process_time() - self._begun - self._result_seconds

    def free(self) -> Sequence[str]:
        """Return the workers without work."""
        return tuple(self._free)

    def alive(self) -> Collection[str]:
        """Return all workers."""
        return {*self._free, *(worker for _, worker, _ in self._busy)}

    def start(self, worker: str, work: Work) -> None:
        """Let `worker` be busy for the time that the work takes."""
        pickled = pickle.dumps(work)
        begun = time.process_time()
        result, seconds = returned(work, pickled, self._instances, self._track_ms)
        self._result_seconds += time.process_time() - begun  # on the worker, not in the driver
        if not isinstance(work, Track):
            detects = isinstance(work, Detect)
            seconds = CHUNK_SECONDS * RATE / (self._fps if detects else RENDER_FPS)
        elif self._track_ms is not None:
            seconds = self._track_ms / 1000
        self._free.remove(worker)
        self.work_seconds += seconds
        heapq.heappush(self._busy, (self.now() + seconds, worker, result))

    def wait(self, seconds: float) -> list[Done]:
        """Move the clock on to the next end of work, by up to `seconds`."""
        if self._busy:
            self._skipped += min(max(0.0, self._busy[0][0] - self.now()), seconds)
        ended = []
        now = self.now()
        while self._busy and self._busy[0][0] <= now:
            _, worker, result = heapq.heappop(self._busy)
            self._free.append(worker)
            ended.append(Done(worker, result))
        return ended

    def close(self) -> None:
        """Do nothing."""


KNOWN: dict[Any, tuple[Any, float]] = {}
"""What workers return for a chunk, and the CPU time of it."""


def returned(work: Any, pickled: bytes, instances: int, track_ms: float | None) -> tuple[Any, float]:
    """Return the result of `work`, which a worker gets `pickled`, and the seconds that it takes."""
    if isinstance(work, Detect):
        key: Any = ("detect", work.chunk.number, instances)
    elif isinstance(work, Track):
        key = ("track", work.tracker.frames, instances)
    else:
        return Rendered(None, b"{}\n", 0.0, 1.0, CHUNK_SECONDS * RATE, 0), 0.0
    if key not in KNOWN:
        begun = time.process_time()
        if isinstance(work, Track):
            copied = pickle.loads(pickled)
            if track_ms is not None:
                copied.tracker._identify = unchanged
            result = copied(None)
        else:
            result = packed(work.chunk, instances)
        KNOWN[key] = pickle.dumps(result), time.process_time() - begun
    result, seconds = KNOWN[key]
    return pickle.loads(result), seconds


@functools.cache
def moving(number: int, instances: int) -> Instances:
    """Return the instances of frame `number` of a chunk."""
    rng = np.random.default_rng(number)
    corner = np.arange(instances, dtype=np.float32)[:, None] * 60 + number % 500
    left = corner + rng.normal(0, 1, (instances, 2))
    boxes = np.concatenate([left, left + 50], axis=1).astype(np.float32)
    x, y = np.meshgrid(np.linspace(-1, 1, 28), np.linspace(-1, 1, 28))
    wide, high = rng.uniform(0.6, 1, (2, instances, 1, 1))
    masks = (1 / (1 + np.exp(9 * ((x / wide) ** 2 + (y / high) ** 2 - 1)))).astype(np.float32)
    return Instances(boxes, masks, np.ones(instances, np.int32), np.full(instances, 0.9, np.float32))


def unchanged(instances: Instances, _: float) -> Instances:
    """Return `instances`: tracking that takes no time."""
    return instances


def packed(chunk: Chunk, instances: int) -> bytes:
    """Return results of `chunk` with `instances` in each frame, which move slowly."""
    found = [moving(number, instances) for number in range(chunk.frames)]
    times = (chunk.first + np.arange(chunk.frames)) / RATE
    segmented = np.arange(chunk.frames)
    return Results(times, (1280, 720), segmented, found, ("background", "person"), "a stub").pack()


def chunks_of(hours: float) -> list[Chunk]:
    """Return the chunks of a video of `hours`."""
    frames = CHUNK_SECONDS * RATE
    count = round(hours * 3600 / CHUNK_SECONDS)
    edges = [float(number * CHUNK_SECONDS) for number in range(count)]
    return [
        Chunk(number, number * frames, frames, begin, begin + CHUNK_SECONDS)
        for number, begin in enumerate(edges)
    ]


def measure(
    workers: int, fps: float, instances: int, files: int, hours: float, track_ms: float | None
) -> tuple[float, float]:
    """Return the efficiency (ideal / simulated time), and the driver's milliseconds for each chunk."""
    style = Style("a.mp4", True, StreamOptions().draw_function, 1, Timing(), X264, 23, False)
    jobs = [Job(f"{number}.mp4", Path(f"{number}.mp4"), Path(f"{number}.jsonl")) for number in range(files)]

    def ignore(*_: Any) -> None:
        return None

    opened = mock.MagicMock()
    opened.__enter__.return_value.fps = RATE
    with (
        tempfile.TemporaryDirectory() as name,
        mock.patch.object(file_run, "open_video", return_value=opened),
        mock.patch.object(file_run, "plan", return_value=chunks_of(hours / files)),
        mock.patch.object(FileRun, "_end", return_value=hours * 3600),
        mock.patch.object(FileRun, "finish", ignore),
    ):
        progress = Progress(Path(name) / "progress.json", jobs, [None] * files)
        executor = Simulated(workers, fps, instances, track_ms)
        report = Report(ignore, ignore, ignore, ignore)
        Driver(jobs, progress, executor, Path(name), Settings(style, workers=workers), report).run()
        total, spent = executor.now(), executor.driver_seconds
    return executor.work_seconds / workers / total, 1000 * spent / len(chunks_of(hours))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fps", type=float, default=100.0, help="frames segmented per second and worker")
    parser.add_argument("--instances", type=int, default=0, help="instances in each frame")
    parser.add_argument("--files", type=int, default=24, help="number of files")
    parser.add_argument("--hours", type=float, default=24.0, help="length of all files together")
    parser.add_argument("--track-ms", type=float, help="time to track a chunk; by default, it is tracked")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64, 512])
    given = parser.parse_args()
    print(f"{given.hours:g} h in {given.files} files, {given.instances} instances, {given.fps:g} fps")
    for workers in given.workers:
        efficiency, cost = measure(
            workers, given.fps, given.instances, given.files, given.hours, given.track_ms
        )
        print(f"{workers:4} workers: efficiency {efficiency:.3f}, driver {cost:.1f} ms per chunk", flush=True)


if __name__ == "__main__":
    main()
