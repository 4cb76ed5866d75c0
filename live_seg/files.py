"""Reading and writing images, and files that are whole or absent."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import platformdirs

from live_seg.errors import SinkError, SourceError
from live_seg.types import Image


def expand_user(spec: str | Path) -> Path:
    """Put the user's home for a leading ~."""
    with contextlib.suppress(RuntimeError):  # a name may begin with ~ and mean no home
        return Path(spec).expanduser()
    return Path(spec)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence OpenCV's own messages: every failure becomes a SourceError."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an OSError about `path` into a SourceError."""
    try:
        yield
    except OSError as error:
        raise SourceError(f"Cannot read {path}: {error.strerror}. Check its name and rights.") from error


def read_image(path: Path) -> Image:
    """Read an image as (height, width, 3) uint8 BGR, upright. Raises SourceError naming it."""
    with reading(path):
        path.open("rb").close()
    image = None
    with quiet(), contextlib.suppress(cv2.error):  # raised for absurd sizes
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(f"Cannot read {path}: it is damaged, or no image. Save it again as PNG or JPEG.")
    return np.asarray(image, np.uint8)


logger = logging.getLogger(__name__)

ALPHA_SUFFIXES = (".png", ".webp")
"""Those among them whose alpha every reader understands."""

KERAS_SUFFIX = ".weights.h5"


def partial_name(path: Path) -> Path:
    """Name the file in the same folder that is written until `path` is complete: STEM.partial.SUFFIX."""
    # Keras writes under no other ending.
    suffix = KERAS_SUFFIX if path.name.endswith(KERAS_SUFFIX) else path.suffix
    return path.with_name(f"{path.name.removesuffix(suffix)}.partial{suffix}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the partial name to write a file under: it becomes `path` once all is well, else nothing is left.

    Raises SinkError.
    """
    partial = partial_name(path)
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise SinkError(f"Cannot write {path}: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def write_image(image: Image, path: Path) -> None:
    """Write a picture, BGR or with alpha, as `path`'s ending says; its folder is made. Raises SinkError."""
    with replacing(path) as partial:
        path.parent.mkdir(exist_ok=True)
        partial.write_bytes(_encoded(image, path))


def claim(path: Path, *, overwrite: bool) -> Path:
    """Check that the file `path` can be written and return its partial name.

    Raises SinkError when it exists and `overwrite` is False, is a folder, or its folder cannot be written.
    """
    if path.is_dir():
        raise SinkError(f"{path} is a folder; a file name was expected, as in {path / 'out'}{path.suffix}.")
    if path.exists() and not overwrite:
        raise SinkError(f"{path} exists already. Choose another name or pass --overwrite.")
    check_folder(path.parent)
    return partial_name(path)


def publish(partial: Path, path: Path, *, complete: bool) -> None:
    """Give a finished file its final name, or, after a failed run, say under which name it was left."""
    if not complete:
        logger.warning("The run failed; what was written until then is in %s.", partial)
        return
    try:
        partial.replace(path)
    except OSError as error:
        raise SinkError(f"Cannot rename {partial} to {path}: {error.strerror}.") from error


def check_folder(folder: Path) -> None:
    """Check that files can be made in `folder`, by making a nameless one. Raises SinkError."""
    if not folder.is_dir():
        raise SinkError(f"There is no folder {folder}. Make it first, or choose another one.")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SinkError(f"Cannot write in the folder {folder}: {error.strerror}.") from error


def check_alpha(path: Path) -> None:
    """Check that a file with the ending of `path` can hold transparency. Raises SinkError."""
    if path.suffix.lower() not in ALPHA_SUFFIXES:
        raise SinkError(f"{path.name} cannot hold a transparent picture; use {' or '.join(ALPHA_SUFFIXES)}.")


def _encoded(image: Image, path: Path) -> bytes:
    """Encode a picture as `path`'s ending says. In memory, as OpenCV itself cannot open every path."""
    if image.shape[2] == 4:
        check_alpha(path)
    try:
        done, data = cv2.imencode(path.suffix.lower(), image)
    except cv2.error as error:
        raise SinkError(f"Cannot write {path}: {error.err}.") from error
    if not done:
        raise SinkError(f"Cannot write {path}: OpenCV failed to encode a picture of shape {image.shape}.")
    return data.tobytes()


def cache_folder() -> Path:
    """The folder for downloads: LIVE_SEG_CACHE when set, else the user's cache folder; it may not exist."""
    chosen = os.environ.get("LIVE_SEG_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("live_seg")
