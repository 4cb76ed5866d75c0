"""Effects on what was found or on all around it, soft-edged along the masks: blur, cutout and the like."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from live_seg.errors import UsageError, nearest
from live_seg.files import expand_user, read_image
from live_seg.types import Image, Instances, Region

Effect = Callable[[Image, Instances], Image]
"""Makes a new picture of one (H, W, 3) uint8 BGR and what was found in it: of the same kind, or, for
`cutout`, (H, W, 4) uint8 BGR with alpha. The one given is left as it is."""

Alpha = NDArray[np.uint8]
"""(H, W) uint8: the instances' share of each pixel, 0 none to 255 all."""

MASK = "mask"
"""The effect that `render.draw` draws, with class names, labels and boxes."""

CUTOUT = "cutout"
"""The effect whose pictures have an alpha channel."""

REPLACE = "replace-background"
"""The effect that takes a picture: replace-background=IMAGE."""

HIDDEN = 0.3
"""Least probability that a pixel is the instance's for blur and pixelate to hide it whole: below the usual
0.5, as what shows through cannot be taken back, and a little too much hidden hurts nobody."""

FEATHER = 1 / 540
"""Pixels from the edge of a mask to where its softness ends, per pixel of the frame's shorter side."""

DETAIL = 1 / 8
"""Sigma of the blur, and side of the blocks of pixelate, per pixel of the instance's size, the square root of
its box's area. The face before a webcam is a third of that or so: 3 blocks. Coarse, as networks recognise
faces in mosaics that people cannot read (McPherson et al. 2016, "Defeating Image Obfuscation with Deep
Learning", arXiv 1609.00408)."""

REDUCED_SIGMA = 2.0
"""Sigma in pixels that a picture is shrunk towards before it is blurred: a strong blur costs no more."""

BACKDROP = 1 / 40
"""Sigma of a blurred background per pixel of the frame's shorter side."""

ENCLOSED = 0.002
"""Weight of the instances in a blurred background: counts only in gaps that have no background nearby."""

BLEED = 16
"""Pixels around a cut out instance whose colours are kept, unseen, so that a video's coding blocks do not mix
black into its edge. Farther out all is black: small files, and nothing hidden in them."""


def effect_of(spec: str) -> Effect:
    """Find the effect called `spec`: one of EFFECTS or replace-background=IMAGE.

    Raises UsageError, with the nearest names, for an unknown one, and for `mask`, which is `render.draw`'s;
    SourceError for an IMAGE that cannot be read.
    """
    name, _, path = spec.partition("=")
    if name == REPLACE and path:
        return replace_background(read_image(expand_user(path)))
    if name == REPLACE:
        raise UsageError(f"{REPLACE} needs a picture: {REPLACE}=beach.jpg")
    if spec == MASK:
        raise UsageError("The effect mask needs the names of the classes: call render.draw.")
    if spec not in EFFECTS:
        raise UsageError(
            f"There is no effect {spec!r}. {nearest(spec, (MASK, *EFFECTS, f'{REPLACE}=IMAGE'))}"
        )
    return EFFECTS[spec]


def blur(image: Image, instances: Instances) -> Image:
    """Blur the instances beyond recognition."""
    return _hidden(image, instances, _blurred)


def pixelate(image: Image, instances: Instances) -> Image:
    """Turn the instances into blocks of one colour; the blocks do not move with a box that trembles."""
    return _hidden(image, instances, _blocks)


def blur_background(image: Image, instances: Instances) -> Image:
    """Blur all but the instances, leaving their colours, and those just around them, out of it: no halo."""
    alpha = _matte(instances, image.shape[:2])
    sigma = max(1.0, min(alpha.shape) * BACKDROP)
    step = _step(sigma, alpha.shape)
    near = _widened(_reduced(alpha, step), round(REDUCED_SIGMA))
    behind = ENCLOSED + 1 - near[..., None] / np.float32(255)
    backdrop = _smoothed(_reduced(image, step) * behind, sigma / step) / _smoothed(behind, sigma / step)
    return _mixed(_scaled(np.rint(backdrop).astype(np.uint8), alpha.shape), image, alpha)


def grey_background(image: Image, instances: Instances) -> Image:
    """Take the colour from all but the instances."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return _mixed(np.asarray(grey, np.uint8), image, _matte(instances, image.shape[:2]))


def replace_background(picture: Image) -> Effect:
    """Make the effect that puts `picture` (H, W, 3) uint8 BGR, cropped to fit, behind the instances."""
    fitted = lru_cache(maxsize=1)(partial(_cropped, picture))

    def replaced(image: Image, instances: Instances) -> Image:
        height, width = image.shape[:2]
        return _mixed(fitted(height, width), image, _matte(instances, (height, width)))

    return replaced


def cutout(image: Image, instances: Instances) -> Image:
    """Make all but the instances transparent: (H, W, 4) uint8, BGR and straight (not premultiplied) alpha."""
    alpha = _matte(instances, image.shape[:2])
    colours = cv2.copyTo(cv2.cvtColor(image, cv2.COLOR_BGR2BGRA), _widened(alpha, BLEED))
    return np.asarray(cv2.insertChannel(alpha, colours, 3), np.uint8)


EFFECTS: dict[str, Effect] = {
    "blur": blur,
    "pixelate": pixelate,
    "blur-background": blur_background,
    "grey-background": grey_background,
    CUTOUT: cutout,
}
"""By name; apart from these there are `mask`, drawn by `render.draw`, and replace-background=IMAGE."""


def _hidden(image: Image, instances: Instances, hide: Callable[[Image, Region, float], Image]) -> Image:
    """Put over the instances what `hide` makes of the image at a region, for an instance of a size in pixels.

    Touches the boxes, a mask cell around them and a feather. Where boxes overlap, the larger, whose details
    are larger, counts.
    """
    size = image.shape[:2]
    feather = _feather(size)
    sides = np.sqrt(np.prod(instances.boxes[:, 2:] - instances.boxes[:, :2], axis=1, dtype=np.float64))
    order = np.argsort(sides, kind="stable")
    grown = _grown(_continued(instances[order], size))
    inner = _widened(_bits(grown, size, HIDDEN), feather)
    alpha = _softened(inner, feather)  # as far as it was widened: all that was inside stays 255
    regions = list(_regions(grown, size, 2 * feather))
    cover, hidden = np.empty_like(image), image.copy()
    for region, side in zip(regions, sides[order].tolist(), strict=True):
        if image[region].size:
            cover[region] = hide(image, region, side)
    for region in regions:
        if image[region].size:
            hidden[region] = _mixed(image[region], cover[region], alpha[region])
    return hidden


def _blurred(image: Image, region: Region, side: float) -> Image:
    sigma = max(1.0, side * DETAIL)
    step = _step(sigma, image[region].shape)
    return _scaled(_smoothed(_reduced(image[region], step), sigma / step), image[region].shape)


def _blocks(image: Image, region: Region, side: float) -> Image:
    """Average blocks whose side is a power of two, counted from the frame's corner: they hold still."""
    block = 2 ** max(1, round(np.log2(max(side * DETAIL, 1))))
    rows, columns = region
    top, left = rows.start // block * block, columns.start // block * block
    whole = image[top : -(-rows.stop // block) * block, left : -(-columns.stop // block) * block]
    height, width = -(-whole.shape[0] // block), -(-whole.shape[1] // block)
    missing = (height * block - whole.shape[0], width * block - whole.shape[1])
    filled = cv2.copyMakeBorder(whole, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
    means = _scaled(filled, (height, width), cv2.INTER_AREA)
    blocks = _scaled(means, filled.shape, cv2.INTER_NEAREST)
    return blocks[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def _step(sigma: float, size: tuple[int, ...]) -> int:
    """By how much to shrink a picture of `size`, to blur it cheaply with `sigma`."""
    return max(1, min(int(sigma / REDUCED_SIGMA), *size[:2]))


def _reduced(image: Image, step: int) -> Image:
    """Average squares of `step` pixels, without the rest at the right and the bottom: far faster."""
    height, width = (length // step for length in image.shape[:2])
    return _scaled(image[: height * step, : width * step], (height, width), cv2.INTER_AREA)


def _smoothed(image: NDArray[Any], sigma: float) -> NDArray[Any]:
    """Blur (h, w, C), any C; what is beyond the border counts as its border."""
    smooth = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return smooth.reshape(image.shape)  # OpenCV drops a last axis of 1


def _scaled(image: NDArray[Any], size: tuple[int, ...], how: int = cv2.INTER_CUBIC) -> Image:
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=how), np.uint8)


def _cropped(picture: Image, height: int, width: int) -> Image:
    """Cut the middle of `picture` to the proportions of a frame and scale it to fill the frame."""
    across, down = picture.shape[1] / width, picture.shape[0] / height
    scale = min(across, down)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (picture.shape[0] - rows) // 2, (picture.shape[1] - columns) // 2
    middle = picture[top : top + rows, left : left + columns]
    how = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    return _scaled(middle, (height, width), how)


def _feather(size: tuple[int, ...]) -> int:
    return max(1, round(min(size[:2]) * FEATHER))


def _regions(instances: Instances, size: tuple[int, ...], margin: int) -> Iterator[Region]:
    """Each box, rounded as in `Instances.soft`, with a `margin` around it, cut to a frame of `size`."""
    corners = np.rint(instances.boxes).astype(int) + np.array([-margin, -margin, margin, margin])
    limits = (size[1], size[0], size[1], size[0])
    for left, top, right, bottom in np.clip(corners, 0, limits).tolist():
        yield slice(top, bottom), slice(left, right)


def _grown(instances: Instances) -> Instances:
    """Grow masks by a cell of their grid, which is as far as their edges may be wrong; see `_continued`."""
    for mask in instances.masks:
        cv2.dilate(mask, np.ones((3, 3), np.uint8), dst=mask)
    return instances


def _continued(instances: Instances, size: tuple[int, ...]) -> Instances:
    """Put a ring of empty cells around each mask, and let what the frame cuts go on beyond the frame.

    A mask fades in its outermost cells, which would leave a gap along the frame's edge. Where that is less
    than half a cell away, the cells before the outermost are repeated, if they are surer.
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


def _bits(instances: Instances, size: tuple[int, ...], least: float) -> Alpha:
    """255 where any instance's probability is at least `least`, else 0."""
    bits = np.zeros(size[:2], np.uint8)
    for region, probability in instances.soft((size[0], size[1])):
        bits[region] |= (probability >= least).view(np.uint8) * np.uint8(255)
    return bits


def _matte(instances: Instances, size: tuple[int, ...]) -> Alpha:
    """The instances' share of each pixel of a frame, their edges soft both inwards and outwards."""
    return _softened(_bits(_continued(instances, size), size, 0.5), _feather(size))


def _widened(bits: Alpha, reach: int) -> Alpha:
    return np.asarray(cv2.dilate(bits, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)), np.uint8)


def _softened(bits: Alpha, reach: int) -> Alpha:
    return np.asarray(cv2.blur(bits, (2 * reach + 1, 2 * reach + 1)), np.uint8)


def _mixed(under: Image, over: Image, alpha: Alpha) -> Image:
    """Lay `over` on `under`, both (H, W, 3), with `alpha`: sums at its edges alone, copies elsewhere."""
    mixed = under.copy()
    pixels = mixed.reshape(-1, 3)
    edge = np.flatnonzero((alpha > 0) & (alpha < 255))
    below = pixels[edge].astype(np.uint16)
    cv2.copyTo(over, alpha, mixed)
    share = alpha.reshape(-1)[edge, None].astype(np.uint16)
    pixels[edge] = (below * (255 - share) + pixels[edge] * share + 127) // 255
    return mixed
