"""A part of a video file."""

import math
import re
from collections.abc import Iterator

from live_seg.errors import SourceError, UsageError
from live_seg.types import Frame, Source


class Excerpt(Source):
    """Read the frames of `source` from `start` on and before `end`, in seconds.

    Frames keep their time in the whole file, which keeps audio in sync; their indices count from 0. Raises
    UsageError unless 0 <= start < end; while reading, SourceError if there are no such frames.
    """

    def __init__(self, source: Source, start: float = 0.0, end: float = math.inf) -> None:
        if not 0 <= start < end:
            raise UsageError(
                f"Expected a start before the end, both 0 s or more. Got {start:g} and {end:g} s."
            )
        self._source, self._start, self._end = source, start, end
        self.name, self.fps, self.size, self.audio = source.name, source.fps, source.size, source.audio
        whole = math.inf if source.frames is None else source.frames
        frames = min(whole - start * self.fps, (end - start) * self.fps)
        self.frames = max(0, math.ceil(frames)) if frames < math.inf else None

    def __iter__(self) -> Iterator[Frame]:
        count, latest = 0, 0.0
        for frame in self._source:
            latest = frame.seconds
            if latest >= self._end:
                break
            if latest >= self._start:
                yield Frame(count, latest, frame.image)
                count += 1
        if not count:
            raise SourceError(
                f"{self.name} has no frames from {self._start:g} s on and before {self._end:g} s; "
                f"the last one read is at {latest:.1f} s."
            )

    def close(self) -> None:
        """Close the file."""
        self._source.close()


def parse_time(text: str) -> float:
    """Parse "1:20", "1:02:03.5" or plain seconds ("80") as seconds. Raises UsageError."""
    found = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)", text.strip())
    if not found:
        raise UsageError(f"{text!r} is not a time. Use 1:20, 1:02:03.5 or plain seconds such as 80.")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds
