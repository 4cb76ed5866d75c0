"""Layouts: place a frame on the canvas that the network reads, and map boxes back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from live_seg.maskrcnn.anchors import to_normalized, to_pixels

Pixel = TypeVar("Pixel", np.uint8, np.float32)

STRIDE = 32
"""The largest stride of the backbone. Canvas sides are multiples, so that upsampled maps fit."""


@dataclass(frozen=True)
class Placement:
    """Placement of a resized frame at `offset` on a canvas. All sizes are (height, width) in pixels."""

    frame: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    canvas: tuple[int, int]
    last_pixel: int = 1  # the convention of normalized coordinates: see `anchors`

    @property
    def window(self) -> NDArray[np.int64]:
        """Return the frame's box on the canvas, y1 x1 y2 x2 in pixels (4,)."""
        top, left = self.offset
        return np.array([top, left, top + self.resized[0], left + self.resized[1]])

    def normalized_window(self) -> NDArray[np.float32]:
        """Return `window` normalized to the canvas (4,)."""
        return to_normalized(self.window, self.canvas, self.last_pixel)

    def to_frame(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Convert normalized y1 x1 y2 x2 on the canvas to x1 y1 x2 y2 in frame pixels. (N, 4) -> (N, 4).

        As Matterport `MaskRCNN.unmold_detections`, without its rounding.
        """
        window = self.normalized_window()
        # A window one pixel high or wide has no length in normalized units.
        lengths = np.maximum(window[2:] - window[:2], 1e-9)
        shift, scale = np.tile(window[:2], 2), np.tile(lengths, 2)
        return to_pixels((boxes - shift) / scale, self.frame, self.last_pixel)[:, [1, 0, 3, 2]]


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
    resized = _scaled(frame, size / max(frame))
    return _centered(frame, resized, _rounded_up(resized))


def place_shorter_side(frame: tuple[int, int], size: int, min_side: int) -> Placement:
    """Resize a frame (height, width) to a shorter side of `min_side`, unless the longer would exceed `size`.

    It is in the canvas' top left corner; canvas sides are rounded up to STRIDE (torchvision
    `GeneralizedRCNNTransform`).
    """
    scale = min(min_side / min(frame), size / max(frame))
    resized = max(1, int(frame[0] * scale)), max(1, int(frame[1] * scale))
    return Placement(frame, resized, (0, 0), _rounded_up(resized))


def _scaled(frame: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(frame[0] * scale)), max(1, round(frame[1] * scale))


def _rounded_up(size: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // STRIDE) * STRIDE, -(-size[1] // STRIDE) * STRIDE


def _centered(frame: tuple[int, int], resized: tuple[int, int], canvas: tuple[int, int]) -> Placement:
    offset = ((canvas[0] - resized[0]) // 2, (canvas[1] - resized[1]) // 2)
    return Placement(frame, resized, offset, canvas)


def on_canvas(
    pixels: NDArray[Pixel], placement: Placement, colour: Sequence[float] = (0, 0, 0)
) -> NDArray[Pixel]:
    """Copy `pixels` (h, w, 3) of size `placement.resized` onto a canvas of one `colour` -> (H, W, 3)."""
    canvas = np.empty((*placement.canvas, 3), pixels.dtype)
    canvas[:] = np.asarray(colour, pixels.dtype)
    top, left, bottom, right = placement.window
    canvas[top:bottom, left:right] = pixels
    return canvas


def resize_bilinear(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Resize `image` (h, w, C) bilinearly with half-pixel centers and no antialiasing -> (height, width, C).

    Positions are rounded to float32 once, as in PyTorch's `interpolate`. OpenCV and float64 differ from it by
    up to 1e-4 of the range of values, as the weight of a position far from 0 has few digits.
    """
    (top, bottom, down), (left, right, across) = (
        _neighbours(length, target) for length, target in zip(image.shape[:2], (height, width), strict=True)
    )
    across, down = across[:, None], down[:, None, None]
    rows = image[:, left] * (1 - across) + image[:, right] * across
    return np.asarray(rows[top] * (1 - down) + rows[bottom] * down, np.float32)


def _neighbours(length: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return the two positions (target,) that each new one lies between, and the weight of the second."""
    scale = float(np.float32(length) / np.float32(target))
    positions = np.maximum((scale * (np.arange(target) + 0.5) - 0.5).astype(np.float32), 0)
    first = positions.astype(np.intp)
    weight: NDArray[np.float32] = (positions - first).astype(np.float32)
    return first, np.minimum(first + 1, length - 1), weight
