"""OpenCV captures: open them, read raw frames from them, and compute the frames' times."""

import logging
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np

from live_seg.errors import SourceError
from live_seg.types import Frame, Image, Source

logger = logging.getLogger(__name__)

DEFAULT_FPS = 30.0
"""Frames per second assumed if a source declares no valid rate; most webcams deliver it."""

MAX_FPS = 1000.0
"""A declared rate above this is the resolution of a clock (90,000 in RTP and MPEG-TS), not a frame rate."""

CLOCK_JITTER = 0.5
"""Seconds by which timestamps may step back without a restart of the clock, as in joined recordings."""


class Capture(Protocol):
    """The part of OpenCV's VideoCapture in use. Releasing one while another thread reads from it crashes."""

    def isOpened(self) -> bool:  # noqa: N802
        """Return whether it can be read."""

    def get(self, prop: int, /) -> float:
        """Return a property; 0 if it is unknown."""

    def set(self, prop: int, value: float, /) -> bool:
        """Request a property. Return False if it is not supported."""

    def read(self) -> tuple[bool, Any]:
        """Return True and the next image, or False at the end."""

    def release(self) -> None:
        """Close it."""


def open_capture(target: str | int, backend: int, params: Sequence[int] = ()) -> Capture:
    """Open an OpenCV capture. All captures are created here, so that tests can replace them."""
    return cv2.VideoCapture(target, backend, params)


@dataclass(frozen=True)
class CaptureInfo:
    """Properties that an opened capture declares."""

    size: tuple[int, int]
    """(width, height) in pixels, after rotation."""
    fps: float
    """Frames per second; DEFAULT_FPS if none or an invalid rate is declared."""
    frames: int | None
    """Number of frames; None if unknown."""

    @classmethod
    def of(cls, capture: Capture) -> "CaptureInfo":
        """Read the properties of `capture`."""
        width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        fps, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        return cls(
            size=(int(width), int(height)),
            fps=fps if 0 < fps <= MAX_FPS else DEFAULT_FPS,
            frames=int(frames) if 0 < frames < float("inf") else None,  # large negative number if unknown
        )


@dataclass(frozen=True, eq=False)
class RawFrame:
    """One image read from a capture, with its timestamp and its time of arrival."""

    image: Image
    milliseconds: float
    """The container's timestamp, relative to the start of the video track; 0 if there is none."""
    arrived: float
    """`time.monotonic()` when it was read."""


def read_frame(capture: Capture) -> RawFrame | None:
    """Read the next frame of `capture`. Blocks until it arrives; returns None at the end."""
    delivered, image = capture.read()
    arrived = time.monotonic()
    milliseconds = capture.get(cv2.CAP_PROP_POS_MSEC)  # of the frame just read
    return RawFrame(np.asarray(image, np.uint8), milliseconds, arrived) if delivered else None


class CaptureSource(Source):
    """Base class of sources that read a capture: number the frames, compute their times, check the end."""

    def __init__(self, name: str, info: CaptureInfo) -> None:
        self.name = name
        self.size, self.fps, self.frames = info.size, info.fps, info.frames
        self._clock = ContainerClock(1 / self.fps)
        self._iterated = self._closed = False

    @abstractmethod
    def _raw_frames(self) -> Iterator[RawFrame]:
        """Yield the raw frames until the end of the capture, or until the source is closed."""

    def __iter__(self) -> Iterator[Frame]:
        self._begin_reading()
        yield from self._numbered()

    def _begin_reading(self) -> None:
        """Raise SourceError unless this is the first time that the source is read."""
        if self._iterated:
            raise SourceError(f"{self.name} was read already. Open it again to read it again.")
        self._iterated = True

    def _numbered(self) -> Iterator[Frame]:
        """Yield the captured frames with index and time; check the end unless closed."""
        count, seconds = 0, 0.0
        for raw in self._raw_frames():
            seconds = self._seconds(raw)
            yield Frame(count, seconds, raw.image)
            count += 1
        if not self._closed:
            self._check_end(count, seconds)

    def _seconds(self, raw: RawFrame) -> float:
        """Return the time of `raw` in seconds since the first frame."""
        return self._clock.at(raw.milliseconds)

    def _check_end(self, count: int, seconds: float) -> None:
        """Check the end of the capture after `count` frames, the last at `seconds`.

        Logs a warning if it came well before the declared end. Raises SourceError if there were no frames.
        """
        if count == 0:
            raise SourceError(f"{self.name} holds no frames. Check that it plays, or record it again.")
        # Compare durations, not counts: OpenCV estimates the count of a Matroska file from its duration.
        declared, played = (self.frames or 0) / self.fps, seconds + 1 / self.fps
        if declared - played > max(0.5, 0.05 * declared):
            message = "%s ends after %.1f s, but its header declares %.1f s. It may be damaged."
            logger.warning(message, self.name, played, declared)


class ContainerClock:
    """Convert a container's timestamps to non-decreasing seconds since the first frame."""

    def __init__(self, step: float, origin: float | None = None) -> None:
        self._step = step  # seconds between frames, used where a timestamp is missing
        self._origin = origin  # timestamp of the first frame in seconds
        self._last = 0.0

    def at(self, milliseconds: float) -> float:
        """Return the seconds for the next timestamp; 0 stands for a missing one (AVI, raw H.264)."""
        stamp, following = milliseconds / 1000, self._last + self._step
        if self._origin is None:
            self._origin, following = stamp, 0.0
        seconds = stamp - self._origin if stamp > 0 else following
        if seconds < self._last - CLOCK_JITTER:
            self._origin, seconds = stamp - following, following
        self._last = max(seconds, self._last)
        return self._last
