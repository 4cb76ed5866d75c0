"""Where finished frames go: the Sink protocol, JSON Lines, pictures; and files that are whole or absent."""

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import cv2

from live_seg.errors import SinkError
from live_seg.structures import Frame, Image, Instances

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
"""File name endings that OpenCV writes pictures under."""

ALPHA_SUFFIXES = (".png", ".webp")
"""Those among them whose alpha every reader understands."""

KERAS_SUFFIX = ".weights.h5"


class Sink(Protocol):
    """Takes finished frames in order. Inherit from it to be a context manager that closes itself."""

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:
        """Take one frame, its drawn picture (H, W, 3) uint8 BGR, and what was found in it.

        Returns False when the user asked to stop. Raises SinkError.
        """

    def close(self, complete: bool = True) -> None:
        """Finish, once; later calls do nothing. `complete` is False when the run failed. Raises SinkError."""

    def __enter__(self) -> Self:
        """Use in a `with` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close: complete without an exception or after Ctrl-C. An earlier error is never hidden by ours."""
        complete = kind is None or issubclass(kind, KeyboardInterrupt)
        try:
            self.close(complete)
        except SinkError as second:
            if complete:
                raise
            logger.warning("%s", second)


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


def write_picture(image: Image, path: Path) -> None:
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
    _check_folder(path.parent)
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


def _check_folder(folder: Path) -> None:
    """Try whether files can be made in `folder`, by making a nameless one."""
    if not folder.is_dir():
        raise SinkError(f"There is no folder {folder}. Make it first, or choose another one.")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SinkError(f"Cannot write in the folder {folder}: {error.strerror}.") from error


class JsonLines(Sink):
    """One JSON object per frame in the file `path`: index, seconds, size, instances with their masks.

    `class_names` are indexed by class id. Boxes are x1 y1 x2 y2 in frame pixels; masks are COCO's compressed
    RLE at the frame's full resolution. Each line is on disk before the next frame comes; memory is constant.
    Raises SinkError when `path` cannot be written, or exists and `overwrite` is False.
    """

    def __init__(self, path: Path, class_names: Sequence[str], *, overwrite: bool = False) -> None:
        self._path = path
        self._class_names = class_names
        self._partial = claim(path, overwrite=overwrite)
        self._empty = True
        try:
            self._file = self._partial.open("w", encoding="utf-8")
        except OSError as error:
            raise SinkError(f"Cannot write {self._partial}: {error.strerror}.") from error

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
        """Append the line of one frame. Always True. Raises SinkError."""
        line = json.dumps(self._record(frame, instances), ensure_ascii=False)
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            self._discard()
            raise SinkError(f"Cannot write {self._path}: {error.strerror}.") from error
        self._empty = False
        return True

    def close(self, complete: bool = True) -> None:
        """Give the file its final name; no file is left when no frame came."""
        if self._file.closed:
            return
        if self._empty:
            self._discard()
            return
        self._file.close()
        publish(self._partial, self._path, complete=complete)

    def _discard(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            logger.debug("Closing %s: %s", self._partial, error)
        self._partial.unlink(missing_ok=True)

    def _record(self, frame: Frame, instances: Instances) -> dict[str, Any]:
        height, width = frame.image.shape[:2]
        return {
            "index": frame.index,
            "seconds": round(frame.seconds, 6),
            "size": [width, height],
            "instances": [
                {
                    "box": [round(edge, 2) for edge in instances.boxes[i].tolist()],
                    "score": round(float(instances.scores[i]), 4),
                    "class": self._class_names[instances.class_ids[i]],
                    **_track(instances, i),
                    "mask": mask,
                }
                for i, mask in enumerate(instances.rles((height, width)))
            ],
        }


def _track(instances: Instances, position: int) -> dict[str, int]:
    """The id of a track, once it is confirmed."""
    known = instances.steady_id(position)
    return {"track_id": known} if known else {}


class Images(Sink):
    """The drawn pictures: one file when `path` ends like a picture, else a folder of 000012.png by index.

    With `names`, files in the folder are called by these, one for each frame index, without ending.
    Pictures with `alpha` are (H, W, 4) uint8, BGR and alpha; a single file is then .png or .webp.
    The folder is made with the first picture. Each picture is complete before it gets its name.
    Raises SinkError when `path` cannot be written, or is a file or a folder with something in it and
    `overwrite` is False. A second picture for a single file is a SinkError too.
    """

    def __init__(
        self,
        path: Path,
        *,
        names: Sequence[str] | None = None,
        alpha: bool = False,
        overwrite: bool = False,
    ) -> None:
        self._path = path
        self._names = names
        self._single = path.suffix.lower() in IMAGE_SUFFIXES
        self._written = False
        if self._single:
            if alpha:
                _check_alpha(path)
            claim(path, overwrite=overwrite)
            if names is not None and len(names) > 1:
                raise SinkError(f"{path} holds one picture and {len(names)} come. Give a folder instead.")
        elif path.is_dir():
            _check_folder(path)
            if not overwrite and any(path.iterdir()):
                raise SinkError(f"The folder {path} is not empty. Choose another one or pass --overwrite.")
        elif path.exists():
            raise SinkError(f"{path} is a file; a folder or a picture (*.png, *.jpg) was expected.")
        else:
            _check_folder(path.parent)

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
        """Write one picture. Always True. Raises SinkError."""
        if self._single and self._written:
            raise SinkError(f"{self._path} holds one picture and a second one came. Give a folder instead.")
        name = f"{frame.index:06d}" if self._names is None else self._names[frame.index]
        path = self._path if self._single else self._path / f"{name}.png"
        write_picture(image, path)
        self._written = True
        return True

    def close(self, complete: bool = True) -> None:
        """Nothing is left to do: each picture is complete once written."""


def _check_alpha(path: Path) -> None:
    if path.suffix.lower() not in ALPHA_SUFFIXES:
        raise SinkError(f"{path.name} cannot hold a transparent picture; use {' or '.join(ALPHA_SUFFIXES)}.")


def _encoded(image: Image, path: Path) -> bytes:
    """Encode a picture as `path`'s ending says. In memory, as OpenCV itself cannot open every path."""
    if image.shape[2] == 4:
        _check_alpha(path)
    try:
        done, data = cv2.imencode(path.suffix.lower(), image)
    except cv2.error as error:
        raise SinkError(f"Cannot write {path}: {error.err}.") from error
    if not done:
        raise SinkError(f"Cannot write {path}: OpenCV failed to encode a picture of shape {image.shape}.")
    return data.tobytes()
