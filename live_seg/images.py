"""Images as the package takes them, (H, W, 3) uint8 BGR: check arrays, convert RGB and Pillow images."""

from typing import Any

import numpy as np

from live_seg.errors import UsageError
from live_seg.types import Image


def from_rgb(image: Any) -> Image:
    """Convert an RGB image to BGR: (H, W, 3) uint8.

    `image` is a Pillow image of any mode, or a uint8 array (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) grey.
    Alpha is dropped. Raises UsageError for anything else.
    """
    array = np.asarray(image.convert("RGB") if is_pillow(image) else image)
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] not in (3, 4) or array.dtype != np.uint8 or not array.size:
        raise UsageError(
            f"Expected a Pillow image or an RGB array (H, W, 3) uint8. Got {described(image)}.{_hint(image)}"
        )
    return np.ascontiguousarray(array[:, :, 2::-1])


def checked(image: Any, where: str = "") -> Image:
    """Return `image` if it is an array (H, W, 3) uint8, else raise UsageError with a remedy."""
    good = isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3
    if not good or image.dtype != np.uint8 or not image.size:
        raise UsageError(f"Expected BGR images (H, W, 3) uint8{where}. Got {described(image)}.{_hint(image)}")
    return np.asarray(image)


def is_pillow(image: Any) -> bool:
    """Return whether `image` is a Pillow image, without importing Pillow."""
    return any(base.__module__ == "PIL.Image" for base in type(image).__mro__)


def described(image: Any) -> str:
    """Return type, and for arrays shape and dtype, of a value for messages."""
    if isinstance(image, np.ndarray):
        return f"an array {image.shape} {image.dtype}"
    return "a Pillow image" if is_pillow(image) else f"{type(image).__name__} {image!r:.80}"


def _hint(image: Any) -> str:
    """Return a remedy for a value that is not an image; empty if there is none."""
    if is_pillow(image):
        return " Convert it: live_seg.from_rgb(image)."
    if not isinstance(image, np.ndarray):
        return ""
    if image.ndim == 2:
        return " Convert grey images: cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)."
    if image.ndim == 3 and image.shape[2] == 4:
        return " Drop the alpha channel: image[:, :, :3]."
    if image.ndim == 3 and image.dtype != np.uint8:
        return " Scale it to 0..255 and convert it: image.astype(np.uint8)."
    return ""
