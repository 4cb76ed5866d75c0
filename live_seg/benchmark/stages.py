"""Frames through every stage in one thread, engines taking turns, so that each stage is timed alone."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from live_seg.benchmark.measured import Lap, Seconds, in_columns
from live_seg.drawing.annotate import draw
from live_seg.segmenter import Segmenter
from live_seg.sinks.video_writer import VideoWriter
from live_seg.timing import NO_TIMER, StageTimer
from live_seg.tracking.tracker import Tracker
from live_seg.types import Frame, Image, Instances, Source

MOST_KEPT = 256 * 2**20
"""Bytes of drawn pictures kept to be encoded: 97 of 720p, 43 of 1080p, enough for a rate."""

WARM_UPS = 2
"""Calls before anything counts: the first compiles, the second settles."""


@dataclass(frozen=True)
class Contestant:
    """An engine to be measured."""

    name: str
    segment: Segmenter
    options: tuple[str, ...] = ()
    """What chooses it, and its model, on the command line."""


class _Lane:
    """One contestant's way through the frames, and its laps."""

    def __init__(self, contestant: Contestant) -> None:
        self.laps: list[Lap] = []
        self._segment = contestant.segment
        self._tracker = Tracker()
        self._timer = StageTimer()

    def run(self, frames: Sequence[Frame], decoding: float) -> list[Frame]:
        """Segment, track and draw a batch, each frame of which took `decoding` seconds to read.

        Returns the drawn pictures.
        """
        found = self._timed([frame.image for frame in frames])
        shared = {stage: seconds / len(frames) for stage, seconds in self._timer.lap().items()}
        drawn = []
        for frame, instances in zip(frames, found, strict=True):
            with self._timer("track"):
                tracked = self._tracker.update(instances, frame.seconds)
            with self._timer("draw"):
                picture = draw(frame.image, tracked, self._segment.class_names)
            drawn.append(Frame(frame.index, frame.seconds, picture))
            self.laps.append({"decode": decoding} | shared | self._timer.lap())
        return drawn

    def _timed(self, images: list[Image]) -> list[Instances]:
        engine = self._segment.engine
        engine.timer = self._timer
        try:
            return self._segment(images)
        finally:
            engine.timer = NO_TIMER


def warm_up(contestants: Sequence[Contestant], picture: Image, batch: int) -> None:
    """Let each engine prepare for such pictures, singly and in batches."""
    for contestant in contestants:
        for count in (1, batch) * WARM_UPS:
            contestant.segment([picture] * count)


def measure(
    source: Source,
    contestants: Sequence[Contestant],
    video: Path,
    *,
    batch: int,
    progress: Callable[[int], object] = lambda _: None,
) -> list[dict[str, Seconds]]:
    """Time each stage of each contestant: see `Measured.stages`. `video` is written along the way.

    Each batch goes through one contestant after the other, every time another one first. All have the same
    "decode" and "encode": that is timed at the end, over as many of the first one's pictures as MOST_KEPT
    holds, because an encoder is a process of its own that would slow the others meanwhile; frames beyond get
    the same figures again. `progress` is told of frames as they are done. Raises SourceError and SinkError.
    """
    lanes = [_Lane(contestant) for contestant in contestants]
    kept: list[Frame] = []
    for turn, (frames, decoding) in enumerate(_batches(source, batch)):
        for place in range(len(lanes)):
            lane = lanes[(turn + place) % len(lanes)]
            drawn = lane.run(frames, decoding)
            if lane is lanes[0]:
                room = MOST_KEPT // drawn[0].image.nbytes - len(kept)
                kept += drawn[: max(room, 0 if kept else 1)]
            progress(len(frames))
    encoding = _encode(kept, source.fps, video)
    columns = [in_columns(lane.laps) for lane in lanes]
    return [column | {"encode": np.resize(encoding, len(column["decode"]))} for column in columns]


def _batches(source: Source, batch: int) -> Iterator[tuple[list[Frame], float]]:
    """Frames of `source` in batches, each with the seconds that reading took per frame."""
    frames, timer = iter(source), StageTimer()
    while True:
        with timer("decode"):
            read = list(itertools.islice(frames, batch))
        if not read:
            return
        yield read, timer.lap()["decode"] / len(read)


def _encode(pictures: Sequence[Frame], fps: float, video: Path) -> Seconds:
    """Write `pictures` to `video`: seconds for each, with its share of the end, which empties the encoder."""
    times = [time.perf_counter()]
    with VideoWriter(video, fps) as writer:
        for picture in pictures:
            writer.write(picture, picture.image, Instances.empty())
            times.append(time.perf_counter())
    ending = time.perf_counter() - times[-1]
    return np.diff(times) + ending / len(pictures)
