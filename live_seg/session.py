"""One sitting, from source to sinks: frames segmented, tracked, drawn and handed on in order."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from live_seg.errors import UsageError
from live_seg.keyframes import EveryNth, Identify, Newest
from live_seg.pipeline import Idle, Pipeline, Policy
from live_seg.sinks.files import Sink
from live_seg.sources.opening import open_source
from live_seg.structures import Frame, Image, Instances, Segment, Source
from live_seg.tracking.smooth import Smoother
from live_seg.tracking.track import Tracker


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
    """What a sitting has done so far."""

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


def run(
    source: str | int | Path | Source,
    segment: Segment,
    *,
    batch: int = 4,
    policy: Policy | None = None,
    track: bool = True,
    carry: bool | None = None,
    every: int = 1,
    smooth: float | None = None,
    tally: Tally | None = None,
    idle: Idle | None = None,
) -> Generator[tuple[Frame, Instances]]:
    """Segment the frames of `source` in the background and yield (frame, its instances) in order.

    `source` is anything `open_source` takes, or an open Source, which is then left open unless it is live. Up
    to `batch` frames are segmented at once. Policy "all" makes a source wait, "latest" drops what is too old;
    by default files wait and live sources drop. With `track`, instances carry ids that stay over time; with
    `smooth`, the least score shown, their masks and scores are steadied, too (see `Smoother`).

    With `carry` and "latest", the default when live, every frame is yielded as it comes, with the instances
    of the newest segmented one carried along; without `carry`, segmented frames alone. With "all", `every` N
    segments frames 0, N, 2N, ... and carries in between. `tally`, the one that `show` gets, hears what is
    segmented and when a live source began. `idle` is called some 20 times a second while nothing comes, in
    the caller's thread, to serve a window; the loop ends when it returns False.

    Raises SourceError, and whatever `segment` raises; UsageError when `every` is below 1, or more with
    "latest" or without `carry`. Leaving the loop early stops every thread once the generator is closed (`del`
    it, or use `contextlib.closing`).
    """
    tally = tally or Tally()
    identify = _identify(track, smooth)
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(open_source(source)) if isinstance(source, str | int | Path) else source
        policy = policy or ("latest" if opened.live else "all")
        if every != 1 and (policy == "latest" or carry is False):
            raise UsageError(f"every is {every}: that takes a source that waits (policy all), and carrying.")
        carries = every != 1 or (policy == "latest" and (opened.live if carry is None else carry))
        frames, counted = tally.timing(opened), tally.counting(segment)
        stages = (
            _carrying(frames, counted, identify, every=every, batch=batch, idle=idle)
            if carries
            else Pipeline(frames, counted, batch=batch, policy=policy, idle=idle)
        )
        # A live source is closed first: that ends the reader's wait for a camera that is silent.
        with stages as results, contextlib.closing(opened) if opened.live else contextlib.nullcontext():
            for frame, instances in results:
                yield frame, instances if carries else identify(instances, frame.seconds)


def _identify(track: bool, smooth: float | None) -> Identify:
    """What follows and steadies instances from frame to frame."""
    if not track:
        return _unchanged
    tracker = Tracker()
    if smooth is None:
        return tracker.update
    smoother = Smoother(smooth)
    return lambda instances, seconds: smoother.update(tracker.update(instances, seconds), seconds)


def _unchanged(instances: Instances, _: float) -> Instances:
    return instances


def _carrying(
    frames: Iterable[Frame],
    segment: Segment,
    identify: Identify,
    *,
    every: int,
    batch: int,
    idle: Idle | None,
) -> Newest | EveryNth:
    """Give every frame its instances, found or carried: those of each `every`th, or of the newest."""
    from live_seg.tracking.carry import Carrier

    if every == 1:
        return Newest(frames, segment, Carrier(), identify, idle=idle)
    # In a file what was found holds at once: it comes in the frame it was found in.
    return EveryNth(frames, segment, Carrier(takeover=1), identify, every=every, batch=batch, idle=idle)


def show(
    results: Iterator[tuple[Frame, Instances]],
    draw: Callable[[Frame, Instances], Image],
    sinks: Sequence[Sink],
    tally: Tally,
    *,
    limit: float = float("inf"),
) -> Iterator[Frame]:
    """Draw each result, write it to every sink, count it in `tally`; then yield its frame.

    Ends with `results`, when a sink asks to stop, or before the first frame at or past `limit` seconds of
    source time. Raises SinkError.
    """
    begun = time.monotonic()
    for frame, instances in results:
        if frame.seconds >= limit:
            return
        picture = draw(frame, instances)
        # A list, so that every sink gets the frame even if one asks to stop.
        wanted = [sink.write(frame, picture, instances) for sink in sinks]
        tally.shown(frame, instances, time.monotonic() - begun)
        yield frame
        if not all(wanted):
            return
