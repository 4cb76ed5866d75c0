"""Interactive live session: draw, show and record frames, controlled by keys."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np

from live_seg.errors import SinkError
from live_seg.pipeline.run import show
from live_seg.pipeline.stats import Tally
from live_seg.sinks.recorder import Recorder
from live_seg.types import Frame, Image, Instances, Sink, Source
from live_seg.ui.controls import Controls
from live_seg.ui.hud import Message
from live_seg.ui.metrics import Meter, Metrics
from live_seg.ui.recording import Recording
from live_seg.ui.snapshot import save_snapshot

logger = logging.getLogger(__name__)

PAUSED_REFRESH = 0.1
"""Seconds between redraws while paused, unless a key is pressed earlier. Lets messages disappear in time."""

STALL_SECONDS = 2.0
"""Seconds without a new frame after which the last one is shown again, with a message."""

FIRST_FRAME_SECONDS = 1.0
"""Seconds that a source may take for its first frame, however short the session is."""

BACKDROP = 128
"""Grey level behind transparent images on the screen and in recordings."""


class Screen(Sink, Protocol):
    """Display of a session that also receives its keys: a window, or a page in browsers."""

    def write(
        self,
        frame: Frame,
        image: Image,
        instances: Instances,
        metrics: Metrics | None = None,
        message: str = "",
    ) -> bool:
        """Show `image`, which must not change afterwards, with metrics and message; handle pressed keys.

        Returns False once the controls have ended.
        """

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for a key and handle it. Returns False once the controls have ended."""


class Session(Sink):
    """Draw each frame, write it to sinks and recorder, show it, and act on `controls`.

    `draw` takes a frame, its instances and the switches `labels`, `boxes` and `masks`. Snapshots are saved in
    the current folder. The recorder gets the drawn image, without metrics and messages, in its own thread,
    which `close` ends; `controls.recording` changes when it starts or stops by itself. Everything else,
    including `screen`, is used in the calling thread only.

    A session is the last sink of its own run loop: `show` passes it each drawn frame.
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
        self._meter = Meter(tally)
        self._recording = Recording(recorder, controls, self._message) if recorder else None
        self._last: tuple[Frame, Instances] | None = None
        self._waiting_since = 0.0
        self._ends_at = math.inf
        self._source: Source | None = None  # until the first frame was segmented

    @property
    def starved(self) -> bool:
        """True once the `limit` of `show` has passed without a frame from a live source."""
        waits = self._source is not None and self._source.live and self._source.started_at is None
        return waits and time.monotonic() >= self._ends_at

    def _is_over(self) -> bool:
        """Return whether the user quit or the `limit` of `show` has passed."""
        timed_out = self._source is None and time.monotonic() >= self._ends_at
        return self._controls.ended or timed_out or self.starved

    def show(
        self,
        results: Iterator[tuple[Frame, Instances]],
        sinks: Sequence[Sink] = (),
        *,
        limit: float = float("inf"),
        source: Source | None = None,
    ) -> Iterator[Frame]:
        """Show all results until they end, the user quits, or `limit` seconds have passed.

        The time begins with the first frame; it passes by the frames' times and by the clock. If no frame
        arrives from `source`, it begins with this call, and `starved` becomes true. Yields each frame shown.
        Raises SinkError.
        """
        self._source, self._ends_at = source, time.monotonic() + max(limit, FIRST_FRAME_SECONDS)
        chosen = self._selected(results, limit)
        return show(chosen, self._drawn, [*sinks, self], self._tally, limit=limit)

    def _selected(
        self, results: Iterator[tuple[Frame, Instances]], limit: float
    ) -> Iterator[tuple[Frame, Instances]]:
        """Yield each frame with the instances above the threshold; pause after it if a key said so."""
        for frame, found in results:
            if self._last is None:
                self._source, self._ends_at = None, time.monotonic() + limit
            if self._is_over():
                return
            yield frame, self._controls.select(found)
            if self._controls.paused:
                self._pause(frame, found)
            if self._is_over():
                return
            self._last, self._waiting_since = (frame, found), time.monotonic()

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:
        """Record and show one drawn frame. Returns False once the controls have ended."""
        if self._recording is not None:
            self._recording.write(frame, _opaque(image), instances)
        self._meter.add(frame)
        self._display(frame, image, instances)
        return not self._controls.ended

    def idle(self) -> bool:
        """Update the screen while no frame arrives; pass it to `run`. Returns False to end the session."""
        if self._screen is None or self._is_over():
            return not self._is_over()
        silent = time.monotonic() - self._waiting_since
        if self._last is not None and silent >= STALL_SECONDS:
            self._meter.stall()
            self._display_again(*self._last, f"no frame for {silent:.0f} s, waiting")
        return self._screen.wait(0)

    def close(self, complete: bool = True) -> None:  # noqa: ARG002
        """End the recording. Raises SinkError when a recording failed during the session."""
        if self._recording is not None:
            self._recording.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close. A failed recording, which has been reported already, does not replace an earlier error."""
        try:
            self.close()
        except SinkError:
            if kind is None:
                raise

    def _drawn(self, frame: Frame, instances: Instances) -> Image:
        switches = {name: getattr(self._controls, name) for name in ("labels", "boxes", "masks")}
        return self._draw(frame, instances, **switches)

    def _display(self, frame: Frame, image: Image, instances: Instances, default_message: str = "") -> None:
        """Show a drawn frame with metrics and the current or default message; save a requested snapshot."""
        now = time.monotonic()
        if self._controls.take_snapshot():
            self._message.show(_save_snapshot(frame, image), now)
        if self._screen is not None:
            started_at = self._recording.started_at if self._recording else None
            metrics = self._meter.metrics(
                len(instances), None if started_at is None else frame.seconds - started_at
            )
            message = self._message.at(now) or default_message
            self._screen.write(frame, _opaque(image), instances, metrics, message)

    def _display_again(self, frame: Frame, found: Instances, default_message: str = "") -> None:
        """Show a frame again, drawn with the current controls."""
        if self._recording is not None:
            self._recording.update(frame)
        instances = self._controls.select(found)
        self._display(frame, self._drawn(frame, instances), instances, default_message)

    def _pause(self, frame: Frame, found: Instances) -> None:
        """Show `frame` and handle keys until the user resumes or quits."""
        since = time.monotonic()
        if self._recording is not None:
            self._recording.pause()
        while self._screen is not None and self._controls.paused and not self._is_over():
            self._display_again(frame, found)
            self._screen.wait(PAUSED_REFRESH)
        if self._recording is not None:
            self._recording.resume(time.monotonic() - since)
        self._meter.reset()


def _save_snapshot(frame: Frame, image: Image) -> str:
    """Save a snapshot in the current folder. Return the message for the user."""
    try:
        plain, _ = save_snapshot(frame, image, Path())
    except SinkError as error:  # a failed snapshot should not end the session
        logger.warning("%s", error)
        return "snapshot failed"
    return f"saved {plain.name}"


def _opaque(image: Image) -> Image:
    """Blend an image with alpha, (H, W, 4), onto grey, (H, W, 3). Return other images unchanged."""
    if image.shape[2] == 3:
        return image
    alpha = image[..., 3:].astype(np.float32) / 255
    return np.asarray(np.rint(image[..., :3] * alpha + BACKDROP * (1 - alpha)), np.uint8)
