"""End the program in order on Ctrl-C, SIGTERM and SIGHUP: the outputs are completed."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from live_seg.cli.streams import STDERR

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C; the signal of `kill`, `timeout`, systemd and `docker stop`; a closed terminal."""

RETRY_SECONDS = 0.02
"""Seconds after which an ending signal is raised again that had no effect."""

AGAIN = "\nlive-seg: completing the output. Once more stops at once and keeps the partial file.\n"


@dataclass
class _State:
    received: list[int] = field(default_factory=list)
    """The ending signals since `end_in_order`."""
    announced: bool = False
    """True once AGAIN was printed."""
    completing: bool = False
    blocks: int = 0
    """Number of `completing` blocks around the current code."""
    unraisable: Callable[[Any], object] = sys.unraisablehook
    """The hook that `end_in_order` replaces."""


_state = _State()


class Ended(KeyboardInterrupt):
    """The program was asked to end by the signal `number`."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code that shells use for a program ended by a signal: 128 + its number.

    Ray replaces Ended by a KeyboardInterrupt of its own: then the signal is the first one received.
    """
    if isinstance(interrupt, Ended):
        return 128 + interrupt.number
    return 128 + (_state.received[0] if _state.received else signal.SIGINT)


def end_in_order() -> None:
    """Raise Ended in the main thread for each ending signal, except one while the output is completed.

    That is the second one, or the first one if `completing`: it only prints a message. A signal that is
    ignored, as SIGHUP under nohup, stays ignored. Replaces `sys.unraisablehook` until `end_at_once`.
    """
    _reset()
    _state.unraisable, sys.unraisablehook = sys.unraisablehook, _repeat_swallowed

    def handle(number: int, _: FrameType | None) -> None:
        _state.received.append(number)
        first = len(_state.received) == 1 and not _state.completing
        if first or _state.announced:
            raise Ended(number)
        _state.announced = True
        with contextlib.suppress(OSError, ValueError):  # descriptor 2 may be hidden: see native_messages
            os.write(sys.stderr.fileno() if sys.stderr else STDERR, AGAIN.encode())

    _set_handlers(handle)


def _repeat_swallowed(unraisable: Any) -> None:
    """Raise a signal again if Python discarded its Ended, which it does in destructors and weakref callbacks.

    Those of the import system run during each import.
    """
    if not isinstance(unraisable.exc_value, Ended):
        _state.unraisable(unraisable)
        return
    number = unraisable.exc_value.number
    _state.received.remove(number)
    repeat = threading.Timer(RETRY_SECONDS, _send, [number])
    repeat.daemon = True
    repeat.start()


def _send(number: int) -> None:
    """Send the signal `number` to the main thread, where it interrupts a call that waits."""
    main = threading.main_thread().ident
    if sys.platform == "win32" or main is None:
        signal.raise_signal(number)
    else:
        signal.pthread_kill(main, number)


@contextlib.contextmanager
def completing() -> Iterator[Callable[[], None]]:
    """Yield a function to call when the outputs begin to be completed.

    From then on, the first ending signal raises Ended only at the end of the outermost `with` block.
    """

    def begin() -> None:
        _state.completing = True

    _state.blocks += 1
    try:
        yield begin
    finally:
        _state.blocks -= 1
        _state.completing = _state.completing and _state.blocks > 0
    if _state.received and not _state.blocks:
        raise Ended(_state.received[0])


@contextlib.contextmanager
def completing_now() -> Iterator[None]:
    """Delay the first ending signal to the end of the `with` block: see `completing`."""
    with completing() as begin:
        begin()
        yield


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
    _reset()
    _set_handlers(signal.SIG_DFL)


def _reset() -> None:
    _state.received.clear()
    _state.announced = _state.completing = False
    if sys.unraisablehook is _repeat_swallowed:
        sys.unraisablehook = _state.unraisable


def _set_handlers(handler: "signal._HANDLER") -> None:
    for name in ENDING:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)
