"""Reading and writing images, and output files that are either complete or absent."""

import contextlib
import functools
import hashlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import platformdirs

from live_seg import locks
from live_seg.errors import SinkError, SourceError, TakenError
from live_seg.image_headers import declared_size
from live_seg.memory import available_memory
from live_seg.types import Image
from live_seg.urls import redacted

ALPHA_SUFFIXES = (".png", ".webp")
"""Suffixes of the image formats whose alpha channel all viewers support."""

KERAS_SUFFIX = ".weights.h5"

LARGEST_IMAGE = 2**30
"""Pixels: OpenCV reads no larger image."""


def cache_folder() -> Path:
    """Return the folder for downloads, which may not exist: LIVE_SEG_CACHE or the user's cache folder."""
    chosen = os.environ.get("LIVE_SEG_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("live_seg")


def file_key(path: Path) -> tuple[int, int] | str:
    """Return a value that is equal for all names of one file: other spellings, links and hard links.

    For a file that does not exist, it is equal for names that differ only in case, as on Windows and macOS.
    """
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return os.path.realpath(path).casefold()


def expand_user(spec: str | Path) -> Path:
    """Expand a leading ~ to the user's home folder, if there is such a user."""
    with contextlib.suppress(RuntimeError):  # "~name" may also be the name of a file
        return Path(spec).expanduser()
    return Path(spec)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise a SourceError that names `path` for an OSError within the `with` block."""
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"Cannot read {redacted(path)}: {error.strerror}. Check its name and permissions."
        ) from error


def sha256_of(path: Path) -> str:
    """Return the hex digest of a file, computed again only after its size or modification time changed."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _sha256(path: Path, _size: int, _modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


BYTES_PER_PIXEL = 12
"""Memory for an image in bytes per pixel: OpenCV decodes with 6, and the image is copied when it is drawn."""


def read_image(path: Path) -> Image:
    """Read an image as (height, width, 3) uint8 BGR, with its EXIF rotation applied.

    Raises SourceError if the file cannot be read, is not an image, or is too large for the memory.
    """
    with reading(path):
        data = path.read_bytes()
    _check_memory(path, data)
    image = None
    try:
        # Not `imread`: it crashes on names that are not UTF-8, and fails on rotated TIFF files.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise SourceError(f"Cannot read {path}: too little memory. Close other programs.") from error
    if image is None:
        raise SourceError(f"Cannot read {path}: it is damaged or not an image. Save it again as PNG or JPEG.")
    return np.asarray(image, np.uint8)


def _check_memory(path: Path, data: bytes) -> None:
    """Raise SourceError if the image in `data` declares more pixels than OpenCV reads or memory holds."""
    width, height = declared_size(data) or (0, 0)
    needed, free = BYTES_PER_PIXEL * width * height, available_memory()
    if width * height > LARGEST_IMAGE:
        raise SourceError(f"{path} has {width} x {height} pixels, more than OpenCV reads. Reduce it.")
    if needed > free:
        raise SourceError(
            f"{path} has {width} x {height} pixels, which need {needed / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are available. Reduce it, or close other programs."
        )


def write_image(image: Image, path: Path) -> None:
    """Write `image`, (H, W, 3) BGR or (H, W, 4) BGRA uint8, in the format of `path`'s suffix.

    The parent folder is created if it is missing. Raises SinkError if the image cannot be written.
    """
    data = _encoded(image, path)
    make_folder(path.parent)
    with replacing(path) as partial:
        partial.write_bytes(data)


def _encoded(image: Image, path: Path) -> bytes:
    """Encode `image` in memory, because OpenCV itself cannot open every path."""
    if image.shape[2] == 4:
        check_alpha(path)
    try:
        done, data = cv2.imencode(path.suffix.lower(), image)
    except cv2.error as error:
        raise SinkError(f"Cannot write {path}: {error.err}.") from error
    if not done:
        raise SinkError(f"Cannot write {path}: OpenCV failed to encode an image of shape {image.shape}.")
    return data.tobytes()


def check_alpha(path: Path) -> None:
    """Raise SinkError if the image format of `path`'s suffix has no alpha channel."""
    if path.suffix.lower() not in ALPHA_SUFFIXES:
        raise SinkError(f"{path.name} cannot hold transparent images. Use {' or '.join(ALPHA_SUFFIXES)}.")


def partial_name(path: Path, number: int = 1) -> Path:
    """Return the name under which `path` is written until it is complete: STEM.partial.SUFFIX beside it.

    For a `number` above 1 it is STEM.partial-NUMBER.SUFFIX.
    """
    # Keras requires this suffix.
    suffix = KERAS_SUFFIX if path.name.endswith(KERAS_SUFFIX) else path.suffix
    counted = "" if number == 1 else f"-{number}"
    return path.with_name(f"{path.name.removesuffix(suffix)}.partial{counted}{suffix}")


class Partial:
    """A new file beside `path` for output that is not complete yet, `locked` while it is written.

    No existing file is touched before `publish`. Raises SinkError if the file cannot be created.
    """

    def __init__(self, path: Path, *, locked: bool = True) -> None:
        self.path = path
        self.name = partial_name(path)
        """The path to write to."""
        for number in itertools.count(1):
            self.name = partial_name(path, number)
            try:
                self._lock = locks.create(self.name, locked=locked)
                return
            except FileExistsError:
                continue
            except OSError as error:
                raise SinkError(f"Cannot write {path}: {error.strerror}.") from error

    def publish(self, *, overwrite: bool) -> None:
        """Rename the file to `path`. Raises SinkError, also if `path` exists and `overwrite` is False."""
        self.release()
        if not overwrite and os.path.lexists(self.path):
            raise SinkError(f"{self.path} was created by another program. The output is in {self.name}.")
        try:
            self.name.replace(self.path)
        except OSError as error:
            raise SinkError(f"Cannot rename {self.name} to {self.path}: {error.strerror}.") from error

    def keep(self) -> str:
        """Keep the file under its partial name. Return a sentence that says so; delete an empty file."""
        self.release()
        with contextlib.suppress(OSError):
            if self.name.stat().st_size:
                return f"The output so far is in {self.name}."
        self.discard()
        return "There is no output."

    def discard(self) -> None:
        """Delete the file."""
        self.release()
        with contextlib.suppress(OSError):
            self.name.unlink()

    def release(self) -> None:
        """Unlock the file."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def claim(path: Path, *, overwrite: bool) -> Partial:
    """Check that the file `path` can be written, and create its partial file. Raises as `check_target`."""
    check_target(path, overwrite=overwrite)
    return Partial(path)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new partial name to write to; rename it to `path` at the end, or delete it after an exception.

    Raises SinkError for an OSError within the `with` block.
    """
    partial = Partial(path, locked=False)  # HDF5 cannot write a file that another descriptor has locked
    try:
        yield partial.name
        partial.publish(overwrite=True)
    except OSError as error:
        raise SinkError(f"Cannot write {path}: {error.strerror or error}.") from error
    finally:
        partial.discard()


LONGEST_NAME = 255
"""Bytes of a file's name on all usual file systems."""


def check_name(path: Path) -> None:
    """Raise SinkError if the partial name of `path`, or the name of a folder, is too long to be created."""
    for name in (*path.parts, partial_name(path).name):
        if len(os.fsencode(name)) > LONGEST_NAME:
            raise SinkError(f"The name {name[:40]}... is too long for a file system. Choose a shorter one.")


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raise SinkError unless the file `path` can be written.

    It is refused if it is a folder, a device, a pipe or a link to nothing; if it exists and `overwrite` is
    False; if its folder is not writable; and, with TakenError, while another run writes it.
    """
    check_name(path)
    if path.is_dir():
        raise SinkError(f"{path} is a folder. Give the name of a file, such as {path / 'out'}{path.suffix}.")
    if os.path.lexists(path) and not path.is_file():
        raise SinkError(f"{path} is a device, a pipe or a broken link. Give the name of a file.")
    if path.exists() and not overwrite:
        raise SinkError(f"{path} exists already. Choose another name or pass --overwrite.")
    check_folder(path.parent)
    for number in itertools.count(1):
        partial = partial_name(path, number)
        if not os.path.lexists(partial):
            return
        if locks.is_held(partial):
            raise TakenError(f"{path} is being written by another run. Choose another name.")


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents, if they are missing. Raises SinkError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"Cannot create the folder {folder}: {error.strerror}.") from error


def check_folder(folder: Path) -> None:
    """Raise SinkError if `folder` does not exist or is not writable, checked with a temporary file."""
    if not folder.is_dir():
        raise SinkError(f"There is no folder {folder}. Create it, or choose another one.")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SinkError(f"Cannot write in the folder {folder}: {error.strerror}.") from error
