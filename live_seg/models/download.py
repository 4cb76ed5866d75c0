"""Fetching known weights: into the cache, whole and proven."""

import contextlib
import fcntl
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

from tqdm import tqdm

from live_seg.errors import WeightsError, nearest
from live_seg.models import registry
from live_seg.models.registry import Weights, fault_at_a_glance, fault_of, known, path_of

logger = logging.getLogger(__name__)

TIMEOUT = 30.0
"""Seconds without a byte until a connection counts as broken."""

RETRY_WAITS = (0.5, 1.0, 2.0)
"""Seconds to wait before each new try: enough for a hiccup, while being offline is told soon."""

CHUNK = 1 << 18
"""Bytes read at a time: some hundred steps of the bar for a big file."""

_BROKEN_CONNECTION = (URLError, ConnectionError, TimeoutError, ssl.SSLError, HTTPException)


def find(model: str, *, quiet: bool = False) -> Path:
    """The file of a `model` given by a known name or by its path; a missing download is fetched.

    Raises WeightsError, with the nearest names, when it is neither, and as `locate` does.
    """
    if model in registry.WEIGHTS:
        return locate(model, quiet=quiet)
    path = Path(model).expanduser()
    if path.is_file():
        return path
    raise WeightsError(f"There is no model and no file called {model!r}. {nearest(model, registry.WEIGHTS)}")


def locate(name: str, *, quiet: bool = False) -> Path:
    """The file of the weights called `name`, downloaded when it is missing or has the wrong size.

    Raises WeightsError when the name is unknown, a bundled file is missing, or the download fails.
    """
    weights = known(name)
    path = path_of(weights)
    return path if fault_at_a_glance(weights, path) is None else download(name, quiet=quiet)


def download(name: str, *, quiet: bool = False) -> Path:
    """Make sure the cache holds a valid file of the weights called `name`, and return its path.

    A valid file is not fetched again; a broken-off download goes on where it stopped; `quiet` hides the bar
    on stderr. Nothing incomplete or unproven ever has the final name. Bundled weights are only looked up.

    Raises WeightsError, with the manual way out, when that cannot be done.
    """
    weights = known(name)
    path = path_of(weights)
    if weights.url is None or weights.size is None:
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path.with_name(f"{path.name}.lock")):
            fault = fault_of(weights, path)  # looked at again: the lock's last holder may have brought it
            if fault is not None:
                logger.info("Downloading the weights %r, as %s.", name, fault)
                part = path.with_name(f"{path.name}.part")
                _receive(weights.url, weights.size, part, quiet=quiet)
                _prove(weights, part)
                part.replace(path)
    except (OSError, WeightsError) as error:
        raise WeightsError(
            f"Cannot download the weights {name!r} into {path.parent}: {_reason(error)}. Try later, or "
            f"save {weights.url} by other means as {path}. LIVE_SEG_CACHE names another folder."
        ) from error
    return path


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Keep other processes out while one downloads. The system frees the lock however a process ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("Waiting for another process that is downloading to %s.", path.parent)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _receive(url: str, size: int, part: Path, *, quiet: bool) -> None:
    """Fill `part` to `size` bytes from `url`, asking anew a few times when the connection breaks off."""
    problem = ""
    with tqdm(total=size, unit="B", unit_scale=True, desc=part.stem, disable=quiet) as bar:
        for wait in (0.0, *RETRY_WAITS):
            time.sleep(wait)
            try:
                _fetch(url, size, part, bar)
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
    raise WeightsError(f"{problem} (so far: {_size(part):,} of {size:,} bytes)")


def _fetch(url: str, size: int, part: Path, bar: "tqdm[NoReturn]") -> None:
    """Ask once for what `part` lacks of its `size` bytes, and append it.

    A server that ignores the range sends the file from its start: so `part` starts over. Raises one of
    _BROKEN_CONNECTION when not everything came, WeightsError when another file is offered.
    """
    have = _size(part)
    if have == size:
        return
    wanted = {"Range": f"bytes={have}-"} if have else {}
    response: HTTPResponse
    with urlopen(Request(url, headers={"User-Agent": "live_seg"} | wanted), timeout=TIMEOUT) as response:
        continued = response.status == HTTPStatus.PARTIAL_CONTENT
        if continued and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise ConnectionError("the server went on at another place than asked")
        if not continued and response.length not in (None, size):
            raise WeightsError(f"the server offers {response.length:,} bytes instead of {size:,}")
        with part.open("ab" if continued else "wb") as file:
            bar.update(file.tell() - bar.n)
            while chunk := response.read(min(CHUNK, size - file.tell())):
                file.write(chunk)
                bar.update(len(chunk))
    if _size(part) < size:
        raise ConnectionError("the connection broke off")


def _prove(weights: Weights, part: Path) -> None:
    fault = fault_of(weights, part)
    if fault is not None:
        part.unlink()
        raise WeightsError(f"what came was wrong and is deleted: {fault}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: BaseException) -> str:
    if isinstance(error, HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
