"""Training batches: augmented images with their ground truth, prepared by threads."""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_seg.maskrcnn.anchors import to_normalized
from live_seg.training.augment import MASK_GRID, Augmentation, Canvas, compose
from live_seg.training.photos import AnnotatedPhoto

Columns = dict[str, NDArray[Any]]
"""Input of `Trainer`: images (B, S, S, 3) float32, RGB, 0..255, and the fields of a Truth."""

MAX_OBJECTS = 60
"""Largest number of objects in an image; the largest objects are kept."""

BATCHES_PER_THREAD = 2
"""Batches in memory for each thread: one in the making, one ready."""


class Batches:
    """Batches of augmented images, `side` pixels square, in a new order each epoch.

    Each photo is the base of one image an epoch. The last photos are dropped if they do not fill a batch;
    with fewer photos than `batch`, the batches are smaller. A batch depends only on the seed, the epoch and
    its index. `last_pixel` is the convention of normalized boxes: see `anchors`.
    """

    def __init__(
        self,
        photos: Sequence[AnnotatedPhoto],
        *,
        side: int,
        batch: int,
        seed: int,
        augmentation: Augmentation,
        last_pixel: int = 1,
    ) -> None:
        self.photos, self.side, self.last_pixel = photos, side, last_pixel
        self.batch, self.augmentation, self.seed = min(batch, len(photos)), augmentation, seed

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.photos) // self.batch

    def make(self, epoch: int, index: int) -> Columns:
        """Make batch `index` of `epoch`, both from 0. Raises SourceError for an unreadable photo."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.photos))
        rng = np.random.default_rng([self.seed, epoch, index])
        chosen = order[index * self.batch : (index + 1) * self.batch]
        examples = [self._example(self.photos[i], rng) for i in chosen]
        return {key: np.stack([example[key] for example in examples]) for key in examples[0]}

    def epoch(self, number: int, threads: int = 1) -> Generator[Columns]:
        """Yield the batches of an epoch in order, prepared by `threads`. May be closed early."""
        pool = ThreadPoolExecutor(threads, "batches")
        waiting: deque[Future[Columns]] = deque()
        try:
            for index in range(len(self)):
                waiting.append(pool.submit(self.make, number, index))
                if len(waiting) > BATCHES_PER_THREAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _example(self, photo: AnnotatedPhoto, rng: np.random.Generator) -> Columns:
        canvas = compose(photo, self.photos, self.side, self.augmentation, rng)
        return {"images": canvas.pixels[..., ::-1].astype(np.float32), **self._truth(canvas)}

    def _truth(self, canvas: Canvas) -> Columns:
        """Return the objects of a canvas as fields of a Truth, largest first, crowds last."""
        visible = [one for one in canvas.objects if (one.box[2:] > one.box[:2]).all()]
        visible.sort(key=lambda one: (one.class_id < 0, -(one.box[2:] - one.box[:2]).prod()))
        size = (self.side, self.side)
        truth = {
            "class_ids": np.zeros(MAX_OBJECTS, np.int32),
            "boxes": np.zeros((MAX_OBJECTS, 4), np.float32),
            "masks": np.zeros((MAX_OBJECTS, MASK_GRID, MASK_GRID), np.float32),
            "masked": np.zeros(MAX_OBJECTS, bool),
        }
        for row, one in enumerate(visible[:MAX_OBJECTS]):
            truth["class_ids"][row] = one.class_id
            truth["boxes"][row] = to_normalized(one.box[[1, 0, 3, 2]], size, self.last_pixel)
            if one.outline and one.class_id > 0:
                truth["masks"][row] = one.mask()
                truth["masked"][row] = True
        return truth
