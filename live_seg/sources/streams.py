"""Network streams."""

import base64
import math
import time
from http.client import HTTPException
from statistics import median
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import cv2

from live_seg.channel import Idle
from live_seg.errors import SourceError
from live_seg.sources.captures import Capture, CaptureInfo, RawFrame, open_capture
from live_seg.sources.kept_sound import KeptSound
from live_seg.sources.live import DEFAULT_TIMEOUT, LiveSource
from live_seg.urls import redacted

DECODER_THREADS = 2
"""Threads that decode a stream. FFmpeg's default is one per core, and each delays the output by a frame: of
60 frames sent, 58 arrived immediately with 1 thread, 57 with 2 and 51 with 8. One second of CPU time decodes
about 100 frames of 4K H.264."""

LENGTH_TIMEOUT = 3.0
"""Seconds that a server may take to declare the length of a file."""

PLAYLISTS = ("mpegurl", "dash+xml")
"""Parts of the media types of playlists. Their length is not that of the video."""

SCHEMES = ("http", "https", "rtmp", "rtmps", "rtsp", "rtsps", "tcp", "udp")


class Stream(LiveSource):
    """Read a video from a URL. HTTP with a known length is read like a file; everything else is live.

    With `reconnect`, a live stream that breaks off or sends no frame for `timeout` seconds is reconnected
    until it is back; with `wait`, also one that is not available yet. Without `reconnect`, silence is a
    SourceError, and the end of the connection is the end of the source. `name` hides credentials and the
    query. With `keep_sound`, the last seconds of its sound are kept as `sound`, if it has any when it opens.
    """

    def __init__(
        self,
        url: str,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        reconnect: bool = True,
        wait: bool = True,
        idle: Idle | None = None,
        keep_sound: float = 0.0,
    ) -> None:
        name, scheme = redacted(url), url.partition("://")[0].lower()
        if scheme not in SCHEMES:
            raise SourceError(f"Cannot read {name}: the scheme must be {', '.join(SCHEMES)}. Got {scheme}.")
        self._url, self._is_file = url, False
        self._kept = KeptSound(keep_sound, self._now, median) if keep_sound else None
        super().__init__(name, timeout, reconnect=reconnect, wait=wait, idle=idle)
        self.live = not self._is_file
        self.frames = None if self.live else self.frames
        self._reconnect = reconnect and self.live

    def _open(self) -> Capture:
        began = time.monotonic()
        capture = self._with_sound(self._kept) if self._kept else self._without_sound()
        if not capture.isOpened():
            timed_out = time.monotonic() - began >= self._timeout
            within = f" within {self._timeout:g} s" if timed_out else ""
            raise SourceError(
                f"Cannot open {self.name}: no video arrived{within}. "
                "Check the address, the network, the user name and the password; try it in a video player."
            )
        if self._url.lower().startswith("http"):
            known = CaptureInfo.of(capture).frames is not None
            self._is_file = known or has_length(self._url, min(self._timeout, LENGTH_TIMEOUT))
        return capture

    def _without_sound(self) -> Capture:
        """Open the images only."""
        limit = max(1, int(self._timeout * 1000))  # 0 would disable it
        limits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit)
        return open_capture(self._url, cv2.CAP_FFMPEG, (*limits, cv2.CAP_PROP_N_THREADS, DECODER_THREADS))

    def _with_sound(self, kept: KeptSound) -> Capture:
        """Open images and sound."""
        from live_seg.sources.sound_capture import SoundCapture

        kept.restart()
        capture = SoundCapture(self._url, self._timeout, kept, DECODER_THREADS)
        self.sound = kept if capture.has_sound else self.sound
        return capture

    def _seconds(self, raw: RawFrame) -> float:
        seconds = super()._seconds(raw)
        if self._kept is not None and raw.milliseconds > 0:
            self._kept.align(raw.milliseconds / 1000, seconds)
        return seconds

    def _now(self) -> float:
        """Return the current time of the frames in seconds. A file does not wait for its sound."""
        return time.monotonic() - (self.started_at or 0.0) if self.live else math.inf


def has_length(url: str, timeout: float) -> bool:
    """Return whether a server declares the length of what it sends for the HTTP address `url`.

    Files without an index, such as MPEG-TS, have no known number of frames if the server cannot seek in them.
    """
    try:
        with urlopen(_head_request(url), timeout=timeout) as response:
            kind = response.headers.get("Content-Type", "").lower()
            return "Content-Length" in response.headers and not any(word in kind for word in PLAYLISTS)
    except (OSError, HTTPException, ValueError):
        return False


def _head_request(url: str) -> Request:
    """Return a request for the headers of `url`, with its credentials. Raises ValueError."""
    parts = urlsplit(url)
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    request = Request(address, headers={"User-Agent": "live_seg"}, method="HEAD")
    if parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        request.add_header("Authorization", f"Basic {base64.b64encode(secret).decode()}")
    return request
