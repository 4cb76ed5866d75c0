"""A generated clip that needs no input file: portraits of different sizes in front of a wall."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from matplotlib import cbook

from live_seg.files import read_image
from live_seg.types import Frame, Image, Source

CLIP_SIZE = (960, 540)
"""(width, height) of the clip in pixels."""

CLIP_FPS = 25.0
CLIP_SECONDS = 6.0

PORTRAITS = ((0.22, 0.52, 0.82, 1.0), (0.58, 0.55, 0.52, 1.5), (0.87, 0.5, 0.34, 2.0))
"""For each portrait: mean x and y and height, as fractions of the frame; number of cycles of its movement."""


class DemoClip(Source):
    """Generate a short clip from Matplotlib's sample image, a public-domain portrait of Grace Hopper."""

    name = "the demo clip"
    fps = CLIP_FPS
    size = CLIP_SIZE
    frames = round(CLIP_FPS * CLIP_SECONDS)

    def __init__(self) -> None:
        portrait = read_image(Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
        self._portraits = [_scaled(portrait, share) for _, _, share, _ in PORTRAITS]
        self._portraits[1] = np.ascontiguousarray(self._portraits[1][:, ::-1])

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
        for (x, y, _, cycles), portrait in zip(PORTRAITS, self._portraits, strict=True):
            angle = 2 * np.pi * cycles * progress
            center = (width * (x + 0.015 * np.sin(angle)), height * (y + 0.06 * np.cos(angle)))
            _paste(canvas, portrait, center)
        return canvas


def _scaled(portrait: Image, share: float) -> Image:
    """Resize `portrait` to `share` of the clip's height."""
    height = round(CLIP_SIZE[1] * share)
    width = round(portrait.shape[1] * height / portrait.shape[0])
    return np.asarray(cv2.resize(portrait, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _paste(canvas: Image, portrait: Image, center: tuple[float, float]) -> None:
    """Paste `portrait` onto `canvas` in place, centered at (x, y) with subpixel precision."""
    height, width = portrait.shape[:2]
    shift = np.array([[1, 0, center[0] - width / 2], [0, 1, center[1] - height / 2]])
    cv2.warpAffine(portrait, shift, CLIP_SIZE, dst=canvas, borderMode=cv2.BORDER_TRANSPARENT)
