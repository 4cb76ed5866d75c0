"""The network against Matterport's: by an independent reference in NumPy, and by Matterport's own numbers."""

import importlib.util
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

from live_seg.engines.keras import KerasEngine
from live_seg.engines.openvino.convert import convert
from live_seg.engines.openvino.engine import OpenVINOEngine
from live_seg.maskrcnn import matterport
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.maskrcnn.model import MaskRCNN
from live_seg.maskrcnn.roi import roi_align
from live_seg.segmenter import Segmenter
from live_seg.types import Image, Instances
from tests.conftest import is_quick
from tests.matterport_weights import write
from tests.numpy_reference import MEAN_PIXEL, Reference, Result, Settings, pyramid_roi_align, resize_image
from tests.stand_ins import built_once, untraced_engine

pytestmark = pytest.mark.usefixtures("light_resnet")

CLASSES = 6
SIZES = {"enlarged, black around": (50, 55), "shrunk, tall": (192, 144)}
"""Sizes of the pictures in the quick set, for a network of 128 pixels. With the slow tests, all double.

Rounding decides whether the last sample of a region at the edge of the canvas is inside the map. In these
pictures TensorFlow, JAX and NumPy agree.
"""


@dataclass(frozen=True)
class Expected:
    """What Matterport's code finds in one picture."""

    boxes: NDArray[Any]  # (N, 4) y1 x1 y2 x2, whole pixels
    class_ids: NDArray[Any]  # (N,)
    scores: NDArray[Any]  # (N,)
    masks: NDArray[Any]  # (N or fewer, 28, 28)
    rles: list[dict[str, Any]]  # N at the size of the picture


ENGINES = ("keras", pytest.param("openvino", marks=pytest.mark.slow))


def partners(found: Instances, expected: Expected) -> list[int]:
    """Find for each expected detection the one of ours: same class, box within a pixel, score within 1e-3."""
    left, matched = list(range(len(found))), []
    boxes = np.rint(found.boxes)[:, [1, 0, 3, 2]]
    for box, class_id, score in zip(expected.boxes, expected.class_ids, expected.scores, strict=True):
        alike = [
            (float(np.abs(boxes[i] - box).max()), i)
            for i in left
            if found.class_ids[i] == class_id and abs(found.scores[i] - score) < 1e-3
        ]
        distance, nearest = min(alike, default=(np.inf, -1))
        assert distance <= 1, f"class {class_id}, score {score:.4f}, {box}: nearest of ours {distance} away"
        left.remove(nearest)
        matched.append(nearest)
    assert not left, f"{len(left)} detections too many"
    return matched


def check(found: Instances, size: tuple[int, int], expected: Expected) -> None:
    order = partners(found, expected)
    masks = found.masks[order[: len(expected.masks)]]
    np.testing.assert_allclose(masks, expected.masks, atol=1e-3)
    for ours, theirs in zip(found[order].rles(size), expected.rles, strict=True):
        if coco_mask.area(theirs) or coco_mask.area(ours):
            assert coco_mask.iou([ours], [theirs], [0])[0, 0] > 0.98


def make_network(path: Path, config: MaskRCNNConfig) -> MaskRCNN:
    model = built_once(config)
    matterport.load(model, matterport.read(path))
    return model


def make_segmenter(network: MaskRCNN, engine: str, folder: Path, *, traced: bool = False) -> Segmenter:
    names = ["background", *(f"class {i}" for i in range(1, network.config.num_classes))]
    if engine == "keras":
        keras_engine = KerasEngine(network) if traced else untraced_engine(network)
        return Segmenter(keras_engine, names, layout="square")
    convert(network, folder)
    return Segmenter(OpenVINOEngine(folder, network.config), names, layout="square")


def feature_maps(network: MaskRCNN, molded: NDArray[np.float32]) -> list[NDArray[Any]]:
    return [np.asarray(ops.convert_to_numpy(level))[0] for level in network.features(molded[None])]


def picture(height: int, width: int) -> Image:
    """Smooth blobs of colour, eight pixels wide."""
    coarse = np.random.default_rng(height).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parity") / "small.h5"
    return write(path, seed=5, classes=CLASSES, backbone="resnet50")


@pytest.fixture(scope="module")
def scale(pytestconfig: pytest.Config) -> int:
    return 1 if is_quick(pytestconfig) else 2


@pytest.fixture(scope="module")
def sizes(scale: int) -> dict[str, tuple[int, int]]:
    return {name: (scale * height, scale * width) for name, (height, width) in SIZES.items()}


@pytest.fixture(scope="module")
def network(weights: Path, scale: int) -> MaskRCNN:
    small = MaskRCNNConfig(num_classes=CLASSES, backbone="resnet50", size=128 * scale, min_side=100 * scale)
    fast = {"candidates": 1000, "proposals": 100 * scale, "detections": 20 * scale}
    return make_network(weights, MaskRCNNConfig(**vars(small) | fast))


@pytest.fixture(scope="module", params=ENGINES)
def segmenter(
    request: pytest.FixtureRequest, network: MaskRCNN, tmp_path_factory: pytest.TempPathFactory
) -> Segmenter:
    return make_segmenter(network, request.param, tmp_path_factory.mktemp("converted"))


@pytest.fixture(scope="module")
def found(segmenter: Segmenter, sizes: dict[str, tuple[int, int]]) -> dict[str, Instances]:
    """All pictures in one batch."""
    return dict(zip(sizes, segmenter([picture(*size) for size in sizes.values()]), strict=True))


@pytest.fixture(scope="module")
def references(weights: Path, scale: int, sizes: dict[str, tuple[int, int]]) -> dict[str, Result]:
    settings = Settings(
        backbone="resnet50",
        image_max_dim=128 * scale,
        image_min_dim=100 * scale,
        pre_nms_limit=1000,
        post_nms_rois_inference=100 * scale,
        detection_max_instances=20 * scale,
    )
    reference = Reference(weights, settings)
    return {name: reference.detect(picture(*size)[..., ::-1]) for name, size in sizes.items()}


@pytest.mark.parametrize("name", SIZES)
def test_feature_maps_are_the_references(name: str, network: MaskRCNN, references: dict[str, Result]) -> None:
    reference = references[name]
    ours = feature_maps(network, reference.molded)
    assert [level.shape for level in ours] == [level.shape for level in reference.pyramid]
    for mine, theirs in zip(ours, reference.pyramid, strict=True):
        assert np.abs(theirs).mean() > 0.05
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


@pytest.mark.parametrize("name", SIZES)
def test_detections_are_the_references(
    name: str,
    found: dict[str, Instances],
    references: dict[str, Result],
    sizes: dict[str, tuple[int, int]],
    scale: int,
) -> None:
    reference = references[name]
    assert len(reference.boxes) > 15 * scale
    assert len(np.unique(reference.class_ids)) >= 3
    rles = [coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8))) for bitmap in reference.bitmaps]
    expected = Expected(reference.boxes, reference.class_ids, reference.scores, reference.masks, rles)
    check(found[name], sizes[name], expected)


@pytest.mark.parametrize("size", [(1024, 1024), (576, 1024)])
def test_regions_are_read_from_the_references_levels(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    pyramid = [rng.standard_normal((size[0] >> n, size[1] >> n, 2), np.float32) for n in (2, 3, 4, 5, 6)]
    sides = 2 ** rng.uniform(-8, 0, (200, 2))
    corner = rng.uniform(0, 1 - sides)
    boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
    boxes[0] = 0  # a place left empty
    batch = [ops.convert_to_tensor(level[None]) for level in pyramid[:4]]
    tensors = [ops.convert_to_tensor(values) for values in (boxes, np.zeros(200, np.int32))]
    area = ops.cast(size[0] * size[1], "float32")
    regions, order = (
        ops.convert_to_numpy(part) for part in roi_align(batch, tensors[0], tensors[1], 7, 2, area)
    )
    np.testing.assert_allclose(regions, pyramid_roi_align(pyramid, boxes[order], 7), atol=1e-3)


PARITY = Path(__file__).parents[2] / "shared" / "parity"
"""Matterport's own numbers at full size: not part of the package."""


def import_path(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(
    not (PARITY / "reference_seed0.npz").exists(), reason=f"needs {PARITY / 'reference_seed0.npz'}"
)
@pytest.mark.parametrize("engine", ENGINES)
def test_full_size_detections_are_matterports(tmp_path: Path, engine: str) -> None:
    import_path(PARITY / "make_weights.py").write(tmp_path / "full.h5", seed=0)
    network = make_network(tmp_path / "full.h5", MaskRCNNConfig())
    segmenter = make_segmenter(network, engine, tmp_path, traced=True)
    numbers = np.load(PARITY / "reference_seed0.npz")
    for name in ("wide", "photo", "square", "vga"):
        image = np.asarray(cv2.imread(str(PARITY / "images" / f"{name}.png")), np.uint8)
        own = {key.removeprefix(f"{name}/"): numbers[key] for key in numbers if key.startswith(f"{name}/")}
        check_full_size(network, segmenter, image, own)


def check_full_size(
    network: MaskRCNN, segmenter: Segmenter, image: Image, numbers: dict[str, NDArray[Any]]
) -> None:
    square, window = resize_image(image[..., ::-1], min_dim=800, max_dim=1024)
    np.testing.assert_array_equal(window, numbers["window"])
    molded = (square - MEAN_PIXEL).astype(np.float32)
    np.testing.assert_allclose(molded[::8, ::8], numbers["molded_8x8"], atol=1e-4)
    for level, features in enumerate(feature_maps(network, molded)[:-1], start=2):
        step = 64 // 2**level
        np.testing.assert_allclose(features[::step, ::step, ::16], numbers[f"fpn_p{level}"], atol=1e-4)
    size = (image.shape[0], image.shape[1])
    count = len(numbers["boxes"])
    rles = [{"size": list(size), "counts": numbers[f"rle/{i:03d}"].tobytes()} for i in range(count)]
    boxes, class_ids, scores, masks = (numbers[key] for key in ("boxes", "class_ids", "scores", "mask_28"))
    check(segmenter([image])[0], size, Expected(boxes, class_ids, scores, masks, rles))
