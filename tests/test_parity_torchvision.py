"""The network against torchvision's: by numbers recorded from torchvision 0.29.1 with torch 2.14.1."""

from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

import live_seg
from live_seg.engines.keras import KerasEngine
from live_seg.engines.openvino.convert import convert
from live_seg.engines.openvino.engine import OpenVINOEngine
from live_seg.maskrcnn import torchvision
from live_seg.maskrcnn.checkpoint import read_network
from live_seg.maskrcnn.config import TORCHVISION, MaskRCNNConfig
from live_seg.maskrcnn.model import MaskRCNN
from live_seg.segmenter import Segmenter
from live_seg.types import Image, Instances
from tests.stand_ins import untraced_engine
from tests.torchvision_weights import tensors

ENGINES = ("keras", pytest.param("openvino", marks=pytest.mark.slow))

REFERENCE = Path(__file__).with_name("torchvision_reference.npz")
"""What `maskrcnn_resnet50_fpn_v2` finds in `picture` with `tensors(SEED, CLASSES)` and the SETTINGS.

Boxes, labels, scores, masks before and after pasting; input, proposals and feature maps on a grid.
"""

SEED, CLASSES = 7, 6
SETTINGS = {
    "size": 224,  # max_size
    "min_side": 160,  # min_size
    "candidates": 100,  # rpn_pre_nms_top_n_test
    "proposals": 100,  # rpn_post_nms_top_n_test
    "detections": 20,  # box_detections_per_img
    "min_score": 0.05,  # box_score_thresh
}
SIZES = {"wide": (96, 176), "tall": (240, 152)}
NAMES = ("wide", pytest.param("tall", marks=pytest.mark.slow))

Numbers = dict[str, NDArray[Any]]


def picture(height: int, width: int) -> Image:
    """Make smooth blobs of colour, eight pixels wide."""
    coarse = np.random.default_rng(height).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def numbers_of(path: Path, name: str) -> Numbers:
    with np.load(path) as file:
        return {key.removeprefix(f"{name}/"): file[key] for key in file.files if key.startswith(f"{name}/")}


def partners(found: Instances, expected: Numbers) -> list[int]:
    """Return the instance of each expected detection: same class, box within 0.5 pixel, score within 1e-3."""
    left, matched = list(range(len(found))), []
    for box, label, score in zip(expected["boxes"], expected["labels"], expected["scores"], strict=True):
        alike = [
            (float(np.abs(found.boxes[i] - box).max()), i)
            for i in left
            if found.class_ids[i] == label and abs(found.scores[i] - score) < 1e-3
        ]
        distance, nearest = min(alike, default=(np.inf, -1))
        assert distance < 0.5, f"class {label}, score {score:.4f}, {box}: the nearest is {distance} away"
        left.remove(nearest)
        matched.append(nearest)
    assert not left
    return matched


def check_detections(found: Instances, size: tuple[int, int], expected: Numbers) -> None:
    order = partners(found, expected)
    masks = expected["mask_28"]
    # Torchvision's own masks differ from those of a float64 run by up to 9.5e-4 with the full-size weights.
    np.testing.assert_allclose(found.masks[order[: len(masks)]], masks, atol=1e-3, rtol=1e-3)
    overlaps = []
    for i, ours in enumerate(found[order].rles(size)):
        theirs = {"size": list(size), "counts": expected[f"rle/{i:03d}"].tobytes()}
        if coco_mask.area(theirs) or coco_mask.area(ours):
            overlaps.append(coco_mask.iou([ours], [theirs], [0])[0, 0])
    assert np.mean(overlaps) > 0.999


def make_segmenter(network: MaskRCNN, engine: str, folder: Path) -> Segmenter:
    names = ["background", *(f"class {i}" for i in range(1, network.config.num_classes))]
    if engine == "keras":
        return Segmenter(untraced_engine(network), names, layout="exact")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("conversion needs TensorFlow")
    convert(network, folder)
    return Segmenter(OpenVINOEngine(folder, network.config), names, layout="exact")


@pytest.fixture(scope="module")
def network() -> MaskRCNN:
    model = MaskRCNN(MaskRCNNConfig(**vars(TORCHVISION) | SETTINGS | {"num_classes": CLASSES}))
    torchvision.load(model, dict(tensors(SEED, CLASSES)))
    return model


@pytest.fixture(scope="module", params=ENGINES)
def segmenter(
    request: pytest.FixtureRequest, network: MaskRCNN, tmp_path_factory: pytest.TempPathFactory
) -> Segmenter:
    return make_segmenter(network, request.param, tmp_path_factory.mktemp("converted"))


def features(network: MaskRCNN, image: Image) -> tuple[NDArray[Any], list[Any]]:
    """Return the normalized input (H, W, 3) and the pyramid of an image."""
    segmenter = Segmenter(KerasEngine(network), ["background"], layout="exact")
    normalized = network.normalized(segmenter.prepared(image)[0][None])
    return np.asarray(ops.convert_to_numpy(normalized))[0], network.features(normalized)


@pytest.mark.parametrize("name", SIZES)
def test_input_and_maps_are_torchvisions(name: str, network: MaskRCNN) -> None:
    expected = numbers_of(REFERENCE, name)
    normalized, pyramid = features(network, picture(*SIZES[name]))
    np.testing.assert_allclose(normalized[::8, ::8], expected["input"], atol=1e-5)
    for level, step, key in zip(pyramid, (8, 4, 2, 1, 1), ("0", "1", "2", "3", "pool"), strict=True):
        ours = np.asarray(ops.convert_to_numpy(level))[0, ::step, ::step, ::32]
        assert np.abs(expected[f"fpn_{key}"]).mean() > 0.5
        np.testing.assert_allclose(ours, expected[f"fpn_{key}"], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_proposals_are_torchvisions(name: str, network: MaskRCNN) -> None:
    image = picture(*SIZES[name])
    segmenter = Segmenter(KerasEngine(network), ["background"], layout="exact")
    pixels, window = segmenter.prepared(image)
    height, width = pixels.shape[:2]
    _, scores, deltas = network.trunk(pixels[None])
    boxes = ops.convert_to_numpy(network.propose(scores, deltas, (height, width), window[None]))[0]
    ours = boxes[:, [1, 0, 3, 2]] * [width, height, width, height]
    expected = numbers_of(REFERENCE, name)["proposals"]
    # In any order: torchvision sorts by rounded probabilities, of which some are equal.
    distances = np.abs(ours[:, None] - expected[None]).max(axis=2)
    assert distances.min(axis=0).max() < 0.02
    assert distances.min(axis=1).max() < 0.02


@pytest.mark.parametrize("name", NAMES)
def test_detections_are_torchvisions(name: str, segmenter: Segmenter) -> None:
    expected = numbers_of(REFERENCE, name)
    size = SIZES[name]
    assert segmenter._place(size).resized == tuple(expected["resized"])
    assert len(np.unique(expected["labels"])) > 3
    check_detections(segmenter(picture(*size)), size, expected)


@pytest.mark.slow
def test_batches_find_the_same(segmenter: Segmenter) -> None:
    one, other = picture(96, 176), picture(96, 176)[::-1].copy()
    together = segmenter([one, other])
    for found, image in zip(together, (one, other), strict=True):
        alone = segmenter(image)
        np.testing.assert_array_equal(found.class_ids, alone.class_ids)
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=0.02)


PARITY = Path(__file__).parents[2] / "shared" / "parity_v2"
"""Torchvision's numbers at full size: not part of the package."""

IMAGES = PARITY.parent / "parity" / "images"


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.test_parity import import_path

    make = import_path(PARITY / "make_weights.py")
    path: Path = tmp_path_factory.mktemp("full") / "full.pth"
    with np.load(PARITY / "stats_seed0.npz") as stats:
        make.write(path, make.state(0, 91, dict(stats)))
    return path


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(
    not (PARITY / "reference_seed0.npz").exists(), reason=f"needs {PARITY / 'reference_seed0.npz'}"
)
class TestFullSize:
    def test_maps(self, full_size: Path) -> None:
        network = read_network(full_size, torchvision.exact(TORCHVISION))
        assert isinstance(network, MaskRCNN)
        for path in sorted(IMAGES.glob("*.png")):
            expected = numbers_of(PARITY / "reference_seed0.npz", path.stem)
            normalized, pyramid = features(network, np.asarray(cv2.imread(str(path)), np.uint8))
            assert normalized.shape[:2] == tuple(expected["canvas"])
            np.testing.assert_allclose(normalized[::8, ::8], expected["input_8x8"], atol=1e-5)
            for level, step, key in zip(pyramid, (16, 8, 4, 2, 1), ("0", "1", "2", "3", "pool"), strict=True):
                ours = np.asarray(ops.convert_to_numpy(level))[0, ::step, ::step, ::16]
                error = np.abs(ours - expected[f"fpn_{key}"])
                # In float32, torchvision itself is up to 8.4e-5 away from a float64 run, and so are we.
                assert np.mean(error > 1e-4) < 1e-3
                assert error.max() < 2e-4

    @pytest.mark.parametrize("engine", ENGINES)
    def test_detections(self, full_size: Path, engine: Any) -> None:
        segmenter = live_seg.load(full_size, engine=engine, layout="exact")
        for path in sorted(IMAGES.glob("*.png")):
            image = np.asarray(cv2.imread(str(path)), np.uint8)
            expected = numbers_of(PARITY / "reference_seed0.npz", path.stem)
            assert segmenter._place(image.shape[:2]).resized == tuple(expected["resized"])
            check_detections(segmenter(image), (image.shape[0], image.shape[1]), expected)
