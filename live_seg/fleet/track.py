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
    """The frames of a chunk with track ids, and before them those that drawing must have seen."""

    results: bytes
    """Packed Results of `lead` frames of earlier chunks and of all frames of the chunk."""
    tracker: "FileTracker"
    """The tracker after this chunk."""
    device: str
    """Name of the engine and of the processor that segmented the chunk."""
    lead: int
    first: int
    """Index of the first frame in `results`, counted as frames were decoded."""
    places: NDArray[np.float64]
    """Seconds of the output at which each frame of the chunk begins."""


class FileTracker:
    """Track the chunks of one file as a single run does: ids, smoothing and the times of the output.

    `fps` is the file's nominal frame rate; `smooth` the score threshold for display, or None. `lead` is the
    number of seconds before a chunk that its drawing depends on.
    """

    def __init__(self, fps: float, timing: Timing, *, smooth: float | None, lead: float) -> None:
        self._identify = Identifier(track=True, smooth=smooth)
        self._lead = lead
        self._before: Results | None = None
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
        count, first = len(results.times), self.frames
        self.frames += count
        results = replace(results, instances=tracked)
        if self._lead and self._before is not None and count:
            results = _joined(_since(self._before, results.times[0] - self._lead), results)
        self._before = results if self._lead else None
        lead = len(results.times) - count
        return Tracked(results.pack(), self, results.device, lead, first - lead, places)


@dataclass(frozen=True, eq=False)
class Track:
    """Work for a worker: track the next chunk of a file, whose Results are packed in `detected`."""

    tracker: FileTracker
    detected: bytes

    def __call__(self, model: Model) -> Tracked:  # noqa: ARG002 - tracking needs no model
        """Return the chunk, tracked. Raises LiveSegError for damaged results."""
        tracker = copy.deepcopy(self.tracker)  # another try begins with the same state
        return tracker.add(Results.unpack(self.detected))


def _since(results: Results, seconds: float) -> Results:
    """Return the frames of `results` from the last segmented one at or before `seconds` on."""
    earlier = np.flatnonzero(results.times[results.segmented] <= seconds)
    begin = int(earlier[-1]) if len(earlier) else 0
    frame = int(results.segmented[begin]) if len(results.segmented) else 0
    return replace(
        results,
        times=results.times[frame:],
        segmented=results.segmented[begin:] - frame,
        instances=results.instances[begin:],
    )


def _joined(before: Results, after: Results) -> Results:
    return replace(
        after,
        times=np.concatenate([before.times, after.times]),
        segmented=np.concatenate([before.segmented, after.segmented + len(before.times)]),
        instances=[*before.instances, *after.instances],
    )
