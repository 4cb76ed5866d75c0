"""The times at which the frames of a source are shown in a video."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from live_seg.errors import UsageError

MIN_STEP = 0.001
"""Seconds between two frames at least: the resolution of times in Matroska files."""

MAX_STEP = 3600.0
"""Seconds that one image is shown at most before it is repeated: MP4 files cannot store 7 hours."""

MAX_GAP = 3600.0
"""Seconds without a frame that are kept by default. A longer gap is a break between two recordings, or a
damaged timestamp, more often than a pause."""

SHORT_GAP = 10.0
"""Seconds without a frame that are kept when gaps are cut."""


@dataclass(frozen=True)
class Timing:
    """Choices about the times of a video's frames."""

    constant: bool = False
    """True for a constant frame rate: frames are repeated or left out. Otherwise, every frame has its own
    time."""
    max_gap: float = MAX_GAP
    """Seconds without a frame above which a gap is cut to the duration of one frame."""


def frame_rate(fps: float) -> Fraction:
    """Return the exact frame rate of a rounded decimal: 30000/1001 for 29.97, and likewise for NTSC rates.

    Raises UsageError unless `fps` is finite and at least 0.001.
    """
    if not 0.001 <= fps < math.inf:
        raise UsageError(f"The frame rate of a video must be at least 0.001 per second. Got {fps}.")
    whole = round(fps * 1.001)
    if whole and abs(fps * 1.001 - whole) < 2e-4 * whole:
        return Fraction(whole * 1000, 1001)
    return Fraction(fps).limit_denominator(1001)


def output_index(seconds: float, rate: Fraction) -> int:
    """Return the 0-based index of the output frame, at `rate` per second, nearest to `seconds`."""
    return math.floor(seconds * rate + 0.5)


class Timeline:
    """Map the times of a source's frames to those of a video that starts with the first frame at 0 s.

    `rate` is the frame rate if it is constant, and otherwise the duration of the last frame where no other is
    known.
    """

    def __init__(self, rate: Fraction, timing: Timing) -> None:
        self.first = 0.0
        """Time of the first frame in the source, in seconds."""
        self.latest = 0.0
        """Time of the latest frame in the source, in seconds."""
        self.cuts: list[tuple[float, float]] = []
        """(start, end) of each gap that was cut, in seconds of the source since the first frame."""
        self._rate, self._timing = rate, timing
        self._step = float(1 / rate)
        self._placed: float | None = None
        self._removed = 0.0

    def place(self, seconds: float) -> float:
        """Return the time in the video of the next frame, which is at `seconds` in the source."""
        if self._placed is None:
            self.first = self.latest = seconds
            self._placed = 0.0
            return 0.0
        if seconds - self.latest > max(self._timing.max_gap, self._step):
            self.cuts.append((self.latest + self._step - self.first, seconds - self.first))
            self._removed += seconds - self.latest - self._step
        self.latest = max(self.latest, seconds)
        earliest = self._placed + (0.0 if self._timing.constant else MIN_STEP)
        self._placed = max(seconds - self.first - self._removed, earliest)
        return self._placed

    def played(self, begin: float, end: float) -> Iterator[tuple[float, float]]:
        """Yield (start, end) of each part of the source that the video shows from `begin` to `end`."""
        offset = self.first
        for start, stop in self.cuts:
            until = min(start + self.first - offset, end)
            if begin < until:
                yield begin + offset, until + offset
                begin = until
            offset += stop - start
        if begin < end:
            yield begin + offset, end + offset

    def end(self, seconds: float | None = None) -> float:
        """Return the end of the video. `seconds` is the end of the last frame in the source, if known."""
        placed = self._placed or 0.0
        if seconds is None or seconds - self.latest > max(self._timing.max_gap, self._step):
            return placed + self._step
        # At least one frame at a constant rate, and a visible one otherwise.
        least = self._step if self._timing.constant else MIN_STEP
        return max(seconds - self.first - self._removed, placed + least)

    def showings(self, begin: float, end: float) -> Iterator[tuple[float, float]]:
        """Yield (start, duration) of each output frame of an image shown from `begin` to `end`, in seconds.

        At a constant rate there may be none; otherwise there is one, or more if it is shown for long.
        """
        if self._timing.constant:
            for index in range(output_index(begin, self._rate), output_index(end, self._rate)):
                yield float(index / self._rate), self._step
            return
        for number in range(max(1, math.ceil((end - begin) / MAX_STEP))):
            start = begin + number * MAX_STEP
            yield start, min(end - start, MAX_STEP)
