"""End the program in order on Ctrl-C, SIGTERM and SIGHUP: the outputs are completed."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from live_seg.cli.streams import STDERR

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C; the signal of `kill`, `timeout`, systemd and `docker stop`; a closed terminal."""

AGAIN = "\nlive-seg: completing the output. Once more stops at once and keeps the partial file.\n"


class Ended(KeyboardInterrupt):
    """The program was asked to end by the signal `number`."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code that shells use for a program ended by a signal: 128 + its number."""
    return 128 + (interrupt.number if isinstance(interrupt, Ended) else signal.SIGINT)


def end_in_order() -> None:
    """Raise Ended in the main thread for each ending signal, except the second one.

    The second signal only prints a message, because it usually comes while the output is completed. A signal
    that is ignored, as SIGHUP under nohup, stays ignored.
    """
    received = 0

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal received
        received += 1
        if received != 2:
            raise Ended(number)
        with contextlib.suppress(OSError, ValueError):  # descriptor 2 may be hidden: see native_messages
            os.write(sys.stderr.fileno() if sys.stderr else STDERR, AGAIN.encode())

    _set_handlers(handle)


@contextlib.contextmanager
def keeping_handlers() -> Iterator[None]:
    """Restore the handlers of the ending signals that a library replaces within the `with` block."""
    numbers = [number for name in ENDING if (number := getattr(signal, name, None)) is not None]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_at_once() -> None:
    """Let each ending signal end the process without a traceback: no output is being written."""
    _set_handlers(signal.SIG_DFL)


def _set_handlers(handler: "signal._HANDLER") -> None:
    for name in ENDING:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)
