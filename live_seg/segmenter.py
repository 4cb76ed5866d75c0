"""The door between the two rooms: BGR frames in, Instances out."""

import logging
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from live_seg.choices import Layout
from live_seg.engines.engine import Engine, Found, Prepared
from live_seg.errors import UsageError
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.maskrcnn.images import Placement, on_canvas, place_fit, place_square
from live_seg.masks import resize_zero_padded
from live_seg.models.classes import choose
from live_seg.types import Image, Instances

logger = logging.getLogger(__name__)

AT_ONCE = 16
"""Most pictures that an engine is given together, which takes memory for all of them."""


class Segmenter:
    """Finds instances in pictures with an engine: call it with a list of pictures, any number, of any sizes.

    Each size of the network's input costs the engine some preparation when it is first met, not each number
    of pictures. Not for use by two threads at once.
    """

    def __init__(
        self,
        engine: Engine,
        class_names: Sequence[str],
        *,
        layout: Layout = "fit",
        classes: Iterable[str] | None = None,
    ) -> None:
        self.engine = engine
        self.class_names = tuple(class_names)
        self.layout = layout
        self._wanted = choose(classes, self.class_names) if classes is not None else None
        self._most = AT_ONCE

    @property
    def config(self) -> MaskRCNNConfig:
        """What the network is made of."""
        return self.engine.config

    def __call__(self, images: Sequence[Image]) -> list[Instances]:
        """Segment BGR `images`, each (H, W, 3) uint8 -> one Instances for each, in their order.

        Raises UsageError for anything else, MemoryError when there is too little for one picture at a time.
        """
        placements = [self._place(_checked_picture(image).shape[:2]) for image in images]
        found: list[Instances] = [Instances.empty()] * len(images)
        for canvas in dict.fromkeys(placement.canvas for placement in placements):
            chosen = [i for i, placement in enumerate(placements) if placement.canvas == canvas]
            results = self._segment([images[i] for i in chosen], [placements[i] for i in chosen])
            for i, instances in zip(chosen, results, strict=True):
                found[i] = instances
        return found

    def _place(self, size: tuple[int, int]) -> Placement:
        """Where a picture of `size` (height, width) lies in the network's input."""
        if self.layout == "square":
            return place_square(size, self.config.size, min(self.config.min_side, self.config.size))
        return place_fit(size, self.config.size)

    def prepared(self, image: Image) -> Prepared:
        """A picture (H, W, 3) uint8 BGR as the engine gets it."""
        return self._prepared(image, self._place(image.shape[:2]))

    def _prepared(self, image: Image, placement: Placement) -> Prepared:
        """Resize one frame (H, W, 3) uint8 BGR, and lay it on its canvas in RGB."""
        height, width = placement.resized
        if (height, width) != placement.frame:
            if self.layout == "square":
                # To the letter: scikit-image computes in float64, and Matterport then drops the fractions.
                image = resize_zero_padded(image.astype(np.float64), height, width).astype(np.uint8)
            else:
                image = _resized(image, height, width)
        rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
        return on_canvas(rgb, placement), placement.normalized_window()

    def _segment(self, images: list[Image], placements: list[Placement]) -> list[Instances]:
        """Segment pictures that share one canvas, as many at once as there is memory for."""
        done: list[Instances] = []
        while len(done) < len(images):
            part = slice(len(done), len(done) + self._most)
            try:
                done += self._segment_at_once(images[part], placements[part])
            except MemoryError:
                count = len(images[part])
                if count == 1:
                    raise
                if self._most == AT_ONCE:
                    logger.warning("Too little memory for %d pictures at once: going on with fewer.", count)
                self._most = count // 2
        return done

    def _segment_at_once(self, images: list[Image], placements: list[Placement]) -> list[Instances]:
        with self.engine.timer("prepare"):
            prepared = [self._prepared(i, p) for i, p in zip(images, placements, strict=True)]
            pictures, windows = (np.stack(column) for column in zip(*prepared, strict=True))
        maps, found = self.engine.detect(pictures, windows)
        if self._wanted is not None:
            found = found.only(np.isin(found.class_ids, list(self._wanted)))
        if not len(found.rows):
            return [Instances.empty()] * len(images)
        masks = self.engine.masks(maps, found)
        with self.engine.timer("to pixels"):
            return [
                _instances(placement, found.only(found.rows == row), masks[found.rows == row])
                for row, placement in enumerate(placements)
            ]


LINEAR_UP_TO = 2.5
"""Times that bilinear interpolation may shrink a side: it looks at two pixels, and skips those between."""


def _resized(image: Image, height: int, width: int) -> Image:
    """Interpolate where it grows; where it shrinks, interpolate to twice the size or more, then average.

    Averaging by whole factors is what OpenCV is fast at: straight to the size takes up to four times as long.
    """
    times = 1 if height >= image.shape[0] else 2
    while image.shape[0] > LINEAR_UP_TO * times * height:
        times *= 2
    image = np.asarray(cv2.resize(image, (times * width, times * height)), np.uint8)
    if times == 1:
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _instances(placement: Placement, found: Found, masks: NDArray[np.float32]) -> Instances:
    """Network's boxes to frame pixels; those without a whole pixel go, as in Matterport's code."""
    instances = Instances(placement.to_frame(found.boxes), masks, found.class_ids, found.scores)
    corners = np.rint(instances.boxes)
    whole: NDArray[np.bool_] = np.all(corners[:, 2:] > corners[:, :2], axis=1)
    return instances[whole]


def _checked_picture(image: Image) -> Image:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise UsageError(f"Expected BGR pictures (H, W, 3) uint8. Got {image.shape} {image.dtype}.")
    return image
