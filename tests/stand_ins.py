"""Replacements of a model: a Segmenter without a network, and a tiny network."""

import functools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from live_seg.maskrcnn.config import MOBILE, RESNET_BLOCKS, MaskRCNNConfig
from live_seg.types import Image, Instances

if TYPE_CHECKING:
    from live_seg.engines.keras import KerasEngine
    from live_seg.maskrcnn.family import Network
    from live_seg.maskrcnn.model import MaskRCNN

ROOT = Path(__file__).parent.parent

TINY = replace(
    MOBILE,
    size=64,
    min_side=64,
    anchor_scales=(8, 16, 32, 64),
    pyramid_channels=16,
    rpn_channels=16,
    box_units=32,
    mask_channels=8,
    candidates=60,
    proposals=30,
    detections=10,
)
"""The configuration of the small network with fewer channels, for images of 64 pixels."""


class StandIn:
    """Finds one person, who fills the left half of every image, and records the batch sizes."""

    class_names: tuple[str, ...] = ("background", "person")
    engine = SimpleNamespace(device="a stand-in")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: list[Image]) -> list[Instances]:
        self.batches.append(len(images))
        return [left_half(image) for image in images]


def untraced_engine(network: "Network") -> "KerasEngine":
    """Return the engine that runs `network` operation by operation: tracing takes longer than a few images.

    On JAX, which compiles each operation then, the engine is as it is.
    """
    import keras
    import pytest

    from live_seg.engines.keras import KerasEngine

    with pytest.MonkeyPatch.context() as patch:
        if keras.backend.backend() == "tensorflow":
            patch.setattr("live_seg.engines.keras.compiled", lambda function, _: function)
        return KerasEngine(network)


def left_half(image: Image) -> Instances:
    height, width = image.shape[:2]
    return Instances(
        boxes=np.array([[0, 0, width // 2, height]], np.float32),
        masks=np.ones((1, 28, 28), np.float32),
        class_ids=np.ones(1, np.int32),
        scores=np.full(1, 0.9, np.float32),
    )


def built_once(config: MaskRCNNConfig) -> "MaskRCNN":
    """Return the MaskRCNN of `config`, built for the first test that needs its layers: that takes seconds.

    Weights left by one test are replaced by the next one's.
    """
    import keras

    from live_seg.maskrcnn import model

    layers = replace(config, size=64, min_side=64, candidates=1, proposals=1, detections=1, min_score=0)
    network = _built(
        layers, keras.config.dtype_policy().name, vars(model)["build_backbone"], RESNET_BLOCKS["resnet50"]
    )
    network.config = config
    return network


@functools.cache
def _built(config: MaskRCNNConfig, *_: object) -> "MaskRCNN":
    from live_seg.maskrcnn.model import MaskRCNN

    return MaskRCNN(config)


def tiny_network(num_classes: int = 3, seed: int = 0) -> "MaskRCNN":
    """A MaskRCNN for inputs of 64 pixels, its weights random but well scaled, so that it finds something."""
    from live_seg.maskrcnn.model import MaskRCNN

    network = MaskRCNN(replace(TINY, num_classes=num_classes, min_score=0.0))
    rng = np.random.default_rng(seed)
    for variable in network.trainable_variables:
        shape = tuple(variable.shape)
        if len(shape) > 1:
            inputs = 9 if "depthwise" in variable.path else np.prod(shape[:-1])
            # Small answers at the end: scores stay off 1, boxes stay near their anchors.
            gain = 0.05 if variable.path.endswith(("logits/kernel", "deltas/kernel")) else 1.0
            variable.assign(gain * np.sqrt(2 / inputs) * rng.standard_normal(shape))
    return network
