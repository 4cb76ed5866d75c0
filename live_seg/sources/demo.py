"""A generated clip that needs no input file: photos of different sizes in front of a wall."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib import cbook

from live_seg.files import read_image
from live_seg.types import Frame, Image, Source

CLIP_SIZE = (960, 540)
"""(width, height) of the clip in pixels."""

CLIP_FPS = 25.0
CLIP_SECONDS = 6.0


class Placement(NamedTuple):
    """Where a photo moves in the clip."""

    x: float  # mean position of the center, in frames
    y: float
    height: float  # in frames
    cycles: float  # of its movement


PORTRAITS = (Placement(0.17, 0.52, 0.72, 1.0), Placement(0.435, 0.64, 0.42, 1.5))
"""Placements of Matplotlib's portrait of Grace Hopper (public domain). The second one is mirrored."""

OTHERS = {"chelsea.png": Placement(0.73, 0.27, 0.44, 1.5), "coffee.png": Placement(0.73, 0.76, 0.40, 2.0)}
"""Placements of scikit-image's photos of a cat and a cup (CC0)."""


class DemoClip(Source):
    """Generate a short clip from the sample images of Matplotlib and, if installed, of scikit-image."""

    name = "the demo clip"
    fps = CLIP_FPS
    size = CLIP_SIZE
    frames = round(CLIP_FPS * CLIP_SECONDS)

    def __init__(self) -> None:
        portrait = read_image(Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
        photos = dict(zip(PORTRAITS, (portrait, portrait[:, ::-1]), strict=True))
        photos |= {
            place: photo for name, place in OTHERS.items() if (photo := _scikit_image(name)) is not None
        }
        self._photos = {place: _scaled(photo, place.height) for place, photo in photos.items()}

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.frames):
            yield Frame(index, index / CLIP_FPS, self._image(index / self.frames))

    def close(self) -> None:
        """Do nothing; no file is open."""

    def _image(self, progress: float) -> Image:
        """Return the image at `progress` (0 to 1) of the clip."""
        width, height = CLIP_SIZE
        shade = np.linspace(150, 70, height)[:, None, None] * np.array([0.9, 0.85, 0.75])
        canvas = np.broadcast_to(shade, (height, width, 3)).astype(np.uint8, order="C")
        for place, photo in self._photos.items():
            angle = 2 * np.pi * place.cycles * progress
            center = (width * (place.x + 0.015 * np.sin(angle)), height * (place.y + 0.06 * np.cos(angle)))
            _paste(canvas, photo, center)
        return canvas


def _scikit_image(name: str) -> Image | None:
    """Read a sample image of scikit-image, or return None where it is not installed."""
    package = find_spec("skimage")
    if package is None or package.origin is None:
        return None
    return read_image(Path(package.origin).with_name("data") / name)


def _scaled(photo: Image, share: float) -> Image:
    """Resize `photo` to `share` of the clip's height."""
    height = round(CLIP_SIZE[1] * share)
    width = round(photo.shape[1] * height / photo.shape[0])
    return np.asarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _paste(canvas: Image, photo: Image, center: tuple[float, float]) -> None:
    """Paste `photo` onto `canvas` in place, centered at (x, y) with subpixel precision."""
    height, width = photo.shape[:2]
    shift = np.array([[1, 0, center[0] - width / 2], [0, 1, center[1] - height / 2]])
    cv2.warpAffine(photo, shift, CLIP_SIZE, dst=canvas, borderMode=cv2.BORDER_TRANSPARENT)
