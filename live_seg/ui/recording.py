"""Recording of a session, controlled by its keys."""

import logging
import time
from functools import partial

from live_seg.errors import SinkError
from live_seg.sinks.recorder import Recorder
from live_seg.sinks.threaded import ThreadedSink
from live_seg.types import Frame, Image, Instances
from live_seg.ui.controls import Controls
from live_seg.ui.hud import Message

logger = logging.getLogger(__name__)


class Recording:
    """Keep `recorder`, which runs in its own thread, and `controls.recording` in step.

    A key starts and stops the recorder; when it starts or stops by itself, the controls follow. `message`
    shows a failure to the user.
    """

    def __init__(self, recorder: Recorder, controls: Controls, message: Message) -> None:
        self._recorder, self._controls, self._message = recorder, controls, message
        self._thread = ThreadedSink(recorder)
        self._wanted = False
        self._requests = self._handled = 0  # start and stop requests sent, and handled by the recorder
        self._failures = self._written = 0
        self.started_at: float | None = None
        """Time of the recording's first frame in seconds, plus later pauses. None when not recording."""

    def write(self, frame: Frame, image: Image, instances: Instances) -> None:
        """Pass a frame, with its drawn image, to the recorder."""
        self.update(frame)
        self._thread.write(frame, image, instances)

    def update(self, frame: Frame) -> None:
        """Start or stop the recorder if a key requested it, else copy its state to the controls."""
        if self._controls.recording != self._wanted:
            self._wanted = self._controls.recording
            self._requests += 1
            self._thread.call(partial(self._switch, self._wanted))
        elif self._requests == self._handled:
            self._wanted = self._controls.recording = self._recorder.status.state == "recording"
        if len(self._recorder.written) > self._written:
            self._written = len(self._recorder.written)
            self._message.show(f"saved {self._recorder.written[-1].name}", time.monotonic())
        if len(self._recorder.failures) > self._failures:
            self._failures = len(self._recorder.failures)
            self._message.show("recording failed, will be tried again", time.monotonic())
        if not self._wanted:
            self.started_at = None
        elif self.started_at is None:
            self.started_at = frame.seconds

    def _switch(self, wanted: bool) -> None:
        """Start or stop the recorder. Runs in its thread."""
        (self._recorder.start if wanted else self._recorder.stop)()
        self._handled += 1

    def pause(self) -> None:
        """Pause the recorder."""
        self._thread.call(self._recorder.pause)

    def resume(self, after: float) -> None:
        """Resume the recorder after a pause of `after` seconds."""
        self._thread.call(self._recorder.resume)
        if self.started_at is not None:
            self.started_at += after

    def close(self) -> None:
        """Complete the file. Raises SinkError when this or an earlier recording failed."""
        self._thread.close()
        if self._thread.dropped:
            warning = "The recording lacks %d frames because its encoder was too slow for the source."
            logger.warning(warning, self._thread.dropped)
        if self._recorder.failures:
            raise SinkError(f"A recording failed: {self._recorder.failures[-1]}")
