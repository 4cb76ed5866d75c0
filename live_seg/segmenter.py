"""Turn BGR frames into the network's input, and its detections into Instances."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from threading import Lock
from typing import overload

import cv2
import numpy as np
from numpy.typing import NDArray

from live_seg.choices import Layout
from live_seg.engines.engine import Engine, Found, Prepared
from live_seg.images import checked
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.maskrcnn.images import (
    Placement,
    on_canvas,
    place_fit,
    place_shorter_side,
    place_square,
    resize_bilinear,
)
from live_seg.masks import resize_zero_padded
from live_seg.types import Image, Instances

logger = logging.getLogger(__name__)

LARGEST_BATCH = 16
"""Largest batch passed to an engine. Halved when it does not fit into memory."""


class Segmenter:
    """Find instances in images with an engine. Call it with one image, or a list of any number and sizes.

    The first image of each input size takes longer, as the engine compiles the network for it. Threads may
    share a segmenter; their calls run one after the other. `class_ids` are the classes to detect, None for
    all.
    """

    def __init__(
        self,
        engine: Engine,
        class_names: Sequence[str],
        *,
        layout: Layout = "fit",
        class_ids: Collection[int] | None = None,
    ) -> None:
        self.engine = engine
        self.class_names = tuple(class_names)
        self.layout = layout
        self._class_ids = None if class_ids is None else sorted(class_ids)
        self._batch = LARGEST_BATCH
        self._lock = Lock()

    @property
    def config(self) -> MaskRCNNConfig:
        """Return the configuration of the network."""
        return self.engine.config

    @overload
    def __call__(self, images: Image) -> Instances: ...
    @overload
    def __call__(self, images: Sequence[Image]) -> list[Instances]: ...
    def __call__(self, images: Image | Sequence[Image]) -> Instances | list[Instances]:
        """Segment BGR `images`, each (H, W, 3) uint8: one Instances for one image, else a list, in order.

        Raises UsageError for anything else, MemoryError when a single image does not fit into memory.
        """
        if isinstance(images, Sequence) or (isinstance(images, np.ndarray) and images.ndim == 4):
            return self._segment_all([checked(image) for image in images])
        return self._segment_all([checked(images)])[0]

    def _segment_all(self, images: Sequence[Image]) -> list[Instances]:
        placements = [self._place(image.shape[:2]) for image in images]
        found = [replace(Instances.empty(), class_names=self.class_names)] * len(images)
        for canvas in dict.fromkeys(placement.canvas for placement in placements):
            chosen = [i for i, placement in enumerate(placements) if placement.canvas == canvas]
            with self._lock:
                results = self._segment([images[i] for i in chosen], [placements[i] for i in chosen])
            for i, instances in zip(chosen, results, strict=True):
                found[i] = replace(instances, class_names=self.class_names)
        return found

    @property
    def _as_torchvision(self) -> bool:
        """Return whether images are prepared as torchvision does."""
        return self.layout != "fit" and self.config.origin == "torchvision"

    def _place(self, size: tuple[int, int]) -> Placement:
        """Place an image of `size` (height, width) on the network's canvas."""
        longest, shortest = self.config.size, min(self.config.min_side, self.config.size)
        if self.layout == "fit":
            placement = place_fit(size, longest)
        elif self._as_torchvision:
            placement = place_shorter_side(size, longest, shortest)
        else:
            placement = place_square(size, longest, shortest)
        return replace(placement, last_pixel=self.config.rules.last_pixel)

    def prepared(self, image: Image) -> Prepared:
        """Return an image (H, W, 3) uint8 BGR as passed to the engine."""
        return self._prepared(image, self._place(image.shape[:2]))

    def _prepared(self, image: Image, placement: Placement) -> Prepared:
        """Resize an image (H, W, 3) uint8 BGR, and copy it onto its canvas in RGB."""
        mean = self.config.mean_pixel if self.config.rules.pad_with_mean else (0, 0, 0)
        if self._as_torchvision:
            rgb = image[..., ::-1].astype(np.float32)
            if placement.resized != placement.frame:
                rgb = resize_bilinear(rgb, *placement.resized)
            return on_canvas(rgb, placement, mean), placement.normalized_window()
        height, width = placement.resized
        if (height, width) != placement.frame:
            if self.layout == "fit":
                image = _resized(image, height, width)
            else:
                # As Matterport: scikit-image computes in float64, and fractions are truncated.
                image = resize_zero_padded(image.astype(np.float64), height, width).astype(np.uint8)
        pixels = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
        return on_canvas(pixels, placement, [round(value) for value in mean]), placement.normalized_window()

    def _segment(self, images: list[Image], placements: list[Placement]) -> list[Instances]:
        """Segment images with the same canvas size, in batches that fit into memory."""
        done: list[Instances] = []
        while len(done) < len(images):
            part = slice(len(done), len(done) + self._batch)
            try:
                done += self._segment_batch(images[part], placements[part])
            except MemoryError:
                count = len(images[part])
                if count == 1:
                    raise
                if self._batch == LARGEST_BATCH:
                    logger.warning("Out of memory with a batch of %d images: using smaller batches.", count)
                self._batch = count // 2
        return done

    def _segment_batch(self, images: list[Image], placements: list[Placement]) -> list[Instances]:
        with self.engine.timer("prepare"):
            prepared = [self._prepared(i, p) for i, p in zip(images, placements, strict=True)]
            canvases, windows = (np.stack(column) for column in zip(*prepared, strict=True))
        maps, found = self.engine.detect(canvases, windows)
        if self._class_ids is not None:
            found = found.only(np.isin(found.class_ids, self._class_ids))
        if not len(found.rows):
            return [Instances.empty()] * len(images)
        masks = self.engine.masks(maps, found)
        with self.engine.timer("to pixels"):
            if self.config.mask_scoring:
                found, masks = rescored(found, masks, self.config.min_score)
            return [
                self._instances(placement, found.only(found.rows == row), masks[found.rows == row])
                for row, placement in enumerate(placements)
            ]

    def _instances(self, placement: Placement, found: Found, masks: NDArray[np.float32]) -> Instances:
        """Convert boxes to frame pixels; drop those without a whole pixel, as Matterport does."""
        instances = Instances(
            placement.to_frame(found.boxes),
            masks,
            found.class_ids,
            found.scores,
            padded=self.config.rules.padded_masks,
        )
        corners = np.rint(instances.boxes)
        whole: NDArray[np.bool_] = np.all(corners[:, 2:] > corners[:, :2], axis=1)
        return instances[whole | instances.padded]


def rescored(found: Found, masks: NDArray[np.float32], min_score: float) -> tuple[Found, NDArray[np.float32]]:
    """Multiply scores by the mean probability of the cells inside each mask (N, M, M), from 0.5 on.

    Detections that fall below `min_score` are dropped, the others sorted again: best first in their image.
    The factor is SOLO's mask confidence (Wang et al., arXiv 1912.04488, "maskness").
    """
    inside = masks >= 0.5
    cells = inside.sum(axis=(1, 2))
    confidence = np.where(inside, masks, 0).sum(axis=(1, 2)) / np.maximum(cells, 1)
    scores = (found.scores * confidence).astype(np.float32)
    order = np.lexsort((-scores, found.rows))
    order = order[scores[order] >= min_score]
    return found._replace(scores=scores).only(order), masks[order]


LINEAR_UP_TO = 2.5
"""Largest factor for shrinking with bilinear interpolation, which reads two pixels and skips the others."""


def _resized(image: Image, height: int, width: int) -> Image:
    """Resize: enlarge by interpolation; shrink by interpolation to a multiple of the size, then averaging.

    OpenCV is fast at averaging by whole factors. Averaging in one step takes up to four times as long.
    """
    times = 1 if height >= image.shape[0] else 2
    while image.shape[0] > LINEAR_UP_TO * times * height:
        times *= 2
    image = np.asarray(cv2.resize(image, (times * width, times * height)), np.uint8)
    if times == 1:
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
