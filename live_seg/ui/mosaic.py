"""One picture of several sources."""

from collections.abc import Sequence

import cv2
import numpy as np

from live_seg.types import Image
from live_seg.ui.controls import grid
from live_seg.ui.hud import PANEL_BRIGHTNESS, WHITE

GROUND = 24
"""Grey level between the pictures, and of sources that have sent nothing."""


class Mosaic:
    """Show the newest images of several sources as tiles of a picture of `size` (width, height).

    Tiles are numbered from 1, row by row, and show the number and name of their source.
    """

    def __init__(self, names: Sequence[str], size: tuple[int, int] = (1280, 720)) -> None:
        self._names = names
        self._columns, self._rows = grid(len(names))
        self._canvas = np.full((size[1], size[0], 3), GROUND, np.uint8)
        self._newest: list[Image | None] = [None] * len(names)
        for position in range(len(names)):
            self._label(position, "waiting")

    def place(self, position: int, image: Image) -> None:
        """Show `image`, (H, W, 3), which must not change afterwards, as the newest one of a source."""
        self._newest[position] = image
        tile = self._tile(position)
        tile[:] = fitted(image, (tile.shape[1], tile.shape[0]))
        self._label(position)

    def picture(self, enlarged: int = 0) -> Image:
        """Return a picture of all sources, or only of the source with the number `enlarged`."""
        chosen = self._newest[enlarged - 1] if 1 <= enlarged <= len(self._names) else None
        if chosen is None:
            return self._canvas.copy()
        height, width = self._canvas.shape[:2]
        return fitted(chosen, (width, height))

    def _tile(self, position: int) -> Image:
        height, width = self._canvas.shape[:2]
        row, column = divmod(position, self._columns)
        rows = slice(row * height // self._rows, (row + 1) * height // self._rows)
        return self._canvas[rows, column * width // self._columns : (column + 1) * width // self._columns]

    def _label(self, position: int, state: str = "") -> None:
        tile = self._tile(position)
        text = " ".join(filter(None, [str(position + 1), self._names[position][-40:], state]))
        scale = max(0.4, tile.shape[0] / 900)
        (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        panel = tile[-(height + below + 8) :, : width + 16]
        cv2.convertScaleAbs(panel, dst=panel, alpha=PANEL_BRIGHTNESS)
        place = (8, tile.shape[0] - below - 4)
        cv2.putText(tile, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, WHITE, 1, cv2.LINE_AA)


def fitted(image: Image, size: tuple[int, int]) -> Image:
    """Return `image` scaled to fit `size` (width, height), centered on grey."""
    width, height = size
    scale = min(width / image.shape[1], height / image.shape[0])
    inner = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas = np.full((height, width, 3), GROUND, np.uint8)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(image, inner, interpolation=method)
    return canvas
