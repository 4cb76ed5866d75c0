"""Keys of work, and a locked folder for it, with which a run continues after an interruption."""

import hashlib
import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from live_seg.errors import SinkError, TakenError
from live_seg.files import expand_user

FOLDER = ".live-seg"
"""Name of the folder for the work of a run over many files, inside the output folder."""


def identity(source: str) -> dict[str, Any] | None:
    """Return what distinguishes a local file from later versions: path, size and modification time.

    None for a source without these: a camera, a stream or a missing file.
    """
    if "://" in source:
        return None
    path = expand_user(source)
    try:
        status = path.stat()
    except OSError:
        return None
    if path.is_dir():
        return None
    return {"path": str(path.resolve()), "size": status.st_size, "modified": status.st_mtime_ns}


def key_of(*parts: object) -> str:
    """Return a hash of `parts`, which are JSON values or become strings: 20 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class WorkFolder:
    """A folder for unfinished work, locked while one run uses it.

        with WorkFolder(path) as work:
            ...

    With `restart`, earlier work in it is deleted. Raises TakenError while another run uses it, SinkError if
    it cannot be created.
    """

    def __init__(self, path: Path, *, restart: bool = False) -> None:
        self.path = path
        self._restart = restart
        self._lock = FileLock(path / "lock", timeout=0)

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise TakenError(
                f"Another run writes this output: it holds the lock of {self.path}. Wait until it ends."
            ) from None
        except OSError as error:
            raise SinkError(f"Cannot create the folder {self.path}: {error.strerror}.") from error
        if self._restart:
            self._clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def remove(self) -> None:
        """Delete the folder: everything is done."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _clear(self) -> None:
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != "lock":
                path.unlink(missing_ok=True)
