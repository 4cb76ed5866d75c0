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


class VideoFile(CaptureSource):
    """Read every frame of a video file, with the container's timestamps and rotation metadata applied.

    A file that ends well before its declared duration logs a warning. Raises SourceError if the file is
    missing, not readable, damaged or not a video; while iterating, if it has no frames.
    """

    def __init__(self, path: Path) -> None:
        with reading(path):
            path.open("rb").close()
        self._capture = _opened(path)
        if not self._capture.isOpened():
            raise _unreadable(path)
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # OpenCV's default changed between versions
        super().__init__(str(path), CaptureInfo.of(self._capture))
        self.audio = path
        self._reading = threading.Lock()

    def _raw_frames(self) -> Iterator[RawFrame]:
        while (frame := self._read()) is not None:
            yield frame

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
