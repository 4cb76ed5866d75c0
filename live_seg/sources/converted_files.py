"""Video files whose colours OpenCV gets wrong, decoded and converted by ffmpeg."""

import logging
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from live_seg.errors import SinkError, SourceError
from live_seg.ffmpeg import command, first_time, listing
from live_seg.processes import OWN_GROUP
from live_seg.sources.captures import CaptureInfo, CaptureSource, ContainerClock, RawFrame
from live_seg.sources.colour import VideoFormat, parse_format
from live_seg.sources.video_files import VideoFile

logger = logging.getLogger(__name__)

SHOWN = re.compile(rb"\[Parsed_showinfo.*? pts_time:(\S+).*? s:(\d+)x(\d+)")
"""A frame in ffmpeg's log: its time in seconds, width and height."""

SEEK_MARGIN = 1.0
"""Seconds decoded before the start of an excerpt, as containers round their times."""


class _Shown(NamedTuple):
    seconds: float
    size: tuple[int, int]


class ConvertedFile(CaptureSource):
    """Read a video file through ffmpeg: HDR tone-mapped to SDR, square pixels, BT.709's colours.

    Like VideoFile otherwise; `info` is what OpenCV says about the file, and `begin` the time in seconds
    before which frames may be left out. Raises SourceError if ffmpeg delivers no frame, SinkError without
    ffmpeg.
    """

    def __init__(self, path: Path, video: VideoFormat, info: CaptureInfo, begin: float = 0.0) -> None:
        super().__init__(str(path), info)
        origin = first_time(path) if begin > SEEK_MARGIN else None
        if begin > SEEK_MARGIN:
            self._clock = ContainerClock(1 / info.fps, origin)
        self.audio = path
        self._reading = threading.Lock()
        self._messages: list[str] = []
        self._shown: SimpleQueue[_Shown | None] = SimpleQueue()
        self._process = subprocess.Popen(
            _command(path, video, (origin or 0) + begin if begin > SEEK_MARGIN else None),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **OWN_GROUP,
        )
        self._log = threading.Thread(target=self._read_log, name="live_seg ffmpeg log", daemon=True)
        self._log.start()
        self._next = self._shown.get()
        if self._next is None:
            self.close()
            reason = self._messages[-1] if self._messages else "no details"
            raise SourceError(f"Cannot read {path}: ffmpeg delivers no frames ({reason}).")
        self.size = self._next.size

    def _raw_frames(self) -> Iterator[RawFrame]:
        while (frame := self._read()) is not None:
            yield frame

    def _read(self) -> RawFrame | None:
        assert self._process.stdout is not None
        with self._reading:
            if self._closed or self._next is None:
                return None
            shown, (width, height) = self._next, self._next.size
            image = np.empty((height, width, 3), np.uint8)
            if self._process.stdout.readinto(image.data.cast("B")) < image.nbytes:  # type: ignore[attr-defined]
                return None
            self._next = self._shown.get()
        return RawFrame(image, 1000 * shown.seconds, time.monotonic())

    def _read_log(self) -> None:
        """Queue what ffmpeg logs about each frame, then None. Runs in the thread."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := SHOWN.search(line):
                seconds = 0.0 if found[1] == b"NOPTS" else float(found[1])
                self._shown.put(_Shown(seconds, (int(found[2]), int(found[3]))))
            elif b"[Parsed_showinfo" not in line:
                self._messages = [*self._messages[-7:], line.decode(errors="replace").strip()]
        self._shown.put(None)

    def close(self) -> None:
        """Stop ffmpeg, which ends a read in progress."""
        self._closed = True
        self._process.kill()
        with self._reading:
            self._process.wait()
            self._log.join()
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()


def _command(path: Path, video: VideoFormat, begin: float | None) -> list[str]:
    """Return the command that converts from `begin` on, in seconds on the file's clock, or from the start."""
    seek = () if begin is None else ("-ss", f"{begin - SEEK_MARGIN:.3f}")
    filters = ",".join(filter(None, [video.filters(), "format=bgr24", "showinfo=checksum=0"]))
    return command(
        *("-loglevel", "info", "-nostats", *seek, "-copyts", "-i", path),
        *("-map", "0:V:0", "-vf", filters, "-fps_mode", "passthrough"),
        *("-f", "rawvideo", "-pix_fmt", "bgr24", "-"),
    )


def open_video(path: Path, begin: float = 0.0) -> CaptureSource:
    """Open the video file `path`, through ffmpeg where OpenCV would show wrong colours or shapes.

    Frames before `begin` seconds may be left out. Raises SourceError.
    """
    source = VideoFile(path, begin)
    try:
        video = parse_format(listing(path))
        if video is None or not video.needs_conversion:
            return source
        info = CaptureInfo(source.size, source.fps, source.frames)
        converted = ConvertedFile(path, video, info, begin)
    except (SinkError, SourceError) as error:
        logger.warning("Colours may be wrong: %s", error)
        return source
    source.close()
    return converted
