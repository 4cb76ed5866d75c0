"""Live video to a server or a virtual camera, which may be slow, gone, and back."""

import logging
import re
import time
from threading import Event, Thread

from live_seg.channel import Channel
from live_seg.errors import SinkError
from live_seg.ffmpeg import executable, first_error
from live_seg.sinks.encoder import STOP_SECONDS, Encoder
from live_seg.sinks.stream_targets import StreamTarget
from live_seg.sinks.timeline import frame_rate
from live_seg.types import Frame, Image, Instances, Sink

logger = logging.getLogger(__name__)

WAITING_IMAGES = 2
"""Images that wait for the encoder; older ones are dropped."""

STALL_SECONDS = 10.0
"""Seconds that an image may take to be written, the first one with connecting; then ffmpeg is killed."""

REPEAT_SECONDS = 1.0
"""Seconds without an image after which the last one is sent again, because servers drop silent streams."""

FAILURE = re.compile("error|fail|broken|refused|denied|cannot", re.IGNORECASE)
"""A line of ffmpeg that says what failed; the WHIP output also prints its offer."""

SETTLED_SECONDS = 2.0
"""Seconds for which images are written before a connection counts as working."""

RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each attempt to reconnect; the last one repeats."""


class StreamOut(Sink):
    """Send drawn images, (H, W, 3) BGR uint8, to `target` from a thread. `write` never waits.

    Images that arrive while the encoder is busy replace those that wait. When the connection fails, or stalls
    for STALL_SECONDS, it is made again, with a warning when it is lost and when it is back. `fps` is the
    nominal frame rate; each image has the time at which it was written. Raises SinkError without ffmpeg.
    """

    def __init__(self, target: StreamTarget, fps: float) -> None:
        self.sent = 0
        """Images sent so far."""
        self.losses = 0
        """Connections lost so far, and attempts that failed after a working one."""
        executable()  # fail now if it is missing
        self._target, self._rate = target, frame_rate(fps)
        self._images: Channel[Image] = Channel(WAITING_IMAGES, drop_oldest=True)
        self._ending = Event()
        self._encoder: Encoder | None = None
        self._busy_since: float | None = None
        self._failing = False
        self._thread = Thread(target=self._run, name=f"live_seg {target.name}")
        self._thread.start()

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
        """Queue a copy of `image`. Returns True."""
        self._images.put(image.copy())
        self._end_stall()
        return True

    def close(self, complete: bool = True) -> None:  # noqa: ARG002
        """End the connection within STOP_SECONDS. May be called again."""
        self._ending.set()
        self._images.abandon()
        self._thread.join(STOP_SECONDS)
        while self._thread.is_alive():  # an encoder may be about to start
            if (encoder := self._encoder) is not None:
                encoder.kill()
            self._thread.join(0.1)

    @property
    def summary(self) -> str:
        """The counts as text."""
        lost = f", connection lost {self.losses} times" if self.losses else ""
        return f"{self.sent} frames to {self._target.name}{lost}"

    def _end_stall(self) -> None:
        """Kill an encoder that has not taken an image for STALL_SECONDS, from the thread that writes."""
        since, encoder = self._busy_since, self._encoder
        if encoder is not None and since is not None and time.monotonic() - since > STALL_SECONDS:
            encoder.kill()

    def _run(self) -> None:
        """Connect and send until closed. Runs in the thread."""
        attempt = 0
        while not self._ending.is_set() and (images := self._images.take()):
            began = time.monotonic()
            try:
                self._send(images[0])
            except (SinkError, OSError) as error:
                attempt = 0 if time.monotonic() - began > STALL_SECONDS + SETTLED_SECONDS else attempt
                self._report(error)
                self._ending.wait(RETRY_DELAYS[min(attempt, len(RETRY_DELAYS) - 1)])
                attempt += 1

    def _send(self, image: Image) -> None:
        """Send `image` and all that follow, of the same size, over one connection."""
        self._encoder = encoder = Encoder(
            self._target.address, image.shape, self._rate, [*self._target.options]
        )
        began = last = time.monotonic()
        try:
            while not self._ending.is_set() and image.shape == encoder.shape:
                self._busy_since = now = time.monotonic()
                encoder.set_image(image)
                encoder.show(max(now - began, encoder.end), 0.001)
                self._busy_since, last = None, now
                self.sent += 1
                if self._failing and now - began > SETTLED_SECONDS:
                    self._failing = False
                    logger.warning("%s is connected again.", self._target.name)
                following = self._images.take(idle=lambda: time.monotonic() - last < REPEAT_SECONDS)  # noqa: B023
                image = following[0] if following else image
        finally:
            self._encoder = self._busy_since = None
            encoder.stop()

    def _report(self, error: Exception) -> None:
        """Log the first failure of an outage."""
        self.losses += 1
        if self._failing or self._ending.is_set():
            return
        self._failing = True
        _, _, details = str(error).partition("\n")
        lines = [line for line in details.splitlines() if FAILURE.search(line)] or [str(error)]
        reason = self._target.cleaned(first_error(lines[0].encode()))
        logger.warning("Streaming to %s failed (%s). It is tried again.", self._target.name, reason)
