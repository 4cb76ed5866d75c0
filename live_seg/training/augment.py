"""A training picture: photos cut, mirrored, laid side by side, pasted into each other, with their objects."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from live_seg.files import read_image
from live_seg.masks import Region
from live_seg.training.photos import Annotated, Ring
from live_seg.types import Image

MASK_GRID = 56
"""Side of the grid an object's mask is kept on (Matterport `Config.MINI_MASK_SHAPE`)."""

LEAST_SIDE = 3.0
"""An object with fewer pixels along a side teaches nothing; it is neither object nor background."""

LEAST_SEEN = 0.25
"""Nor is one of which a smaller part is left."""

Box = NDArray[np.float32]
"""(4,): x1 y1 x2 y2 in pixels."""


@dataclass(frozen=True)
class Augmentation:
    """How photos become pictures. `NONE` lays each photo down as it is."""

    scale: tuple[float, float] = (0.5, 1.6)
    """Longest side of a photo, in canvases: large-scale jitter (Ghiasi et al., arXiv 2012.07177)."""
    flip: float = 0.5
    """Probability that a photo is mirrored."""
    colour: float = 0.3
    """Brightness, contrast and saturation change by up to this fraction."""
    mosaic: float = 0.5
    """Probability that four photos share the canvas (YOLOv4, arXiv 2004.10934, section 3.3)."""
    pasted: int = 2
    """Most objects pasted from other photos (Ghiasi et al., arXiv 2012.07177)."""


NONE = Augmentation(scale=(1.0, 1.0), flip=0.0, colour=0.0, mosaic=0.0, pasted=0)


@dataclass(eq=False)
class Placed:
    """An object on the canvas."""

    class_id: int
    whole: Box  # as large as it would be if nothing were cut off
    box: Box  # what of it lies on its photo's part of the canvas
    outline: list[Ring]
    hidden_by: list[list[Ring]] = field(default_factory=list)

    def mask(self) -> NDArray[np.uint8]:
        """Draw what is seen of it on a grid in its box -> (56, 56), 0 or 1."""
        grid = self._drawn(np.zeros((MASK_GRID, MASK_GRID), np.uint8), self.outline, 1)
        for rings in self.hidden_by:
            self._drawn(grid, rings, 0)
        return grid

    def _drawn(self, grid: NDArray[np.uint8], outline: list[Ring], value: int) -> NDArray[np.uint8]:
        cells = MASK_GRID / (self.box[2:] - self.box[:2])
        _fill(grid, [np.asarray((ring - self.box[:2]) * cells, np.float32) for ring in outline], value)
        return grid

    def settle(self) -> None:
        """Shrink the box to what is seen; what is too small or too hidden becomes a crowd."""
        sides, seen = self.box[2:] - self.box[:2], 0.0
        if sides.min() >= LEAST_SIDE:
            seen = float(sides.prod() / (self.whole[2:] - self.whole[:2]).prod()) * self._uncovered()
        if seen < LEAST_SEEN or (self.box[2:] - self.box[:2]).min() < LEAST_SIDE:
            self.class_id = -abs(self.class_id)

    def _uncovered(self) -> float:
        """The share of the object that nothing hides, 0..1, once the box fits it; guessed by boxes alone."""
        if not self.hidden_by:
            return 1.0
        if not self.outline:
            return 1.0 - max(_covered(self.box, rings) for rings in self.hidden_by)
        whole = self._drawn(np.zeros((MASK_GRID, MASK_GRID), np.uint8), self.outline, 1)
        seen = self.mask()
        if seen.any():
            rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
            extent = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
            cell = np.tile(self.box[2:] - self.box[:2], 2) / MASK_GRID
            self.box = (np.tile(self.box[:2], 2) + extent * cell).astype(np.float32)
        return float(seen.sum()) / max(1.0, float(whole.sum()))


class Canvas:
    """A square picture in the making: BGR pixels and the objects on it."""

    def __init__(self, side: int) -> None:
        self.pixels: Image = np.zeros((side, side, 3), np.uint8)
        self.objects: list[Placed] = []

    def lay(
        self, photo: Annotated, window: Sequence[int], how: Augmentation, rng: np.random.Generator
    ) -> None:
        """Lay a photo, scaled and mirrored at random, into `window`, x1 y1 x2 y2; the rest stays black.

        At scale 1 it fits a window that is all of the canvas, and covers a part of a mosaic.
        """
        pixels = read_image(photo.path)
        room = np.subtract(window[2:], window[:2])
        alone = room.min() == self.pixels.shape[0]
        scale = rng.uniform(*how.scale) * room.max() / (max if alone else min)(pixels.shape[:2])
        size = _scaled(pixels, scale)
        corner = np.array(window[:2]) + _anywhere(room - size, rng)
        move = _Move(photo, pixels, size, corner, mirrored=bool(rng.random() < how.flip))
        part = move.within(window)
        self.pixels[_region(part)] = move.cut(part)
        self.objects += [move.placed(index, part) for index in range(len(photo.boxes))]

    def paste(self, photo: Annotated, index: int, how: Augmentation, rng: np.random.Generator) -> None:
        """Paste one object of another photo somewhere, over what is there."""
        side = self.pixels.shape[0]
        box = photo.boxes[index]
        longest = float((box[2:] - box[:2]).max())
        if longest < LEAST_SIDE:
            return
        pixels = read_image(photo.path)
        # At most twice its size in the photo, or it is all blur.
        wanted = np.exp(rng.uniform(np.log(0.06), np.log(0.8))) * side
        size = _scaled(pixels, min(2.0, wanted / longest))
        middle = (box[:2] + box[2:]) / 2 * size / np.array(pixels.shape[1::-1])
        corner = np.rint(rng.uniform(0, side, 2) - middle).astype(int)
        move = _Move(photo, pixels, size, corner, mirrored=bool(rng.random() < how.flip))
        one = move.placed(index, move.within((0, 0, side, side)))
        if (one.box[2:] - one.box[:2]).min() < LEAST_SIDE:
            return
        self._blend(move, one)
        for other in self.objects:
            if np.all(np.minimum(other.box[2:], one.box[2:]) > np.maximum(other.box[:2], one.box[:2])):
                other.hidden_by.append(one.outline)
        self.objects.append(one)

    def _blend(self, move: "_Move", one: Placed) -> None:
        x1, y1, x2, y2 = part = np.concatenate([np.floor(one.box[:2]), np.ceil(one.box[2:])]).astype(int)
        alpha = np.zeros((y2 - y1, x2 - x1), np.uint8)
        _fill(alpha, [ring - (x1, y1) for ring in one.outline], 255)
        share = cv2.GaussianBlur(alpha, (3, 3), 0)[..., None].astype(np.float32) / 255
        under = self.pixels[_region(part)]
        over = move.cut(part).astype(np.float32)
        self.pixels[_region(part)] = (under + share * (over - under)).round().astype(np.uint8)


class _Move:
    """A photo and its objects resized to `size`, mirrored, and shifted to `corner` of the canvas, x y."""

    def __init__(
        self,
        photo: Annotated,
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

    def within(self, window: Sequence[int]) -> NDArray[np.int_]:
        """What the photo covers of a window of the canvas, both x1 y1 x2 y2."""
        return np.concatenate(
            [np.maximum(self.corner, window[:2]), np.minimum(self.corner + self.size, window[2:])]
        )

    def cut(self, part: NDArray[np.int_]) -> Image:
        """The pixels that come to lie on `part` of the canvas, x1 y1 x2 y2, which the photo covers."""
        rule = cv2.INTER_AREA if self.size[0] < self.pixels.shape[1] else cv2.INTER_LINEAR
        resized = cv2.resize(self.pixels, tuple(map(int, self.size)), interpolation=rule)
        turned = resized[:, ::-1] if self.mirrored else resized
        return np.asarray(turned[_region(part - np.tile(self.corner, 2))], np.uint8)

    def placed(self, index: int, part: NDArray[np.int_]) -> Placed:
        """An object of the photo, as far as it lies in `part` of the canvas, x1 y1 x2 y2."""
        ends = self._points(self.photo.boxes[index].reshape(2, 2))
        whole = np.concatenate([ends.min(axis=0), ends.max(axis=0)])
        seen = whole.clip(np.tile(part[:2], 2), np.tile(part[2:], 2)).astype(np.float32)
        outline = [self._points(ring) for ring in self.photo.outlines[index]]
        return Placed(int(self.photo.class_ids[index]), whole, seen, outline)

    def _points(self, points: Ring) -> Ring:
        return np.asarray(points * self.factor + self.shift, np.float32)


def compose(
    photo: Annotated,
    others: Sequence[Annotated],
    side: int,
    how: Augmentation,
    rng: np.random.Generator,
) -> Canvas:
    """Make one picture of `photo`, with `others` to fill a mosaic and to paste objects from."""
    canvas = Canvas(side)
    if rng.random() < how.mosaic:
        x, y = rng.integers(round(0.35 * side), round(0.65 * side), 2, endpoint=True)
        windows = [(0, 0, x, y), (x, 0, side, y), (0, y, x, side), (x, y, side, side)]
        chosen = [photo, *(others[int(i)] for i in rng.integers(len(others), size=3))]
    else:
        windows, chosen = [(0, 0, side, side)], [photo]
    for one, window in zip(chosen, windows, strict=True):
        canvas.lay(one, window, how, rng)
    for _ in range(rng.integers(how.pasted, endpoint=True)):
        donor = others[int(rng.integers(len(others)))]
        outlined = [i for i, outline in enumerate(donor.outlines) if outline]
        if outlined:
            canvas.paste(donor, int(rng.choice(outlined)), how, rng)
    canvas.pixels = recoloured(canvas.pixels, how.colour, rng)
    for placed in canvas.objects:
        placed.settle()
    return canvas


def recoloured(pixels: Image, most: float, rng: np.random.Generator) -> Image:
    """Change brightness, contrast and saturation by up to the fraction `most`. (H, W, 3) uint8 BGR."""
    brightness, contrast, saturation = 1 + rng.uniform(-most, most, 3)
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    saturated = cv2.addWeighted(pixels, saturation, grey, 1 - saturation, 0)
    table = ((np.arange(256) - 110) * contrast + 110 * brightness).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(saturated, table), np.uint8)


def _region(part: NDArray[np.int_]) -> Region:
    """Rows and columns of a part x1 y1 x2 y2."""
    x1, y1, x2, y2 = map(int, part)
    return slice(y1, y2), slice(x1, x2)


def _scaled(pixels: Image, scale: float) -> NDArray[np.int_]:
    """The size of a photo, width and height, once scaled."""
    return np.maximum(1, np.rint(np.array(pixels.shape[1::-1]) * scale)).astype(int)


def _anywhere(room: NDArray[np.int_], rng: np.random.Generator) -> NDArray[np.int_]:
    """A place for a photo with `room` to spare, or to be cut off where negative."""
    return np.asarray(rng.integers(np.minimum(room, 0), np.maximum(room, 0), endpoint=True))


def _covered(box: Box, rings: list[Ring]) -> float:
    """The share of `box` under the bounding box of an outline, 0..1."""
    points = np.concatenate(rings)
    low, high = np.maximum(box[:2], points.min(axis=0)), np.minimum(box[2:], points.max(axis=0))
    return float((high - low).clip(0).prod() / (box[2:] - box[:2]).prod())


def _fill(grid: NDArray[np.uint8], rings: list[Ring], value: int) -> None:
    """Fill outlines, x y in cells with the middle of the first at 0.5, with `value`."""
    fixed_point = [np.rint((ring - 0.5) * 16).astype(np.int32) for ring in rings]
    cv2.fillPoly(grid, fixed_point, value, shift=4)
