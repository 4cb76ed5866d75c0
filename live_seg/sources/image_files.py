"""Still images on disk: finding them, reading them."""

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from live_seg.errors import SourceError
from live_seg.files import expand_user, read_image, reading
from live_seg.types import Frame, Source

IMAGE_SUFFIXES = (
    *(".bmp", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm"),
    *(".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
)


def open_images(specs: Sequence[str | Path]) -> "ImageFiles":
    """Open the still images that `specs` (images, folders, globs) stand for, in their order.

    Raises SourceError when one of them is no image or holds none.
    """
    paths: list[Path] = []
    for spec in specs:
        found = find_images(expand_user(spec))
        if not found:
            raise SourceError(f"{spec} is no image, folder or glob. For a video: live-seg video {spec}")
        paths.extend(found)
    return ImageFiles(", ".join(map(str, specs)), paths)


class ImageFiles(Source):
    """Still images, one second each, in the order given; they may differ in size.

    Gray, transparent (alpha is dropped) and 16-bit images become BGR uint8; EXIF rotation is applied.
    Raises SourceError, naming the file, for one that cannot be read.
    """

    fps = 1.0

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = name
        self.paths = tuple(paths)
        """The file behind each Frame, by its index."""
        self.frames = len(self.paths)
        height, width = read_image(self.paths[0]).shape[:2]
        self.size = (width, height)
        self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.paths):
            if self._closed:
                return
            yield Frame(index, index / self.fps, read_image(path))

    def close(self) -> None:
        """End the reading before the next image."""
        self._closed = True


def find_images(path: Path) -> list[Path]:
    """The images that `path` (an image, a folder or a glob) stands for, in natural order; none for a video.

    Raises SourceError for a folder or glob without images.
    """
    with reading(path):
        if path.is_dir():
            found = list(path.iterdir())
        elif glob.has_magic(str(path)) and not path.exists():
            found = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207 - may be absolute
        else:
            return [path] if path.suffix.lower() in IMAGE_SUFFIXES else []
    # macOS leaves "._name.jpg" beside name.jpg on foreign disks.
    images = [p for p in found if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not images:
        raise SourceError(f"{path} holds no images. Expected files ending in {', '.join(IMAGE_SUFFIXES)}.")
    return sorted(images, key=_natural)


def _natural(path: Path) -> list[str | int]:
    """Sort key that puts frame9 before frame10: text and numbers take turns."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(path))]
