"""One sitting, from source to sinks: frames segmented, tracked, drawn and handed on in order."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from live_seg.pipeline import Pipeline, Policy
from live_seg.sinks import Sink
from live_seg.sources import open_source
from live_seg.structures import Frame, Image, Instances, Segment, Source
from live_seg.track import Tracker


def run(
    source: str | int | Path | Source,
    segment: Segment,
    *,
    batch: int = 4,
    policy: Policy | None = None,
    track: bool = True,
) -> Generator[tuple[Frame, Instances]]:
    """Segment every frame of `source` in the background and yield (frame, its instances) in order.

    `source` is anything `open_source` takes, or an open Source, which is then left open. Up to `batch` frames
    are segmented at once. Policy "all" makes a source wait, "latest" drops what is too old; by default files
    wait and live sources drop. With `track`, instances carry ids that stay over time.

    Raises SourceError, and whatever `segment` raises. Leaving the loop early stops every thread once the
    generator is closed (`del` it, or use `contextlib.closing`).
    """
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(open_source(source)) if isinstance(source, str | int | Path) else source
        policy = policy or ("latest" if opened.live else "all")
        tracker = Tracker()
        with Pipeline(opened, segment, batch=batch, policy=policy) as results:
            for frame, instances in results:
                yield frame, tracker.update(instances, frame.seconds) if track else instances


@dataclass
class Tally:
    """What a sitting has done so far."""

    frames: int = 0
    instances: int = 0
    seconds: float = 0.0
    """Wall clock since `show` began."""

    @property
    def fps(self) -> float:
        """Frames per second of wall clock, 0 before the first frame."""
        return self.frames / self.seconds if self.seconds else 0.0


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
        tally.frames += 1
        tally.instances += len(instances)
        tally.seconds = time.monotonic() - begun
        yield frame
        if not all(wanted):
            return
