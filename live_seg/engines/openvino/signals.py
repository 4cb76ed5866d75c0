"""Ctrl-C beside OpenVINO."""

import contextlib
import ctypes
from collections.abc import Iterator

LARGEST_STACK_T = 64
"""Bytes: more than `stack_t` has on any system."""


@contextlib.contextmanager
def own_signal_stack() -> Iterator[None]:
    """Have this thread keep the stack that its signals are handled on.

    OpenVINO's CPU plugin puts up one of its own where it loads, and where several come and go it leaves the
    address of one that is freed: the next signal, such as Ctrl-C, would end the process.
    """
    stack = ctypes.create_string_buffer(LARGEST_STACK_T)
    libc = ctypes.CDLL(None)
    libc.sigaltstack(None, stack)
    try:
        yield
    finally:
        libc.sigaltstack(stack, None)
