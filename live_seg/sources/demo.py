"""A clip that needs no file of the user's: portraits of different sizes gliding over a wall."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from matplotlib import cbook

from live_seg.files import read_image
from live_seg.types import Frame, Image, Source

SIZE = (960, 540)
"""Width and height of the clip, pixels."""

FPS = 25.0
SECONDS = 6.0

PORTRAITS = ((0.22, 0.52, 0.82, 1.0), (0.58, 0.55, 0.52, 1.5), (0.87, 0.5, 0.34, 2.0))
"""Each portrait: x, y of its resting place and its height, as shares of the frame; turns it sways a clip."""


class DemoClip(Source):
    """A short clip of Grace Hopper, Matplotlib's sample image: a public-domain portrait by the US Navy."""

    name = "the demo clip"
    fps = FPS
    size = SIZE
    frames = round(FPS * SECONDS)

    def __init__(self) -> None:
        portrait = read_image(Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
        self._portraits = [_scaled(portrait, share) for _, _, share, _ in PORTRAITS]
        self._portraits[1] = np.ascontiguousarray(self._portraits[1][:, ::-1])

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.frames):
            yield Frame(index, index / FPS, self._picture(index / self.frames))

    def close(self) -> None:
        """Nothing is open."""

    def _picture(self, progress: float) -> Image:
        """Paint the frame at `progress`, 0..1 of the clip."""
        width, height = SIZE
        shade = np.linspace(150, 70, height)[:, None, None] * np.array([0.9, 0.85, 0.75])
        canvas = np.broadcast_to(shade, (height, width, 3)).astype(np.uint8, order="C")
        for (x, y, _, turns), portrait in zip(PORTRAITS, self._portraits, strict=True):
            angle = 2 * np.pi * turns * progress
            middle = (width * (x + 0.015 * np.sin(angle)), height * (y + 0.06 * np.cos(angle)))
            _lay(canvas, portrait, middle)
        return canvas


def _scaled(portrait: Image, share: float) -> Image:
    height = round(SIZE[1] * share)
    width = round(portrait.shape[1] * height / portrait.shape[0])
    return np.asarray(cv2.resize(portrait, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _lay(canvas: Image, portrait: Image, middle: tuple[float, float]) -> None:
    """Lay `portrait` on `canvas`, its middle at x, y; to a fraction of a pixel, so that it glides."""
    height, width = portrait.shape[:2]
    shift = np.array([[1, 0, middle[0] - width / 2], [0, 1, middle[1] - height / 2]])
    cv2.warpAffine(portrait, shift, SIZE, dst=canvas, borderMode=cv2.BORDER_TRANSPARENT)
