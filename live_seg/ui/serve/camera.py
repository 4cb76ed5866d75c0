"""A browser's camera as a live source."""

import time
from collections.abc import Iterator

import numpy as np
from av import VideoFrame

from live_seg.channel import Channel
from live_seg.types import Frame, Image, Source

MAX_SIDE = 1280
"""Longest side of a frame in pixels. Larger ones are reduced."""

USUAL_FPS = 30.0
"""Frame rate that is assumed until frames arrive; browsers do not declare one."""


class BrowserCamera(Source):
    """Frames that another thread receives from a browser and passes to `put`. Only the newest one waits.

    Frames are converted by the thread that reads them, so that dropped ones cost nothing.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.fps = USUAL_FPS
        self.size = (0, 0)
        self.live = True
        self._channel: Channel[tuple[int, float, VideoFrame]] = Channel(1, drop_oldest=True)
        self._received = 0

    def put(self, frame: VideoFrame) -> None:
        """Add a frame, received now. One that was not read in time is dropped."""
        now = time.monotonic()
        if self.started_at is None:
            self.started_at = now
            self.size = _reduced(frame)
        self._channel.put((self._received, now - self.started_at, frame))
        self._received += 1

    def __iter__(self) -> Iterator[Frame]:
        while received := self._channel.take():
            for index, seconds, frame in received:
                yield Frame(index, seconds, _image_of(frame))

    def close(self) -> None:
        """End the iteration."""
        self._channel.abandon()


def _reduced(frame: VideoFrame) -> tuple[int, int]:
    """Return width and height of the image of a received frame."""
    scale = min(1.0, MAX_SIDE / max(frame.width, frame.height))
    return max(1, round(frame.width * scale)), max(1, round(frame.height * scale))


def _image_of(frame: VideoFrame) -> Image:
    """Convert a received frame to (H, W, 3) uint8 BGR, at most MAX_SIDE pixels long."""
    width, height = _reduced(frame)
    return np.ascontiguousarray(
        frame.reformat(width=width, height=height, format="bgr24").to_ndarray(), np.uint8
    )
