"""Video files on disk."""

import threading
from collections.abc import Iterator
from pathlib import Path

import cv2

from live_seg.errors import SourceError
from live_seg.files import reading
from live_seg.sources.captures import CaptureInfo, CaptureSource, RawFrame, open_capture, read_frame
from live_seg.sources.mp4 import why_unreadable


class VideoFile(CaptureSource):
    """A video on disk: every frame, at its container's time, turned as its rotation metadata says.

    Raises SourceError when it is missing, forbidden, incomplete or no video; while iterating, when it holds
    no frames. One that ends well before its declared length logs a warning.
    """

    def __init__(self, path: Path) -> None:
        with reading(path):
            path.open("rb").close()
        # Absolute: FFmpeg takes "12:30.mp4" for an address with the scheme "12".
        self._capture = open_capture(str(path.absolute()), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise SourceError(why_unreadable(path))
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # OpenCV's default changed between versions
        super().__init__(str(path), CaptureInfo.of(self._capture))
        self.audio = path
        self._reading = threading.Lock()

    def _raw_frames(self) -> Iterator[RawFrame]:
        while (picture := self._read()) is not None:
            yield picture

    def _read(self) -> RawFrame | None:
        with self._reading:
            return None if self._closed else read_frame(self._capture)

    def close(self) -> None:
        """End the reading; waits for a read in progress, because releasing a busy capture crashes."""
        self._closed = True
        with self._reading:
            self._capture.release()
