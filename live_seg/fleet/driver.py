"""Hand out the chunks of all files to workers, repeat what fails, and finish each file."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live_seg.errors import SinkError, SourceError, UsageError, WeightsError
from live_seg.fleet.executor import Done, Executor
from live_seg.fleet.file_run import FileRun, Settings, Task
from live_seg.fleet.jobs import Job
from live_seg.fleet.progress import Progress

logger = logging.getLogger(__name__)

TRIES = 3
"""Times that a piece of work is tried, each on another worker if there is one."""

WAIT = 1.0
"""Seconds between two looks at the workers, at most."""

ORDER = {"track": 0, "render": 1, "detect": 2}
"""Work that comes first while there is a choice: others wait for tracking, and drawing ends a chunk."""

VERBS = {"track": "Tracking", "render": "Drawing", "detect": "Segmenting"}

FATAL = (UsageError, WeightsError)
"""Errors of every chunk alike, which are not repeated."""


@dataclass(frozen=True)
class Report:
    """Functions that the driver calls."""

    opened: Callable[[int, int], Any]
    """Called with the number of a file and its frames, once it is planned."""
    advanced: Callable[[int], Any]
    """Called with frames: half of a chunk's when it is segmented, half when it is drawn."""
    complete: Callable[[FileRun], Any]
    """Called when the outputs of a file are complete."""
    failed: Callable[[int, str], Any]
    """Called with the number of a file and the reason why it has none."""
    completing: Callable[[], AbstractContextManager[object]] = nullcontext
    """Returns the context in which the outputs of a file are completed, which may delay an interrupt."""


class Driver:
    """Process `jobs`, of which `progress` knows the state, with the workers of `executor`.

    Unfinished work of the file with the key K is kept in `folder`/K.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        progress: Progress,
        executor: Executor,
        folder: Path,
        settings: Settings,
        report: Report,
    ) -> None:
        self._progress, self._executor, self._folder = progress, executor, folder
        self._settings, self._report = settings, report
        states = zip(jobs, progress.files, strict=True)
        self._unopened = deque(
            (number, job) for number, (job, file) in enumerate(states) if file.state != "complete"
        )
        self._open: list[FileRun] = []
        self._queue: list[Task] = []
        self._running: dict[str, Task] = {}

    def run(self) -> None:
        """Process all files. Raises UsageError and WeightsError, which concern all of them."""
        while True:
            self._open_files()
            self._hand_out()
            if not self._running and not self._queue and not self._open and not self._unopened:
                break
            for done in self._executor.wait(WAIT):
                self._end(done)
            self._close_files()
        self._progress.finish()

    def _open_files(self) -> None:
        """Plan further files while there is not enough work for all workers."""
        while self._unopened and len(self._queue) <= self._settings.workers:
            number, job = self._unopened.popleft()
            state = self._progress.files[number]
            key = state.key or f"file-{number}"
            try:
                file = FileRun(number, job, key, self._folder / key, self._settings)
            except (SourceError, SinkError) as error:
                self._fail(number, str(error))
                continue
            self._open.append(file)
            tasks = list(file.detections())
            segmented = file.frames - sum(file.chunks[task.chunk].frames for task in tasks)
            self._progress.begin(number, file.frames, segmented=segmented)
            state.chunks_total = len(file.chunks)
            self._report.opened(number, file.frames)
            self._report.advanced(segmented // 2)
            self._queue += [*filter(None, [file.tracking()]), *tasks]

    def _hand_out(self) -> None:
        """Start work on the free workers, in the order of files and chunks; what comes last, first."""
        self._queue.sort(key=lambda task: (task.file.number, ORDER[task.kind], task.chunk))
        alive = set(self._executor.alive())
        self._progress.totals.workers = len(alive)
        for worker in self._executor.free():
            suitable = (task for task in self._queue if worker not in task.avoid or alive <= task.avoid)
            task = next(suitable, None)
            if task is not None:
                self._queue.remove(task)
                self._running[worker] = task
                self._executor.start(worker, task.make())

    def _end(self, done: Done) -> None:
        """Keep a result, or try again."""
        task = self._running.pop(done.worker)
        error = done.error
        if error is None:
            drawn = task.file.frames_done
            try:
                self._queue += task.file.accept(task, done.value)
            except (SinkError, SourceError) as failure:
                error = failure
            else:
                self._count(task, task.file.frames_done - drawn)
                return
        if isinstance(error, FATAL):
            raise error
        task.errors.append(str(error) or type(error).__name__)
        task.avoid.add(done.worker)
        if len(task.errors) < TRIES:
            logger.warning("%s on %s failed, and is tried again: %s", _name(task), done.worker, error)
            self._progress.totals.retried += 1
            self._queue.append(task)
        else:
            task.file.failures.append(f"{_name(task)} failed {TRIES} times: {task.errors[-1]}")

    def _count(self, task: Task, drawn: int) -> None:
        """Report the progress by `task`, after which `drawn` more frames are."""
        chunk, file = task.file.chunks[task.chunk], self._progress.files[task.file.number]
        half = chunk.frames // 2
        if task.kind == "detect":
            self._report.advanced(half)
            self._progress.segmented(task.file.number, chunk.frames)
        elif drawn:
            self._report.advanced(drawn - half)
            file.chunks += 1
            self._progress.add(task.file.number, drawn, earlier=task.kind == "track")

    def _close_files(self) -> None:
        """Complete the files whose chunks are all drawn; give up those that cannot continue."""
        self._queue += filter(None, [file.tracking() for file in self._open])
        busy = {task.file for task in (*self._queue, *self._running.values())}
        for file in [file for file in self._open if file not in busy]:
            self._open.remove(file)
            if not file.complete:
                self._give_up(file)
                continue
            with self._report.completing():
                self._finish(file)

    def _finish(self, file: FileRun) -> None:
        try:
            file.finish()
        except SinkError as error:
            file.failures.append(str(error))
            self._give_up(file)
        else:
            self._progress.end(file.number, file.job.outputs, "complete")
            self._report.complete(file)

    def _give_up(self, file: FileRun) -> None:
        reasons = "\n".join(file.failures)
        kept = f"What is done is kept in {file.folder}; the same command tries the rest again."
        self._fail(file.number, f"{reasons}\n{kept}")

    def _fail(self, number: int, reason: str) -> None:
        self._progress.end(number, (), "failed", reason)
        self._report.failed(number, reason)


def _name(task: Task) -> str:
    chunk = task.file.chunks[task.chunk]
    first, last = chunk.first, chunk.first + chunk.frames - 1
    place = f"chunk {chunk.number + 1} of {len(task.file.chunks)} (frames {first} to {last})"
    return f"{VERBS[task.kind]} {place} of {task.file.job.source}"
