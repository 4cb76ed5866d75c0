"""Effects that hide instances: blur and pixelate."""

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from live_seg.choices import Hide
from live_seg.drawing.blending import (
    Alpha,
    blend,
    dilate,
    feather_radius,
    gaussian_blur,
    pad_masks,
    reduce,
    reduction,
    regions,
    resize,
    soften,
    threshold,
)
from live_seg.errors import UsageError
from live_seg.masks import Region
from live_seg.types import MASK_SIDE, Image, Instances

HIDE_THRESHOLD = 0.3
"""Mask probability from which blur and pixelate hide a pixel completely. Below the usual 0.5, because a
pixel that is not hidden is a privacy leak and a slightly larger mask does no harm."""

BOX_MARGIN = 0.05
"""Margin hidden around a box, as a fraction of its sides."""

DETAIL = 1 / 8
"""Sigma of `blur`, and block side of `pixelate`, per pixel of the instance's size (the square root of its box
area). A face in front of a webcam measures about a third of that: 3 blocks. Finer mosaics that people cannot
read are still recognised by networks (McPherson et al. 2016, "Defeating Image Obfuscation with Deep
Learning", arXiv 1609.00408)."""


def blur(image: Image, instances: Instances, hide: Hide = "box") -> Image:
    """Blur the instances beyond recognition.

    `hide` is the region: "mask", "hull" (its convex hull) or "box" (hull, and box with a margin). Raises
    UsageError for anything else.
    """
    return _hide(image, instances, _blur_region, hide)


def pixelate(image: Image, instances: Instances, hide: Hide = "box") -> Image:
    """Replace the instances with a mosaic. Its grid is fixed to the frame, so box jitter does not move it.

    `hide` is the region as for `blur`.
    """
    return _hide(image, instances, _mosaic, hide)


def whole_frame(size: tuple[int, ...]) -> Instances:
    """Return one instance that fills a frame of `size` (h, w), to hide all of it."""
    return Instances(
        boxes=np.array([[0, 0, size[1], size[0]]], np.float32),
        masks=np.ones((1, MASK_SIDE, MASK_SIDE), np.float32),
        class_ids=np.ones(1, np.int32),
        scores=np.ones(1, np.float32),
    )


def _hide(
    image: Image, instances: Instances, cover_of: Callable[[Image, Region, float], Image], hide: Hide
) -> Image:
    """Cover the instances with `cover_of(image, region, size)`, where size is in pixels.

    Where boxes overlap, the coarser cover of the larger box is used.
    """
    size = image.shape[:2]
    sides = np.sqrt(np.prod(instances.boxes[:, 2:] - instances.boxes[:, :2], axis=1, dtype=np.float64))
    order = np.argsort(sides, kind="stable")
    grown, boxes = _grown(instances[order], size)
    alpha = _opacity(grown, boxes, size, hide)
    outer = np.hstack([np.minimum(grown.boxes, boxes)[:, :2], np.maximum(grown.boxes, boxes)[:, 2:]])
    parts = list(regions(replace(grown, boxes=outer), size, 2 * feather_radius(size)))
    cover, hidden = np.empty_like(image), image.copy()
    for region, side in zip(parts, sides[order].tolist(), strict=True):
        if image[region].size:
            cover[region] = cover_of(image, region, side)
    for region in parts:
        if image[region].size:
            hidden[region] = blend(image[region], cover[region], alpha[region])
    return hidden


def opacity(instances: Instances, size: tuple[int, int], hide: Hide = "box") -> Alpha:
    """Return the opacity of what `blur` and `pixelate` draw on a frame of `size` (h, w): 255 is hidden."""
    return _opacity(*_grown(instances, size), size, hide)


def _grown(instances: Instances, size: tuple[int, ...]) -> tuple[Instances, NDArray[np.float32]]:
    """Return the instances with dilated masks, and their boxes (N, 4) with a margin."""
    return _dilate_cells(pad_masks(instances, size)), _with_margin(instances.boxes)


def _opacity(grown: Instances, boxes: NDArray[np.float32], size: tuple[int, ...], hide: Hide) -> Alpha:
    """Return `opacity` of instances as returned by `_grown`. Raises UsageError for an unknown `hide`."""
    if hide not in get_args(Hide):
        raise UsageError(f"hide is {hide!r}: expected {', '.join(get_args(Hide))}.")
    feather = feather_radius(size)
    inner = dilate(_hidden_bits(grown, boxes, size, hide), feather)
    return soften(inner, feather)  # the same radius as above: hidden pixels stay at 255


def _hidden_bits(grown: Instances, boxes: NDArray[np.float32], size: tuple[int, ...], hide: Hide) -> Alpha:
    """Return 255 where a pixel of a frame of `size` (h, w) is to be hidden, else 0: (h, w).

    `grown` are the instances with dilated masks, `boxes` (N, 4) the boxes to hide if `hide` is "box".
    """
    if hide == "mask":
        return threshold(grown, size, HIDE_THRESHOLD)
    bits = np.zeros(size[:2], np.uint8)
    for region, probability in grown.soft_masks((size[0], size[1])):
        corners = cv2.findNonZero((probability >= HIDE_THRESHOLD).view(np.uint8))
        if corners is not None:
            part = np.ascontiguousarray(bits[region])
            bits[region] = cv2.fillConvexPoly(part, cv2.convexHull(corners), (255,))
    if hide == "box":
        for region in regions(replace(grown, boxes=boxes), size, 0):
            bits[region] = 255
    return bits


def _with_margin(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return boxes (N, 4) with a margin of BOX_MARGIN of their sides."""
    margin = np.float32(BOX_MARGIN) * (boxes[:, 2:] - boxes[:, :2])
    return np.hstack([boxes[:, :2] - margin, boxes[:, 2:] + margin])


def _blur_region(image: Image, region: Region, side: float) -> Image:
    sigma = max(1.0, side * DETAIL)
    step = reduction(sigma, image[region].shape)
    return resize(gaussian_blur(reduce(image[region], step), sigma / step), image[region].shape)


def _mosaic(image: Image, region: Region, side: float) -> Image:
    """Return a mosaic of `region`. Block sides are powers of two, aligned to the frame, hence stable."""
    block = 2 ** max(1, round(np.log2(max(side * DETAIL, 1))))
    rows, columns = region
    top, left = rows.start // block * block, columns.start // block * block
    whole = image[top : -(-rows.stop // block) * block, left : -(-columns.stop // block) * block]
    height, width = -(-whole.shape[0] // block), -(-whole.shape[1] // block)
    missing = (height * block - whole.shape[0], width * block - whole.shape[1])
    filled = cv2.copyMakeBorder(whole, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
    means = resize(filled, (height, width), cv2.INTER_AREA)
    blocks = resize(means, filled.shape, cv2.INTER_NEAREST)
    return blocks[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def _dilate_cells(instances: Instances) -> Instances:
    """Dilate each mask in place by one cell, the uncertainty of its edge. Needs the ring of `pad_masks`."""
    for mask in instances.masks:
        cv2.dilate(mask, np.ones((3, 3), np.uint8), dst=mask)
    return instances
