"""Cut a video file into chunks of frames, without decoding it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from live_seg.errors import SourceError
from live_seg.ffmpeg import first_time, shown_frames

CHUNK_SECONDS = 60.0
"""Length of a chunk. Opening the file and searching the start cost about a second of it."""

SHORTEST_CHUNK = 10.0
"""Length of the chunks of a video that is short for the number of workers."""

NEAR = 0.25
"""Fraction of a chunk's length by which its end may move to reach a key frame, where decoding can begin."""

DISTINCT = 0.002
"""Seconds between two frames of which the second can begin a chunk: times are rounded differently."""

MAX_INDISTINCT = 2
"""Number of frames at the time of another one above which a file counts as joined from several, whose clock
restarts: demuxing then yields many."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive frames of a video."""

    number: int
    first: int
    """Index of the first frame, counted from the start of the video or excerpt."""
    frames: int
    """Number of frames according to the container."""
    begin: float
    """Seconds from which on frames belong to the chunk; 0 is the first frame of the file."""
    end: float
    """Seconds from which on they do not; inf for the last chunk of a file."""


def chunk_seconds(duration: float, workers: int) -> float:
    """Return the length of the chunks of a video of `duration` seconds: at least two for each worker."""
    return min(CHUNK_SECONDS, max(SHORTEST_CHUNK, duration / (2 * workers)))


def plan(
    path: Path,
    *,
    start: float = 0.0,
    end: float = math.inf,
    every: int = 1,
    workers: int = 1,
    seconds: float | None = None,
) -> list[Chunk]:
    """Cut the frames of the video file `path`, from `start` on and before `end`, into chunks.

    Chunks are about `seconds` long, by default as `chunk_seconds` for that many `workers`. They begin at
    multiples of `every` frames, so that propagation never crosses a cut, and at a key frame if one is near. A
    file whose clock restarts is one chunk. Raises SourceError if there are no such frames.
    """
    origin = first_time(path)
    shown = list(shown_frames(path)) if origin is not None else []
    if origin is None or not shown:
        raise SourceError(f"{path} holds no video frames. Check that it plays, or record it again.")
    frames = sorted((frame.begin - origin, frame.key) for frame in shown)
    frames = [frame for frame in frames if frame[0] >= -DISTINCT]
    chosen = [(time, key) for time, key in frames if start <= time < end]
    if not chosen:
        raise SourceError(
            f"{path} has no frames from {start:g} s on and before {end:g} s; the last one is at "
            f"{frames[-1][0]:.1f} s."
        )
    length = seconds or chunk_seconds(chosen[-1][0] - chosen[0][0], workers)
    cuts = [] if _restarts([time for time, _ in frames]) else _cuts(chosen, length, every)
    times = [time for time, _ in chosen]
    edges = [start, *((times[cut - 1] + times[cut]) / 2 for cut in cuts), end]
    firsts = [0, *cuts, len(times)]
    return [
        Chunk(number, firsts[number], firsts[number + 1] - firsts[number], edges[number], edges[number + 1])
        for number in range(len(firsts) - 1)
    ]


def _restarts(times: Sequence[float]) -> bool:
    """Return whether the sorted `times` of all frames are those of a file whose clock restarts."""
    return sum(later - earlier < DISTINCT for earlier, later in pairwise(times)) > MAX_INDISTINCT


def _cuts(frames: Sequence[tuple[float, bool]], length: float, every: int) -> list[int]:
    """Return the positions in `frames`, (time, is key), at which chunks of about `length` seconds begin."""
    cuts: list[int] = []
    last, end = frames[0][0], frames[-1][0]
    position = 0
    while end - last >= length * (1 + 2 * NEAR):
        window = range(*_between(frames, position, last + length * (1 - NEAR), last + length * (1 + NEAR)))
        possible = [i for i in (-(-i // every) * every for i in window) if _may_begin(frames, i)]
        if not possible:
            return cuts
        at_key = [i for i in window if frames[i][1]]
        target = last + length
        nearest_key = min(at_key, key=lambda i: abs(frames[i][0] - target), default=None)
        wanted = frames[nearest_key][0] if nearest_key is not None else target
        position = min(possible, key=lambda i: (frames[i][0] < wanted, abs(frames[i][0] - wanted)))
        cuts.append(position)
        last = wanted
    return cuts


def _between(
    frames: Sequence[tuple[float, bool]], position: int, begin: float, end: float
) -> tuple[int, int]:
    """Return the range of positions after `position` with times from `begin` to `end`."""
    low = position + 1
    while low < len(frames) and frames[low][0] < begin:
        low += 1
    high = low
    while high < len(frames) and frames[high][0] <= end:
        high += 1
    return low, high


def _may_begin(frames: Sequence[tuple[float, bool]], position: int) -> bool:
    """Return whether a chunk can begin at `position`: its time differs from that of the frame before."""
    return position < len(frames) and frames[position][0] - frames[position - 1][0] >= DISTINCT
