"""Standard streams that may be closed, or whose reader may leave, without an effect on the run."""

import errno
import io
import os
import re
import sys
from pathlib import Path

from live_seg.cli.messages import CONTROLS, escaped

STDIN, STDOUT, STDERR = range(3)

READER_GONE = (errno.EPIPE, errno.EIO)
"""Errors of a pipe without reader, and of a terminal that was closed."""


CONTROL = re.compile(rf"(?!\x1b\[[\d;]*m)[{CONTROLS}]")
"""Control characters, except for colours. Names of files may contain them."""


class Stream(io.TextIOWrapper):
    """A text stream that escapes control characters, and discards its input once its reader has left."""

    def write(self, text: str, /) -> int:
        """Write `text` and return its length."""
        try:
            return super().write(CONTROL.sub(lambda found: escaped(found[0]), text))
        except OSError as error:
            self._discard(error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            super().flush()
        except OSError as error:
            self._discard(error)

    def _discard(self, error: OSError) -> None:
        """Connect the stream to the null device if its reader has left, else raise `error`."""
        if error.errno not in READER_GONE:
            raise error
        with Path(os.devnull).open("wb") as null:
            os.dup2(null.fileno(), self.fileno())


def open_closed_streams() -> None:
    """Connect closed standard streams to the null device, so that no file gets their descriptors."""
    for descriptor in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor
    if sys.stdout is None:
        sys.stdout = stream_on(STDOUT)
    if sys.stderr is None:
        sys.stderr = stream_on(STDERR)


def tolerate_lost_readers() -> None:
    """Let `sys.stdout` discard its output once its reader has left."""
    stream = sys.stdout
    if stream is sys.__stdout__ and isinstance(stream, io.TextIOWrapper):
        stream.flush()
        sys.stdout = stream_on(STDOUT, encoding=stream.encoding, buffered=not stream.line_buffering)


def stream_on(descriptor: int, *, encoding: str = "utf-8", buffered: bool = False) -> Stream:
    """Return a stream that writes to `descriptor`, line by line unless `buffered`."""
    binary = os.fdopen(descriptor, "wb", closefd=False)
    return Stream(binary, encoding=encoding, errors="backslashreplace", line_buffering=not buffered)
