"""Counts and delays of a run."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from live_seg.types import Frame, Image, Instances, Segment, Source


class Latency:
    """Mean and percentiles of delays, in constant memory: a histogram with bins of 1 ms."""

    LONGEST = 10.0
    """Largest delay in seconds that percentiles distinguish; longer ones count as this."""

    def __init__(self) -> None:
        self.count = 0
        self.last = 0.0
        """The latest delay in seconds."""
        self.total = 0.0
        """Sum of all delays in seconds."""
        self._bins = np.zeros(round(self.LONGEST * 1000) + 1, np.int64)

    def add(self, seconds: float) -> None:
        """Add one delay, 0 or more."""
        self.count += 1
        self.last = seconds
        self.total += seconds
        self._bins[min(round(seconds * 1000), len(self._bins) - 1)] += 1

    @property
    def mean(self) -> float:
        """Mean delay in seconds. 0 before the first."""
        return self.total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """Return the delay in seconds that `percent` (0 to 100, exclusive of 0) of all delays do not exceed.

        The result is accurate to 0.5 ms. It is 0 without any delay.
        """
        rank = np.ceil(self.count * percent / 100)  # nearest rank: always a delay that occurred
        return float(np.searchsorted(np.cumsum(self._bins), rank)) / 1000


@dataclass
class Tally:
    """Counts of a run so far."""

    frames: int = 0
    """Frames shown: drawn, and written to every sink."""
    instances: int = 0
    """Instances in all frames shown."""
    seconds: float = 0.0
    """Wall-clock time since `show` began."""
    dropped: int = 0
    """Frames not shown because newer ones arrived first."""
    segmented: int = 0
    """Frames segmented by the network, shown yet or not."""
    started_at: float | None = None
    """`time.monotonic()` when a live source captured its first frame; None before that, and for files."""
    latency: Latency = field(default_factory=Latency)
    """Delay of each frame shown, from capture until every sink had it. Live sources only."""

    @property
    def fps(self) -> float:
        """Frames shown per second of wall-clock time. 0 before the first frame."""
        return self.frames / self.seconds if self.seconds else 0.0

    @property
    def network_fps(self) -> float:
        """Frames segmented per second of wall-clock time. 0 before the first frame is shown."""
        return self.segmented / self.seconds if self.seconds else 0.0

    def summary(self) -> str:
        """Return the counts as one line; for live sources with network rate, latency and dropped frames."""
        frames, instances = _counted(self.frames, "frame"), _counted(self.instances, "instance")
        text = f"{frames} in {self.seconds:.1f} s ({self.fps:.1f} fps), {instances}"
        if self.started_at is None:
            return text
        mean, p95 = 1000 * self.latency.mean, 1000 * self.latency.percentile(95)
        return (
            f"{text}; network {self.network_fps:.1f} fps; latency {mean:.0f} ms, 95% within {p95:.0f} ms; "
            f"{self.dropped} dropped"
        )

    def timing(self, source: Source) -> Iterable[Frame]:
        """Iterate `source` and record when its first frame was captured, if it is live."""
        for frame in source:
            self.begin(source, time.monotonic() - frame.seconds)
            yield frame

    def begin(self, source: Source, arrived: float | None = None) -> None:
        """Record, once, when `source` captured its first frame, by default at `arrived`."""
        if source.live and self.started_at is None:
            self.started_at = arrived if source.started_at is None else source.started_at

    def counting(self, segment: Segment) -> Segment:
        """Wrap `segment` to count the images passed to it."""

        def counted(images: list[Image]) -> list[Instances]:
            detected = segment(images)
            self.segmented += len(images)
            return detected

        return counted

    def shown(self, frame: Frame, instances: Instances, seconds: float) -> None:
        """Count a frame that was written to every sink, `seconds` after `show` began."""
        self.frames += 1
        self.instances += len(instances)
        self.seconds = seconds
        self.dropped = frame.index + 1 - self.frames
        if self.started_at is not None:
            self.latency.add(max(time.monotonic() - self.started_at - frame.seconds, 0.0))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
