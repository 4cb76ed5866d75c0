"""Assign track ids to the results of the chunks of a file, in order."""

import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from live_seg.fleet.detect import Model
from live_seg.fleet.results import Results
from live_seg.pipeline.run import Identifier
from live_seg.sinks.timeline import Timeline, Timing, frame_rate


@dataclass(frozen=True, eq=False)
class Tracked:
    """The frames of a chunk with track ids."""

    results: bytes
    """Packed Results."""
    tracker: "FileTracker"
    """The tracker after this chunk."""
    device: str
    """Name of the engine and of the processor that segmented the chunk."""
    first: int
    """Index of the first frame, counted as frames were decoded."""
    places: NDArray[np.float64]
    """Seconds of the output at which each frame of the chunk begins."""


class FileTracker:
    """Track the chunks of one file as a single run does: ids, smoothing and the times of the output.

    `fps` is the file's nominal frame rate; `smooth` the score threshold for display, or None.
    """

    def __init__(self, fps: float, timing: Timing, *, smooth: float | None) -> None:
        self._identify = Identifier(track=True, smooth=smooth)
        self.rate = frame_rate(fps)
        self.timeline = Timeline(self.rate, timing)
        self.frames = 0
        """Number of frames so far."""

    def add(self, results: Results) -> Tracked:
        """Return the next chunk, tracked."""
        places = np.array([self.timeline.place(seconds) for seconds in results.times.tolist()])
        times = results.times[results.segmented].tolist()
        tracked = [
            self._identify(instances, seconds)
            for instances, seconds in zip(results.instances, times, strict=True)
        ]
        first = self.frames
        self.frames += len(results.times)
        return Tracked(replace(results, instances=tracked).pack(), self, results.device, first, places)


@dataclass(frozen=True, eq=False)
class Track:
    """Work for a worker: track the next chunk of a file, whose Results are packed in `detected`."""

    tracker: FileTracker
    detected: bytes

    def __call__(self, model: Model) -> Tracked:  # noqa: ARG002 - tracking needs no model
        """Return the chunk, tracked. Raises LiveSegError for damaged results."""
        tracker = copy.deepcopy(self.tracker)  # another try begins with the same state
        return tracker.add(Results.unpack(self.detected))
