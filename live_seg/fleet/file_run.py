"""The way of one file through its chunks: what is done, what can be done next, and the outputs."""

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from live_seg.errors import SinkError
from live_seg.ffmpeg import audio_tracks
from live_seg.files import claim, replacing
from live_seg.fleet.detect import Detect
from live_seg.fleet.executor import Work
from live_seg.fleet.jobs import Job
from live_seg.fleet.plan import Chunk, plan
from live_seg.fleet.render import Render, Rendered, Style
from live_seg.fleet.resume import key_of
from live_seg.fleet.stores import local, upload
from live_seg.fleet.track import FileTracker, Track, Tracked
from live_seg.sinks.containers import container_for
from live_seg.sinks.parts import Part, write_list
from live_seg.sinks.remux import CONCAT, Ending, remux
from live_seg.sources.converted_files import open_video

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """Options of a run that are the same for all files."""

    style: Style
    batch: int = 4
    smooth: float | None = None
    fps: float | None = None
    """Nominal frame rate of the output; None for that of the source."""
    start: float = 0.0
    end: float = math.inf
    workers: int = 1
    chunk_seconds: float | None = None
    overwrite: bool = False


@dataclass
class Task:
    """Work on one chunk, with the workers that have failed at it."""

    file: "FileRun"
    chunk: int
    kind: str
    """detect, track or render."""
    make: Callable[[], Work]
    errors: list[str] = field(default_factory=list)
    avoid: set[str] = field(default_factory=set)
    """Workers that failed."""


class FileRun:
    """One file, cut into chunks, with everything that is done so far in `folder`.

    A chunk is segmented, then tracked, then drawn. Results that `folder` holds are not computed again.
    Raises SourceError if the file cannot be read, SinkError if `folder` cannot be written.
    """

    def __init__(self, number: int, job: Job, key: str, folder: Path, settings: Settings) -> None:
        self.number, self.job, self.folder = number, job, folder
        self._settings, self._style = settings, settings.style
        self.started = time.monotonic()
        self._source = source = local(job.source)
        with open_video(source) as opened:
            fps = settings.fps or opened.fps
        self.chunks = plan(
            source,
            start=settings.start,
            end=settings.end,
            every=self._style.every,
            workers=settings.workers,
            seconds=settings.chunk_seconds,
        )
        self._keys = [key_of(key, chunk.first, chunk.begin, chunk.end) for chunk in self.chunks]
        self._tracker = FileTracker(fps, self._style.timing, smooth=settings.smooth)
        self._next = 0  # chunk to track next
        self._is_tracking = False
        self._waiting: Tracked | None = None  # the chunk before it, of which the end is not known yet
        self._rendered: dict[int, dict[str, Any]] = {}
        self.device = ""
        self.failures: list[str] = []
        self._ending: Ending | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"Cannot create the folder {folder}: {error.strerror}.") from error

    @property
    def frames(self) -> int:
        """Number of frames according to the container."""
        return sum(chunk.frames for chunk in self.chunks)

    @property
    def complete(self) -> bool:
        """True if all chunks are drawn."""
        return len(self._rendered) == len(self.chunks)

    @property
    def instances(self) -> int:
        """Number of instances in all frames."""
        return sum(part["instances"] for part in self._rendered.values())

    @property
    def frames_done(self) -> int:
        """Number of frames that are drawn."""
        return sum(part["frames"] for part in self._rendered.values())

    def detections(self) -> Iterator[Task]:
        """Yield a task for each chunk that is not segmented yet."""
        for chunk in self.chunks:
            if not self._path(chunk.number, "detected").exists():
                yield Task(self, chunk.number, "detect", partial(self._detect, chunk))

    def tracking(self) -> Task | None:
        """Return the task to track the next chunk, once, if it is segmented."""
        number = self._next
        if self._is_tracking or number == len(self.chunks) or not self._path(number, "detected").exists():
            return None
        self._is_tracking = True
        detected = self._path(number, "detected")
        return Task(self, number, "track", lambda: Track(self._tracker, detected.read_bytes()))

    def accept(self, task: Task, value: Any) -> list[Task]:
        """Keep the result of `task`; return the tasks to draw that can follow. Raises SinkError."""
        if task.kind == "detect":
            self._store(task.chunk, "detected", value)
        elif task.kind == "render":
            self._keep(task.chunk, value)
        else:
            return self._tracked(value)
        return []

    def _tracked(self, tracked: Tracked) -> list[Task]:
        """Keep a tracked chunk, after the chunk before it, whose end is known now."""
        number, tasks = self._next, list[Task]()
        if self._waiting is not None:
            tasks += self._drawing(number - 1, self._waiting, tracked.places[:1])
        if number + 1 == len(self.chunks):
            tasks += self._drawing(number, tracked, np.array([self._end(tracked.tracker)]))
        self._tracker, self._waiting, self.device = tracked.tracker, tracked, tracked.device
        self._next, self._is_tracking = number + 1, False
        return tasks

    def finish(self) -> None:
        """Join the parts to the outputs, and delete the folder. Raises SinkError."""
        if self.job.video is not None:
            self._join(self.job.video)
        if self.job.json is not None:
            target = claim(self.job.json, overwrite=self._settings.overwrite)
            try:
                with target.name.open("wb") as output:
                    for chunk in self.chunks:
                        with self._path(chunk.number, "jsonl").open("rb") as lines:
                            shutil.copyfileobj(lines, output)
            except OSError as error:
                raise SinkError(f"Cannot write {self.job.json}: {error.strerror}.") from error
            target.publish(overwrite=self._settings.overwrite)
        self._upload()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _upload(self) -> None:
        """Write outputs that belong on a store to it, and keep empty files as a record of them."""
        for path, url in self.job.uploads.items():
            upload(path, url)
            path.write_bytes(b"")

    def _detect(self, chunk: Chunk) -> Detect:
        return Detect(self.job.source, chunk, self._style.every, self._settings.batch)

    def _drawing(self, number: int, tracked: Tracked, end: Any) -> Iterator[Task]:
        """Yield the task to draw chunk `number`, of which the last frame ends at `end` (1,) of the output."""
        if self._path(number, "done").exists():
            self._rendered[number] = json.loads(self._path(number, "done").read_bytes())
            return
        self._store(number, "tracked", tracked.results)
        work = Render(
            source=self.job.source,
            style=self._style,
            tracked=b"",
            first=tracked.first,
            until=self.chunks[number].end,
            places=np.concatenate([tracked.places, end]),
            rate=self._tracker.rate,
        )
        yield Task(
            self,
            number,
            "render",
            lambda: replace(work, tracked=self._path(number, "tracked").read_bytes()),
        )

    def _keep(self, number: int, rendered: Rendered) -> None:
        if rendered.video is not None:
            self._store(number, self._video_suffix, rendered.video)
        if self._style.json:
            self._store(number, "jsonl", rendered.json)
        self._store(number, "done", rendered.summary())
        self._rendered[number] = json.loads(rendered.summary())
        self._path(number, "tracked").unlink(missing_ok=True)

    def _end(self, tracker: FileTracker) -> float:
        """Return the end of the last frame in the output, in seconds."""
        self._ending = Ending.of(self._source, tracker.timeline, tracker.rate)
        return tracker.timeline.end(self._ending.last_frame())

    def _join(self, video: Path) -> None:
        container = container_for(video, alpha=self._style.alpha)
        parts = [
            Part(self._path(number, self._video_suffix), part["begin"])
            for number, part in sorted(self._rendered.items())
            if part["has_video"]
        ]
        end = max(part["end"] for part in self._rendered.values())
        assert self._ending is not None
        audio = self._ending.audio(audio_tracks(self._source), self._tracker.timeline, end)
        listed = self.folder / "parts.txt"
        write_list(parts, listed, container)
        target = claim(video, overwrite=self._settings.overwrite)
        try:
            tag = self._style.codec.tag if self._style.codec and container.fragmented else ()
            remux(listed, target.name, container, end=end, audio=audio, tag=tag, options=CONCAT)
        except BaseException:
            target.discard()
            raise
        target.publish(overwrite=self._settings.overwrite)

    @property
    def _video_suffix(self) -> str:
        return f"part{Path(self._style.video or '').suffix}"

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"{number:05d}-{self._keys[number]}.{suffix}"

    def _store(self, number: int, suffix: str, content: bytes) -> None:
        path = self._path(number, suffix)
        with replacing(path) as unfinished:
            unfinished.write_bytes(content)
