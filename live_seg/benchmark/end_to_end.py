"""Time a whole video, with the threads of a real run."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from live_seg.drawing.annotate import draw
from live_seg.pipeline.run import run, show
from live_seg.pipeline.stats import Tally
from live_seg.segmenter import Segmenter
from live_seg.sinks.video_writer import VideoWriter
from live_seg.types import Frame, Source


class Excerpt(Source):
    """The first `limit` frames of `source`. Closing it closes `source`."""

    def __init__(self, source: Source, limit: int) -> None:
        self.name, self.fps, self.size = source.name, source.fps, source.size
        self.frames = limit if source.frames is None else min(limit, source.frames)
        self._source, self._limit = source, limit

    def __iter__(self) -> Iterator[Frame]:
        return itertools.islice(self._source, self._limit)

    def close(self) -> None:
        """Close the underlying source."""
        self._source.close()


def end_to_end_fps(
    source: Source,
    segment: Segmenter,
    video: Path,
    *,
    batch: int,
    progress: Callable[[int], object] = lambda _: None,
) -> float:
    """Write `source`, annotated, to `video` and return the frames per second.

    The time runs from the first read until the file is complete. It includes filling the pipeline and
    flushing the encoder, which weigh less the longer the video is. `progress` is called with the number of
    frames just done. Raises SourceError and SinkError.
    """
    tally = Tally()
    started = time.perf_counter()
    with (
        VideoWriter(video, source.fps) as writer,
        contextlib.closing(run(source, segment, batch=batch, tally=tally)) as results,
    ):
        for _ in show(
            results,
            lambda frame, instances: draw(frame.image, instances, segment.class_names),
            [writer],
            tally,
        ):
            progress(1)
    return tally.frames / (time.perf_counter() - started)
