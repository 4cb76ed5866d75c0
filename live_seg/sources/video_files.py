"""Video files on disk."""

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2

from live_seg.errors import SinkError, SourceError
from live_seg.ffmpeg import open_error
from live_seg.files import reading
from live_seg.sources.captures import Capture, CaptureInfo, CaptureSource, RawFrame, open_capture, read_frame

SEEK_MARGIN = 2.0
"""Seconds before the wanted time at which a search aims, because OpenCV computes frame numbers from it."""


class VideoFile(CaptureSource):
    """Read every frame of a video file, with the container's timestamps and rotation metadata applied.

    A file that ends well before its declared duration logs a warning. Most frames before `begin` seconds are
    skipped where the file can be searched. Raises SourceError if the file is missing, not readable, damaged
    or not a video; while iterating, if it has no frames.
    """

    def __init__(self, path: Path, begin: float = 0.0) -> None:
        with reading(path):
            path.open("rb").close()
        self._capture = _opened(path)
        if not self._capture.isOpened():
            raise _unreadable(path)
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # OpenCV's default changed between versions
        super().__init__(str(path), CaptureInfo.of(self._capture))
        self.audio = path
        self._path, self._begin = path, begin
        self._reading = threading.Lock()

    def _raw_frames(self) -> Iterator[RawFrame]:
        first = self._read()
        if first is None:
            return
        yield first  # its timestamp is the origin of all times
        if self._begin > SEEK_MARGIN and (found := self._sought(first)) is not None:
            yield found
        while (frame := self._read()) is not None:
            yield frame

    def _sought(self, first: RawFrame) -> RawFrame | None:
        """Search the time to begin at; return a frame before it. None, back at the start, if that fails."""
        begin = first.milliseconds + 1000 * self._begin
        with self._reading:
            if self._closed:
                return None
            self._capture.set(cv2.CAP_PROP_POS_MSEC, begin - 1000 * SEEK_MARGIN)
            found = read_frame(self._capture)
            if found is not None and first.milliseconds < found.milliseconds <= begin:
                return found
            self._capture.release()
            self._capture = _opened(self._path)
            self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
            read_frame(self._capture)
            return None

    def _read(self) -> RawFrame | None:
        with self._reading:
            return None if self._closed else read_frame(self._capture)

    def close(self) -> None:
        """Stop reading. Waits for a read in progress, because releasing a busy capture crashes."""
        self._closed = True
        with self._reading:
            self._capture.release()


def _opened(path: Path) -> Capture:
    """Open the file `path` with OpenCV, which crashes on names that are not UTF-8: through a link then."""
    # Absolute: FFmpeg parses "12:30.mp4" as a URL of the scheme "12".
    name = str(path.absolute())
    if _is_unicode(name):
        return open_capture(name, cv2.CAP_FFMPEG)
    try:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / ("video" + (path.suffix if _is_unicode(path.suffix) else ""))
            link.symlink_to(name)
            return open_capture(str(link), cv2.CAP_FFMPEG)  # keeps the file open without the link
    except OSError as error:
        raise SourceError(f"Cannot open {path}: its name is not Unicode. Rename it.") from error


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unreadable(path: Path) -> SourceError:
    """Return the error for a file that OpenCV cannot open as a video, with ffmpeg's reason."""
    try:
        reason = open_error(path)
    except SinkError:  # without ffmpeg the reason stays unknown
        reason = "no details"
    if reason is None:
        return SourceError(
            f"{path} holds no frames that can be decoded. If it is not audio only, convert it: "
            "ffmpeg -i IN OUT.mp4"
        )
    return SourceError(
        f"Cannot read {path}: it is damaged, incomplete or not a video (ffmpeg: {reason}). "
        "Copy or record it again."
    )
