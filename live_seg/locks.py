"""Files that belong to one process while it writes them.

The lock is on the file itself and ends with it. Those of filelock, used for folders and downloads, need a
second file.
"""

import contextlib
import os
from importlib import import_module
from pathlib import Path
from typing import Any

try:
    _fcntl: Any = import_module("fcntl")
except ImportError:  # Windows, where a file that is written cannot be replaced or deleted either way
    _fcntl = None


def create(path: Path, *, locked: bool = True) -> int | None:
    """Create the file `path` and lock it. Return the descriptor that holds the lock until it is closed.

    Returns None if it is not to be `locked`, and on systems without such locks. Raises FileExistsError if
    `path` exists, which includes links, and any other OSError.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    if _fcntl is None or not locked:
        os.close(descriptor)
        return None
    with contextlib.suppress(OSError):  # a file system without locks
        _fcntl.flock(descriptor, _fcntl.LOCK_EX)
    return descriptor


def is_held(path: Path) -> bool:
    """Return whether a process, this one included, holds the lock of the file `path`."""
    if _fcntl is None or not path.is_file():
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        _fcntl.flock(descriptor, _fcntl.LOCK_SH | _fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
