"""Where pictures come from: video files, cameras, network streams and still images, read by OpenCV."""

import itertools
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from live_seg.errors import SourceError
from live_seg.mp4 import why_unreadable
from live_seg.stills import ImageFiles, access, expanded, find_images, quiet
from live_seg.structures import Frame, Image, Source

logger = logging.getLogger(__name__)

DEFAULT_FPS = 30.0
"""Frames per second assumed where a source declares none, or nonsense; most webcams deliver it."""

MAX_FPS = 1000.0
"""A declared rate above this is a clock's resolution (90,000 in RTP and MPEG-TS), not a frame rate."""

TIMEOUT = 10.0
"""Seconds a stream may take to open, or stay silent, before it counts as dead."""

CLOCK_JITTER = 0.5
"""Seconds a container's clock may step back without being taken for a new start, as in joined recordings."""

STREAM_SCHEMES = ("http", "https", "rtmp", "rtmps", "rtsp", "rtsps", "tcp", "udp")


def open_source(spec: str | int | Path) -> Source:
    """Open whatever `spec` names; close it when done (a `with` block does).

    A number (0, "0", "/dev/video0") is a camera, a string with "://" a stream; everything else is a path:
    a video, an image, a folder of images or a glob of images ("in/*.jpg"). A file called "0" is "./0".

    Raises SourceError, with the reason and the way out, when it cannot be opened.
    """
    if isinstance(spec, int):
        return Camera(spec)
    if isinstance(spec, str) and (camera := re.fullmatch(r"(?:/dev/video)?(\d+)", spec)):
        return Camera(int(camera[1]))
    if isinstance(spec, str) and "://" in spec:
        return Stream(spec)
    path = expanded(spec)
    images = find_images(path)
    return ImageFiles(str(path), images) if images else VideoFile(path)


def open_capture(target: str | int, backend: int, params: Sequence[int] = ()) -> cv2.VideoCapture:
    """Open an OpenCV capture without OpenCV's and FFmpeg's own messages on stderr.

    The only place that makes one; a test without a camera puts a fake here.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET; OpenCV looks at its first capture
    with quiet():
        return cv2.VideoCapture(target, backend, params)


class _Captured(Source):
    """A source read through an opened OpenCV capture."""

    def __init__(self, name: str, capture: cv2.VideoCapture) -> None:
        self.name = name
        self.size = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        fps, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.fps = fps if 0 < fps <= MAX_FPS else DEFAULT_FPS
        self.frames = int(frames) if 0 < frames < float("inf") else None  # hugely negative where unknown
        self._capture = capture
        self._reading = threading.Lock()
        self._begun = self._closed = False

    def _read(self) -> tuple[Image, float] | None:
        """Wait for the next picture and its container time in milliseconds; None at the end."""
        with self._reading:
            if self._closed:
                return None
            delivered, image = self._capture.read()
            # The position is that of the picture just read, counted from the video track's start.
            milliseconds = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        return (np.asarray(image, np.uint8), milliseconds) if delivered else None

    def __iter__(self) -> Iterator[Frame]:
        if self._begun:
            raise SourceError(f"{self.name} was read already. Open it again to read it again.")
        self._begun = True
        clock, begun, seconds = _ContainerClock(1 / self.fps), 0.0, 0.0
        for index in itertools.count():
            read = self._read()
            arrived = time.monotonic()
            if read is None:
                break
            image, milliseconds = read
            begun = begun if index else arrived
            seconds = arrived - begun if self.live else clock.at(milliseconds)
            yield Frame(index, seconds, image)
        if not self._closed:
            self._ended(index, seconds)

    def _ended(self, count: int, seconds: float) -> None:
        """Judge the end after `count` pictures, the last at `seconds`: an error, a warning, or in order."""
        if count == 0:
            raise SourceError(f"{self.name} holds no frames. Check that it plays, or record it again.")
        # Time, not number: Matroska declares no number, and OpenCV guesses one from the duration.
        declared, played = (self.frames or 0) / self.fps, seconds + 1 / self.fps
        if declared - played > max(0.5, 0.05 * declared):
            message = "%s ends after %.1f s though its header declares %.1f s: it may be damaged."
            logger.warning(message, self.name, played, declared)

    def close(self) -> None:
        """End the reading; waits for a read in progress, because releasing a busy capture crashes."""
        self._closed = True
        with self._reading:
            self._capture.release()


class _ContainerClock:
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


class VideoFile(_Captured):
    """A video on disk: every frame, at its container's time, turned as its rotation metadata says.

    Raises SourceError when it is missing, forbidden, incomplete or no video; while iterating, when it holds
    no frames. One that ends well before its declared length logs a warning.
    """

    def __init__(self, path: Path) -> None:
        with access(path):
            path.open("rb").close()
        # Absolute: FFmpeg takes "12:30.mp4" for an address with the scheme "12".
        capture = open_capture(str(path.absolute()), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise SourceError(why_unreadable(path))
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # OpenCV's default changed from version to version
        super().__init__(str(path), capture)
        self.sound = path


class Camera(_Captured):
    """A camera of this machine, by number. Raises SourceError when it cannot be opened, or stops."""

    live = True

    def __init__(self, number: int) -> None:
        if number < 0:
            raise SourceError(f"Cameras are numbered from 0. Got {number}.")
        capture = open_capture(number, cv2.CAP_ANY)
        if not capture.isOpened():
            raise SourceError(
                f"Cannot open camera {number}. Is it plugged in, may this program use it, and does no other "
                f"program hold it? Your camera may have another number: try {0 if number else 1}."
            )
        super().__init__(f"camera {number}", capture)
        self.frames = None

    def _ended(self, count: int, seconds: float) -> None:
        raise SourceError(
            f"{self.name} stopped delivering after {count} pictures ({seconds:.1f} s). "
            "Was it unplugged, or taken by another program?"
        )


class Stream(_Captured):
    """A network address. HTTP with a declared length is read like a file; everything else is live.

    Raises SourceError when it does not open, or stays silent, for `timeout` seconds. Its name hides
    credentials and query.
    """

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        name, scheme = redacted(url), url.partition("://")[0].lower()
        if scheme not in STREAM_SCHEMES:
            raise SourceError(f"Cannot read {name}: expected {', '.join(STREAM_SCHEMES)}. Got {scheme}.")
        self._timeout = timeout
        self._stalled = False
        limit = int(timeout * 1000)
        limits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit)
        capture = open_capture(url, cv2.CAP_FFMPEG, limits)
        if not capture.isOpened():
            raise SourceError(
                f"Cannot open {name}: no video came from there within {timeout:g} s. "
                "Check address, network, user and password; try it in a video player."
            )
        super().__init__(name, capture)
        self.live = self.frames is None or not scheme.startswith("http")
        self.frames = None if self.live else self.frames

    def _read(self) -> tuple[Image, float] | None:
        asked = time.monotonic()
        read = super()._read()
        # After a timeout the decoder still hands out the pictures it held back, as if nothing had happened.
        self._stalled = self._stalled or time.monotonic() - asked >= self._timeout
        return read

    def _ended(self, count: int, seconds: float) -> None:
        if self._stalled:
            raise SourceError(
                f"{self.name} sent nothing for {self._timeout:g} s, after {count} pictures. "
                "Check the sender and the network, then open it again."
            )
        super()._ended(count, seconds)


def redacted(url: str) -> str:
    """Hide what may be secret in an address: user, password and query."""
    scheme, _, rest = url.partition("://")
    _, at, rest = rest.rpartition("@")  # the last one: a careless password may itself hold @, / or ?
    host, query, _ = rest.partition("?")
    return f"{scheme}://{at and '***@'}{host}{query and '?***'}"
