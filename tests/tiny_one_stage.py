"""The one-stage network with few layers, for canvases of 64 pixels."""

from dataclasses import replace

import keras
import pytest
from keras import layers

from live_seg.maskrcnn.config import SMALL

SIDE = 64
CONFIG = replace(SMALL, num_classes=3, size=SIDE, min_side=SIDE, mask_channels=8, detections=10)
CHANNELS = 16


def use_few_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the parts of YOLOX-Nano by a few convolutions with the same strides and outputs."""
    for name, build in (("backbone", build_backbone), ("neck", build_neck), ("dense_head", build_dense_head)):
        monkeypatch.setattr(f"live_seg.maskrcnn.one_stage.build_{name}", build)


def build_backbone() -> keras.Model:
    """Build five convolutions: images -> [C2, C3, C4, C5]."""
    images = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 60, -1.5)(images)
    maps = []
    for stage in range(1, 6):
        x = layers.Conv2D(CHANNELS, 3, strides=2, padding="same", activation="relu", name=f"stage{stage}")(x)
        maps.append(x)
    return keras.Model(images, maps[1:], name="backbone")


def build_neck() -> keras.Model:
    """Build one convolution for each of [C3, C4, C5]."""
    inputs = [keras.Input((None, None, CHANNELS)) for _ in range(3)]
    maps = [
        layers.Conv2D(CHANNELS, 1, activation="relu", name=f"neck{level}")(x)
        for level, x in enumerate(inputs, start=3)
    ]
    return keras.Model(inputs, maps, name="neck")


def build_dense_head(num_classes: int) -> keras.Model:
    """Build one convolution for each output of each map."""
    inputs = [keras.Input((None, None, CHANNELS)) for _ in range(3)]
    kinds = ((num_classes, "classes"), (4, "boxes"), (1, "objectness"))
    outputs = [
        [layers.Conv2D(count, 1, name=f"head{level}_{kind}")(x) for count, kind in kinds]
        for level, x in enumerate(inputs, start=3)
    ]
    return keras.Model(inputs, outputs, name="dense_head")
