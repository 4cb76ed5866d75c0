"""Images on disk: a single file or a folder."""

from collections.abc import Sequence
from pathlib import Path

from live_seg.errors import SinkError
from live_seg.files import check_alpha, check_folder, check_name, check_target, write_image
from live_seg.types import Frame, Image, Instances, Sink

WRITABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
"""Suffixes of the image formats that OpenCV writes."""


class Images(Sink):
    """Write drawn images: to the file `path` if it has an image suffix, else as PNG to the folder `path`.

    The files in a folder are named by the frame index (000012.png), or by `names`: one name without suffix
    for each frame index. With `alpha`, images are (H, W, 4) BGRA uint8, and a single file must be .png or
    .webp. The folder is created with the first image. Each image gets its final name once it is complete.

    Raises SinkError if `path` cannot be written, if it exists as a file or a non-empty folder and `overwrite`
    is False, or if a single file receives a second image.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        names: Sequence[str] | None = None,
        alpha: bool = False,
        overwrite: bool = False,
    ) -> None:
        self._path = path = Path(path)
        self._names = names
        self._single = path.suffix.lower() in WRITABLE_SUFFIXES
        if self._single:
            if alpha:
                check_alpha(path)
            check_target(path, overwrite=overwrite)
            if names is not None and len(names) > 1:
                raise SinkError(f"{path} holds one image, but there are {len(names)}. Give a folder instead.")
        else:
            for name in ("000000", *(names or ())):
                check_name(path / f"{name}.png")
            _check_output_folder(path, overwrite=overwrite)

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
        """Write one image. Returns True. Raises SinkError."""
        if self._single and self.outputs:
            raise SinkError(f"{self._path} holds one image, but there is a second. Give a folder instead.")
        name = f"{frame.index:06d}" if self._names is None else self._names[frame.index]
        path = self._path if self._single else self._path / f"{name}.png"
        write_image(image, path)
        self.outputs = (self._path,)
        return True

    def close(self, complete: bool = True) -> None:
        """Do nothing; each image is complete once written."""


def _check_output_folder(path: Path, *, overwrite: bool) -> None:
    """Raise SinkError unless `path` is a folder to write to, or one that can be created."""
    if path.is_dir():
        check_folder(path)
        if not overwrite and any(path.iterdir()):
            raise SinkError(f"The folder {path} is not empty. Choose another one or pass --overwrite.")
    elif path.exists():
        raise SinkError(f"{path} is a file; expected a folder or an image name (*.png, *.jpg).")
    else:
        check_folder(path.parent)
