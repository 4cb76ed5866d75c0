"""Still images on disk."""

import glob
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from live_seg.errors import SourceError
from live_seg.files import expand_user, read_image, reading
from live_seg.types import Frame, Source
from live_seg.urls import redacted

logger = logging.getLogger(__name__)

READABLE_SUFFIXES = (
    *(".bmp", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm"),
    *(".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
)


def open_images(specs: Sequence[str | Path]) -> "ImageFiles":
    """Open the still images that `specs` (images, folders, globs) name, in this order.

    Raises SourceError if one of them is not an image or holds none.
    """
    paths: list[Path] = []
    for spec in specs:
        found = find_images(expand_user(spec))
        if not found:
            name = redacted(spec)
            raise SourceError(f"{name} is not an image, folder or glob. For a video: live-seg video {name}")
        paths.extend(found)
    return ImageFiles(", ".join(map(redacted, specs)), paths)


class ImageFiles(Source):
    """Read still images in the given order, `fps` per second. They may differ in size.

    Grayscale, transparent (alpha is dropped) and 16-bit images are converted to BGR uint8; EXIF rotation is
    applied. An image that cannot be read is skipped with a warning, and listed in `skipped`. Raises
    SourceError with a file's name if none can be read.
    """

    def __init__(self, name: str, paths: Sequence[Path], fps: float = 1.0) -> None:
        self.name, self.fps = name, fps
        self.paths = tuple(paths)
        """The file of each Frame, by the frame's index."""
        self.frames = len(self.paths)
        self.skipped: list[Path] = []
        self.size = self._first_size()
        self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        self.skipped.clear()
        for index, path in enumerate(self.paths):
            if self._closed:
                return
            try:
                image = read_image(path)
            except SourceError as error:
                logger.warning("Skipped: %s", error)
                self.skipped.append(path)
            else:
                yield Frame(index, index / self.fps, image)

    def close(self) -> None:
        """Stop before the next image."""
        self._closed = True

    def _first_size(self) -> tuple[int, int]:
        """Return (width, height) of the first image that can be read."""
        errors = []
        for path in self.paths:
            try:
                height, width = read_image(path).shape[:2]
            except SourceError as error:
                errors.append(error)
            else:
                return width, height
        raise errors[0]


def find_images(path: Path) -> list[Path]:
    """Return the images that `path` (an image, a folder or a glob) names, in natural order; [] for a video.

    Raises SourceError for a folder or glob without images.
    """
    with reading(path):
        if path.is_dir():
            found = list(path.iterdir())
        elif glob.has_magic(str(path)) and not path.exists():
            found = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207 - may be absolute
        else:
            return [path] if path.suffix.lower() in READABLE_SUFFIXES else []
    # macOS writes metadata as "._name.jpg" beside name.jpg on other file systems.
    images = [p for p in found if p.suffix.lower() in READABLE_SUFFIXES and not p.name.startswith(".")]
    if not images:
        raise SourceError(
            f"{redacted(path)} holds no images. Expected files ending in {', '.join(READABLE_SUFFIXES)}."
        )
    return sorted(images, key=_natural)


def _natural(path: Path) -> list[str | int]:
    """Return a sort key of alternating text and numbers, which puts frame9 before frame10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(path))]
