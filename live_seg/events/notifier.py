"""Events of a live session, delivered in a thread of their own."""

import logging
from datetime import datetime
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, Literal

from live_seg.errors import SinkError
from live_seg.events.target import EventTarget

logger = logging.getLogger(__name__)

EventName = Literal["seen", "gone", "recording-started", "recording-finished", "source-lost", "source-back"]

MAX_WAITING = 1000
"""Events that may wait for a slow target; further ones are lost, and counted as failures."""

CLOSE_TIMEOUT = 5.0
"""Seconds that the events still waiting at the end of a session have."""


class Notifier:
    """Send events to `target` in a thread. `send` never blocks; `close` waits CLOSE_TIMEOUT.

    The first failure is logged as a warning, all are counted. `source` is the name of the source in events.
    """

    def __init__(self, target: EventTarget, source: str) -> None:
        self.sent = 0
        """Events delivered so far."""
        self._lost = self._undelivered = 0
        self._target, self._source = target, source
        self._waiting: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._ending, self._abandoned = Event(), Event()
        self._counting = Lock()
        self._thread = Thread(target=self._run, name="live_seg events")
        self._thread.start()

    def send(self, name: EventName, **details: Any) -> None:
        """Queue an event. `details` are values that JSON can hold. May be called in any thread."""
        if self._waiting.qsize() >= MAX_WAITING:
            with self._counting:
                self._lost += 1
            return
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        self._waiting.put({"event": name, "time": now, "source": self._source, **details})

    def close(self) -> None:
        """Deliver the events that wait, then end the thread. May be called again."""
        self._ending.set()
        self._waiting.put(None)
        self._thread.join(CLOSE_TIMEOUT)
        self._abandoned.set()
        self._target.stop()
        self._thread.join()

    @property
    def failed(self) -> int:
        """Events that could not be delivered so far."""
        return self._lost + self._undelivered

    @property
    def summary(self) -> str:
        """The counts as text."""
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.sent} event{'' if self.sent == 1 else 's'} sent{failed}"

    def _run(self) -> None:
        for event in iter(self._waiting.get, None):
            if self._abandoned.is_set():
                self._undelivered += 1
                continue
            try:
                self._target.send(event, self._ending)
                self.sent += 1
            except SinkError as error:
                self._undelivered += 1
                if self._undelivered == 1:
                    logger.warning(
                        "The event %s could not be sent to %s: %s. Further failures are only counted.",
                        *(event["event"], self._target.name, error),
                    )
