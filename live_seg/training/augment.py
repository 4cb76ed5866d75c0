"""Augmentation of training images: scaling, cropping, mirroring, mosaics and pasted objects."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from live_seg.masks import Region
from live_seg.training.photos import AnnotatedPhoto, Ring
from live_seg.types import Image

MASK_GRID = 56
"""Side of the grid an object's mask is kept on (Matterport `Config.MINI_MASK_SHAPE`)."""

MIN_SIDE = 3.0
"""Objects with fewer pixels along a side are ignored: they count neither as objects nor as background."""

MIN_VISIBLE = 0.25
"""Objects of which a smaller fraction is visible are ignored, too."""

Box = NDArray[np.float32]
"""(4,): x1 y1 x2 y2 in pixels."""


@dataclass(frozen=True)
class Augmentation:
    """How photos become training images. `NO_AUGMENTATION` leaves each photo unchanged."""

    scale: tuple[float, float] = (0.5, 1.6)
    """Range of a photo's longest side, as a multiple of the canvas: large-scale jitter (Ghiasi et al., arXiv
    2012.07177)."""
    flip: float = 0.5
    """Probability that a photo is mirrored."""
    colour: float = 0.3
    """Largest relative change of brightness, contrast and saturation."""
    mosaic: float = 0.5
    """Probability that four photos share the canvas (YOLOv4, arXiv 2004.10934, section 3.3)."""
    pasted: int = 2
    """Largest number of objects pasted from other photos (Ghiasi et al., arXiv 2012.07177)."""


NO_AUGMENTATION = Augmentation(scale=(1.0, 1.0), flip=0.0, colour=0.0, mosaic=0.0, pasted=0)


@dataclass(eq=False)
class CanvasObject:
    """An object on the canvas."""

    class_id: int
    full_box: Box  # before cropping
    box: Box  # cropped to its photo's part of the canvas
    outline: list[Ring]
    occluders: list[list[Ring]] = field(default_factory=list)

    def mask(self) -> NDArray[np.uint8]:
        """Draw the visible part of the object on a grid over its box -> (56, 56) uint8, 0 or 1."""
        grid = self._drawn(np.zeros((MASK_GRID, MASK_GRID), np.uint8), self.outline, 1)
        for rings in self.occluders:
            self._drawn(grid, rings, 0)
        return grid

    def _drawn(self, grid: NDArray[np.uint8], outline: list[Ring], value: int) -> NDArray[np.uint8]:
        cells = MASK_GRID / (self.box[2:] - self.box[:2])
        _fill(grid, [np.asarray((ring - self.box[:2]) * cells, np.float32) for ring in outline], value)
        return grid

    def update_visibility(self) -> None:
        """Shrink the box to the visible part. Turn the object into a crowd if too little is visible."""
        sides, visible = self.box[2:] - self.box[:2], 0.0
        if sides.min() >= MIN_SIDE:
            full = (self.full_box[2:] - self.full_box[:2]).prod()
            visible = float(sides.prod() / full) * self._visible_share()
        if visible < MIN_VISIBLE or (self.box[2:] - self.box[:2]).min() < MIN_SIDE:
            self.class_id = -abs(self.class_id)

    def _visible_share(self) -> float:
        """Shrink the box to the cells that no occluder covers. Return the fraction that is uncovered, 0..1.

        Without an outline the box stays, and the fraction is estimated from boxes.
        """
        if not self.occluders:
            return 1.0
        if not self.outline:
            return 1.0 - max(_covered_share(self.box, rings) for rings in self.occluders)
        full = self._drawn(np.zeros((MASK_GRID, MASK_GRID), np.uint8), self.outline, 1)
        visible = self.mask()
        if visible.any():
            rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
            extent = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
            cell = np.tile(self.box[2:] - self.box[:2], 2) / MASK_GRID
            self.box = (np.tile(self.box[:2], 2) + extent * cell).astype(np.float32)
        return float(visible.sum()) / max(1.0, float(full.sum()))


class Canvas:
    """A square training image under construction: BGR pixels and the objects on it."""

    def __init__(self, side: int) -> None:
        self.pixels: Image = np.zeros((side, side, 3), np.uint8)
        self.objects: list[CanvasObject] = []

    def place(
        self, photo: AnnotatedPhoto, window: Sequence[int], how: Augmentation, rng: np.random.Generator
    ) -> None:
        """Draw a photo, scaled and mirrored at random, into `window` (x1 y1 x2 y2). The rest stays black.

        At scale 1 the photo fits into a window that spans the canvas, and covers a window of a mosaic.
        Raises SourceError for an unreadable photo.
        """
        pixels = photo.read()
        sides = np.subtract(window[2:], window[:2])
        spans_canvas = sides.min() == self.pixels.shape[0]
        scale = rng.uniform(*how.scale) * sides.max() / (max if spans_canvas else min)(pixels.shape[:2])
        size = _scaled_size(pixels, scale)
        corner = np.array(window[:2]) + _random_offset(sides - size, rng)
        placement = _Placement(photo, pixels, size, corner, mirrored=bool(rng.random() < how.flip))
        part = placement.visible_part(window)
        self.pixels[_region(part)] = placement.crop(part)
        self.objects += [placement.object_in(part, index) for index in range(len(photo.boxes))]

    def paste(self, photo: AnnotatedPhoto, index: int, how: Augmentation, rng: np.random.Generator) -> None:
        """Paste one object of another photo at a random position, on top of the others.

        Skip objects of no size or outside their photo. Raises SourceError for an unreadable photo.
        """
        side = self.pixels.shape[0]
        box = photo.boxes[index]
        longest = float((box[2:] - box[:2]).max())
        if longest < MIN_SIDE:
            return
        pixels = photo.read()
        # More than twice its size in the photo would be blurred.
        wanted = np.exp(rng.uniform(np.log(0.06), np.log(0.8))) * side
        size = _scaled_size(pixels, min(2.0, wanted / longest))
        middle = (box[:2] + box[2:]) / 2 * size / np.array(pixels.shape[1::-1])
        corner = np.rint(rng.uniform(0, side, 2) - middle).astype(int)
        placement = _Placement(photo, pixels, size, corner, mirrored=bool(rng.random() < how.flip))
        one = placement.object_in(placement.visible_part((0, 0, side, side)), index)
        if (one.box[2:] - one.box[:2]).min() < MIN_SIDE:
            return
        self._blend(placement, one)
        for other in self.objects:
            if np.all(np.minimum(other.box[2:], one.box[2:]) > np.maximum(other.box[:2], one.box[:2])):
                other.occluders.append(one.outline)
        self.objects.append(one)

    def _blend(self, placement: "_Placement", one: CanvasObject) -> None:
        x1, y1, x2, y2 = part = np.concatenate([np.floor(one.box[:2]), np.ceil(one.box[2:])]).astype(int)
        alpha = np.zeros((y2 - y1, x2 - x1), np.uint8)
        _fill(alpha, [ring - (x1, y1) for ring in one.outline], 255)
        share = cv2.GaussianBlur(alpha, (3, 3), 0)[..., None].astype(np.float32) / 255
        under = self.pixels[_region(part)]
        over = placement.crop(part).astype(np.float32)
        self.pixels[_region(part)] = (under + share * (over - under)).round().astype(np.uint8)


class _Placement:
    """A photo resized to `size` (width, height), perhaps mirrored, with its upper left `corner` at x y."""

    def __init__(
        self,
        photo: AnnotatedPhoto,
        pixels: Image,
        size: NDArray[np.int_],
        corner: NDArray[np.int_],
        *,
        mirrored: bool,
    ) -> None:
        self.photo, self.pixels = photo, pixels
        self.size, self.corner, self.mirrored = size, corner, mirrored
        self.factor = size / np.array(pixels.shape[1::-1]) * ([-1, 1] if mirrored else [1, 1])
        self.shift = corner + (size * [1, 0] if mirrored else 0)

    def visible_part(self, window: Sequence[int]) -> NDArray[np.int_]:
        """Return the intersection of the photo with a window of the canvas, both x1 y1 x2 y2."""
        return np.concatenate(
            [np.maximum(self.corner, window[:2]), np.minimum(self.corner + self.size, window[2:])]
        )

    def crop(self, part: NDArray[np.int_]) -> Image:
        """Return the photo's pixels in `part` of the canvas (x1 y1 x2 y2), which the photo must cover."""
        rule = cv2.INTER_AREA if self.size[0] < self.pixels.shape[1] else cv2.INTER_LINEAR
        resized = cv2.resize(self.pixels, tuple(map(int, self.size)), interpolation=rule)
        turned = resized[:, ::-1] if self.mirrored else resized
        return np.asarray(turned[_region(part - np.tile(self.corner, 2))], np.uint8)

    def object_in(self, part: NDArray[np.int_], index: int) -> CanvasObject:
        """Return object number `index` of the photo, cropped to `part` of the canvas (x1 y1 x2 y2)."""
        ends = self._points(self.photo.boxes[index].reshape(2, 2))
        full = np.concatenate([ends.min(axis=0), ends.max(axis=0)])
        visible = full.clip(np.tile(part[:2], 2), np.tile(part[2:], 2)).astype(np.float32)
        outline = [self._points(ring) for ring in self.photo.outlines[index]]
        return CanvasObject(int(self.photo.class_ids[index]), full, visible, outline)

    def _points(self, points: Ring) -> Ring:
        return np.asarray(points * self.factor + self.shift, np.float32)


def compose(
    photo: AnnotatedPhoto,
    others: Sequence[AnnotatedPhoto],
    side: int,
    how: Augmentation,
    rng: np.random.Generator,
) -> Canvas:
    """Make one training image, `side` pixels square, from `photo`.

    `others` fill the mosaic and supply the objects to paste. Raises SourceError for an unreadable photo.
    """
    canvas = Canvas(side)
    if rng.random() < how.mosaic:
        x, y = rng.integers(round(0.35 * side), round(0.65 * side), 2, endpoint=True)
        windows = [(0, 0, x, y), (x, 0, side, y), (0, y, x, side), (x, y, side, side)]
        chosen = [photo, *(others[int(i)] for i in rng.integers(len(others), size=3))]
    else:
        windows, chosen = [(0, 0, side, side)], [photo]
    for one, window in zip(chosen, windows, strict=True):
        canvas.place(one, window, how, rng)
    for _ in range(rng.integers(how.pasted, endpoint=True)):
        donor = others[int(rng.integers(len(others)))]
        outlined = [i for i, outline in enumerate(donor.outlines) if outline]
        if outlined:
            canvas.paste(donor, int(rng.choice(outlined)), how, rng)
    canvas.pixels = jitter_colour(canvas.pixels, how.colour, rng)
    for placed in canvas.objects:
        placed.update_visibility()
    return canvas


def jitter_colour(pixels: Image, limit: float, rng: np.random.Generator) -> Image:
    """Change brightness, contrast and saturation at random by a fraction of at most `limit`.

    Takes and returns (H, W, 3) uint8 BGR.
    """
    brightness, contrast, saturation = 1 + rng.uniform(-limit, limit, 3)
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    saturated = cv2.addWeighted(pixels, saturation, grey, 1 - saturation, 0)
    table = ((np.arange(256) - 110) * contrast + 110 * brightness).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(saturated, table), np.uint8)


def _region(part: NDArray[np.int_]) -> Region:
    """Return the rows and columns of x1 y1 x2 y2 as slices."""
    x1, y1, x2, y2 = map(int, part)
    return slice(y1, y2), slice(x1, x2)


def _scaled_size(pixels: Image, scale: float) -> NDArray[np.int_]:
    """Return width and height after scaling, at least 1 pixel each."""
    return np.maximum(1, np.rint(np.array(pixels.shape[1::-1]) * scale)).astype(int)


def _random_offset(free: NDArray[np.int_], rng: np.random.Generator) -> NDArray[np.int_]:
    """Draw an offset x y between 0 and `free`, the window's size less the photo's; negative: cropped."""
    return np.asarray(rng.integers(np.minimum(free, 0), np.maximum(free, 0), endpoint=True))


def _covered_share(box: Box, rings: list[Ring]) -> float:
    """Return the fraction of `box` inside the bounding box of an outline, 0..1."""
    points = np.concatenate(rings)
    low, high = np.maximum(box[:2], points.min(axis=0)), np.minimum(box[2:], points.max(axis=0))
    return float((high - low).clip(0).prod() / (box[2:] - box[:2]).prod())


def _fill(grid: NDArray[np.uint8], rings: list[Ring], value: int) -> None:
    """Fill outlines with `value`. Points are x y in cells; the center of the first cell is 0.5."""
    fixed_point = [np.rint((ring - 0.5) * 16).astype(np.int32) for ring in rings]
    cv2.fillPoly(grid, fixed_point, value, shift=4)
