"""A sink served by a thread of its own, so that a slow one does not hold up a live session."""

from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread

from live_seg.types import Frame, Image, Instances, Sink

MAX_QUEUED_BYTES = 256 * 2**20
"""Bytes of frames and drawn pictures that may wait: 48 of 720p, 21 of 1080p, for an encoder that starts, ends
or gets no processor for a moment."""


class ThreadedSink(Sink):
    """Hands frames on to `sink` in a thread; the caller never waits for it, but at the end.

    Frames that come while MAX_QUEUED_BYTES wait are left out and counted in `dropped`: the recording of a
    live session stays true in time, and the session keeps its pace. What `sink` raises is raised by the next
    `write`, or by `close`; nothing but closing is asked of it from then on. Not for windows.
    """

    def __init__(self, sink: Sink) -> None:
        self.dropped = 0
        """Frames left out so far."""
        self._sink = sink
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._closed = False
        # One thread each adds to these, so that they need no lock.
        self._bytes_given = self._bytes_taken = 0
        self._wanted = True
        self._broken = False
        self._error: Exception | None = None

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:
        """Let a copy of the picture wait for its turn. False once `sink` asked to stop."""
        self._check()
        size = frame.image.nbytes + image.nbytes
        waiting = self._bytes_given - self._bytes_taken
        if waiting and waiting + size > MAX_QUEUED_BYTES:
            self.dropped += 1
            return self._wanted
        self._bytes_given += size
        self.call(partial(self._hand_on, frame, image.copy(), instances, size))
        return self._wanted

    def call(self, act: Callable[[], None]) -> None:
        """Call `act`, say `recorder.start`, in the thread, after the frames so far; not once one failed."""
        if self._thread is None:
            self._thread = Thread(target=self._serve, name=f"background {type(self._sink).__name__}")
            self._thread.start()
        self._jobs.put(act)

    def close(self, complete: bool = True) -> None:
        """Wait until all that waits is written, and close `sink`."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        self._sink.close(complete and not self._broken)
        self._check()

    def _hand_on(self, frame: Frame, image: Image, instances: Instances, size: int) -> None:
        try:
            self._wanted = self._sink.write(frame, image, instances) and self._wanted
        finally:
            self._bytes_taken += size

    def _serve(self) -> None:
        for act in iter(self._jobs.get, None):
            if not self._broken:
                try:
                    act()
                except Exception as error:  # whatever it is, the caller's thread is told
                    self._broken, self._error = True, error

    def _check(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
