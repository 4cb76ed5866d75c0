"""OpenCV captures: opened in one place, read, and their pictures put on a time line."""

import logging
import os
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from live_seg.errors import SourceError
from live_seg.files import quiet
from live_seg.types import Frame, Image, Source

logger = logging.getLogger(__name__)

DEFAULT_FPS = 30.0
"""Frames per second assumed where a source declares none, or nonsense; most webcams deliver it."""

MAX_FPS = 1000.0
"""A declared rate above this is a clock's resolution (90,000 in RTP and MPEG-TS), not a frame rate."""

CLOCK_JITTER = 0.5
"""Seconds a container's clock may step back without being taken for a new start, as in joined recordings."""

Capture = cv2.VideoCapture
"""What OpenCV reads pictures from. Releasing one while another thread reads it crashes."""


def open_capture(target: str | int, backend: int, params: Sequence[int] = ()) -> Capture:
    """Open an OpenCV capture without OpenCV's and FFmpeg's own messages on stderr.

    The only place that makes one; a test without a camera puts a fake here.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET; OpenCV looks at its first capture
    with quiet():
        return cv2.VideoCapture(target, backend, params)


@dataclass(frozen=True)
class CaptureInfo:
    """What an opened capture says of its pictures."""

    size: tuple[int, int]
    """(width, height), after rotation."""
    fps: float
    """Frames per second, DEFAULT_FPS where it says nothing sensible."""
    frames: int | None
    """Number of pictures; None where unknown."""

    @classmethod
    def of(cls, capture: Capture) -> "CaptureInfo":
        """Ask `capture`."""
        width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        fps, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        return cls(
            size=(int(width), int(height)),
            fps=fps if 0 < fps <= MAX_FPS else DEFAULT_FPS,
            frames=int(frames) if 0 < frames < float("inf") else None,  # hugely negative where unknown
        )


@dataclass(frozen=True, eq=False)
class RawFrame:
    """One picture out of a capture, with both its times."""

    image: Image
    milliseconds: float
    """The container's time, counted from the video track's start; 0 stands for a missing one."""
    arrived: float
    """`time.monotonic()` when it came."""


def read_frame(capture: Capture) -> RawFrame | None:
    """Wait for the next picture of `capture`; None at its end."""
    delivered, image = capture.read()
    arrived = time.monotonic()
    # The position is that of the picture just read.
    milliseconds = capture.get(cv2.CAP_PROP_POS_MSEC)
    return RawFrame(np.asarray(image, np.uint8), milliseconds, arrived) if delivered else None


class CaptureSource(Source):
    """A source of captured pictures: numbers them, gives them their time, and judges their end."""

    def __init__(self, name: str, declared: CaptureInfo) -> None:
        self.name = name
        self.size, self.fps, self.frames = declared.size, declared.fps, declared.frames
        self._clock = ContainerClock(1 / self.fps)
        self._iterated = self._closed = False

    @abstractmethod
    def _raw_frames(self) -> Iterator[RawFrame]:
        """Yield the pictures until their end, or until closed."""

    def __iter__(self) -> Iterator[Frame]:
        if self._iterated:
            raise SourceError(f"{self.name} was read already. Open it again to read it again.")
        self._iterated = True
        count, seconds = 0, 0.0
        for picture in self._raw_frames():
            seconds = self._seconds(picture)
            yield Frame(count, seconds, picture.image)
            count += 1
        if not self._closed:
            self._check_end(count, seconds)

    def _seconds(self, picture: RawFrame) -> float:
        """Time of `picture` since the first one."""
        return self._clock.at(picture.milliseconds)

    def _check_end(self, count: int, seconds: float) -> None:
        """Judge the end after `count` pictures, the last at `seconds`: an error, a warning, or in order."""
        if count == 0:
            raise SourceError(f"{self.name} holds no frames. Check that it plays, or record it again.")
        # Time, not number: Matroska declares no number, and OpenCV guesses one from the duration.
        declared, played = (self.frames or 0) / self.fps, seconds + 1 / self.fps
        if declared - played > max(0.5, 0.05 * declared):
            message = "%s ends after %.1f s though its header declares %.1f s: it may be damaged."
            logger.warning(message, self.name, played, declared)


class ContainerClock:
    """Turns a container's timestamps into seconds since the first picture that never run backwards."""

    def __init__(self, step: float) -> None:
        self._step = step  # seconds to the next picture where no timestamp tells
        self._origin: float | None = None
        self._last = 0.0

    def at(self, milliseconds: float) -> float:
        """Seconds of the picture with this timestamp; zero stands for a missing one (AVI, raw H.264)."""
        stamp, following = milliseconds / 1000, self._last + self._step
        if self._origin is None:
            self._origin, following = stamp, 0.0
        seconds = stamp - self._origin if stamp > 0 else following
        if seconds < self._last - CLOCK_JITTER:
            self._origin, seconds = stamp - following, following
        self._last = max(seconds, self._last)
        return self._last
