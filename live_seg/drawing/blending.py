"""Building blocks of effects: soft mattes of instances, blurring, resizing and blending."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from live_seg.masks import Region
from live_seg.types import Image, Instances

Alpha = NDArray[np.uint8]
"""(H, W) uint8: opacity of the instances at each pixel, 0 (background) to 255 (instance)."""

FEATHER = 1 / 540
"""Radius of the soft edge of a mask in pixels, per pixel of the frame's shorter side."""

REDUCED_SIGMA = 2.0
"""Sigma in pixels of every blur after the image has been reduced, so that the cost does not grow with it."""


def reduction(sigma: float, size: tuple[int, ...]) -> int:
    """Return the factor by which to reduce an image of `size` before it is blurred with `sigma`."""
    return max(1, min(int(sigma / REDUCED_SIGMA), *size[:2]))


def reduce(image: Image, step: int) -> Image:
    """Reduce by averaging squares of `step` pixels; incomplete ones at the right and bottom are dropped.

    Whole factors make OpenCV's area filter many times faster.
    """
    height, width = (length // step for length in image.shape[:2])
    return resize(image[: height * step, : width * step], (height, width), cv2.INTER_AREA)


def gaussian_blur(image: NDArray[Any], sigma: float) -> NDArray[Any]:
    """Apply a Gaussian blur to (h, w, C) with replicated borders."""
    smooth = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return smooth.reshape(image.shape)  # OpenCV drops a last axis of 1


def resize(image: NDArray[Any], size: tuple[int, ...], how: int = cv2.INTER_CUBIC) -> Image:
    """Resize an image (H, W, C) to `size` (h, w, ...), cubic by default."""
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=how), np.uint8)


def feather_radius(size: tuple[int, ...]) -> int:
    """Return the radius of soft edges in pixels in a frame of `size` (h, w, ...)."""
    return max(1, round(min(size[:2]) * FEATHER))


def regions(instances: Instances, size: tuple[int, ...], margin: int) -> Iterator[Region]:
    """Yield each box, rounded as in `masks.paste`, expanded by `margin` and clipped to `size` (h, w)."""
    corners = np.rint(instances.boxes).astype(int) + np.array([-margin, -margin, margin, margin])
    limits = (size[1], size[0], size[1], size[0])
    for left, top, right, bottom in np.clip(corners, 0, limits).tolist():
        yield slice(top, bottom), slice(left, right)


def pad_masks(instances: Instances, size: tuple[int, ...]) -> Instances:
    """Pad each mask with a ring of empty cells and extend masks that the frame's edge cuts off.

    Masks fade out in their outermost cells, which would leave a gap along the frame's edge. Where that edge
    is less than half a cell away, the last two cells take the value of the third if it is higher.
    """
    cell = (instances.boxes[:, 2:] - instances.boxes[:, :2]) / max(1, instances.masks.shape[1])
    boxes = np.concatenate([instances.boxes[:, :2] - cell, instances.boxes[:, 2:] + cell], axis=1)
    masks = np.pad(instances.masks, ((0, 0), (1, 1), (1, 1)))
    first = boxes[:, :2] + cell / 2 <= 0
    last = boxes[:, 2:] - cell / 2 >= (size[1], size[0])
    for grids, cut in ((masks.swapaxes(1, 2), 0), (masks, 1)):
        for side, at_edge in ((grids, first[:, cut]), (grids[:, ::-1], last[:, cut])):
            side[at_edge, :2] = np.maximum(side[at_edge, :2], side[at_edge, 2:3])
    return replace(instances, boxes=boxes, masks=masks)


def threshold(instances: Instances, size: tuple[int, ...], minimum: float) -> Alpha:
    """Return 255 where the mask probability of any instance is at least `minimum`, else 0."""
    bits = np.zeros(size[:2], np.uint8)
    for region, probability in instances.soft_masks((size[0], size[1])):
        bits[region] |= (probability >= minimum).view(np.uint8) * np.uint8(255)
    return bits


def matte(instances: Instances, size: tuple[int, ...]) -> Alpha:
    """Return the instances' opacity in a frame of `size`. Edges are soft on both sides of the outline."""
    return soften(threshold(pad_masks(instances, size), size, 0.5), feather_radius(size))


def dilate(bits: Alpha, reach: int) -> Alpha:
    """Dilate (H, W) by a square of `reach` pixels on each side."""
    return np.asarray(cv2.dilate(bits, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)), np.uint8)


def soften(bits: Alpha, reach: int) -> Alpha:
    """Average (H, W) over a square of `reach` pixels on each side."""
    return np.asarray(cv2.blur(bits, (2 * reach + 1, 2 * reach + 1)), np.uint8)


def blend(under: Image, over: Image, alpha: Alpha) -> Image:
    """Blend `over` onto `under`, both (H, W, 3), with `alpha`. Only partially opaque pixels are computed."""
    mixed = under.copy()
    pixels = mixed.reshape(-1, 3)
    edge = np.flatnonzero((alpha > 0) & (alpha < 255))
    below = pixels[edge].astype(np.uint16)
    cv2.copyTo(over, alpha, mixed)
    share = alpha.reshape(-1)[edge, None].astype(np.uint16)
    pixels[edge] = (below * (255 - share) + pixels[edge] * share + 127) // 255
    return mixed
