"""The one-stage member of the family: decoding, region sampling, detection, engines, published weights."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import openvino
import pytest
from keras import ops
from numpy.typing import NDArray

from live_seg.engines.keras import KerasEngine
from live_seg.engines.openvino.convert import convert
from live_seg.engines.openvino.engine import OpenVINOEngine
from live_seg.errors import WeightsError
from live_seg.files import read_image
from live_seg.maskrcnn import yolox
from live_seg.maskrcnn.anchors import to_normalized
from live_seg.maskrcnn.config import SMALL
from live_seg.maskrcnn.one_stage import MASK_SIDE, OneStageMaskRCNN, cell_centers, decode, normalized
from live_seg.maskrcnn.ops import crop_from
from tests.stand_ins import ROOT

onnx = pytest.importorskip("onnx")

CONFIG = replace(SMALL, num_classes=4, size=96, min_side=96, detections=10, min_score=0.1)
CANVAS = (64, 96)
YOLOX_FILE = ROOT.parent / "shared" / "detectors" / "yolox_nano.onnx"
PHOTOS = ROOT.parent / "shared" / "data" / "person" / "val"


def array(tensor: Any) -> NDArray[Any]:
    return np.asarray(ops.convert_to_numpy(tensor))


@pytest.fixture(scope="module")
def network() -> OneStageMaskRCNN:
    """Random weights under which outputs differ from cell to cell. Keras' own fade out."""
    keras.utils.set_random_seed(5)
    model = OneStageMaskRCNN(CONFIG)
    for layer in [layer for part in parts(model) for layer in part.layers if layer.weights]:
        kernel, bias = layer.get_weights()
        scale = 10.0 if layer.name.endswith(("_classes", "_objectness")) else 2.0
        if layer.name == "stem":
            scale /= 60  # pixels up to 255
        elif layer.name.endswith("_boxes"):
            scale = 1.0
        layer.set_weights([scale * kernel, bias])
    return model


@pytest.fixture(scope="module")
def converted(network: OneStageMaskRCNN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one_stage")
    convert(network, folder)
    return folder


def images(count: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 255, (count, CANVAS[0] // 8, CANVAS[1] // 8, 3)).astype(np.uint8)
    windows = np.tile(np.array([0, 0, 0.8, 1], np.float32), (count, 1))
    return squares.repeat(8, axis=1).repeat(8, axis=2), windows


class TestDecoding:
    def test_outputs_are_offsets_in_cells_and_logarithms_of_sides(self) -> None:
        outputs = np.zeros((1, 2, 3, 4), np.float32)
        outputs[0, 1, 2] = [0.5, 0.25, np.log(2), np.log(3)]
        boxes = array(decode(outputs, 8))
        np.testing.assert_allclose(boxes[0, 1, 2], [10 - 12, 20 - 8, 10 + 12, 20 + 8], atol=1e-5)
        np.testing.assert_allclose(boxes[0, 0, 0], [-4, -4, 4, 4], atol=1e-5)

    def test_pixels_are_normalized_as_everywhere(self) -> None:
        boxes = np.array([[1, 2, 30, 40], [0, 0, 64, 96]], np.float32)
        np.testing.assert_allclose(array(normalized(boxes, CANVAS)), to_normalized(boxes, CANVAS), atol=1e-6)


class TestRegions:
    @pytest.mark.parametrize("box", [(8, 16, 40, 60), (4, 4, 32, 32), (2, 2, 62, 94)])
    def test_samples_lie_at_the_centers_of_a_regions_cells(self, box: tuple[int, ...]) -> None:
        """A map that holds its own coordinates in pixels gives back where it was sampled."""
        rows, columns = (np.arange(side // 4, dtype=np.float32) * 4 + 2 for side in CANVAS)
        ramp = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)[None]
        boxes = to_normalized(np.array([box]), CANVAS)
        inner = cell_centers(boxes, ramp.shape[1:3])
        found = array(crop_from(ramp, inner, np.zeros(1, np.int32), MASK_SIDE))[0]
        y1, x1, y2, x2 = box
        steps = (np.arange(MASK_SIDE) + 0.5) / MASK_SIDE
        np.testing.assert_allclose(found[:, 0, 0], y1 + steps * (y2 - y1), atol=1e-3)
        np.testing.assert_allclose(found[0, :, 1], x1 + steps * (x2 - x1), atol=1e-3)


class TestDetection:
    def test_finds_the_best_of_each_class_inside_the_window(self, network: OneStageMaskRCNN) -> None:
        scores, boxes = np.zeros((1, 6, 3), np.float32), np.zeros((1, 6, 4), np.float32)
        boxes[0, :3] = [[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.52], [0.6, 0.6, 1.2, 0.9]]
        scores[0, :3] = [[0.9, 0.3, 0], [0.8, 0, 0], [0, 0, 0.5]]
        window = np.array([[0, 0, 1, 1]], np.float32)
        found = network.detect([], ops.convert_to_tensor(scores), ops.convert_to_tensor(boxes), window)
        boxes, class_ids, scores = (array(part)[0] for part in found)
        assert class_ids[:4].tolist() == [1, 3, 2, 0]
        assert scores[:3].tolist() == pytest.approx([0.9, 0.5, 0.3])
        np.testing.assert_allclose(boxes[1], [0.6, 0.6, 1.0, 0.9])

    @pytest.mark.usefixtures("untraced")
    def test_one_image_is_found_the_same_alone_and_in_a_batch(self, network: OneStageMaskRCNN) -> None:
        pixels, windows = images(3)
        engine = KerasEngine(network)
        _, together = engine.detect(pixels, windows)
        _, alone = engine.detect(pixels[1:2], windows[1:2])
        own = together.only(together.rows == 1)
        assert len(alone.rows) > 0
        np.testing.assert_allclose(own.boxes, alone.boxes, atol=1e-5)
        np.testing.assert_allclose(own.scores, alone.scores, atol=1e-5)


class TestEngines:
    @pytest.mark.usefixtures("untraced")
    def test_openvino_finds_what_keras_finds(self, network: OneStageMaskRCNN, converted: Path) -> None:
        pixels, windows = images(2)
        results = []
        for engine in (KerasEngine(network), OpenVINOEngine(converted, CONFIG)):
            maps, found = engine.detect(pixels, windows)
            results.append((found, engine.masks(maps, found)))
        (ours, our_masks), (theirs, their_masks) = results
        assert len(ours.rows) >= 4
        np.testing.assert_array_equal(ours.rows, theirs.rows)
        np.testing.assert_array_equal(ours.class_ids, theirs.class_ids)
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-4)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
        assert our_masks.shape == (len(ours.rows), MASK_SIDE, MASK_SIDE)
        np.testing.assert_allclose(our_masks, their_masks, atol=1e-4)

    @pytest.mark.parametrize(("part", "count"), [("trunk", 3), ("masks", 1)])
    def test_converted_models_return_nothing_else(self, converted: Path, part: str, count: int) -> None:
        """The conversion adds an output for each activation; copying them is slower than the network."""
        assert len(openvino.Core().read_model(converted / f"{part}.xml").outputs) == count

    def test_activations_are_one_operation_that_int8_keeps(self, converted: Path) -> None:
        """Split into a sigmoid and a product, each would be quantized on its own."""
        model = openvino.Core().read_model(converted / "trunk.xml")
        kinds = [node.get_type_name() for node in model.get_ops()]
        assert kinds.count("Swish") == len([name for name in yolox.layer_names() if _is_activated(name)])
        assert kinds.count("Sigmoid") == 2

    def test_map_for_masks_is_joined_in_float32(self) -> None:
        """In the bundled int8 form: four convolutions of MaskFusion, and nine that end the dense head."""
        model = openvino.Core().read_model(ROOT / "weights" / "small-int8" / "trunk.xml")
        convolutions = [node for node in model.get_ops() if node.get_type_name() == "Convolution"]
        exact = [
            node for node in convolutions if node.input_value(1).get_node().get_type_name() == "Constant"
        ]
        assert len(exact) == 4 + 9
        assert len(convolutions) > 5 * len(exact)

    def test_nothing_above_the_threshold(self, converted: Path) -> None:
        engine = OpenVINOEngine(converted, replace(CONFIG, min_score=1.0))
        _, found = engine.detect(*images(2))
        assert len(found.rows) == 0


def _is_activated(name: str) -> bool:
    return not name.endswith(("_classes", "_boxes", "_objectness"))


def write_onnx(path: Path, kernels: dict[str, NDArray[np.float32]]) -> None:
    """Write convolutions as YOLOX's exporter does: in order, with the batch norm folded in."""
    tensors, nodes = [], []
    for i, kernel in enumerate(kernels.values()):
        bias = np.full(len(kernel), i, np.float32)
        tensors += [
            onnx.numpy_helper.from_array(value, f"{i}{kind}") for kind, value in (("k", kernel), ("b", bias))
        ]
        nodes.append(onnx.helper.make_node("Conv", [f"x{i}", f"{i}k", f"{i}b"], [f"x{i + 1}"]))
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "yolox", [], [], tensors)), path)


@pytest.fixture
def model(network: OneStageMaskRCNN) -> Iterator[OneStageMaskRCNN]:
    """Return the network, whose weights a test may replace."""
    before = network.get_weights()
    yield network
    network.set_weights(before)


class TestPublishedWeights:
    def kernels(self, model: OneStageMaskRCNN) -> dict[str, NDArray[np.float32]]:
        rng = np.random.default_rng(1)
        layers = {layer.name: layer for part in parts(model) for layer in part.layers if layer.weights}
        shapes = {}
        for name in yolox.layer_names():
            height, width, first, last = layers[name].kernel.shape
            shapes[name] = (first, 1, height, width) if "depthwise" in name else (last, first, height, width)
        shapes["stem"] = (16, 12, 3, 3)
        return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}

    def test_fill_the_layers_in_the_exporters_order(self, model: OneStageMaskRCNN, tmp_path: Path) -> None:
        kernels = self.kernels(model)
        write_onnx(tmp_path / "made.onnx", kernels)
        yolox.load(parts(model), tmp_path / "made.onnx")
        layer = model.neck.get_layer("neck_lateral4")
        np.testing.assert_array_equal(layer.kernel[0, 0], kernels["neck_lateral4"][:, :, 0, 0].T)
        assert layer.bias[0] == list(kernels).index("neck_lateral4")
        depthwise = model.backbone.get_layer("stage2_down_depthwise")
        np.testing.assert_array_equal(
            depthwise.kernel[..., 0], kernels["stage2_down_depthwise"][:, 0].transpose(1, 2, 0)
        )

    def test_the_stem_is_focus_and_its_convolution(self, model: OneStageMaskRCNN, tmp_path: Path) -> None:
        kernels = self.kernels(model)
        write_onnx(tmp_path / "made.onnx", kernels)
        kernel, _ = yolox.read(tmp_path / "made.onnx")["stem"]
        image = np.random.default_rng(2).normal(size=(1, 8, 8, 3)).astype(np.float32)
        padded = np.pad(image, [(0, 0), (2, 2), (2, 2), (0, 0)])
        ours = array(ops.conv(padded, kernel, strides=2, padding="valid"))
        bgr = image[..., ::-1]
        focus = np.concatenate([bgr[:, y::2, x::2] for y, x in ((0, 0), (1, 0), (0, 1), (1, 1))], axis=-1)
        theirs = array(ops.conv(focus, kernels["stem"].transpose(2, 3, 1, 0), padding="same"))
        np.testing.assert_allclose(ours, theirs, atol=1e-4)

    def test_another_network_is_refused(self, tmp_path: Path) -> None:
        write_onnx(tmp_path / "other.onnx", {"stem": np.zeros((16, 12, 3, 3), np.float32)})
        with pytest.raises(WeightsError, match="has 1 convolutions; YOLOX-Nano has"):
            yolox.read(tmp_path / "other.onnx")

    def test_no_onnx_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "text.onnx").write_text("not a network")
        with pytest.raises(WeightsError, match="as ONNX"):
            yolox.read(tmp_path / "text.onnx")
        with pytest.raises(WeightsError, match="as ONNX"):
            yolox.read(tmp_path / "missing.onnx")

    @pytest.mark.slow
    @pytest.mark.skipif(not YOLOX_FILE.exists(), reason="YOLOX-Nano's published file is not at hand")
    def test_outputs_equal_those_of_the_original_on_real_photos(self) -> None:
        model = OneStageMaskRCNN(replace(CONFIG, num_classes=81))
        yolox.load(parts(model), YOLOX_FILE)
        core = openvino.Core()
        original = core.compile_model(core.read_model(YOLOX_FILE), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        for path in sorted(PHOTOS.glob("*.jpg"))[:3]:
            image = cv2.resize(read_image(path), (416, 416))
            theirs = original(image.transpose(2, 0, 1)[None].astype(np.float32))[0][0]
            _, maps = model.features(image[None, ..., ::-1].astype(np.float32))
            ours = [
                np.concatenate([array(boxes), expit(array(objectness)), expit(array(classes))], axis=-1)
                for classes, boxes, objectness in model.dense_head(maps)
            ]
            np.testing.assert_allclose(np.concatenate([o.reshape(-1, 85) for o in ours]), theirs, atol=1e-3)


def expit(values: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(1 / (1 + np.exp(-values)))


def parts(model: OneStageMaskRCNN) -> list[keras.Model]:
    return [model.backbone, model.neck, model.dense_head]
