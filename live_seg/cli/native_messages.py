"""Keep messages of native libraries out of the command line's output.

Most libraries have a log level. TensorFlow also writes to file descriptor 2 while it loads, whatever its
level is. Only the command line changes such state of the process: the library never redirects the standard
error or sets the environment of a program that uses it.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from live_seg.cli.streams import STDERR, stream_on

LOG_LEVELS = {
    "OPENCV_FFMPEG_LOGLEVEL": "-8",  # AV_LOG_QUIET
    "OPENCV_LOG_LEVEL": "SILENT",
    "TF_CPP_MIN_LOG_LEVEL": "3",  # fatal messages only
}
"""Environment variables that suppress native log messages: every failure is reported as an exception."""


def suppress_native_logs() -> None:
    """Set LOG_LEVELS in the environment, where the user has not set them."""
    for name, level in LOG_LEVELS.items():
        os.environ.setdefault(name, level)


def separate_stderr() -> None:
    """Give `sys.stderr` its own descriptor, so that hiding descriptor 2 does not hide Python's messages."""
    stream = sys.__stderr__
    if stream is None or sys.stderr is not stream:  # closed, or replaced by the caller
        return
    stream.flush()
    sys.stderr = stream_on(os.dup(STDERR), encoding=stream.encoding)


@contextlib.contextmanager
def hidden_native_messages() -> Iterator[None]:
    """Redirect descriptor 2 to the null device, unless LIVE_SEG_DEBUG is set."""
    if os.environ.get("LIVE_SEG_DEBUG") or sys.stderr is None:
        yield
        return
    saved = os.dup(STDERR)
    try:
        with Path(os.devnull).open("wb") as null:
            os.dup2(null.fileno(), STDERR)
        yield
    finally:
        os.dup2(saved, STDERR)
        os.close(saved)
