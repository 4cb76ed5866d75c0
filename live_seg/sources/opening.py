"""Where pictures come from: a video file, a camera, a network stream or still images, by what names it."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2

from live_seg.errors import SourceError
from live_seg.files import access, expanded
from live_seg.sources.cameras import Camera, CameraSettings
from live_seg.sources.captures import Captured, Declared, Picture, open_capture, read
from live_seg.sources.live import TIMEOUT
from live_seg.sources.mp4 import why_unreadable
from live_seg.sources.stills import ImageFiles, find_images
from live_seg.sources.streams import Stream
from live_seg.types import Source


def open_source(
    spec: str | int | Path,
    *,
    timeout: float = TIMEOUT,
    reconnect: bool = True,
    wait: bool = True,
    camera: CameraSettings | None = None,
) -> Source:
    """Open whatever `spec` names; close it when done (a `with` block does).

    A number (0, "0", "/dev/video0") is a camera, a string with "://" a stream; everything else is a path:
    a video, an image, a folder of images or a glob of images ("in/*.jpg"). A file called "0" is "./0".

    `timeout` is the seconds without a picture after which a camera or stream counts as dead. With `reconnect`
    a stream that is dead is waited for without end, and a warning logged; with `wait`, too, one that is not
    there yet. Otherwise that is an error. `camera` is what to ask of a camera.

    Raises SourceError, with the reason and the way out, when it cannot be opened; UsageError for a `timeout`
    that is not above 0.
    """
    if isinstance(spec, int):
        return Camera(spec, camera, timeout)
    if isinstance(spec, str) and (number := re.fullmatch(r"(?:/dev/video)?(\d+)", spec)):
        return Camera(int(number[1]), camera, timeout)
    if isinstance(spec, str) and "://" in spec:
        return Stream(spec, timeout, reconnect=reconnect, wait=wait)
    path = expanded(spec)
    images = find_images(path)
    return ImageFiles(str(path), images) if images else VideoFile(path)


class VideoFile(Captured):
    """A video on disk: every frame, at its container's time, turned as its rotation metadata says.

    Raises SourceError when it is missing, forbidden, incomplete or no video; while iterating, when it holds
    no frames. One that ends well before its declared length logs a warning.
    """

    def __init__(self, path: Path) -> None:
        with access(path):
            path.open("rb").close()
        # Absolute: FFmpeg takes "12:30.mp4" for an address with the scheme "12".
        self._capture = open_capture(str(path.absolute()), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise SourceError(why_unreadable(path))
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # OpenCV's default changed between versions
        super().__init__(str(path), Declared.by(self._capture))
        self.audio = path
        self._reading = threading.Lock()

    def _pictures(self) -> Iterator[Picture]:
        while (picture := self._read()) is not None:
            yield picture

    def _read(self) -> Picture | None:
        with self._reading:
            return None if self._closed else read(self._capture)

    def close(self) -> None:
        """End the reading; waits for a read in progress, because releasing a busy capture crashes."""
        self._closed = True
        with self._reading:
            self._capture.release()
