"""Time each stage of a frame alone, in one thread. Engines take turns batch by batch."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from live_seg.benchmark.measurement import Lap, Seconds, in_columns
from live_seg.drawing.annotate import draw
from live_seg.segmenter import Segmenter
from live_seg.sinks.video_writer import VideoWriter
from live_seg.timing import NO_TIMER, StageTimer
from live_seg.tracking.tracker import Tracker
from live_seg.types import Frame, Image, Instances, Source

MAX_KEPT = 256 * 2**20
"""Bytes of annotated frames kept for encoding: 97 frames of 720p, 43 of 1080p, enough to measure a rate."""

WARM_UPS = 2
"""Calls that are not timed: the first compiles the network, the second reaches its final speed."""


@dataclass(frozen=True)
class Candidate:
    """An engine to measure."""

    name: str
    segment: Segmenter
    arguments: tuple[str, ...] = ()
    """The command-line arguments that select this engine and its model."""


class _Run:
    """Takes frames through all stages of one candidate and keeps a lap for each frame."""

    def __init__(self, candidate: Candidate) -> None:
        self.laps: list[Lap] = []
        self._segment = candidate.segment
        self._tracker = Tracker()
        self._timer = StageTimer()

    def process(self, frames: Sequence[Frame], decode_seconds: float) -> list[Frame]:
        """Segment, track and draw a batch; return the annotated frames.

        `decode_seconds` is the time that reading took per frame.
        """
        results = self._timed([frame.image for frame in frames])
        shared = {stage: seconds / len(frames) for stage, seconds in self._timer.lap().items()}
        annotated = []
        for frame, instances in zip(frames, results, strict=True):
            with self._timer("track"):
                tracked = self._tracker.update(instances, frame.seconds)
            with self._timer("draw"):
                image = draw(frame.image, tracked, self._segment.class_names)
            annotated.append(Frame(frame.index, frame.seconds, image))
            self.laps.append({"decode": decode_seconds} | shared | self._timer.lap())
        return annotated

    def _timed(self, images: list[Image]) -> list[Instances]:
        engine = self._segment.engine
        engine.timer = self._timer
        try:
            return self._segment(images)
        finally:
            engine.timer = NO_TIMER


def warm_up(candidates: Sequence[Candidate], image: Image, batch: int) -> None:
    """Run each engine on single images and on batches of the size of `image`, so that it compiles."""
    for candidate in candidates:
        for count in (1, batch) * WARM_UPS:
            candidate.segment([image] * count)


def measure(
    source: Source,
    candidates: Sequence[Candidate],
    video: Path,
    *,
    batch: int,
    progress: Callable[[int], object] = lambda _: None,
) -> list[dict[str, Seconds]]:
    """Time each stage of each candidate; return what `Measurement.stages` holds.

    All candidates process a batch before the next one is read, each time starting with another candidate.
    They share the times of "decode" and "encode". Encoding is timed at the end, on as many annotated frames
    of the first candidate as MAX_KEPT bytes hold, because the encoder is a separate process that would slow
    the other stages down; its times are repeated for the remaining frames. The encoded frames are written to
    `video`. `progress` is called with the number of frames just done. Raises SourceError and SinkError.
    """
    runs = [_Run(candidate) for candidate in candidates]
    kept: list[Frame] = []
    for turn, (frames, decode_seconds) in enumerate(_batches(source, batch)):
        for place in range(len(runs)):
            run = runs[(turn + place) % len(runs)]
            annotated = run.process(frames, decode_seconds)
            if run is runs[0]:
                room = MAX_KEPT // annotated[0].image.nbytes - len(kept)
                kept += annotated[: max(room, 0 if kept else 1)]
            progress(len(frames))
    encoding = _encode(kept, source.fps, video)
    columns = [in_columns(run.laps) for run in runs]
    return [column | {"encode": np.resize(encoding, len(column["decode"]))} for column in columns]


def _batches(source: Source, batch: int) -> Iterator[tuple[list[Frame], float]]:
    """Yield the frames of `source` in batches, each with the seconds that reading took per frame."""
    frames, timer = iter(source), StageTimer()
    while True:
        with timer("decode"):
            read = list(itertools.islice(frames, batch))
        if not read:
            return
        yield read, timer.lap()["decode"] / len(read)


def _encode(frames: Sequence[Frame], fps: float, video: Path) -> Seconds:
    """Write `frames` to `video` and return the seconds of each; flushing the encoder is divided evenly."""
    times = [time.perf_counter()]
    with VideoWriter(video, fps) as writer:
        for frame in frames:
            writer.write(frame, frame.image, Instances.empty())
            times.append(time.perf_counter())
    flushing = time.perf_counter() - times[-1]
    return np.diff(times) + flushing / len(frames)
