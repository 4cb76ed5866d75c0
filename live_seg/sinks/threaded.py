"""A sink that writes in a thread of its own, so that it does not slow down a live session."""

from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread

from live_seg.types import Frame, Image, Instances, Sink

MAX_QUEUED_BYTES = 256 * 2**20
"""Bytes of frames and drawn images that may be queued: 48 frames of 720p or 21 of 1080p, enough for the start
or end of an encoder, or for a moment without CPU time."""


class ThreadedSink(Sink):
    """Write to `sink` in a thread. Only `close` waits for it.

    Frames that arrive while MAX_QUEUED_BYTES are queued are dropped and counted in `dropped`; the others keep
    their times, so a recording stays in step with the session. An exception raised by `sink` is raised again
    by the next `write` or by `close`; after it, `sink` is only closed. Not suitable for windows.
    """

    def __init__(self, sink: Sink) -> None:
        self.dropped = 0
        """Number of frames dropped so far."""
        self._sink = sink
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._closed = False
        # Each counter is changed by one thread only, so they need no lock.
        self._bytes_queued = self._bytes_written = 0
        self._wanted = True
        self._failed = False
        self._error: Exception | None = None

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:
        """Queue a copy of `image`. Returns False once `sink` has asked to stop."""
        self._raise_error()
        size = frame.image.nbytes + image.nbytes
        queued = self._bytes_queued - self._bytes_written
        if queued and queued + size > MAX_QUEUED_BYTES:
            self.dropped += 1
            return self._wanted
        self._bytes_queued += size
        self.call(partial(self._write, frame, image.copy(), instances, size))
        return self._wanted

    def call(self, function: Callable[[], None]) -> None:
        """Call `function` in the thread, after all queued frames; skip it if `sink` has failed."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name=f"threaded {type(self._sink).__name__}")
            self._thread.start()
        self._calls.put(function)

    def close(self, complete: bool = True) -> None:
        """Wait until everything queued is written, then close `sink`."""
        if self._closed:
            return
        self._closed = True
        self._calls.put(None)
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        self._sink.close(complete and not self._failed)
        self._raise_error()

    def _write(self, frame: Frame, image: Image, instances: Instances, size: int) -> None:
        try:
            self._wanted = self._sink.write(frame, image, instances) and self._wanted
        finally:
            self._bytes_written += size

    def _run(self) -> None:
        for function in iter(self._calls.get, None):
            if not self._failed:
                try:
                    function()
                except Exception as error:  # raised again in the caller's thread
                    self._failed, self._error = True, error

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
