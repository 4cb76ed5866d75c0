"""What a run has done so far, and how long its frames took."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from live_seg.types import Frame, Image, Instances, Segment, Source


class Latency:
    """Mean and percentiles of delays, in memory that does not grow: they are counted by the millisecond."""

    LONGEST = 10.0
    """Seconds; anything longer counts as this in a percentile."""

    def __init__(self) -> None:
        self.count = 0
        self.last = 0.0
        self.total = 0.0
        """Seconds, of all `count`."""
        self._bins = np.zeros(round(self.LONGEST * 1000) + 1, np.int64)

    def add(self, seconds: float) -> None:
        """Count one delay, 0 or more."""
        self.count += 1
        self.last = seconds
        self.total += seconds
        self._bins[min(round(seconds * 1000), len(self._bins) - 1)] += 1

    @property
    def mean(self) -> float:
        """Seconds; 0 before the first."""
        return self.total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """Seconds that `percent` of the delays (above 0 to 100) do not exceed, within 0.5 ms; 0 for none."""
        rank = np.ceil(self.count * percent / 100)  # nearest rank: always a delay that occurred
        return float(np.searchsorted(np.cumsum(self._bins), rank)) / 1000


@dataclass
class Tally:
    """What a session has done so far."""

    frames: int = 0
    """Frames shown: drawn, and handed to every sink."""
    instances: int = 0
    seconds: float = 0.0
    """Wall clock since `show` began."""
    dropped: int = 0
    """Frames never shown, because newer ones came before there was time."""
    segmented: int = 0
    """Frames that went through the network, shown yet or not."""
    begun: float | None = None
    """`time.monotonic()` when a live source captured its first frame; None before, and for others."""
    latency: Latency = field(default_factory=Latency)
    """From the capture of each frame shown until every sink had it; of live sources only."""

    @property
    def fps(self) -> float:
        """Frames shown per second of wall clock, 0 before the first frame."""
        return self.frames / self.seconds if self.seconds else 0.0

    @property
    def network_fps(self) -> float:
        """Frames segmented per second of wall clock, 0 before the first is shown."""
        return self.segmented / self.seconds if self.seconds else 0.0

    def summary(self) -> str:
        """All of it in one line; of a live source with its delays and losses."""
        text = (
            f"{self.frames} frames in {self.seconds:.1f} s ({self.fps:.1f} fps), {self.instances} instances"
        )
        if self.begun is None:
            return text
        mean, most = 1000 * self.latency.mean, 1000 * self.latency.percentile(95)
        return (
            f"{text}; network {self.network_fps:.1f} fps; latency {mean:.0f} ms, 95% within {most:.0f} ms; "
            f"{self.dropped} dropped"
        )

    def timing(self, source: Source) -> Iterable[Frame]:
        """Iterate `source` and note when its first frame was captured, if it is live."""
        for frame in source:
            if source.live and self.begun is None:
                # Somebody else's source may not tell; then it is when the frame arrives here.
                self.begun = source.begun or time.monotonic() - frame.seconds
            yield frame

    def counting(self, segment: Segment) -> Segment:
        """Make `segment` count what went through it."""

        def counted(images: list[Image]) -> list[Instances]:
            found = segment(images)
            self.segmented += len(images)
            return found

        return counted

    def shown(self, frame: Frame, instances: Instances, seconds: float) -> None:
        """Count a frame that every sink has, so many seconds after `show` began."""
        self.frames += 1
        self.instances += len(instances)
        self.seconds = seconds
        self.dropped = frame.index + 1 - self.frames
        if self.begun is not None:
            self.latency.add(time.monotonic() - self.begun - frame.seconds)
