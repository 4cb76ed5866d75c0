"""One session, from source to sinks: frames segmented, tracked, drawn and handed on in order."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path

from live_seg.choices import Policy
from live_seg.errors import UsageError
from live_seg.pipeline.batched import Pipeline
from live_seg.pipeline.channel import Idle
from live_seg.pipeline.keyframes import EveryNth, Identify, Newest
from live_seg.pipeline.stats import Tally
from live_seg.sources.opening import open_source
from live_seg.tracking.smoother import Smoother
from live_seg.tracking.tracker import Tracker
from live_seg.types import Frame, Image, Instances, Segment, Sink, Source


def run(
    source: str | int | Path | Source,
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

    `source` is anything `open_source` takes, or an open Source, which is then left open unless it is live. Up
    to `batch` frames are segmented at once. Policy "all" makes a source wait, "latest" drops what is too old;
    by default files wait and live sources drop. With `track`, instances carry ids that stay over time; with
    `smooth`, the least score shown, their masks and scores are steadied, too (see `Smoother`).

    With `propagate` and "latest", the default when live, every frame is yielded as it comes, with the
    instances of the newest segmented one propagated; without `propagate`, segmented frames alone. With "all",
    `every` N segments frames 0, N, 2N, ... and propagates in between. `tally`, the one that `show` gets,
    hears what is segmented and when a live source began. `idle` is called some 20 times a second while
    nothing comes, in the caller's thread, to serve a window; the loop ends when it returns False.

    Raises SourceError, and whatever `segment` raises; UsageError when `every` is below 1, or more with
    "latest" or without `propagate`. Leaving the loop early stops every thread once the generator is closed
    (`del` it, or use `contextlib.closing`).
    """
    tally = tally or Tally()
    identify = _identify(track, smooth)
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(open_source(source)) if isinstance(source, str | int | Path) else source
        policy = policy or ("latest" if opened.live else "all")
        if every != 1 and (policy == "latest" or propagate is False):
            raise UsageError(f"every is {every}: it needs a source that waits (policy all) and propagation.")
        propagates = every != 1 or (policy == "latest" and (opened.live if propagate is None else propagate))
        frames, counted = tally.timing(opened), tally.counting(segment)
        stages = (
            _propagating(frames, counted, identify, every=every, batch=batch, idle=idle)
            if propagates
            else Pipeline(frames, counted, batch=batch, policy=policy, idle=idle)
        )
        # A live source is closed first: that ends the reader's wait for a camera that is silent.
        with stages as results, contextlib.closing(opened) if opened.live else contextlib.nullcontext():
            for frame, instances in results:
                yield frame, instances if propagates else identify(instances, frame.seconds)


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


def _propagating(
    frames: Iterable[Frame],
    segment: Segment,
    identify: Identify,
    *,
    every: int,
    batch: int,
    idle: Idle | None,
) -> Newest | EveryNth:
    """Give every frame its instances, found or propagated: those of each `every`th, or of the newest."""
    from live_seg.propagation.propagator import Propagator

    if every == 1:
        return Newest(frames, segment, Propagator(), identify, idle=idle)
    # In a file what was found holds at once: it comes in the frame it was found in.
    return EveryNth(frames, segment, Propagator(takeover=1), identify, every=every, batch=batch, idle=idle)


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
