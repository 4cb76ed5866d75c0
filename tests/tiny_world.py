"""Data and a network for training within seconds: annotated shapes on noise, and few layers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
from keras import layers

from live_seg.maskrcnn.model import MaskRCNN
from live_seg.maskrcnn.training import Sampling
from live_seg.training.augment import NO_AUGMENTATION
from live_seg.training.checkpoint import State, read_state, save
from live_seg.training.progress import read_table
from tests.stand_ins import TINY

CATEGORIES = [{"id": 3, "name": "disc"}, {"id": 8, "name": "block"}]


def draw_shapes(folder: Path, count: int, *, side: int = 64, seed: int = 0) -> tuple[Path, Path]:
    """Write `count` photos, each with one or two discs and blocks -> (their folder, their annotations)."""
    rng = np.random.default_rng(seed)
    photos = folder / "photos"
    photos.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for i in range(1, count + 1):
        pixels = rng.integers(60, 120, (side, side, 3)).astype(np.uint8)
        middles = (rng.uniform(0.25, 0.3, 2), rng.uniform(0.7, 0.75, 2))
        for middle in middles[: rng.integers(1, 3)]:
            radius, disc = rng.uniform(0.12, 0.2) * side, bool(rng.random() < 0.5)
            angles = np.linspace(0, 2 * np.pi, 24 if disc else 4, endpoint=False) + np.pi / 4
            ring = middle * side + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            cv2.fillPoly(pixels, [np.rint(ring).astype(np.int32)], (40, 90, 250) if disc else (250, 200, 40))
            low, high = ring.min(axis=0), ring.max(axis=0)
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": i,
                    "category_id": 3 if disc else 8,
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                    "area": float(cv2.contourArea(ring.astype(np.float32))),
                    "iscrowd": 0,
                    "segmentation": [ring.ravel().tolist()],
                }
            )
        cv2.imwrite(str(photos / f"{i}.png"), pixels)
        images.append({"id": i, "file_name": f"{i}.png", "height": side, "width": side})
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "categories": CATEGORIES, "annotations": objects}))
    return photos, path


CONFIG = replace(
    TINY,
    anchor_scales=(12, 20, 32, 48),
    anchor_octaves=(1,),
    anchor_ratios=(1,),
    pyramid_channels=24,
    rpn_channels=24,
    box_units=48,
    mask_channels=16,
    proposals=20,
)
"""The tiny network with anchors like the shapes, and wide enough to learn them."""

EASY: dict[str, Any] = {
    "sampling": Sampling(anchors=64, positive_anchors=32, proposals=24, positive_proposals=12, masks=8),
    "augmentation": replace(NO_AUGMENTATION, flip=0.5, scale=(0.85, 1.15)),
}
"""Settings with which the shapes are learnt within a few epochs."""


def small_backbone(*_: Any) -> keras.Model:
    """Five convolutions in the place of MobileNetV2, with its names for the stages."""
    inputs = x = keras.Input((None, None, 3))
    maps = []
    for name, channels in (("stem", 12), ("block_0", 16), ("block_3", 24), ("block_6", 32), ("block_13", 32)):
        x = layers.Conv2D(channels, 3, strides=2, padding="same", name=f"{name}_expand")(x)
        x = layers.BatchNormalization(trainable=False, name=f"{name}_norm")(x)
        x = layers.ReLU()(x)
        maps.append(x)
    trunk = keras.Model(inputs, maps[1:])
    pictures = keras.Input((None, None, 3))
    return keras.Model(pictures, trunk(layers.Rescaling(1 / 60)(pictures)), name="mobilenetv2")


def untrained(folder: Path, *names: str) -> Path:
    """Write a small network that knows `names`, and nothing of them -> its file."""
    keras.utils.set_random_seed(3)
    path = folder / "untrained.weights.h5"
    save(MaskRCNN(replace(CONFIG, num_classes=1 + len(names))), ("background", *names), path, {})
    return path


SAME = 5e-3
"""Largest difference between two equal runs, relative to the steps they took.

TensorFlow adds in a different order each time, and AdamW amplifies the rounding of the smallest gradients: up
to 0.001. Lost random seeds make 0.018 or more; lost moments, a schedule one step late or another batch 0.037.
"""


def assert_same_end(whole: Path, resumed: Path, before: State) -> None:
    """Assert that two runs ended alike, the second resumed from the state `before`."""
    expected, found = (read_state(folder / "state.npz") for folder in (whole, resumed))
    assert found[:3] == expected[:3]
    assert [array.shape for array in found.network] == [array.shape for array in expected.network]
    start, end, other = (
        np.concatenate([array.ravel().astype(np.float64) for array in state.network])
        for state in (before, expected, found)
    )
    assert np.linalg.norm(other - end) < SAME * np.linalg.norm(end - start)
    tables = [read_table(folder / "log.csv", 99) for folder in (whole, resumed)]
    for row, twin in zip(*tables, strict=True):
        assert twin | {"seconds": 0} == pytest.approx(row | {"seconds": 0}, rel=1e-3)
