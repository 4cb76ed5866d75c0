"""Rates and counts measured while a source is shown."""

import time
from collections import deque
from dataclasses import dataclass

from live_seg.pipeline.stats import Tally
from live_seg.types import Frame


@dataclass(frozen=True)
class Metrics:
    """Values shown beside a frame."""

    camera_fps: float
    """Frames delivered by the source per second."""
    network_fps: float
    """Frames segmented per second."""
    latency: float | None
    """Seconds from the capture of a frame to its display; None when unknown."""
    instances: int
    """Instances shown in this frame."""
    dropped: int
    """Frames not shown so far because newer ones arrived first."""
    recorded: float | None = None
    """Length of the current recording in seconds; None when not recording."""


class Rate:
    """Rate of an event over the last `window` seconds and at most `limit` events. For one thread."""

    def __init__(self, window: float = 2.0, limit: int = 1000) -> None:
        self._window = window
        self._times: deque[float] = deque(maxlen=limit)

    def add(self, now: float) -> None:
        """Add an event at `now`, in seconds of a monotonic clock."""
        self._times.append(now)

    def per_second(self, now: float) -> float:
        """Return events per second, 0 for fewer than two events. Declines towards 0 once events stop."""
        while len(self._times) > 2 and self._times[0] < now - self._window:
            self._times.popleft()
        if len(self._times) < 2:
            return 0.0
        intervals = len(self._times) - 1
        first, last = self._times[0], self._times[-1]
        # Count an overdue event as if it arrived now, so that the rate of a stalled source declines.
        seconds = max(last - first, (now - first) * intervals / (intervals + 1))
        return intervals / seconds if seconds > 0 else 0.0


class Meter:
    """Measure the metrics of a session. `tally` provides the counts of its run."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self.reset()

    def reset(self) -> None:
        """Restart both rates, so that frames skipped during a pause do not count."""
        self._camera, self._network = Rate(), Rate()
        self._index: int | None = None
        self._segmented = self._tally.segmented

    def add(self, frame: Frame) -> None:
        """Count the frames that were delivered and segmented up to `frame`, the newest."""
        self._now, self._stalled = time.monotonic(), False
        previous = frame.index - 1 if self._index is None else self._index
        for _ in range(frame.index - previous):
            self._camera.add(self._now)
        for _ in range(self._tally.segmented - self._segmented):
            self._network.add(self._now)
        self._index, self._segmented = frame.index, self._tally.segmented

    def stall(self) -> None:
        """Advance time without a frame: the rates decline and the latency is unknown."""
        self._now, self._stalled = time.monotonic(), True

    def metrics(self, instances: int, recorded: float | None) -> Metrics:
        """Return the metrics as of the last `add` or `stall`."""
        latency = self._tally.latency
        return Metrics(
            camera_fps=self._camera.per_second(self._now),
            network_fps=self._network.per_second(self._now),
            latency=None if self._stalled or not latency.count else latency.last,
            instances=instances,
            dropped=self._tally.dropped,
            recorded=recorded,
        )
