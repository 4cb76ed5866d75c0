"""The run loop, from source to sinks: segment, track, draw and deliver frames in order."""

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

from live_seg.channel import Idle
from live_seg.choices import Policy
from live_seg.errors import UsageError
from live_seg.pipeline.batched import Pipeline
from live_seg.pipeline.keyframes import Identify, LatestKeyframe, PeriodicKeyframes
from live_seg.pipeline.stages import Feeding
from live_seg.pipeline.stats import Tally
from live_seg.sources.opening import open_source
from live_seg.tracking.duplicates import without_duplicates
from live_seg.tracking.smoother import Smoother
from live_seg.tracking.tracker import Tracker
from live_seg.types import Frame, Image, Instances, Segment, Sink, Source


def run(
    source: str | int | os.PathLike[str] | Source | Iterable[Image | Frame],
    segment: Segment,
    *,
    batch: int = 4,
    policy: Policy | None = None,
    track: bool = True,
    propagate: bool | None = None,
    every: int = 1,
    smooth: float | None = None,
    tally: Tally | None = None,
    idle: Idle | None = None,
) -> Generator[tuple[Frame, Instances]]:
    """Segment the frames of `source` in the background and yield (frame, its instances) in order.

    `source` is anything `open_source` accepts (a path, a camera number, a URL, an iterable of BGR images or
    of Frames), or an open Source, which is left open unless it is live. At most `batch` frames are segmented
    at once. Policy "all" makes the source wait; "latest" drops outdated frames. The default is "latest" for
    live sources and "all" for others. With `track`, instances have track ids that persist over time. `smooth`
    is the score threshold for display; if given, masks and scores are also smoothed over time (see
    `Smoother`). Of instances of different classes with the same box, one is kept: see `without_duplicates`.

    With `propagate` and policy "latest" (the default for live sources), every frame is yielded as it arrives,
    with the instances of the latest segmented frame propagated to it. Without `propagate`, only segmented
    frames are yielded. With policy "all", `every` N segments frames 0, N, 2N, ... and propagates in between.
    `tally`, if given, counts the segmented frames; pass the same one to `show`. `idle` is called about 20
    times a second while no frame arrives, in the caller's thread, for example to update a window; the loop
    ends when it returns False.

    Raises SourceError; any error of `segment`; UsageError when `every` is below 1, or above 1 with policy
    "latest" or `propagate` False. After leaving the loop early, close the generator to stop all threads (use
    `contextlib.closing`, or delete it).
    """
    tally = tally or Tally()
    identify = Identifier(track=track, smooth=smooth)
    with contextlib.ExitStack() as stack:
        opened = source if isinstance(source, Source) else stack.enter_context(open_source(source))
        policy = policy or ("latest" if opened.live else "all")
        if every != 1 and (policy == "latest" or propagate is False):
            raise UsageError(f"every={every} needs policy 'all' and propagation. Set both, or every=1.")
        propagates = every != 1 or (policy == "latest" and (opened.live if propagate is None else propagate))
        frames = opened if isinstance(opened, Feeding) else tally.timing(opened)
        counted = tally.counting(segment)
        stages = (
            _propagating(frames, counted, identify, every=every, batch=batch, idle=idle)
            if propagates
            else Pipeline(frames, counted, batch=batch, policy=policy, idle=idle)
        )
        # A live source is closed first: that ends the wait for a camera that delivers nothing.
        with stages as results, contextlib.closing(opened) if opened.live else contextlib.nullcontext():
            for frame, instances in results:
                tally.begin(opened)
                yield frame, instances if propagates else identify(instances, frame.seconds)


class Identifier:
    """Track and smooth the instances of each frame, without duplicates: see `run`. Can be pickled."""

    def __init__(self, *, track: bool, smooth: float | None) -> None:
        self._tracker = Tracker() if track else None
        self._smoother = Smoother(smooth) if track and smooth is not None else None

    def __call__(self, instances: Instances, seconds: float) -> Instances:
        """Return the `instances` of the next frame, at `seconds`, with track ids if they are tracked."""
        if self._tracker is not None:
            instances = self._tracker.update(instances, seconds)
        if self._smoother is not None:
            instances = self._smoother.update(instances, seconds)
        return without_duplicates(instances)


def _propagating(
    frames: Iterable[Frame],
    segment: Segment,
    identify: Identify,
    *,
    every: int,
    batch: int,
    idle: Idle | None,
) -> LatestKeyframe | PeriodicKeyframes:
    """Return the pipeline that segments every `every`th frame, or the newest if 1, and propagates to all."""
    from live_seg.propagation.propagator import Propagator

    if every == 1:
        return LatestKeyframe(frames, segment, Propagator(), identify, idle=idle)
    # In a file, new instances are shown in full in the frame where they were detected, without a transition.
    propagator = Propagator(blend_frames=1)
    return PeriodicKeyframes(frames, segment, propagator, identify, every=every, batch=batch, idle=idle)


def show(
    results: Iterator[tuple[Frame, Instances]],
    draw: Callable[[Frame, Instances], Image],
    sinks: Sequence[Sink],
    tally: Tally,
    *,
    limit: float = float("inf"),
) -> Iterator[Frame]:
    """Draw each result, write it to every sink, count it in `tally`; then yield its frame.

    Ends when `results` end, when a sink requests a stop, or before the first frame at or past `limit` seconds
    of source time. Raises SinkError.
    """
    started_at = time.monotonic()
    for frame, instances in results:
        if frame.seconds >= limit:
            return
        image = draw(frame, instances)
        # A list, so that every sink gets the frame even if an earlier one requests a stop.
        wanted = [sink.write(frame, image, instances) for sink in sinks]
        tally.shown(frame, instances, time.monotonic() - started_at)
        yield frame
        if not all(wanted):
            return
