"""Network streams."""

import time

import cv2

from live_seg.errors import SourceError
from live_seg.sources.captures import Capture, open_capture
from live_seg.sources.live import TIMEOUT, Live

DECODERS = 2
"""Threads that decode a stream. FFmpeg would take one per core, and each holds back a picture: of 60 sent, 58
came at once with 1 thread, 57 with 2, 51 with 8. A second of CPU decodes some 100 pictures of 4K H.264."""

SCHEMES = ("http", "https", "rtmp", "rtmps", "rtsp", "rtsps", "tcp", "udp")


class Stream(Live):
    """A network address. HTTP with a declared length is read like a file; everything else is live.

    With `reconnect` a live stream that breaks off or stays silent for `timeout` seconds is waited for, and,
    unless `wait` is false, one that is not there yet; without, that is a SourceError, and an end of the
    connection is the end of the source. Its name hides credentials and query.
    """

    def __init__(
        self, url: str, timeout: float = TIMEOUT, *, reconnect: bool = True, wait: bool = True
    ) -> None:
        name, scheme = redacted(url), url.partition("://")[0].lower()
        if scheme not in SCHEMES:
            raise SourceError(f"Cannot read {name}: expected {', '.join(SCHEMES)}. Got {scheme}.")
        self._url = url
        super().__init__(name, timeout, reconnect=reconnect, wait=wait)
        self.live = self.frames is None or not scheme.startswith("http")
        self.frames = None if self.live else self.frames
        self._reconnect = reconnect and self.live

    def _open(self) -> Capture:
        limit = max(1, int(self._timeout * 1000))  # 0 would be none
        limits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit)
        began = time.monotonic()
        capture = open_capture(self._url, cv2.CAP_FFMPEG, (*limits, cv2.CAP_PROP_N_THREADS, DECODERS))
        if not capture.isOpened():
            timed_out = time.monotonic() - began >= self._timeout
            within = f" within {self._timeout:g} s" if timed_out else ""
            raise SourceError(
                f"Cannot open {self.name}: no video came from there{within}. "
                "Check address, network, user and password; try it in a video player."
            )
        return capture


def redacted(url: str) -> str:
    """Hide what may be secret in an address: user, password and query."""
    scheme, _, rest = url.partition("://")
    _, at, rest = rest.rpartition("@")  # the last one: a careless password may itself hold @, / or ?
    host, query, _ = rest.partition("?")
    return f"{scheme}://{at and '***@'}{host}{query and '?***'}"
