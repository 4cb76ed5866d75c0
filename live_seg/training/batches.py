"""Batches to learn from: augmented pictures with their Truth, made ahead by threads."""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_seg.maskrcnn.anchors import to_normalized
from live_seg.training.augment import MASK_GRID, Augmentation, Canvas, compose
from live_seg.training.photos import Annotated

Columns = dict[str, NDArray[Any]]
"""What `Trainer` takes: pictures (B, S, S, 3) float32, RGB less the mean, and the columns of a Truth."""

MOST_OBJECTS = 60
"""Places for objects on a picture; of more, the largest stay."""

AHEAD = 2
"""Batches kept ready for each thread: one being made, one waiting."""


class Batches:
    """Batches of augmented pictures, `side` pixels square: each photo once an epoch, in a new order.

    A batch depends on the seed, the epoch and its index alone. What does not fill a batch waits for another
    epoch; with fewer photos than a batch has places, the batches are smaller.
    """

    def __init__(
        self,
        photos: Sequence[Annotated],
        mean_pixel: Sequence[float],
        *,
        side: int,
        batch: int,
        seed: int,
        augmentation: Augmentation,
    ) -> None:
        self.photos, self.mean_pixel = photos, np.asarray(mean_pixel, np.float32)
        self.side, self.batch, self.augmentation = side, min(batch, len(photos)), augmentation
        self.seed = seed

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.photos) // self.batch

    def make(self, epoch: int, index: int) -> Columns:
        """Make batch number `index` of an epoch, both from 0. Raises SourceError for an unreadable photo."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.photos))
        rng = np.random.default_rng([self.seed, epoch, index])
        chosen = order[index * self.batch : (index + 1) * self.batch]
        examples = [self._example(self.photos[i], rng) for i in chosen]
        return {key: np.stack([example[key] for example in examples]) for key in examples[0]}

    def epoch(self, number: int, threads: int = 1) -> Generator[Columns]:
        """Make all batches of an epoch in their order, ahead of need. Close the iterator to end early."""
        pool = ThreadPoolExecutor(threads, "batches")
        waiting: deque[Future[Columns]] = deque()
        try:
            for index in range(len(self)):
                waiting.append(pool.submit(self.make, number, index))
                if len(waiting) > AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _example(self, photo: Annotated, rng: np.random.Generator) -> Columns:
        canvas = compose(photo, self.photos, self.side, self.augmentation, rng)
        picture = canvas.pixels[..., ::-1].astype(np.float32)
        picture -= self.mean_pixel
        return {"pictures": picture, **self._truth(canvas)}

    def _truth(self, canvas: Canvas) -> Columns:
        """The objects on a canvas, largest first, crowds last."""
        seen = [placed for placed in canvas.objects if (placed.box[2:] > placed.box[:2]).all()]
        seen.sort(key=lambda placed: (placed.class_id < 0, -(placed.box[2:] - placed.box[:2]).prod()))
        truth = {
            "class_ids": np.zeros(MOST_OBJECTS, np.int32),
            "boxes": np.zeros((MOST_OBJECTS, 4), np.float32),
            "masks": np.zeros((MOST_OBJECTS, MASK_GRID, MASK_GRID), np.float32),
            "masked": np.zeros(MOST_OBJECTS, bool),
        }
        for place, placed in enumerate(seen[:MOST_OBJECTS]):
            truth["class_ids"][place] = placed.class_id
            truth["boxes"][place] = to_normalized(placed.box[[1, 0, 3, 2]], (self.side, self.side))
            if placed.outline and placed.class_id > 0:
                truth["masks"][place] = placed.mask()
                truth["masked"][place] = True
        return truth
