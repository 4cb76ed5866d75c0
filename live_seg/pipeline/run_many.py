"""The run loop for several sources with one model."""

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial

from live_seg.channel import Idle
from live_seg.pipeline.many import SharedKeyframes
from live_seg.pipeline.member import Member
from live_seg.pipeline.run import Identifier
from live_seg.sources.lane import SourceLane
from live_seg.sources.opening import open_source
from live_seg.types import Frame, Image, Instances, Segment, Source
from live_seg.urls import redacted

Spec = str | int | os.PathLike[str] | Source | Iterable[Image | Frame]


def run_many(
    sources: Sequence[Spec],
    segment: Segment,
    *,
    batch: int = 8,
    track: bool = True,
    smooth: float | None = None,
    idle: Idle | None = None,
    opening: Callable[[Spec], Source] | None = None,
) -> Generator[tuple[int, Frame, Instances]]:
    """Segment several live sources with one model and yield (position in `sources`, frame, its instances).

    Each source is anything that `run` accepts. It is opened and read in a thread of its own; files play at
    their own speed. The newest frames of all sources are segmented together, at most `batch` at once. Frames
    are yielded as they arrive, with the instances of the latest segmented frame of their source propagated to
    them. On a busy processor sources take turns and frames are left out, which leaves the network its time.
    Each source has track ids of its own. `track`, `smooth` and `idle` work as in `run`; `opening` replaces
    `open_source`.

    A stream that is not available is waited for. A source that fails ends without affecting the others; when
    all have ended, the first SourceError is raised. Errors of `segment` are raised at once. After leaving the
    loop early, close the generator to stop all threads.
    """
    members = joined(sources, opening or partial(open_source, wait=False), track=track, smooth=smooth)
    with SharedKeyframes(members, segment, batch=batch, idle=idle) as results:
        yield from results


def joined(
    sources: Sequence[Spec],
    opening: Callable[[Spec], Source],
    *,
    track: bool = True,
    smooth: float | None = None,
    retries: bool = True,
    on_open: Callable[[int, Source], None] | None = None,
) -> list[Member]:
    """Return a member for each source. Call `on_open` with each when it is open.

    With `retries`, a stream that is not available is waited for.
    """
    from live_seg.propagation.propagator import Propagator

    members = []
    for position, spec in enumerate(sources):
        lane = SourceLane(
            partial(_open, spec, opening),
            _name(spec),
            retries=retries and isinstance(spec, str) and "://" in spec,
            on_open=None if on_open is None else partial(on_open, position),
        )
        members.append(Member(lane, Propagator(), Identifier(track=track, smooth=smooth)))
    return members


def _open(spec: Spec, opening: Callable[[Spec], Source]) -> Source:
    return spec if isinstance(spec, Source) else opening(spec)


def _name(spec: Spec) -> str:
    if isinstance(spec, Source):
        return spec.name
    return redacted(spec) if isinstance(spec, str) and "://" in spec else str(spec)
