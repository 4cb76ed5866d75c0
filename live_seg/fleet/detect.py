"""Detect the instances of a chunk."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from live_seg.errors import SourceError
from live_seg.fleet.plan import Chunk
from live_seg.fleet.results import Results
from live_seg.fleet.stores import local
from live_seg.pipeline.batched import Pipeline
from live_seg.segmenter import Segmenter
from live_seg.sources.opening import open_source
from live_seg.types import Frame, Instances, Source

Model = Callable[[], Segmenter]
"""Return the model. It is loaded when first called."""


@dataclass(frozen=True)
class Detect:
    """Work for a worker: segment every `every`th frame of `chunk`, at most `batch` frames at once."""

    source: str
    chunk: Chunk
    every: int
    batch: int

    def __call__(self, model: Model) -> bytes:
        """Return packed Results. Raises SourceError, and errors of the model."""
        segment = model()
        reading = Reading(self.source, self.chunk.first, self.chunk.begin, self.chunk.end)
        positions: list[int] = []
        found: list[Instances] = []
        with reading, Pipeline(reading.every(self.every), segment, batch=self.batch) as results:
            for frame, instances in results:
                positions.append(frame.index - self.chunk.first)
                found.append(instances)
        count = len(reading.times)
        allowed = 0 if self.every > 1 else 2 + self.chunk.frames // 20
        if abs(count - self.chunk.frames) > allowed and self.chunk.end != np.inf:
            raise SourceError(
                f"{self.source} has {count} frames from {self.chunk.begin:.2f} to {self.chunk.end:.2f} s, "
                f"but its container lists {self.chunk.frames}. Leave out --workers, or convert it: "
                "ffmpeg -i IN OUT.mp4"
            )
        return Results(
            times=np.array(reading.times),
            size=reading.size,
            segmented=np.array(positions, np.int64),
            instances=found,
            class_names=segment.class_names,
            device=segment.engine.device,
        ).pack()


class Reading(Source):
    """Read frames of a video file from `begin` on and before `end`, in seconds, with indices from `first`.

    Raises as `open_source`.
    """

    def __init__(self, source: str, first: int, begin: float, end: float) -> None:
        self._first = first
        self._opened = open_source(local(source), start=begin, end=end)
        self.name, self.fps, self.size = self._opened.name, self._opened.fps, self._opened.size
        self.times: list[float] = []
        """Seconds of the frames read so far."""

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._opened:
            self.times.append(frame.seconds)
            height, width = frame.image.shape[:2]
            self.size = (width, height)
            yield Frame(self._first + frame.index, frame.seconds, frame.image)

    def every(self, number: int) -> Iterator[Frame]:
        """Read all frames, and yield those whose index is a multiple of `number`."""
        return (frame for frame in self if frame.index % number == 0)

    def close(self) -> None:
        """Close the file."""
        self._opened.close()
