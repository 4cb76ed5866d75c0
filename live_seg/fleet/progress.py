"""The state of a run in a file that other programs can poll, and that the next run continues from."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from live_seg.errors import SinkError
from live_seg.files import replacing
from live_seg.fleet.jobs import Job
from live_seg.urls import redacted

logger = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two updates of the file at least, except when a file or chunk is finished."""

FORMAT = 1
"""Version of the file's format."""

State = Literal["waiting", "running", "complete", "interrupted", "failed"]


@dataclass
class FileState:
    """Progress of one input."""

    source: str
    key: str | None
    """Hash of the source's identity and all options; None if the source cannot be identified."""
    outputs: dict[str, list[int]]
    """Size in bytes and modification time in ns of each output written so far."""
    state: State = "waiting"
    frames: int = 0
    """Frames done."""
    frames_segmented: int = 0
    """Frames of which the instances are known; in chunks, they are drawn later."""
    frames_total: int | None = None
    chunks: int = 0
    """Chunks done."""
    chunks_total: int = 0
    error: str | None = None


@dataclass
class Totals:
    """Counts of a whole run."""

    state: State = "running"
    started: float = field(default_factory=time.time)
    """Seconds since 1970, as `updated`."""
    updated: float = 0.0
    frames: int = 0
    eta_seconds: float | None = None
    """Estimate of the seconds left; None until something is done."""
    retried: int = 0
    failed: int = 0
    workers: int = 1
    """Workers that work or wait for work."""


class Progress:
    """Keep `path` up to date: a JSON object with the counts of the run and a list of its files.

    `keys` has the key of each of `jobs`. What earlier runs completed is kept, also of other files.
    """

    def __init__(self, path: Path, jobs: Sequence[Job], keys: Sequence[str | None]) -> None:
        self._path = path
        self._written = 0.0
        self._begun: float | None = None  # time.monotonic() when the first file was begun
        self._work = 0  # frames segmented, and frames drawn, in this run
        self.totals = Totals()
        earlier = {file.key: file for file in _read(path)}
        self.files = [
            _continued(job, key, earlier.get(key) if key else None)
            for job, key in zip(jobs, keys, strict=True)
        ]
        self._others = [file for key, file in earlier.items() if key not in keys]

    def owns(self, number: int) -> bool:
        """Return whether the outputs of file `number` are of an interrupted run, and may be replaced."""
        return self.files[number].state == "interrupted"

    def begin(self, number: int, frames: int | None, *, segmented: int = 0) -> None:
        """Record that file `number`, of about `frames` frames, is being processed.

        Earlier runs have segmented the first `segmented` of them.
        """
        file = self.files[number]
        file.state, file.error = "running", None
        file.frames, file.frames_segmented, file.frames_total = 0, segmented, frames
        file.chunks = file.chunks_total = 0
        self._begun = self._begun or time.monotonic()
        self.write()

    def segmented(self, number: int, frames: int) -> None:
        """Record that `frames` more frames of file `number` are segmented, but not drawn yet."""
        self.files[number].frames_segmented += frames
        self._work += frames
        self._write_at_times()

    def add(self, number: int, frames: int = 1, *, earlier: bool = False) -> None:
        """Record that `frames` more frames of file `number` are done: by an `earlier` run, or now."""
        file = self.files[number]
        file.frames += frames
        unknown = max(0, file.frames - file.frames_segmented)
        file.frames_segmented += unknown
        if not earlier:
            self._work += frames + unknown
            self.totals.frames += frames
        self._write_at_times()

    def end(self, number: int, outputs: Sequence[Path], state: State, error: str | None = None) -> None:
        """Record how file `number` ended, and its `outputs`, if they exist."""
        file = self.files[number]
        stamps = {str(path): _stamp(path) for path in outputs}
        file.outputs = {path: stamp for path, stamp in stamps.items() if stamp is not None}
        file.state, file.error = state, error
        self.totals.failed += state == "failed"
        self.write()

    def finish(self) -> None:
        """Record that the run has ended."""
        self.totals.state = "failed" if any(file.state == "failed" for file in self.files) else "complete"
        self.write()

    def interrupt(self) -> None:
        """Record that the run was interrupted."""
        self.totals.state = "interrupted"
        for file in self.files:
            if file.state == "running":
                file.state = "interrupted"
        self.write()

    def write(self) -> None:
        """Write the file. A failure is logged: the run does not depend on it."""
        self._written = time.monotonic()
        self.totals.updated = time.time()
        self.totals.eta_seconds = self._seconds_left()
        content = {"format": FORMAT, **asdict(self.totals), "files": [asdict(file) for file in self.files]}
        content["earlier"] = [asdict(file) for file in self._others if file.state == "complete"]
        try:
            with replacing(self._path) as partial:
                partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
        except SinkError as error:
            logger.warning("%s", error)

    def _write_at_times(self) -> None:
        if time.monotonic() - self._written >= INTERVAL:
            self.write()

    def _seconds_left(self) -> float | None:
        """Return the seconds that the rest takes at the speed of this run so far.

        Files not begun count as the average of the others. Segmenting and drawing count as half each.
        """
        if self.totals.state != "running" or self._begun is None or not self._work:
            return None
        known = [file.frames_total for file in self.files if file.frames_total]
        average = sum(known) / max(1, len(known))
        left = sum(
            max(0.0, 2 * (file.frames_total or average) - file.frames_segmented - file.frames)
            for file in self.files
            if file.state in ("waiting", "running", "interrupted")
        )
        return round(left * (time.monotonic() - self._begun) / self._work, 1)


def _continued(job: Job, key: str | None, earlier: FileState | None) -> FileState:
    """Return the earlier state of `job` if it has ended and its outputs are unchanged, else a new one."""
    if earlier is None or any(_stamp(Path(path)) != stamp for path, stamp in earlier.outputs.items()):
        return FileState(redacted(job.source), key, {})
    whole = list(earlier.outputs) == [str(path) for path in job.outputs]
    if earlier.state == "interrupted" or (earlier.state == "complete" and whole):
        return earlier
    return FileState(redacted(job.source), key, {})


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _read(path: Path) -> list[FileState]:
    """Return the files in the progress file `path`; none if it is missing or of another version."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            return []
        return [FileState(**file) for file in (*content["earlier"], *content["files"])]
    except (OSError, ValueError, KeyError, TypeError):
        return []
