"""What a camera and a network stream have in common: read by a thread of its own, watched, reconnected."""

import logging
import math
import time
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Thread

from live_seg.errors import SourceError, UsageError
from live_seg.sources.captures import Capture, CaptureInfo, CaptureSource, RawFrame, read_frame

logger = logging.getLogger(__name__)

TIMEOUT = 10.0
"""Seconds a camera or stream may take to open, or stay silent, before it counts as dead."""

GRACE = 1.0
"""Seconds more for a capture that ends a silent read by itself (FFmpeg, V4L2): then its thread ends, too."""

CLOSES_WITHIN = 1.0
"""Seconds to wait for the end of a read when closing: longer than the pause between two pictures."""

LOOKS_UP_AFTER = 1.0
"""Seconds after which a wait sees a Ctrl-C that came in the instant before it, and did not end it."""

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each further attempt to connect, the last again and again; a connection that held for longer
than that starts them over."""

REMINDS_AFTER = 60.0
"""Seconds after which it is said again that a stream is being waited for."""


@dataclass(frozen=True)
class _Ended:
    """The last thing a reading thread hands over, with its error if it had one."""

    error: BaseException | None = None


class Live(CaptureSource):
    """A capture that one thread opens, reads and releases, so that no call of it holds anybody else up.

    The thread is one picture ahead of whoever iterates, and waits for them.

    Raises SourceError when nothing came for `timeout` seconds. If it may `reconnect` it waits instead until
    pictures come again, and logs a warning when they stop, now and then, and when they are back; no frames
    come meanwhile, indexes go on as if nothing had been, seconds by the clock. Unless it may `wait`, that is
    for what has been there: a picture must have come. Pictures that come back in another size are a
    SourceError: a video being written, for one, cannot change its size. UsageError for a bad `timeout`.

    The thread is a daemon, the one exception here: a driver that hangs inside a read cannot be ended from
    outside, and the program shall end in spite of it. `close` waits CLOSES_WITHIN for it; a read that takes
    longer is left to itself, and its device is let go of when it returns. (Before Python 3.14 a read that
    returns in the last instants of the program, while the interpreter is taken down, aborts the process.)
    """

    live = True
    begun: float | None = None
    """`time.monotonic()` when the first frame was captured, from which Frame.seconds count; None before."""

    def __init__(self, name: str, timeout: float, *, reconnect: bool = False, wait: bool = True) -> None:
        if not 0 < timeout < math.inf:
            raise UsageError(f"A timeout is a number of seconds above 0. Got {timeout:g}.")
        self.name = name
        self._timeout = timeout
        self._reconnect = reconnect
        self._wait = wait
        self._delivered = self._stalled = False
        self._declared: CaptureInfo | None = None
        self._asked: SimpleQueue[None] = SimpleQueue()
        self._came: SimpleQueue[CaptureInfo | RawFrame | _Ended] = SimpleQueue()
        self._closing = Event()
        self._thread = Thread(target=self._run, name=f"live_seg {name}", daemon=True)
        try:
            self._thread.start()
            declared = self._next()
        except BaseException:
            self.close()
            raise
        assert isinstance(declared, CaptureInfo)
        super().__init__(name, declared)

    @abstractmethod
    def _open(self) -> Capture:
        """Open the capture; called in the reading thread. Raises SourceError."""

    def _raw_frames(self) -> Iterator[RawFrame]:
        self._asked.put(None)
        while not self._closed and isinstance(picture := self._next(), RawFrame):
            self._asked.put(None)  # the next one is read while this one is used
            yield picture

    def _next(self) -> CaptureInfo | RawFrame | _Ended:
        """Wait for what the thread hands over; raises its error, and SourceError when it is silent."""
        thing = self._waited()
        if isinstance(thing, _Ended):
            self._came.put(thing)  # it stays the last, for whoever asks again
            if thing.error is not None and not self._closing.is_set():
                raise thing.error
        return thing

    @property
    def _goes_on(self) -> bool:
        """Whether a connection that fails is tried again."""
        return self._reconnect and (self._wait or self._delivered)

    def _waited(self) -> CaptureInfo | RawFrame | _Ended:
        until = math.inf if self._goes_on else time.monotonic() + self._timeout + GRACE
        while (left := until - time.monotonic()) > 0:
            try:
                return self._came.get(timeout=min(left, LOOKS_UP_AFTER))
            except Empty:
                continue
        raise self._silent()

    def _seconds(self, picture: RawFrame) -> float:
        if not self.live:
            return super()._seconds(picture)
        self.begun = picture.arrived if self.begun is None else self.begun
        return picture.arrived - self.begun

    def _check_end(self, count: int, seconds: float) -> None:
        if self._stalled:
            raise self._silent()
        super()._check_end(count, seconds)

    def _silent(self) -> SourceError:
        return SourceError(
            f"No picture came from {self.name} for {self._timeout:g} s. "
            "Check it and the way to it, then open it again; if it is slow, give it a longer timeout."
        )

    def close(self) -> None:
        """End the reading and any wait for it, at once; a read in progress gets CLOSES_WITHIN seconds."""
        if self._closing.is_set():
            return
        self._closed = True
        self._closing.set()
        self._asked.put(None)
        self._came.put(_Ended())
        if self._thread.ident is None:  # Ctrl-C came while it was being started: it ends as soon as it runs
            return
        self._thread.join(CLOSES_WITHIN)
        if self._thread.is_alive():
            logger.info("%s is still being read; it is let go of when the read returns.", self.name)

    def _run(self) -> None:
        """What the thread does: how it ended goes to whoever iterates."""
        error: BaseException | None = None
        try:
            self._keep_connected()
        except BaseException as caught:
            error = caught
        self._came.put(_Ended(error))

    def _keep_connected(self) -> None:
        """Connect and read, again and again if it may, until closed."""
        gap, attempt = _Gap(self.name), 0
        while not self._closing.is_set():
            try:
                capture = self._open()
            except SourceError as error:
                if not self._goes_on:
                    raise
                reason = str(error)
            else:
                connected = time.monotonic()
                gap.end()
                reason = self._read(capture)
                if not self._goes_on:
                    return
                attempt = 0 if time.monotonic() - connected > PAUSES[-1] else attempt
            if not self._closing.is_set():
                gap.tell(reason)
            self._closing.wait(PAUSES[min(attempt, len(PAUSES) - 1)])
            attempt += 1

    def _read(self, capture: Capture) -> str:
        """Hand over what `capture` declares and its pictures, then release it; says why they ended."""
        count, self._stalled = 0, False
        try:
            self._introduce(CaptureInfo.of(capture))
            while (picture := self._read_one(capture)) is not None:
                self._delivered = True
                self._came.put(picture)
                count += 1
        finally:
            capture.release()
        self._asked.put(None)  # the picture that did not come is wanted of the next connection
        how = f"sent nothing for {self._timeout:g} s" if self._stalled else "broke off"
        return f"{self.name} {how} after {count} pictures."

    def _read_one(self, capture: Capture) -> RawFrame | None:
        """Wait until a picture is asked for, then for it; None at the end, or when closed."""
        self._asked.get()
        if self._closing.is_set():
            return None
        began = time.monotonic()
        picture = read_frame(capture)
        # After a timeout the decoder still hands out the pictures it held back, as if nothing had happened.
        self._stalled = self._stalled or time.monotonic() - began >= self._timeout
        return picture

    def _introduce(self, declared: CaptureInfo) -> None:
        if self._declared is None:
            self._declared = declared
            self._came.put(declared)
        elif declared.size != self._declared.size:
            (width, height), (wide, high) = declared.size, self._declared.size
            raise SourceError(
                f"{self.name} came back with pictures of {width}x{height}; before they had {wide}x{high}. "
                "Start again for the new size."
            )


class _Gap:
    """The time without a stream: told when it begins, every REMINDS_AFTER seconds, and when it ends."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._begun: float | None = None
        self._told = 0.0

    def tell(self, reason: str) -> None:
        now = time.monotonic()
        if self._begun is None:
            self._begun = self._told = now
            logger.warning("%s Waiting for it.", reason)
        elif now - self._told >= REMINDS_AFTER:
            self._told = now
            logger.warning("%s is not there for %.0f s. Waiting on.", self._name, now - self._begun)

    def end(self) -> None:
        if self._begun is not None:
            logger.warning("%s is there after %.1f s.", self._name, time.monotonic() - self._begun)
        self._begun = None
