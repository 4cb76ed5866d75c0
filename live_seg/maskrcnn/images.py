"""Layouts: place a frame on the canvas that the network reads, and map boxes back."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from live_seg.maskrcnn.anchors import to_normalized, to_pixels

STRIDE = 32
"""The largest stride of the backbone. Canvas sides are multiples, so that upsampled maps fit."""


@dataclass(frozen=True)
class Placement:
    """Placement of a resized frame at `offset` on a black canvas. All sizes are (height, width) in pixels."""

    frame: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    canvas: tuple[int, int]

    @property
    def window(self) -> NDArray[np.int64]:
        """Return the frame's box on the canvas, y1 x1 y2 x2 in pixels (4,)."""
        top, left = self.offset
        return np.array([top, left, top + self.resized[0], left + self.resized[1]])

    def normalized_window(self) -> NDArray[np.float32]:
        """Return `window` normalized to the canvas (4,)."""
        return to_normalized(self.window, self.canvas)

    def to_frame(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Convert normalized y1 x1 y2 x2 on the canvas to x1 y1 x2 y2 in frame pixels. (N, 4) -> (N, 4).

        As Matterport `MaskRCNN.unmold_detections`, without its rounding.
        """
        window = self.normalized_window()
        # A window one pixel high or wide has no length in normalized units.
        lengths = np.maximum(window[2:] - window[:2], 1e-9)
        shift, scale = np.tile(window[:2], 2), np.tile(lengths, 2)
        return to_pixels((boxes - shift) / scale, self.frame)[:, [1, 0, 3, 2]]


def place_square(frame: tuple[int, int], size: int, min_side: int) -> Placement:
    """Center a frame (height, width) on a square canvas of `size` pixels.

    The shorter side is enlarged to `min_side` unless the longer side would exceed `size` (Matterport
    `utils.resize_image`, mode "square").
    """
    scale = max(1.0, min_side / min(frame))
    if round(max(frame) * scale) > size:
        scale = size / max(frame)
    return _centered(frame, _scaled(frame, scale), (size, size))


def place_fit(frame: tuple[int, int], size: int) -> Placement:
    """Resize a frame (height, width) to a longest side of `size`; canvas sides are rounded up to STRIDE."""
    height, width = resized = _scaled(frame, size / max(frame))
    return _centered(frame, resized, (-(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE))


def _scaled(frame: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(frame[0] * scale)), max(1, round(frame[1] * scale))


def _centered(frame: tuple[int, int], resized: tuple[int, int], canvas: tuple[int, int]) -> Placement:
    offset = ((canvas[0] - resized[0]) // 2, (canvas[1] - resized[1]) // 2)
    return Placement(frame, resized, offset, canvas)


def on_canvas(pixels: NDArray[np.uint8], placement: Placement) -> NDArray[np.uint8]:
    """Copy `pixels` (h, w, 3) of size `placement.resized` onto a black canvas -> (H, W, 3)."""
    canvas = np.zeros((*placement.canvas, 3), np.uint8)
    top, left, bottom, right = placement.window
    canvas[top:bottom, left:right] = pixels
    return canvas
