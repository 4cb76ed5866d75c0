"""Base class of cameras and network streams: reading thread, timeouts, reconnection."""

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator
from queue import SimpleQueue
from threading import Event

from live_seg.channel import Channel, Idle
from live_seg.errors import SourceError, UsageError
from live_seg.sources.captures import Capture, CaptureInfo, CaptureSource, RawFrame, read_frame
from live_seg.sources.driver_thread import DriverThread
from live_seg.types import Frame

logger = logging.getLogger(__name__)

DEFAULT_TIMEOUT = 10.0
"""Default seconds that a camera or stream may take to open or to deliver a frame."""

GRACE = 1.0
"""Additional seconds for captures that enforce the timeout themselves (FFmpeg, V4L2), so that their thread
ends, too."""

CLOSE_TIMEOUT = 1.0
"""Seconds that `close` waits for the current read: longer than the interval between two frames."""

LONGEST_TIMEOUT = 86_400.0
"""Seconds, a day: OpenCV counts milliseconds in 32 bits."""

RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each attempt to reconnect; the last one repeats. A connection that lasted longer than the
last delay resets the sequence."""

REMINDER_INTERVAL = 60.0
"""Seconds between repeated warnings that a stream is still unavailable."""


class LiveSource(CaptureSource):
    """Capture that is opened, read and released in a thread of its own, so that a driver cannot block others.

    The thread writes frames to the channel given to `feed`; iterating does the same with a channel of one
    frame, so that one frame is read ahead.

    Raises UsageError for an invalid `timeout`, and SourceError when nothing arrives for `timeout` seconds.
    With `reconnect`, it waits for the source instead and logs a warning when frames stop, periodically while
    they are missing, and when they resume. Indices continue without a gap; times follow the clock. Without
    `wait`, this applies only once a first frame has arrived. A different frame size after reconnecting is a
    SourceError, because a video that is being written cannot change its size.

    The constructor waits for the source. Meanwhile, `idle` is called about 20 times a second; when it returns
    False, that is a SourceError.

    `close` waits CLOSE_TIMEOUT for the thread. A read that takes longer is abandoned, and its device is
    released when the read returns (see DriverThread).
    """

    live = True
    started_at: float | None = None
    """`time.monotonic()` when the first frame was captured, the origin of Frame.seconds. None before that."""
    on_outage: Callable[[str | None], None] | None = None
    """Called in the reading thread with the reason when frames stop, and with None when they resume."""

    def __init__(
        self,
        name: str,
        timeout: float,
        *,
        reconnect: bool = False,
        wait: bool = True,
        idle: Idle | None = None,
    ) -> None:
        if not 0 < timeout <= LONGEST_TIMEOUT:
            raise UsageError(
                f"Expected a timeout in seconds, above 0 and at most {LONGEST_TIMEOUT:g}. Got {timeout:g}."
            )
        self.name = name
        self._timeout = timeout
        self._reconnect = reconnect
        self._wait = wait
        self._delivered = self._stalled = False
        self._closing = Event()
        self._info: CaptureInfo | None = None
        self._opened: Channel[CaptureInfo] = Channel(1)
        self._opened.watch = self._check_timeout
        self._frames: Channel[Frame] | None = None
        self._wanted: SimpleQueue[bool] = SimpleQueue()
        self._waiting_since: float | None = time.monotonic()
        self._thread = DriverThread(self._run, f"live_seg {name}")
        try:
            self._thread.start()
            opened = self._opened.take(idle=idle)
            if not opened:
                raise SourceError(f"The wait for {name} was ended before a frame arrived.")
            (info,) = opened
        except BaseException:
            self.close()
            raise
        super().__init__(name, info)

    @abstractmethod
    def _open(self) -> Capture:
        """Open the capture. Called in the reading thread. Raises SourceError."""

    def feed(self, frames: Channel[Frame]) -> None:
        """Write all frames to `frames` from the reading thread, until the end or until it is abandoned.

        Errors are raised by `frames.take`. Raises SourceError when this source has been read already.
        """
        self._begin_reading()
        frames.watch = self._check_timeout
        self._frames = frames
        self._wanted.put(True)
        if self._closing.is_set():
            frames.abandon()

    def __iter__(self) -> Iterator[Frame]:
        frames: Channel[Frame] = Channel(1)
        self.feed(frames)
        while taken := frames.take():
            yield from taken

    def close(self) -> None:
        """Stop reading and end any wait for frames. Waits CLOSE_TIMEOUT for a read in progress."""
        if self._closing.is_set():
            return
        self._closed = True
        self._closing.set()
        self._wanted.put(False)
        if self._frames is not None:
            self._frames.abandon()
        if self._thread.ident is None:  # interrupted while starting: it ends as soon as it runs
            return
        self._thread.join(CLOSE_TIMEOUT)
        if self._thread.is_alive():
            logger.debug("%s is still being read; it will be released when the read returns.", self.name)

    def _report_outage(self, reason: str | None) -> None:
        if self.on_outage is not None:
            self.on_outage(reason)

    @property
    def _retries(self) -> bool:
        """True if a failed connection is tried again."""
        return self._reconnect and (self._wait or self._delivered)

    def _check_timeout(self) -> None:
        """Raise SourceError when a call of the driver takes too long. Called by the thread that waits."""
        since = self._waiting_since
        if since is None or self._retries:
            return
        if time.monotonic() - since >= self._timeout + GRACE:
            raise self._silent()

    def _silent(self) -> SourceError:
        return SourceError(
            f"No frame arrived from {self.name} for {self._timeout:g} s. "
            "Check the device and its connection, then open it again; set a longer timeout if it is slow."
        )

    def _seconds(self, raw: RawFrame) -> float:
        if not self.live:
            return super()._seconds(raw)
        self.started_at = raw.arrived if self.started_at is None else self.started_at
        return raw.arrived - self.started_at

    def _check_end(self, count: int, seconds: float) -> None:
        if self._stalled:
            raise self._silent()
        super()._check_end(count, seconds)

    def _run(self) -> None:
        """Write the frames, then the end or an error, to the channel of `feed`. Runs in the thread."""
        error: BaseException | None = None
        try:
            for frame in self._numbered():
                if self._frames is not None:
                    self._frames.put(frame)
        except BaseException as caught:
            error = caught
        (self._frames or self._opened).close(error)

    def _raw_frames(self) -> Iterator[RawFrame]:
        """Connect and read, repeatedly if the source reconnects, until closed. Runs in the thread."""
        outage, attempt = _Outage(self.name, self._report_outage), 0
        while not self._closing.is_set():
            try:
                capture = self._open()
            except SourceError as error:
                if not self._retries:
                    raise
                reason = str(error)
            else:
                connected = time.monotonic()
                outage.end()
                reason = yield from self._read(capture)
                if self._closed or not self._retries:
                    return
                attempt = 0 if time.monotonic() - connected > RETRY_DELAYS[-1] else attempt
            if not self._closing.is_set():
                outage.report(reason)
            self._closing.wait(RETRY_DELAYS[min(attempt, len(RETRY_DELAYS) - 1)])
            attempt += 1

    def _read(self, capture: Capture) -> Generator[RawFrame, None, str]:
        """Yield the frames of `capture`, then release it. Return the reason for the end."""
        count, self._stalled = 0, False
        try:
            self._report_opened(CaptureInfo.of(capture))
            while (raw := self._read_one(capture)) is not None:
                self._delivered = True
                yield raw
                count += 1
        finally:
            capture.release()
        end = f"sent nothing for {self._timeout:g} s" if self._stalled else "disconnected"
        return f"{self.name} {end} after {count} frames."

    def _read_one(self, capture: Capture) -> RawFrame | None:
        """Wait until a frame is wanted, then read it. Return None at the end, or when closed."""
        if self._frames is None or not self._frames.ready():
            self._closed = True  # the frames are no longer wanted
            return None
        self._waiting_since = began = time.monotonic()
        raw = read_frame(capture)
        self._waiting_since = None
        # After a timeout the decoder still returns the frames it held back, as if no time had passed.
        self._stalled = self._stalled or time.monotonic() - began >= self._timeout
        return raw

    def _report_opened(self, info: CaptureInfo) -> None:
        """Pass `info` to the constructor and wait for `feed`; after reconnecting, compare the frame size."""
        if self._info is None:
            self._info = info
            self._waiting_since = None
            self._opened.put(info)
            self._wanted.get()
        elif info.size != self._info.size:
            (width, height), (old_width, old_height) = info.size, self._info.size
            raise SourceError(
                f"{self.name} changed its frame size from {old_width}x{old_height} to {width}x{height} while "
                "reconnecting. Start again to use the new size."
            )


class _Outage:
    """Log when a stream becomes unavailable, every REMINDER_INTERVAL seconds, and when it returns."""

    def __init__(self, name: str, listener: Callable[[str | None], None]) -> None:
        self._name, self._listener = name, listener
        self._begun: float | None = None
        self._reported = 0.0

    def report(self, reason: str) -> None:
        now = time.monotonic()
        if self._begun is None:
            self._begun = self._reported = now
            logger.warning("%s Waiting for it to return.", reason)
            self._listener(reason)
        elif now - self._reported >= REMINDER_INTERVAL:
            self._reported = now
            logger.warning(
                "%s has been unavailable for %.0f s. Still waiting.", self._name, now - self._begun
            )

    def end(self) -> None:
        if self._begun is not None:
            logger.warning("%s is available after %.1f s.", self._name, time.monotonic() - self._begun)
            self._listener(None)
        self._begun = None
