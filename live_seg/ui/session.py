"""A live session under its user's hands: drawn, shown, recorded, as the keys say."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from live_seg.errors import SinkError
from live_seg.pipeline.stats import Tally
from live_seg.sinks.recorder import Recorder
from live_seg.sinks.threaded import ThreadedSink
from live_seg.types import Frame, Image, Instances, Sink
from live_seg.ui.controls import Controls
from live_seg.ui.hud import Figures, Message, Rate
from live_seg.ui.snapshot import save_snapshot

logger = logging.getLogger(__name__)

LOOKS_UP_AFTER = 0.1
"""Seconds after which a paused picture is drawn anew, when no key comes before: messages go by themselves."""

SILENT_AFTER = 2.0
"""Seconds without a new picture after which the last one is shown anew, and the user told so."""

BACKDROP = 128
"""Grey behind transparent pictures on the screen and in recordings."""


class Screen(Sink, Protocol):
    """Where a session is shown and its keys are pressed: a window, or a page in browsers."""

    def write(
        self,
        frame: Frame,
        image: Image,
        instances: Instances,
        figures: Figures | None = None,
        message: str = "",
    ) -> bool:
        """Show a picture, which stays as it is, with figures and message; press the keys that came.

        False once the controls have ended.
        """

    def wait(self, seconds: float) -> bool:
        """Press the keys that come within `seconds`, up to the first. Returns as `write` does."""


class Session:
    """Draws each frame, hands it to sinks and recorder, shows it, and does what `controls` want.

    `draw` takes a frame, its instances and the switches `labels`, `boxes` and `masks`. Snapshots go into the
    folder it runs in. The recorder gets what is drawn, without figures and messages, in a thread of its own,
    which `close` ends; `controls.recording` follows it when a recording begins or ends by itself. All else,
    `screen` included, is used in the thread that calls.
    """

    def __init__(
        self,
        draw: Callable[..., Image],
        controls: Controls,
        tally: Tally,
        *,
        screen: Screen | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._draw, self._controls, self._tally, self._screen = draw, controls, tally, screen
        self._message = Message()
        self._measured = _Measured(tally)
        self._recording = _Recording(recorder, controls, self._message) if recorder else None
        self._last: tuple[Frame, Instances] | None = None
        self._waiting_since = 0.0

    def show(
        self,
        results: Iterator[tuple[Frame, Instances]],
        sinks: Sequence[Sink] = (),
        *,
        limit: float = float("inf"),
    ) -> Iterator[Frame]:
        """Show every frame until the results end, the user wants, or `limit` seconds of source time are over.

        Yields each frame shown. Raises SinkError.
        """
        begun = time.monotonic()
        for frame, found in results:
            if frame.seconds >= limit:
                return
            picture, instances = self._drawn(frame, found)
            wanted = [sink.write(frame, picture, instances) for sink in sinks]
            if self._recording is not None:
                self._recording.write(frame, _opaque(picture), instances)
            self._measured.add(frame)
            self._show(frame, picture, instances)
            self._tally.shown(frame, instances, time.monotonic() - begun)
            yield frame
            if self._controls.paused:
                self._stand_still(frame, found)
            if self._controls.ended or not all(wanted):
                return
            self._last, self._waiting_since = (frame, found), time.monotonic()

    def idle(self) -> bool:
        """Serve the screen while no frame comes; for `session.run`. False once the user ended the session."""
        if self._screen is None:
            return not self._controls.ended
        silent = time.monotonic() - self._waiting_since
        if self._last is not None and silent >= SILENT_AFTER:
            self._measured.go_without()
            self._show_again(*self._last, f"no picture for {silent:.0f} s, waiting")
        return self._screen.wait(0)

    def close(self) -> None:
        """End the recording. Raises SinkError when one failed: the session went on, but the file is lost."""
        if self._recording is not None:
            self._recording.close()

    def __enter__(self) -> Self:
        """Use in a `with` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close. An earlier error is never hidden by a recording that failed, which was told already."""
        try:
            self.close()
        except SinkError:
            if kind is None:
                raise

    def _drawn(self, frame: Frame, found: Instances) -> tuple[Image, Instances]:
        instances = self._controls.chosen(found)
        switches = {name: getattr(self._controls, name) for name in ("labels", "boxes", "masks")}
        return self._draw(frame, instances, **switches), instances

    def _show(self, frame: Frame, picture: Image, instances: Instances, otherwise: str = "") -> None:
        """Show the picture with figures and a message, `otherwise` if none; save it if a key said so."""
        now = time.monotonic()
        if self._controls.take_snapshot():
            self._message.say(_saved(frame, picture), now)
        if self._screen is not None:
            begun = self._recording.begun if self._recording else None
            figures = self._measured.figures(len(instances), None if begun is None else frame.seconds - begun)
            message = self._message.at(now) or otherwise
            self._screen.write(frame, _opaque(picture), instances, figures, message)

    def _show_again(self, frame: Frame, found: Instances, message: str = "") -> None:
        """Show a frame as the keys want it by now."""
        if self._recording is not None:
            self._recording.follow(frame)
        self._show(frame, *self._drawn(frame, found), message)

    def _stand_still(self, frame: Frame, found: Instances) -> None:
        """Show `frame` until the user goes on or ends; the keys work on it."""
        since = time.monotonic()
        if self._recording is not None:
            self._recording.pause()
        while self._screen is not None and self._controls.paused and not self._controls.ended:
            self._show_again(frame, found)
            self._screen.wait(LOOKS_UP_AFTER)
        if self._recording is not None:
            self._recording.resume(time.monotonic() - since)
        self._measured.begin_anew()


class _Recording:
    """A recorder in the background, told what the keys want; says how it goes."""

    def __init__(self, recorder: Recorder, controls: Controls, message: Message) -> None:
        self._recorder, self._controls, self._message = recorder, controls, message
        self._background = ThreadedSink(recorder)
        self._wanted = False
        self._asked = self._answered = 0  # keys for recording handed on, and those the recorder has heard
        self._failures = 0
        self.begun: float | None = None
        """Seconds of the frame that the recording began with, later by the pauses since; None for none."""

    def write(self, frame: Frame, picture: Image, instances: Instances) -> None:
        self.follow(frame)
        self._background.write(frame, picture, instances)

    def follow(self, frame: Frame) -> None:
        """Hand on what a key said, or else let the controls say what the recorder does by itself."""
        if self._controls.recording != self._wanted:
            self._wanted = self._controls.recording
            self._asked += 1
            self._background.call(partial(self._switch, self._wanted))
        elif self._asked == self._answered:
            self._wanted = self._controls.recording = self._recorder.status.state == "recording"
        if len(self._recorder.failures) > self._failures:
            self._failures = len(self._recorder.failures)
            self._message.say("the recording failed", time.monotonic())
        if not self._wanted:
            self.begun = None
        elif self.begun is None:
            self.begun = frame.seconds

    def _switch(self, wanted: bool) -> None:
        """Runs in the recorder's thread."""
        (self._recorder.start if wanted else self._recorder.stop)()
        self._answered += 1

    def pause(self) -> None:
        self._background.call(self._recorder.pause)

    def resume(self, after: float) -> None:
        """Go on `after` so many seconds."""
        self._background.call(self._recorder.resume)
        if self.begun is not None:
            self.begun += after

    def close(self) -> None:
        """Complete the file. Raises SinkError when this or an earlier recording failed."""
        self._background.close()
        if self._background.dropped:
            message = "The recording lacks %d frames: its encoder was too slow for the source."
            logger.warning(message, self._background.dropped)
        if self._recorder.failures:
            raise SinkError(f"A recording failed: {self._recorder.failures[-1]}")


class _Measured:
    """What is measured while frames are shown."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget the rates: frames that came during a pause do not count."""
        self._camera, self._network = Rate(), Rate()
        self._index: int | None = None
        self._segmented = self._tally.segmented

    def add(self, frame: Frame) -> None:
        """Count the frames that came and were segmented until `frame`, the newest."""
        self._now, self._without = time.monotonic(), False
        before = frame.index - 1 if self._index is None else self._index
        for _ in range(frame.index - before):
            self._camera.add(self._now)
        for _ in range(self._tally.segmented - self._segmented):
            self._network.add(self._now)
        self._index, self._segmented = frame.index, self._tally.segmented

    def go_without(self) -> None:
        """Let time pass without a frame: the rates fall, and nothing is late."""
        self._now, self._without = time.monotonic(), True

    def figures(self, found: int, recorded: float | None) -> Figures:
        """As they were when the last frame was added, or did not come, for `found` instances."""
        return Figures(
            camera_fps=self._camera.per_second(self._now),
            network_fps=self._network.per_second(self._now),
            latency=None if self._without or not self._tally.latency.count else self._tally.latency.last,
            instances=found,
            dropped=self._tally.dropped,
            recorded=recorded,
        )


def _saved(frame: Frame, picture: Image) -> str:
    """Save a snapshot; returns what to tell of it."""
    try:
        plain, _ = save_snapshot(frame, picture, Path())
    except SinkError as error:  # the session is worth more than a snapshot
        logger.warning("%s", error)
        return "the snapshot failed"
    return f"saved {plain.name}"


def _opaque(picture: Image) -> Image:
    """Put a transparent picture on grey, (H, W, 3); another one stays."""
    if picture.shape[2] == 3:
        return picture
    share = picture[..., 3:].astype(np.float32) / 255
    return np.asarray(np.rint(picture[..., :3] * share + BACKDROP * (1 - share)), np.uint8)
