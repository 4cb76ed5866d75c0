"""Effects on instances or on the background, with soft edges along the masks: blur, cutout and others."""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np

from live_seg.choices import HIDING, Hide
from live_seg.drawing.blending import (
    REDUCED_SIGMA,
    blend,
    dilate,
    gaussian_blur,
    matte,
    reduce,
    reduction,
    resize,
)
from live_seg.drawing.hiding import blur, pixelate
from live_seg.errors import UsageError, nearest
from live_seg.files import expand_user, read_image
from live_seg.types import Image, Instances

Effect = Callable[[Image, Instances], Image]
"""Map an image (H, W, 3) uint8 BGR and its instances to a new image of the same type or, for `cutout`,
(H, W, 4) uint8 BGRA. The input is not modified."""

MASK = "mask"
"""The effect drawn by `annotate.draw`, which needs class names."""

CUTOUT = "cutout"
"""The effect whose images have an alpha channel."""

REPLACE = "replace-background"
"""The effect with an argument: replace-background=IMAGE."""

BACKGROUND_SIGMA = 1 / 40
"""Sigma of the blurred background per pixel of the frame's shorter side."""

INSTANCE_WEIGHT = 0.002
"""Weight of instance pixels in the blurred background. Only matters in gaps without background nearby."""

CUTOUT_MARGIN = 16
"""Width in pixels of the fully transparent margin around a cutout that keeps its colours, so that video
compression does not bleed black into the edge. Beyond it pixels are black: files stay small and contain no
hidden background."""


def effect_of(spec: str, hide: Hide = "box") -> Effect:
    """Return the effect named `spec`: a key of EFFECTS, or replace-background=IMAGE.

    `hide` is the region that blur and pixelate hide, see `hiding.blur`. Raises UsageError for an unknown
    name, with the nearest known names, and for `mask`, which `annotate.draw` implements. Raises SourceError
    for an IMAGE that cannot be read.
    """
    if (background := background_of(spec)) is not None:
        return replace_background(read_image(background))
    if spec.partition("=")[0] == REPLACE:
        raise UsageError(f"{REPLACE} needs an image file: {REPLACE}=beach.jpg")
    if spec == MASK:
        raise UsageError("The effect mask needs class names: call live_seg.draw instead.")
    if spec not in EFFECTS:
        raise UsageError(
            f"There is no effect {spec!r}. {nearest(spec, (MASK, *EFFECTS, f'{REPLACE}=IMAGE'))}"
        )
    if spec in HIDING:
        return partial(blur if spec == "blur" else pixelate, hide=hide)
    return EFFECTS[spec]


def background_of(spec: str) -> Path | None:
    """Return the image file that the effect `spec` reads, or None."""
    name, _, path = spec.partition("=")
    return expand_user(path) if name == REPLACE and path else None


def blur_background(image: Image, instances: Instances) -> Image:
    """Blur the background. Instance pixels and those next to them are excluded, which avoids a halo."""
    alpha = matte(instances, image.shape[:2])
    sigma = max(1.0, min(alpha.shape) * BACKGROUND_SIGMA)
    step = reduction(sigma, alpha.shape)
    near = dilate(reduce(alpha, step), round(REDUCED_SIGMA))
    behind = INSTANCE_WEIGHT + 1 - near[..., None] / np.float32(255)
    backdrop = gaussian_blur(reduce(image, step) * behind, sigma / step) / gaussian_blur(behind, sigma / step)
    return blend(resize(np.rint(backdrop).astype(np.uint8), alpha.shape), image, alpha)


def grey_background(image: Image, instances: Instances) -> Image:
    """Convert the background to greyscale."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return blend(np.asarray(grey, np.uint8), image, matte(instances, image.shape[:2]))


def replace_background(background: Image) -> Effect:
    """Return an effect that shows `background` (H, W, 3) uint8 BGR, cropped to fill, behind the instances."""
    fitted = lru_cache(maxsize=1)(partial(_crop_to, background))

    def replaced(image: Image, instances: Instances) -> Image:
        height, width = image.shape[:2]
        return blend(fitted(height, width), image, matte(instances, (height, width)))

    return replaced


def cutout(image: Image, instances: Instances) -> Image:
    """Make the background transparent: (H, W, 4) uint8, BGR and straight (not premultiplied) alpha."""
    alpha = matte(instances, image.shape[:2])
    colours = cv2.copyTo(cv2.cvtColor(image, cv2.COLOR_BGR2BGRA), dilate(alpha, CUTOUT_MARGIN))
    return np.asarray(cv2.insertChannel(alpha, colours, 3), np.uint8)


EFFECTS: dict[str, Effect] = {
    "blur": blur,
    "pixelate": pixelate,
    "blur-background": blur_background,
    "grey-background": grey_background,
    CUTOUT: cutout,
}
"""Effects by name, without `mask` (see `annotate.draw`) and replace-background=IMAGE."""


def _crop_to(image: Image, height: int, width: int) -> Image:
    """Crop the centre of `image` to the aspect ratio of a frame and scale it to (height, width)."""
    across, down = image.shape[1] / width, image.shape[0] / height
    scale = min(across, down)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    middle = image[top : top + rows, left : left + columns]
    how = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
    return resize(middle, (height, width), how)
