"""Effects on instances or on the background, with soft edges along the masks: blur, cutout and others."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from live_seg.errors import UsageError, nearest
from live_seg.files import expand_user, read_image
from live_seg.masks import Region
from live_seg.types import Image, Instances

Effect = Callable[[Image, Instances], Image]
"""Map an image (H, W, 3) uint8 BGR and its instances to a new image of the same type or, for `cutout`,
(H, W, 4) uint8 BGRA. The input is not modified."""

Alpha = NDArray[np.uint8]
"""(H, W) uint8: opacity of the instances at each pixel, 0 (background) to 255 (instance)."""

MASK = "mask"
"""The effect drawn by `annotate.draw`, which needs class names."""

CUTOUT = "cutout"
"""The effect whose images have an alpha channel."""

REPLACE = "replace-background"
"""The effect with an argument: replace-background=IMAGE."""

HIDE_THRESHOLD = 0.3
"""Mask probability from which blur and pixelate hide a pixel completely. Below the usual 0.5, because a
pixel that is not hidden is a privacy leak and a slightly larger mask does no harm."""

FEATHER = 1 / 540
"""Radius of the soft edge of a mask in pixels, per pixel of the frame's shorter side."""

DETAIL = 1 / 8
"""Sigma of `blur`, and block side of `pixelate`, per pixel of the instance's size (the square root of its box
area). A face in front of a webcam measures about a third of that: 3 blocks. Finer mosaics that people cannot
read are still recognised by networks (McPherson et al. 2016, "Defeating Image Obfuscation with Deep
Learning", arXiv 1609.00408)."""

REDUCED_SIGMA = 2.0
"""Sigma in pixels of every blur after the image has been reduced, so that the cost does not grow with it."""

BACKGROUND_SIGMA = 1 / 40
"""Sigma of the blurred background per pixel of the frame's shorter side."""

INSTANCE_WEIGHT = 0.002
"""Weight of instance pixels in the blurred background. Only matters in gaps without background nearby."""

CUTOUT_MARGIN = 16
"""Width in pixels of the fully transparent margin around a cutout that keeps its colours, so that video
compression does not bleed black into the edge. Beyond it pixels are black: files stay small and contain no
hidden background."""


def effect_of(spec: str) -> Effect:
    """Return the effect named `spec`: a key of EFFECTS, or replace-background=IMAGE.

    Raises UsageError for an unknown name, with the nearest known names, and for `mask`, which `annotate.draw`
    implements. Raises SourceError for an IMAGE that cannot be read.
    """
    name, _, path = spec.partition("=")
    if name == REPLACE and path:
        return replace_background(read_image(expand_user(path)))
    if name == REPLACE:
        raise UsageError(f"{REPLACE} needs an image file: {REPLACE}=beach.jpg")
    if spec == MASK:
        raise UsageError("The effect mask needs class names: call live_seg.draw instead.")
    if spec not in EFFECTS:
        raise UsageError(
            f"There is no effect {spec!r}. {nearest(spec, (MASK, *EFFECTS, f'{REPLACE}=IMAGE'))}"
        )
    return EFFECTS[spec]


def blur(image: Image, instances: Instances) -> Image:
    """Blur the instances beyond recognition."""
    return _hide(image, instances, _blur_region)


def pixelate(image: Image, instances: Instances) -> Image:
    """Replace the instances with a mosaic. Its grid is fixed to the frame, so box jitter does not move it."""
    return _hide(image, instances, _mosaic)


def blur_background(image: Image, instances: Instances) -> Image:
    """Blur the background. Instance pixels and those next to them are excluded, which avoids a halo."""
    alpha = _matte(instances, image.shape[:2])
    sigma = max(1.0, min(alpha.shape) * BACKGROUND_SIGMA)
    step = _reduction(sigma, alpha.shape)
    near = _dilate(_reduce(alpha, step), round(REDUCED_SIGMA))
    behind = INSTANCE_WEIGHT + 1 - near[..., None] / np.float32(255)
    backdrop = _gaussian_blur(_reduce(image, step) * behind, sigma / step) / _gaussian_blur(
        behind, sigma / step
    )
    return _blend(_resize(np.rint(backdrop).astype(np.uint8), alpha.shape), image, alpha)


def grey_background(image: Image, instances: Instances) -> Image:
    """Convert the background to greyscale."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return _blend(np.asarray(grey, np.uint8), image, _matte(instances, image.shape[:2]))


def replace_background(background: Image) -> Effect:
    """Return an effect that shows `background` (H, W, 3) uint8 BGR, cropped to fill, behind the instances."""
    fitted = lru_cache(maxsize=1)(partial(_crop_to, background))

    def replaced(image: Image, instances: Instances) -> Image:
        height, width = image.shape[:2]
        return _blend(fitted(height, width), image, _matte(instances, (height, width)))

    return replaced


def cutout(image: Image, instances: Instances) -> Image:
    """Make the background transparent: (H, W, 4) uint8, BGR and straight (not premultiplied) alpha."""
    alpha = _matte(instances, image.shape[:2])
    colours = cv2.copyTo(cv2.cvtColor(image, cv2.COLOR_BGR2BGRA), _dilate(alpha, CUTOUT_MARGIN))
    return np.asarray(cv2.insertChannel(alpha, colours, 3), np.uint8)


EFFECTS: dict[str, Effect] = {
    "blur": blur,
    "pixelate": pixelate,
    "blur-background": blur_background,
    "grey-background": grey_background,
    CUTOUT: cutout,
}
"""Effects by name, without `mask` (see `annotate.draw`) and replace-background=IMAGE."""


def _hide(image: Image, instances: Instances, hide: Callable[[Image, Region, float], Image]) -> Image:
    """Cover the instances with `hide(image, region, size)`, where size is in pixels.

    Changes pixels in the boxes and up to one mask cell plus the feather around them. Where boxes overlap,
    the coarser cover of the larger box is used.
    """
    size = image.shape[:2]
    feather = _feather_radius(size)
    sides = np.sqrt(np.prod(instances.boxes[:, 2:] - instances.boxes[:, :2], axis=1, dtype=np.float64))
    order = np.argsort(sides, kind="stable")
    grown = _dilate_cells(_pad_masks(instances[order], size))
    inner = _dilate(_threshold(grown, size, HIDE_THRESHOLD), feather)
    alpha = _soften(inner, feather)  # the same radius as above: pixels of the mask stay at 255
    regions = list(_regions(grown, size, 2 * feather))
    cover, hidden = np.empty_like(image), image.copy()
    for region, side in zip(regions, sides[order].tolist(), strict=True):
        if image[region].size:
            cover[region] = hide(image, region, side)
    for region in regions:
        if image[region].size:
            hidden[region] = _blend(image[region], cover[region], alpha[region])
    return hidden


def _blur_region(image: Image, region: Region, side: float) -> Image:
    sigma = max(1.0, side * DETAIL)
    step = _reduction(sigma, image[region].shape)
    return _resize(_gaussian_blur(_reduce(image[region], step), sigma / step), image[region].shape)


def _mosaic(image: Image, region: Region, side: float) -> Image:
    """Return a mosaic of `region`. Block sides are powers of two, aligned to the frame, hence stable."""
    block = 2 ** max(1, round(np.log2(max(side * DETAIL, 1))))
    rows, columns = region
    top, left = rows.start // block * block, columns.start // block * block
    whole = image[top : -(-rows.stop // block) * block, left : -(-columns.stop // block) * block]
    height, width = -(-whole.shape[0] // block), -(-whole.shape[1] // block)
    missing = (height * block - whole.shape[0], width * block - whole.shape[1])
    filled = cv2.copyMakeBorder(whole, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
    means = _resize(filled, (height, width), cv2.INTER_AREA)
    blocks = _resize(means, filled.shape, cv2.INTER_NEAREST)
    return blocks[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def _reduction(sigma: float, size: tuple[int, ...]) -> int:
    """Return the factor by which to reduce an image of `size` before it is blurred with `sigma`."""
    return max(1, min(int(sigma / REDUCED_SIGMA), *size[:2]))


def _reduce(image: Image, step: int) -> Image:
    """Reduce by averaging squares of `step` pixels; incomplete ones at the right and bottom are dropped.

    Whole factors make OpenCV's area filter many times faster.
    """
    height, width = (length // step for length in image.shape[:2])
    return _resize(image[: height * step, : width * step], (height, width), cv2.INTER_AREA)


def _gaussian_blur(image: NDArray[Any], sigma: float) -> NDArray[Any]:
    """Apply a Gaussian blur to (h, w, C) with replicated borders."""
    smooth = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return smooth.reshape(image.shape)  # OpenCV drops a last axis of 1


def _resize(image: NDArray[Any], size: tuple[int, ...], how: int = cv2.INTER_CUBIC) -> Image:
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=how), np.uint8)


def _crop_to(image: Image, height: int, width: int) -> Image:
    """Crop the centre of `image` to the aspect ratio of a frame and scale it to (height, width)."""
    across, down = image.shape[1] / width, image.shape[0] / height
    scale = min(across, down)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    middle = image[top : top + rows, left : left + columns]
    how = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    return _resize(middle, (height, width), how)


def _feather_radius(size: tuple[int, ...]) -> int:
    return max(1, round(min(size[:2]) * FEATHER))


def _regions(instances: Instances, size: tuple[int, ...], margin: int) -> Iterator[Region]:
    """Yield each box, rounded as in `masks.paste`, expanded by `margin` and clipped to `size` (h, w)."""
    corners = np.rint(instances.boxes).astype(int) + np.array([-margin, -margin, margin, margin])
    limits = (size[1], size[0], size[1], size[0])
    for left, top, right, bottom in np.clip(corners, 0, limits).tolist():
        yield slice(top, bottom), slice(left, right)


def _dilate_cells(instances: Instances) -> Instances:
    """Dilate each mask in place by one cell, the uncertainty of its edge. Needs the ring of `_pad_masks`."""
    for mask in instances.masks:
        cv2.dilate(mask, np.ones((3, 3), np.uint8), dst=mask)
    return instances


def _pad_masks(instances: Instances, size: tuple[int, ...]) -> Instances:
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


def _threshold(instances: Instances, size: tuple[int, ...], threshold: float) -> Alpha:
    """Return 255 where the mask probability of any instance is at least `threshold`, else 0."""
    bits = np.zeros(size[:2], np.uint8)
    for region, probability in instances.soft_masks((size[0], size[1])):
        bits[region] |= (probability >= threshold).view(np.uint8) * np.uint8(255)
    return bits


def _matte(instances: Instances, size: tuple[int, ...]) -> Alpha:
    """Return the instances' opacity in a frame of `size`. Edges are soft on both sides of the outline."""
    return _soften(_threshold(_pad_masks(instances, size), size, 0.5), _feather_radius(size))


def _dilate(bits: Alpha, reach: int) -> Alpha:
    return np.asarray(cv2.dilate(bits, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)), np.uint8)


def _soften(bits: Alpha, reach: int) -> Alpha:
    return np.asarray(cv2.blur(bits, (2 * reach + 1, 2 * reach + 1)), np.uint8)


def _blend(under: Image, over: Image, alpha: Alpha) -> Image:
    """Blend `over` onto `under`, both (H, W, 3), with `alpha`. Only partially opaque pixels are computed."""
    mixed = under.copy()
    pixels = mixed.reshape(-1, 3)
    edge = np.flatnonzero((alpha > 0) & (alpha < 255))
    below = pixels[edge].astype(np.uint16)
    cv2.copyTo(over, alpha, mixed)
    share = alpha.reshape(-1)[edge, None].astype(np.uint16)
    pixels[edge] = (below * (255 - share) + pixels[edge] * share + 127) // 255
    return mixed
