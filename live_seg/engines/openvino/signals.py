"""Keep Ctrl-C working beside OpenVINO."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator

LARGEST_STACK_T = 64
"""Bytes: more than `stack_t` has on any POSIX system."""


@contextlib.contextmanager
def own_signal_stack() -> Iterator[None]:
    """Restore this thread's alternate signal stack afterwards. No effect on Windows, which has none.

    OpenVINO's CPU plugin replaces the stack when it loads, and may leave the address of freed memory. The
    next signal, such as Ctrl-C, would then crash the process.
    """
    if sys.platform == "win32":
        yield
        return
    stack = ctypes.create_string_buffer(LARGEST_STACK_T)
    libc = ctypes.CDLL(None)
    libc.sigaltstack(None, stack)
    try:
        yield
    finally:
        libc.sigaltstack(stack, None)
