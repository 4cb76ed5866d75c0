"""Files on object stores and web servers, through fsspec: found, copied here, and written."""

import contextlib
import glob
import logging
import re
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from live_seg.errors import LiveSegError, SinkError, SourceError, UsageError
from live_seg.files import cache_folder, expand_user, replacing
from live_seg.fleet.resume import key_of

logger = logging.getLogger(__name__)

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds to wait before each further try, as a store may be overloaded for a while."""

KEPT = 2
"""Copies of sources that a machine keeps: the one being processed, and the next one."""

PERMANENT = (FileNotFoundError, PermissionError, NotImplementedError)
"""Errors that another try does not change."""

URL_AS_PATH = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)")
"""A URL after it has passed through a Path, which joins its slashes."""

IDENTIFYING = ("size", "mtime", "ETag", "etag", "LastModified", "md5Hash")
"""Properties of a file, as stores name them, that change with its content."""

Result = TypeVar("Result")


def url_of(path: Path) -> str | None:
    """Return the URL that was given as `path`; None for a local path."""
    found = URL_AS_PATH.fullmatch(path.as_posix())
    if found is None:
        return None
    return f"{found[1]}:///{found[2]}" if found[1] == "file" else f"{found[1]}://{found[2]}"


def is_store(source: str) -> bool:
    """Return whether `source` is a URL that only fsspec reads: not a file, nor a stream that OpenCV reads."""
    from live_seg.sources.streams import SCHEMES

    scheme, separator, _ = source.partition("://")
    return bool(separator) and scheme.lower() not in SCHEMES


def expand_urls(spec: str) -> list[str]:
    """Return the files of a store that match `spec`, sorted; `spec` itself without a pattern.

    Raises SourceError if nothing matches.
    """
    if not glob.has_magic(spec):
        return [spec]
    system, path = _opened(spec)
    names = _repeated(lambda: system.glob(path), f"Cannot list {spec}", SourceError)
    if not names:
        raise SourceError(f"No file matches {spec}.")
    return sorted(system.unstrip_protocol(name) for name in names)


def identity(url: str) -> dict[str, Any]:
    """Return the properties of a file on a store that change with its content. Raises SourceError."""
    system, path = _opened(url)
    info = _repeated(lambda: system.info(path), f"Cannot read {url}", SourceError)
    return {"url": url, **{name: str(info[name]) for name in IDENTIFYING if info.get(name) is not None}}


def local(source: str) -> Path:
    """Return the path of a local file, or of a copy of a file on a store.

    A machine copies it once, and keeps the last KEPT copies in the cache folder. Raises SourceError.
    """
    if "://" not in source:
        return expand_user(source)
    folder = cache_folder() / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    system, path = _opened(source)
    copy = folder / f"{key_of(identity(source))}{Path(path.partition('?')[0]).suffix}"
    with FileLock(folder / "lock"):
        if copy.exists():
            copy.touch()
            return copy
        with replacing(copy) as partial:
            _repeated(lambda: system.get_file(path, str(partial)), f"Cannot read {source}", SourceError)
        copies = sorted(
            (other for other in folder.iterdir() if other.name != "lock" and ".partial" not in other.name),
            key=lambda other: other.stat().st_mtime,
        )
        for other in copies[:-KEPT]:
            with contextlib.suppress(OSError):  # Windows: another worker reads it
                other.unlink()
    return copy


def exists(url: str) -> bool:
    """Return whether there is a file at `url`. Raises SinkError if the store cannot be reached."""
    system, path = _opened(url)
    return bool(_repeated(lambda: system.exists(path), f"Cannot reach {url}", SinkError))


def upload(path: Path, url: str) -> None:
    """Write the file `path` to `url`. Raises SinkError."""
    system, target = _opened(url)

    def put() -> None:
        with contextlib.suppress(NotImplementedError):  # object stores have no folders
            system.makedirs(system._parent(target), exist_ok=True)
        system.put_file(str(path), target)

    _repeated(put, f"Cannot write {url}", SinkError)


def _opened(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for `url`, and the path in it. Raises UsageError without its package."""
    try:
        fsspec: Any = import_module("fsspec")
        system, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise UsageError(f"{url} needs a package: {error} pip install 'live-seg[ray]'") from error
    except ValueError as error:
        raise UsageError(f"Cannot read {url}: {error}") from error
    return system, path


def _repeated(action: Callable[[], Result], failure: str, kind: type[LiveSegError]) -> Result:
    """Return the result of `action`, tried again after each of WAITS. Raises `kind` if all tries fail."""
    for wait in (*WAITS, None):
        try:
            return action()
        except PERMANENT as error:
            raise kind(f"{failure}: {_reason(error)}") from error
        except Exception as error:  # each store has exceptions of its own
            if wait is None:
                raise kind(f"{failure}: {_reason(error)} Check the address and the credentials.") from error
            logger.info("%s: %s Trying again in %g s.", failure, _reason(error), wait)
            time.sleep(wait)
    raise AssertionError


def _reason(error: Exception) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return f"{text}."
