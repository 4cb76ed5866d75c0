"""The door between the two rooms: BGR frames in, Instances out."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from live_seg import weights
from live_seg.card import card_of, read_card
from live_seg.classes import BACKGROUND, COCO_CLASSES, choose, nearest
from live_seg.errors import UsageError, WeightsError
from live_seg.maskrcnn import matterport
from live_seg.maskrcnn.backbone import BACKBONES, BackboneName
from live_seg.maskrcnn.images import Layout, Placement, mould, place_fit, place_square
from live_seg.maskrcnn.model import MaskRCNN, MaskRCNNConfig
from live_seg.maskrcnn.ops import compiled
from live_seg.resize import resize_on_black
from live_seg.structures import Image, Instances

SMALLEST_SIZE = 64
"""The coarsest pyramid level, of stride 64, has at least one cell."""


class Segmenter:
    """Finds instances in pictures with a MaskRCNN: call it with a list of pictures, any number, of any sizes.

    One graph is traced for each size of the network's input, not for each number of pictures. Not for use by
    two threads at once.
    """

    def __init__(
        self,
        model: MaskRCNN,
        class_names: Sequence[str],
        *,
        layout: Layout = "fit",
        classes: Iterable[str] | None = None,
    ) -> None:
        self.model = model
        self.class_names = tuple(class_names)
        self.layout = layout
        self._wanted = choose(classes, self.class_names) if classes is not None else None
        self._detect = compiled(model.detect, model)
        self._masks = compiled(model.masks, model)

    def __call__(self, images: Sequence[Image]) -> list[Instances]:
        """Segment BGR `images`, each (H, W, 3) uint8 -> one Instances for each, in their order.

        Raises UsageError for anything else.
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
        config = self.model.config
        if self.layout == "square":
            return place_square(size, config.size, min(config.min_side, config.size))
        return place_fit(size, config.size)

    def _prepare(self, image: Image, placement: Placement) -> np.ndarray:
        """Resize and mould one frame: (H, W, 3) uint8 BGR -> (canvas, 3) float32."""
        height, width = placement.resized
        if (height, width) != placement.frame:
            if self.layout == "square":
                # To the letter: scikit-image computes in float64, and Matterport then drops the fractions.
                image = resize_on_black(image.astype(np.float64), height, width).astype(np.uint8)
            else:
                shrinking = height < placement.frame[0]
                rule = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
                image = np.asarray(cv2.resize(image, (width, height), interpolation=rule), np.uint8)
        return mould(image, placement, self.model.config.mean_pixel)

    def _segment(self, images: list[Image], placements: list[Placement]) -> list[Instances]:
        """Segment pictures that share one canvas."""
        pictures = np.stack([self._prepare(i, p) for i, p in zip(images, placements, strict=True)])
        windows = np.stack([placement.normalised_window() for placement in placements])
        pyramid, detections = self._detect(pictures, windows)
        boxes, class_ids, scores = (np.asarray(part) for part in detections)
        kept = class_ids > 0
        if self._wanted is not None:
            kept &= np.isin(class_ids, list(self._wanted))
        rows = np.nonzero(kept)[0].astype(np.int32)
        if not len(rows):
            return [Instances.empty()] * len(images)
        masks = np.asarray(self._masks(pyramid, boxes[kept], rows, class_ids[kept]))
        return [
            _instances(p, boxes[i][kept[i]], masks[rows == i], class_ids[i][kept[i]], scores[i][kept[i]])
            for i, p in enumerate(placements)
        ]


def _instances(
    placement: Placement, boxes: np.ndarray, masks: np.ndarray, class_ids: np.ndarray, scores: np.ndarray
) -> Instances:
    """Network's boxes to frame pixels; those without a whole pixel go, as in Matterport's code."""
    found = Instances(placement.to_frame(boxes), masks, class_ids, scores)
    corners = np.rint(found.boxes)
    whole: NDArray[np.bool_] = np.all(corners[:, 2:] > corners[:, :2], axis=1)
    return found[whole]


def load(
    model: str | Path = "person",
    *,
    backbone: BackboneName | None = None,
    num_classes: int | None = None,
    layout: Layout = "fit",
    size: int | None = None,
    min_score: float | None = None,
    classes: Iterable[str] | None = None,
) -> Segmenter:
    """Make a Segmenter from a model by name ("person", "coco") or from a weights file.

    A file is either in Matterport's layout (`.h5`; backbone and number of classes, background included, are
    read from it where not given) or ours (`.weights.h5`, with a JSON card of the same stem beside it). `size`
    is the longest side of the network's input in pixels; `min_score`, 0..1, the least score of a detection;
    `classes` names the only ones wanted.

    Raises WeightsError when the weights are unknown, missing, damaged or do not fit, UsageError for an
    impossible option.
    """
    path = weights.find(str(model))
    card = read_card(path)
    options = {
        "backbone": _checked_backbone(backbone),
        "num_classes": _checked_count(num_classes),
        "size": _checked_size(size, layout),
        "min_score": _checked_score(min_score),
    }
    given = {key: value for key, value in options.items() if value is not None}
    if path.name.endswith(".weights.h5"):
        network = _load_own(path, card, given)
    else:
        network = _load_matterport(path, given)
    count = network.config.num_classes
    names = card.get("class_names") or _default_names(count)
    if len(names) != count:
        raise WeightsError(f"{card_of(path)} names {len(names)} classes, but {path} has {count}.")
    return Segmenter(network, names, layout=layout, classes=classes)


def _checked_picture(image: Image) -> Image:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise UsageError(f"Expected BGR pictures (H, W, 3) uint8. Got {image.shape} {image.dtype}.")
    return image


def _checked_backbone(backbone: BackboneName | None) -> BackboneName | None:
    if backbone is not None and backbone not in BACKBONES:
        raise UsageError(f"Unknown backbone {backbone!r}. {nearest(backbone, BACKBONES)}")
    return backbone


def _checked_count(num_classes: int | None) -> int | None:
    if num_classes is not None and num_classes < 2:
        raise UsageError(f"A network has at least 2 classes, background included. Got {num_classes}.")
    return num_classes


def _checked_size(size: int | None, layout: Layout) -> int | None:
    if layout not in ("fit", "square"):
        raise UsageError(f"Unknown layout {layout!r}: expected fit or square.")
    if size is not None and size < SMALLEST_SIZE:
        raise UsageError(f"A network input of {size} pixels is too small: at least {SMALLEST_SIZE}.")
    if size is not None and layout == "square" and size % 64:
        raise UsageError(f"The square layout needs a size that is a multiple of 64. Got {size}.")
    return size


def _checked_score(score: float | None) -> float | None:
    if score is not None and not 0 <= score <= 1:
        raise UsageError(f"A least score lies between 0 and 1. Got {score}.")
    return score


def _load_own(path: Path, card: dict[str, Any], options: dict[str, Any]) -> MaskRCNN:
    if not isinstance(card.get("config"), dict):
        raise WeightsError(f"{path} needs its model card {card_of(path).name} beside it, with the config.")
    settings: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in card["config"].items()
    }
    try:
        model = MaskRCNN(replace(MaskRCNNConfig(**settings), **options))
        model.load_weights(path)
    except (TypeError, ValueError, KeyError, OSError) as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, 300)
        raise WeightsError(f"{path} does not fit the network of its model card: {reason}") from error
    return model


def _load_matterport(path: Path, options: dict[str, Any]) -> MaskRCNN:
    tensors = matterport.read(path)
    backbone, num_classes = matterport.describe(tensors)
    config = MaskRCNNConfig(backbone=backbone, num_classes=num_classes)
    model = MaskRCNN(replace(config, **options))
    matterport.load(model, tensors)
    return model


def _default_names(count: int) -> Sequence[str]:
    """COCO's names where the number is COCO's, else numbers: a weights file holds no names."""
    if count == len(COCO_CLASSES):
        return COCO_CLASSES
    return (BACKGROUND, *(f"class {i}" for i in range(1, count)))
