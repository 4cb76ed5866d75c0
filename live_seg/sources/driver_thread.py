"""Threads for driver calls that cannot be interrupted. Imports nothing heavy."""

import threading
from collections.abc import Callable


class DriverThread(threading.Thread):
    """Daemon thread for calls of a camera driver or video library that may never return.

    It is a daemon so that such a call does not keep the process from ending. Before Python 3.14, a call that
    returns during interpreter shutdown aborts the process: a program should leave with `os._exit` while
    `driver_calls_pending()`.
    """

    def __init__(self, target: Callable[[], None], name: str) -> None:
        super().__init__(target=target, name=name, daemon=True)


def driver_calls_pending() -> bool:
    """Return True while a DriverThread is alive."""
    return any(isinstance(thread, DriverThread) for thread in threading.enumerate())
