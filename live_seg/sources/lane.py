"""One of several sources, opened and read in threads of its own, at the pace of its time."""

import logging
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Protocol, runtime_checkable

from live_seg.channel import Channel
from live_seg.errors import SourceError
from live_seg.sound import Sound
from live_seg.sources.driver_thread import DriverThread
from live_seg.types import Frame, Source

logger = logging.getLogger(__name__)

FRAMES_WAITING = 2
"""Frames of a source that wait for the caller; older ones are dropped."""

RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each further attempt to open a stream; the last one repeats."""

MAX_DELAY = 0.5
"""Seconds that a frame of a file may be late. The times of later ones move, so that the file plays slower."""

CLOSE_TIMEOUT = 2.0
"""Seconds that closing waits for a source that is being opened or read."""


@runtime_checkable
class _Feeding(Protocol):
    """A source with a reading thread of its own."""

    def feed(self, frames: Channel[Frame], /) -> None: ...


class _Frames(Channel[Frame]):
    """Channel that drops its oldest frame, reports frames and its end, and shows that it has been closed."""

    def __init__(self) -> None:
        super().__init__(FRAMES_WAITING, drop_oldest=True)
        self.closed = False
        self.on_change: Callable[[], None] = _nothing

    def put(self, item: Frame) -> bool:
        accepted = super().put(item)
        self.on_change()
        return accepted

    def close(self, error: BaseException | None = None) -> None:
        super().close(error)
        self.closed = True
        self.on_change()


def _nothing() -> None:
    pass


class SourceLane:
    """Open a source with `opening` and read it in the background; `take` returns its newest frames.

    Frames of a source that is not live arrive when they are due, from its first frame on, and at most
    MAX_DELAY later. A stream that cannot be opened is tried again while `retries`, with one warning.
    """

    def __init__(
        self,
        opening: Callable[[], Source],
        name: str,
        *,
        retries: bool = False,
        on_open: Callable[[Source], None] | None = None,
    ) -> None:
        self.name = name
        self.source: Source | None = None
        """The source once it is open."""
        self._opening, self._retries, self._on_open = opening, retries, on_open
        self._frames = _Frames()
        self._skipped = 0
        self._ending = Event()
        self._origin: float | None = None
        self._thread = DriverThread(self._run, f"live_seg {name}")

    def start(self, on_change: Callable[[], None]) -> None:
        """Start the thread. It calls `on_change` for each frame and at the end."""
        self._frames.on_change = on_change
        self._thread.start()

    @property
    def started_at(self) -> float | None:
        """`time.monotonic()` of the time 0.0 of the source, which MAX_DELAY may move; None before a frame."""
        live = self.source is not None and self.source.live
        return self.source.started_at if live and self.source is not None else self._origin

    @property
    def sound(self) -> Sound | None:
        """The sound of the source: see Source; None before it is open."""
        return self.source.sound if self.source is not None else None

    @property
    def dropped(self) -> int:
        """Number of frames so far that were replaced by newer ones before they were taken."""
        return self._frames.dropped + self._skipped

    @property
    def ending(self) -> bool:
        """Return whether `take` may raise an error or find the end: no frame waits, or the last ones do."""
        return self._frames.closed or not self._frames.waiting

    def take(self, *, newest: bool = False) -> tuple[Frame | None, bool]:
        """Return the next frame, or the `newest`, if there is one, and whether the source has ended.

        Raises the error that ended it, and SourceError when it is silent for too long.
        """
        closed = self._frames.closed
        found = self._frames.take(FRAMES_WAITING if newest else 1, wait=False)
        self._skipped += max(0, len(found) - 1)
        if not found and not closed and self._frames.watch is not None:
            self._frames.watch()
        return (found[-1] if found else None), closed and not found

    def abandon(self) -> None:
        """Ask the thread to end, without waiting."""
        self._ending.set()
        self._frames.abandon()

    def close(self) -> None:
        """End the thread and close the source. Waits CLOSE_TIMEOUT for a call that cannot be interrupted."""
        self.abandon()
        if self.source is not None:
            self.source.close()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_TIMEOUT)

    def _run(self) -> None:
        """Open the source and read it. Runs in the thread."""
        try:
            source = self._opened()
            if source is None:
                self._frames.close()
            elif source.live and isinstance(source, _Feeding):
                source.feed(self._frames)
            else:
                self._read(source)
        except BaseException as error:
            self._frames.close(error)

    def _opened(self) -> Source | None:
        """Return the open source, or None when the lane is closed before that."""
        attempt = 0
        while not self._ending.is_set():
            try:
                self.source = source = self._opening()
            except SourceError as error:
                if not self._retries:
                    raise
                if not attempt:
                    logger.warning("%s Waiting for %s.", error, self.name)
                self._ending.wait(RETRY_DELAYS[min(attempt, len(RETRY_DELAYS) - 1)])
                attempt += 1
                continue
            if self._ending.is_set():
                source.close()
                return None
            if self._on_open is not None:
                self._on_open(source)
            return source
        return None

    def _read(self, source: Source) -> None:
        for frame in self._paced(source):
            if not self._frames.put(frame):
                break
        self._frames.close()

    def _paced(self, source: Source) -> Iterator[Frame]:
        """Yield the frames of a source that is not live when they are due."""
        for frame in source:
            now = time.monotonic()
            if self._origin is None or now > self._origin + frame.seconds + MAX_DELAY:
                self._origin = now - frame.seconds
            if self._ending.wait(max(self._origin + frame.seconds - now, 0.0)):
                return
            yield frame
