"""The known weights: where they are, fetching them, and proving that they are what they should be."""

import contextlib
import fcntl
import hashlib
import logging
import os
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NoReturn
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import platformdirs
from tqdm import tqdm

from live_seg.card import sha256_on_card
from live_seg.classes import BACKGROUND, COCO_CLASSES, nearest
from live_seg.errors import WeightsError

logger = logging.getLogger(__name__)

BUNDLED_FOLDERS = (Path(__file__).parent / "bundled", Path(__file__).parent.parent / "weights")
"""Where the files that come with live_seg lie: in an installed wheel, and in a checkout."""

TIMEOUT = 30.0
"""Seconds without a byte until a connection counts as broken."""

RETRY_WAITS = (0.5, 1.0, 2.0)
"""Seconds to wait before each new try: enough for a hiccup, while being offline is told soon."""

CHUNK = 1 << 18
"""Bytes read at a time: some hundred steps of the bar for a big file."""

_BROKEN_CONNECTION = (URLError, ConnectionError, TimeoutError, ssl.SSLError, HTTPException)


@dataclass(frozen=True)
class Weights:
    """A file of weights known by name: bundled when it has no `url`, else downloaded into the cache."""

    name: str
    file: str
    """File name, in the bundled or the cache folder. Beside a bundled file lies its card, NAME.json."""
    classes: tuple[str, ...]
    """Class names by network id, background first."""
    origin: str
    """Who made them from what, and their licence."""
    url: str | None = None
    size: int | None = None
    """Bytes; a bundled file's are not fixed here."""
    md5: str | None = None
    """Hex digest; a bundled file's card holds its sha256 instead."""


WEIGHTS: dict[str, Weights] = {
    weights.name: weights
    for weights in (
        Weights(
            name="person",
            file="person.weights.h5",
            classes=(BACKGROUND, "person"),
            origin="comes with live_seg; data, licence and measured AP in person.json",
        ),
        Weights(
            name="coco",
            file="mask_rcnn_coco.h5",
            classes=COCO_CLASSES,
            origin="Matterport Mask_RCNN 2.0, trained on MS COCO; MIT licence",
            url="https://github.com/matterport/Mask_RCNN/releases/download/v2.0/mask_rcnn_coco.h5",
            size=257_557_808,
            md5="e98aaff6f99e307b5e2a8a3ff741a518",  # as printed in NVIDIA TensorRT's UFF Mask R-CNN sample
        ),
    )
}


def find(model: str, *, quiet: bool = False) -> Path:
    """The file of a `model` given by a known name or by its path; a missing download is fetched.

    Raises WeightsError, with the nearest names, when it is neither, and as `locate` does.
    """
    if model in WEIGHTS:
        return locate(model, quiet=quiet)
    path = Path(model).expanduser()
    if path.is_file():
        return path
    raise WeightsError(f"There is no model and no file called {model!r}. {nearest(model, WEIGHTS)}")


def locate(name: str, *, quiet: bool = False) -> Path:
    """The file of the weights called `name`, downloaded when it is missing or has the wrong size.

    Raises WeightsError when the name is unknown, a bundled file is missing, or the download fails.
    """
    weights = _known(name)
    path = _path(weights)
    return path if _fault_at_a_glance(weights, path) is None else download(name, quiet=quiet)


def download(name: str, *, quiet: bool = False) -> Path:
    """Make sure the cache holds a sound file of the weights called `name`, and return its path.

    A sound file is not fetched again; a broken-off download goes on where it stopped; `quiet` hides the bar
    on stderr. Nothing incomplete or unproven ever has the final name. Bundled weights are only looked up.

    Raises WeightsError, with the manual way out, when that cannot be done.
    """
    weights = _known(name)
    path = _path(weights)
    if weights.url is None or weights.size is None:
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path.with_name(f"{path.name}.lock")):
            fault = _fault(weights, path)  # looked at again: the lock's last holder may have brought it
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


def verify(name: str) -> Path:
    """Check the size and the hash of the weights called `name` where they lie, and return their path.

    Raises WeightsError when the name is unknown, or the file is missing or damaged.
    """
    weights = _known(name)
    path = _path(weights)
    fault = _fault(weights, path)
    if fault is not None:
        way_out = "Install live_seg anew" if weights.url is None else f"Run: live-seg weights download {name}"
        raise WeightsError(f"The weights {name!r} cannot be used: {fault}. {way_out}.")
    return path


def status(name: str) -> str:
    """In a few words whether the weights called `name` are here. Sizes are checked, hashes are not.

    Raises WeightsError when the name is unknown.
    """
    weights = _known(name)
    if weights.url is None:
        return "bundled" if _bundled(weights) else "missing"
    path = _path(weights)
    if not path.is_file():
        return "not downloaded"
    return f"cached at {path}" if _fault_at_a_glance(weights, path) is None else f"damaged at {path}"


def cache_folder() -> Path:
    """The folder for downloads: LIVE_SEG_CACHE when set, else the user's cache folder; it may not exist."""
    chosen = os.environ.get("LIVE_SEG_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("live_seg")


def _known(name: str) -> Weights:
    if name not in WEIGHTS:
        raise WeightsError(f"There are no weights named {name!r}. {nearest(name, WEIGHTS)}")
    return WEIGHTS[name]


def _path(weights: Weights) -> Path:
    """Where the file lies or will be downloaded to. Raises WeightsError when a bundled one is missing."""
    if weights.url is not None:
        return cache_folder() / weights.file
    if found := _bundled(weights):
        return found
    folders = " or ".join(map(str, BUNDLED_FOLDERS))
    raise WeightsError(f"{weights.file} should be in {folders}, but is not. Install live_seg anew.")


def _bundled(weights: Weights) -> Path | None:
    files = (folder / weights.file for folder in BUNDLED_FOLDERS)
    return next((file for file in files if file.is_file()), None)


def _fault_at_a_glance(weights: Weights, path: Path) -> str | None:
    """What existence and size tell against the file at `path`; None: nothing."""
    if not path.is_file():
        return f"there is no {path}"
    size = path.stat().st_size
    if weights.size is not None and size != weights.size:
        return f"{path} has {size:,} bytes instead of {weights.size:,}"
    return None


def _fault(weights: Weights, path: Path) -> str | None:
    """What existence, size and hash tell against the file at `path`; None: it is sound."""
    fault = _fault_at_a_glance(weights, path)
    if fault is not None:
        return fault
    algorithm, expected = ("sha256", sha256_on_card(path)) if weights.md5 is None else ("md5", weights.md5)
    if expected is None:
        logger.warning("The card of %s gives no sha256: its bytes are not checked.", path)
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, algorithm).hexdigest()
    return None if digest == expected else f"the {algorithm} of {path} is {digest} instead of {expected}"


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
    fault = _fault(weights, part)
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
