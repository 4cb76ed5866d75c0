"""How to start a child process that signals to this program do not interrupt."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OWN_GROUP: dict[str, Any]
"""Arguments of `subprocess.Popen` with which a terminal sends Ctrl-C to this program but not to the child."""

if sys.platform == "win32":
    OWN_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    OWN_GROUP = {"start_new_session": True}


@contextmanager
def shielded() -> Iterator[None]:
    """Block the signals that end a program while a process is started, which inherits the block.

    A service manager sends SIGTERM to every process of a service. This program then ends ffmpeg by closing
    its input, so that the file is completed; a signal of its own would end ffmpeg earlier.
    """
    if sys.platform == "win32":
        yield
        return
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
