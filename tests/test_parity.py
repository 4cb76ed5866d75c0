"""The network against Matterport's: by an independent reference in NumPy, and by Matterport's own numbers."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from live_seg.maskrcnn import matterport
from live_seg.maskrcnn.model import MaskRCNN, MaskRCNNConfig
from live_seg.segmenter import Segmenter
from live_seg.structures import Image, Instances
from tests.matterport_weights import write
from tests.numpy_reference import Reference, Result, Settings

CLASSES = 6
SIZES = {"as it is": (256, 256), "enlarged": (96, 128), "shrunk, tall": (400, 300)}


def picture(height: int, width: int) -> Image:
    """Smooth blobs of colour, eight pixels wide."""
    coarse = np.random.default_rng(height).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def make_segmenter(path: Path, config: MaskRCNNConfig) -> Segmenter:
    model = MaskRCNN(config)
    matterport.load(model, matterport.read(path))
    names = ["background", *(f"class {i}" for i in range(1, config.num_classes))]
    return Segmenter(model, names, layout="square")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parity") / "small.h5"
    return write(path, seed=11, classes=CLASSES, backbone="resnet50")


@pytest.fixture(scope="module")
def ours(weights: Path) -> Segmenter:
    config = MaskRCNNConfig(
        num_classes=CLASSES,
        backbone="resnet50",
        size=256,
        min_side=200,
        candidates=1000,
        proposals=200,
        detections=40,
    )
    return make_segmenter(weights, config)


@pytest.fixture(scope="module")
def reference(weights: Path) -> Reference:
    settings = Settings(
        backbone="resnet50",
        image_max_dim=256,
        image_min_dim=200,
        pre_nms_limit=1000,
        post_nms_rois_inference=200,
        detection_max_instances=40,
    )
    return Reference(weights, settings)


@pytest.fixture(scope="module", params=SIZES.values(), ids=SIZES.keys())
def both(request: pytest.FixtureRequest, ours: Segmenter, reference: Reference) -> tuple[Image, Result]:
    image = picture(*request.param)
    return image, reference.detect(image[..., ::-1])
