"""Fitting a Mask R-CNN to photos annotated in COCO's format."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from live_seg.card import card_of
from live_seg.maskrcnn.boxes import Tensor, to_normalised
from live_seg.maskrcnn.model import MaskRCNN
from live_seg.maskrcnn.training import Sampling, Truth, losses
from live_seg.stills import read_image
from live_seg.structures import Image

MASK_GRID = 56
"""Side of the grid an object's mask is kept on (Matterport `Config.MINI_MASK_SHAPE`)."""


@dataclass(frozen=True)
class Annotated:
    """A photo and its objects: boxes x1 y1 x2 y2 in pixels, polygons where they are known."""

    path: Path
    boxes: NDArray[np.float32]  # (N, 4)
    class_ids: NDArray[np.int32]  # (N,), negative for a crowd
    polygons: list[list[NDArray[np.float32]]]  # of each object, (P, 2) x y; empty: only its box is known


def read_coco(images: Path, annotations: Path) -> list[Annotated]:
    """Read COCO instances: photos in the folder `images`, their objects from the file `annotations`.

    Class ids are 1.. in the order of the file's categories. Crowds keep their box alone.
    """
    data = json.loads(annotations.read_text())
    ids = {category["id"]: i for i, category in enumerate(data["categories"], start=1)}
    objects: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in data["images"]}
    for annotation in data["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    return [_annotated(images / image["file_name"], objects[image["id"]], ids) for image in data["images"]]


def _annotated(path: Path, objects: list[dict[str, Any]], ids: dict[int, int]) -> Annotated:
    boxes = np.array([o["bbox"] for o in objects], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    signs = [-1 if o.get("iscrowd") else 1 for o in objects]
    class_ids = np.array([s * ids[o["category_id"]] for s, o in zip(signs, objects, strict=True)], np.int32)
    # Crowds are RLE; an RLE of a single object counts as not known, as only polygons can be followed.
    rings = [o["segmentation"] if isinstance(o.get("segmentation"), list) else [] for o in objects]
    polygons = [[np.array(ring, np.float32).reshape(-1, 2) for ring in r] for r in rings]
    return Annotated(path, boxes, class_ids, polygons)


@dataclass(frozen=True)
class Jitter:
    """How a photo is changed before each look at it. Zero jitter: as it is."""

    scale: tuple[float, float] = (0.6, 1.4)  # longest side, in canvases
    colour: float = 0.3  # brightness, contrast and saturation change by up to this fraction


class Batches(keras.utils.PyDataset):
    """Batches of photos on square canvases, shuffled anew each epoch, with their Truth."""

    def __init__(
        self, photos: Sequence[Annotated], mean_pixel: Sequence[float], *, side: int, batch: int, seed: int
    ) -> None:
        super().__init__(workers=1, max_queue_size=4)
        self.photos, self.mean_pixel = photos, np.asarray(mean_pixel, np.float32)
        self.side, self.batch, self.jitter = side, batch, Jitter()
        self.most_objects = 24
        self.seed, self.epoch = seed, 0
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self.photos) // self.batch

    def on_epoch_end(self) -> None:
        """Shuffle; the order and the jitter depend on the seed and the epoch alone."""
        self.order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.photos))
        self.epoch += 1

    def __getitem__(self, index: int) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        chosen = self.order[index * self.batch : (index + 1) * self.batch]
        examples = [self._example(self.photos[i], rng) for i in chosen]
        columns = {key: np.stack([example[key] for example in examples]) for key in examples[0]}
        return columns, np.zeros(len(examples), np.float32)

    def _example(self, photo: Annotated, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        pixels = read_image(photo.path)
        scale = rng.uniform(*self.jitter.scale) * self.side / max(pixels.shape[:2])
        flip = rng.random() < 0.5
        view = _view(pixels.shape[:2], scale, flip, self.side, rng)
        # The view maps edges, where the middle of pixel 0 lies at 0.5; OpenCV maps middles, from 0 on.
        middles = view + np.array([[0, 0, 1]]) * (view[:, :2].sum(1, keepdims=True) - 1) / 2
        canvas = cv2.warpAffine(pixels, middles, (self.side, self.side), flags=cv2.INTER_LINEAR)
        picture = (
            _recolour(np.asarray(canvas[..., ::-1], np.uint8), self.jitter.colour, rng) - self.mean_pixel
        )
        return {"pictures": picture, **self._truth(photo, view)}

    def _truth(self, photo: Annotated, view: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """The photo's objects as they lie on the canvas; those nearly cut off are left out."""
        whole = _transform(photo.boxes.reshape(-1, 2), view).reshape(-1, 4)
        whole = np.concatenate(
            [np.minimum(whole[:, :2], whole[:, 2:]), np.maximum(whole[:, :2], whole[:, 2:])], 1
        )
        boxes = whole.clip(0, self.side)
        sides, whole_sides = boxes[:, 2:] - boxes[:, :2], whole[:, 2:] - whole[:, :2]
        seen = sides.prod(1) / np.maximum(whole_sides.prod(1), 1e-6)
        kept = np.flatnonzero((seen > 0.2) & (sides.min(1, initial=np.inf) >= 3))
        kept = kept[np.argsort(-sides[kept].prod(1))][: self.most_objects]
        truth = {
            "class_ids": np.zeros(self.most_objects, np.int32),
            "boxes": np.zeros((self.most_objects, 4), np.float32),
            "masks": np.zeros((self.most_objects, MASK_GRID, MASK_GRID), np.float32),
            "masked": np.zeros(self.most_objects, bool),
        }
        for place, i in enumerate(kept):
            truth["class_ids"][place] = photo.class_ids[i]
            truth["boxes"][place] = to_normalised(boxes[i, [1, 0, 3, 2]], (self.side, self.side))
            if photo.polygons[i]:
                rings = [_transform(ring, view) for ring in photo.polygons[i]]
                truth["masks"][place] = _mask_in_box(rings, boxes[i])
                truth["masked"][place] = True
        return truth


def _view(
    size: tuple[int, int], scale: float, flip: bool, side: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Make the affine map (2, 3) that lays a photo of `size` (height, width) on the canvas, somewhere."""
    room = side - np.array([size[1], size[0]]) * scale
    left, top = rng.uniform(np.minimum(room, 0), np.maximum(room, 0))
    if flip:
        return np.array([[-scale, 0, left + size[1] * scale], [0, scale, top]])
    return np.array([[scale, 0, left], [0, scale, top]])


def _transform(points: NDArray[np.float32], view: NDArray[np.float64]) -> NDArray[np.float32]:
    return (points @ view[:, :2].T + view[:, 2]).astype(np.float32)


def _recolour(rgb: Image, most: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Change brightness, contrast and saturation by up to `most`. (H, W, 3) -> float32, 0..255."""
    brightness, contrast, saturation = 1 + rng.uniform(-most, most, 3)
    picture = rgb.astype(np.float32)
    grey = picture.mean(axis=2, keepdims=True)
    picture = grey + (picture - grey) * saturation
    picture = (picture - 110) * contrast + 110 * brightness
    return np.asarray(picture.clip(0, 255), np.float32)


def _mask_in_box(rings: list[NDArray[np.float32]], box: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw polygons (P, 2), x y on the canvas, on the grid of `box`, x1 y1 x2 y2 -> (56, 56), 0 or 1."""
    grid = np.zeros((MASK_GRID, MASK_GRID), np.uint8)
    scaled = [(ring - box[:2]) / (box[2:] - box[:2]) * MASK_GRID - 0.5 for ring in rings]
    fixed_point = [np.rint(ring * 16).astype(np.int32) for ring in scaled]
    cv2.fillPoly(grid, fixed_point, 1, shift=4)
    return grid


class Trainer(keras.Model):
    """A MaskRCNN being fitted: inputs are a batch of `Batches`, outputs the five losses, which are summed."""

    def __init__(self, model: MaskRCNN, sampling: Sampling, seed: int) -> None:
        super().__init__(name="trainer")
        self.model, self.sampling = model, sampling
        self.seeds = keras.random.SeedGenerator(seed)
        names = ("anchor_class", "anchor_box", "class", "box", "mask")
        self.trackers = {name: keras.metrics.Mean(name=name) for name in names}

    def call(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Find the five losses of a batch: scalars."""
        truth = Truth(batch["class_ids"], batch["boxes"], batch["masks"], batch["masked"])
        return losses(self.model, batch["pictures"], truth, self.sampling, self.seeds)

    def compute_loss(
        self,
        x: Any,  # noqa: ARG002
        y: Any,  # noqa: ARG002
        y_pred: dict[str, Tensor],
        *_: Any,
        **__: Any,
    ) -> Tensor:
        """Sum the losses, each with weight 1 (Mask R-CNN, section 3), and keep their running means."""
        for name, tracker in self.trackers.items():
            tracker.update_state(y_pred[name])
        return ops.sum(ops.stack(list(y_pred.values())))


def load_backbone(model: MaskRCNN, path: Path, *, freeze_until: str) -> None:
    """Start from ImageNet weights of `keras.applications.MobileNetV2(include_top=False)`.

    The layers up to the one called `freeze_until` keep them: early features need little change, and much of
    the time of training is spent there.
    """
    whole = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(None, None, 3))
    whole.load_weights(path)
    trunk = model.backbone.layers[-1]
    last = trunk.layers.index(trunk.get_layer(freeze_until))
    for position, layer in enumerate(trunk.layers):
        if layer.weights:
            layer.set_weights(whole.get_layer(layer.name).get_weights())
        if position <= last:
            layer.trainable = False


class Averages(keras.callbacks.Callback):
    """Write the inner model's averaged weights at the end of each epoch: what will be shipped."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Write the averages beside the final name, then rename."""
        variables = self.model.trainable_variables
        current = [variable.numpy() for variable in variables]
        self.model.optimizer.finalize_variable_values(variables)
        partial = self.path.with_name(f"partial.{self.path.name}")
        self.model.model.save_weights(partial)
        partial.replace(self.path)
        for variable, value in zip(variables, current, strict=True):
            variable.assign(value)


def fit(
    model: MaskRCNN, batches: Batches, *, epochs: int, learning_rate: float, sampling: Sampling, run: Path
) -> None:
    """Fit `model` with AdamW, warm-up and cosine decay, averaged weights; writes to the folder `run`.

    `run` then holds `averages.weights.h5` of the last finished epoch and `log.csv` with the losses.
    """
    run.mkdir(parents=True, exist_ok=True)
    steps = epochs * len(batches)
    warm_up = min(300, steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate / 100, steps - warm_up, alpha=0.01, warmup_target=learning_rate, warmup_steps=warm_up
    )
    trainer = Trainer(model, sampling, seed=batches.seed)
    trainer.compile(
        optimizer=keras.optimizers.AdamW(
            schedule, weight_decay=1e-4, global_clipnorm=10.0, use_ema=True, ema_momentum=0.998
        )
    )
    callbacks = [
        Averages(run / "averages.weights.h5"),
        keras.callbacks.CSVLogger(run / "log.csv"),
        keras.callbacks.TerminateOnNaN(),
    ]
    trainer.fit(batches, epochs=epochs, callbacks=callbacks, verbose=2)


def save(model: MaskRCNN, class_names: Sequence[str], path: Path, facts: dict[str, Any]) -> None:
    """Write `path`, NAME.weights.h5, and its card NAME.json beside it, as `live_seg.load` takes them.

    `facts` (origin, licence, measured AP, ...) go into the card as they are.
    """
    model.save_weights(path)
    card = {
        "class_names": list(class_names),
        "config": asdict(model.config),
        **facts,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    card_of(path).write_text(text, encoding="utf-8")
