"""Download known weights into the cache, resumable and verified."""

import contextlib
import logging
import ssl
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NoReturn
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout
from tqdm import tqdm

from live_seg.errors import WeightsError, nearest
from live_seg.models import registry
from live_seg.models.card import RUN_MODEL
from live_seg.models.registry import Weights, expected_size, fault_of, known, path_of, size_fault

logger = logging.getLogger(__name__)

TIMEOUT = 30.0
"""Seconds without data until a connection counts as broken."""

LOCK_WAIT = 0.2
"""Seconds between attempts to lock the cache."""

RETRY_WAITS = (0.5, 1.0, 2.0)
"""Seconds to wait before each retry."""

CHUNK = 1 << 18
"""Bytes read at a time."""

_BROKEN_CONNECTION = (URLError, ConnectionError, TimeoutError, ssl.SSLError, HTTPException)


def find(model: str, *, quiet: bool = False) -> Path:
    """Return the file of a `model` given by name, by path, or by the folder of a training run.

    A missing file of a known name is downloaded. Raises WeightsError for an unknown name, with the nearest
    names, for a folder without a model, and as `locate` does.
    """
    if model in registry.WEIGHTS:
        return locate(model, quiet=quiet)
    path = Path(model).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        if (path / RUN_MODEL).is_file():
            return path / RUN_MODEL
        raise WeightsError(
            f"The folder {path} holds no {RUN_MODEL}. Expected a weights file, or the folder of a training "
            "run that has finished an epoch."
        )
    raise WeightsError(f"There is no model and no file called {model!r}. {nearest(model, registry.WEIGHTS)}")


def locate(name: str, *, quiet: bool = False) -> Path:
    """Return the file of the weights called `name`, downloaded if it is missing or has the wrong size.

    Raises WeightsError when the name is unknown, a bundled file is missing, or the download fails.
    """
    weights = known(name)
    path = path_of(weights)
    return path if size_fault(weights, path) is None else download(name, quiet=quiet)


def download(name: str, *, quiet: bool = False) -> Path:
    """Download the weights called `name` into the cache unless a valid file is there, and return the path.

    An interrupted download is resumed. The file gets its final name once it is verified. `quiet` hides the
    progress bar on stderr. Bundled weights are never downloaded.

    Raises WeightsError, with instructions for a manual download, when it fails.
    """
    weights = known(name)
    path = path_of(weights)
    if weights.url is None or weights.size is None:
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path.with_name(f"{path.name}.lock")):
            fault = fault_of(weights, path)  # the previous holder of the lock may have downloaded it
            if fault is not None:
                logger.info("Downloading the weights %r, as %s.", name, fault)
                part = path.with_name(f"{path.name}.part")
                _receive(weights, weights.url, part, quiet=quiet)
                _verify(weights, part)
                part.replace(path)
    except (OSError, WeightsError) as error:
        raise WeightsError(
            f"Cannot download the weights {name!r} into {path.parent}: {_reason(error)}. Try later, or "
            f"download {weights.url} by other means and save it as {path}. "
            "LIVE_SEG_CACHE sets another folder."
        ) from error
    return path


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Exclude other processes from downloading. The system releases the lock when a process ends.

    Raises OSError if `path` is a link: the lock does not follow it.
    """
    lock = FileLock(path, poll_interval=LOCK_WAIT)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        logger.info("Waiting for another process that is downloading to %s.", path.parent)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _receive(weights: Weights, url: str, part: Path, *, quiet: bool) -> None:
    """Download `url` into `part`, with a few retries when the connection breaks."""
    problem = ""
    with tqdm(total=weights.size, unit="B", unit_scale=True, desc=part.stem, disable=quiet) as bar:
        for wait in (0.0, *RETRY_WAITS):
            time.sleep(wait)
            try:
                if fault_of(weights, part) is not None:
                    _fetch(weights, url, part, bar)
            except HTTPError as error:
                error.close()
                if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    part.unlink(missing_ok=True)
                elif error.code < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                problem = _reason(error)
            except _BROKEN_CONNECTION as error:
                problem = _reason(error)
            else:
                return
            logger.info("%s: %s", url, problem)
    raise WeightsError(f"{problem} (so far: {_size(part):,} of {expected_size(weights)} bytes)")


def _fetch(weights: Weights, url: str, part: Path, bar: "tqdm[NoReturn]") -> None:
    """Request the bytes that `part` lacks, once, and append them.

    If the server ignores the range, `part` is overwritten from its beginning. Raises one of
    _BROKEN_CONNECTION when the response is incomplete, WeightsError when it is another file.
    """
    have = _size(part)
    wanted = {"Range": f"bytes={have}-"} if have else {}
    response: HTTPResponse
    with urlopen(Request(url, headers={"User-Agent": "live_seg"} | wanted), timeout=TIMEOUT) as response:
        continued = response.status == HTTPStatus.PARTIAL_CONTENT
        if continued and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise ConnectionError("the server sent another range than requested")
        least, most = _sizes(weights, response, have if continued else 0)
        with part.open("ab" if continued else "wb") as file:
            bar.update(file.tell() - bar.n)
            while chunk := response.read(min(CHUNK, most - file.tell())):
                file.write(chunk)
                bar.update(len(chunk))
    if _size(part) < least:
        raise ConnectionError("the connection was closed early")


def _sizes(weights: Weights, response: HTTPResponse, start: int) -> tuple[int, int]:
    """Return the least and the largest size in bytes of the file that `response` continues from `start`.

    Raises WeightsError when the response is a web page or the file has another size than expected.
    """
    if response.headers.get_content_type() == "text/html":
        raise WeightsError("the server sent a web page instead of the file")
    expected = weights.size or 0
    if response.length is None:
        return expected - weights.rounding, expected + weights.rounding
    size = start + response.length
    if abs(size - expected) > weights.rounding:
        raise WeightsError(f"the server offers {size:,} bytes instead of {expected_size(weights)}")
    return size, size


def _verify(weights: Weights, part: Path) -> None:
    fault = fault_of(weights, part)
    if fault is not None:
        part.unlink()
        raise WeightsError(f"the download failed verification and was deleted: {fault}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: BaseException) -> str:
    if isinstance(error, HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
