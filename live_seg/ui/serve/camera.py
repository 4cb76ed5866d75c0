"""A browser's camera as a live source."""

import time
from collections.abc import Iterator

from live_seg.channel import Channel
from live_seg.types import Frame, Image, Source

FRAMES_WAITING = 2
"""Frames that may wait for the session. More would add delay."""

USUAL_FPS = 30.0
"""Frame rate that is assumed until frames arrive; browsers do not declare one."""


class BrowserCamera(Source):
    """Frames that another thread receives from a browser and passes to `put`. The newest ones are kept."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fps = USUAL_FPS
        self.size = (0, 0)
        self.live = True
        self._channel: Channel[Frame] = Channel(FRAMES_WAITING, drop_oldest=True)
        self._received = 0

    def put(self, image: Image) -> None:
        """Add a frame (H, W, 3) uint8 BGR, captured now. Frames that were not read in time are dropped."""
        now = time.monotonic()
        if self.started_at is None:
            self.started_at = now
            self.size = (image.shape[1], image.shape[0])
        self._channel.put(Frame(self._received, now - self.started_at, image))
        self._received += 1

    def __iter__(self) -> Iterator[Frame]:
        while frames := self._channel.take():
            yield from frames

    def close(self) -> None:
        """End the iteration."""
        self._channel.abandon()
