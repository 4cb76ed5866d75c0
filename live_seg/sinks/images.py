"""Drawn pictures: one file, or a folder of them."""

from collections.abc import Sequence
from pathlib import Path

from live_seg.errors import SinkError
from live_seg.files import check_alpha, check_folder, claim, write_image
from live_seg.types import Frame, Image, Instances, Sink

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
"""File name endings that OpenCV writes pictures under."""


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
                check_alpha(path)
            claim(path, overwrite=overwrite)
            if names is not None and len(names) > 1:
                raise SinkError(f"{path} holds one picture and {len(names)} come. Give a folder instead.")
        elif path.is_dir():
            check_folder(path)
            if not overwrite and any(path.iterdir()):
                raise SinkError(f"The folder {path} is not empty. Choose another one or pass --overwrite.")
        elif path.exists():
            raise SinkError(f"{path} is a file; a folder or a picture (*.png, *.jpg) was expected.")
        else:
            check_folder(path.parent)

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
        """Write one picture. Always True. Raises SinkError."""
        if self._single and self._written:
            raise SinkError(f"{self._path} holds one picture and a second one came. Give a folder instead.")
        name = f"{frame.index:06d}" if self._names is None else self._names[frame.index]
        path = self._path if self._single else self._path / f"{name}.png"
        write_image(image, path)
        self._written = True
        return True

    def close(self, complete: bool = True) -> None:
        """Nothing is left to do: each picture is complete once written."""
