"""Torchvision's state dict: every tensor accounted for, and the files it is loaded from."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import live_seg
from live_seg.errors import UsageError, WeightsError
from live_seg.maskrcnn import torchvision
from live_seg.maskrcnn.config import RESNET_BLOCKS, TORCHVISION
from live_seg.maskrcnn.model import MaskRCNN
from live_seg.models.spec import resolve
from live_seg.training.batches import Batches, Columns
from live_seg.training.progress import read_table
from live_seg.training.settings import Settings
from live_seg.training.train import resume, train
from tests.stand_ins import built_once
from tests.tiny_world import EASY, draw_shapes
from tests.torch_files import write
from tests.torchvision_weights import Tensors, tensors

pytestmark = pytest.mark.usefixtures("light_resnet")

CLASSES = 3


@pytest.fixture(scope="module")
def stored() -> Tensors:
    return tensors(0, CLASSES)


@pytest.fixture(scope="module")
def network(stored: Tensors) -> MaskRCNN:
    """Return a network with the weights of `stored`."""
    model = built_once(replace(TORCHVISION, num_classes=CLASSES))
    torchvision.load(model, dict(stored))
    return model


@pytest.fixture(scope="module")
def file(stored: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("weights") / "pets.pth", stored)


def test_every_tensor_is_loaded(network: MaskRCNN, stored: Tensors) -> None:
    count = sum(int(np.prod(variable.shape)) for variable in network.variables)
    assert count == sum(tensor.size for tensor in stored.values())
    stem = network.backbone.get_layer("stem_conv").kernel
    np.testing.assert_array_equal(stem, stored["backbone.body.conv1.weight"].transpose(2, 3, 1, 0))


def test_deltas_are_turned_to_y_first_and_our_units(network: MaskRCNN, stored: Tensors) -> None:
    theirs = stored["rpn.head.bbox_pred.bias"].reshape(3, 4)
    dx, dy, dw, dh = theirs.T
    ours = np.asarray(network.rpn.deltas.bias).reshape(3, 4)
    np.testing.assert_allclose(ours, np.stack([10 * dy, 10 * dx, 5 * dh, 5 * dw], axis=1), rtol=1e-6)
    dx, dy, dw, dh = stored["roi_heads.box_predictor.bbox_pred.bias"].reshape(CLASSES, 4).T
    ours = np.asarray(network.box_head.deltas.bias).reshape(CLASSES, 4)
    np.testing.assert_array_equal(ours, np.stack([dy, dx, dh, dw], axis=1))


def test_counters_of_batch_norms_are_ignored(network: MaskRCNN, stored: Tensors) -> None:
    counter: dict[str, Any] = {"backbone.body.bn1.num_batches_tracked": np.int64(1000)}
    torchvision.load(network, stored | counter)


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda stored: {key: value for key, value in stored.items() if key != name}


def with_one(name: str, *shape: int) -> Callable[[Tensors], Tensors]:
    return lambda stored: stored | {name: np.zeros(shape, np.float32)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without("backbone.body.bn1.running_mean"),
            r"missing: backbone\.body\.bn1\.running_mean for \(64,\)",
        ),
        (without("rpn.head.conv.1.0.bias"), r"missing: rpn\.head\.conv\.1\.0\.bias"),
        (with_one("extra.weight", 2), r"unused: extra\.weight \(2,\)"),
        (with_one("extra.num_batches_tracked"), r"unused: extra\.num_batches_tracked"),
        (
            with_one("roi_heads.box_head.5.weight", 1024, 12543),
            r"wrong shape: roi_heads\.box_head\.5",
        ),
        (
            with_one("backbone.body.conv1.weight", 64, 3),
            r"wrong shape: backbone\.body\.conv1\.weight",
        ),
        (with_one("rpn.head.bbox_pred.bias", 11), r"wrong shape: rpn\.head\.bbox_pred\.bias is \(11,\)"),
        (lambda _: {}, r"and \d+ more"),
    ],
)
def test_tensors_that_do_not_fit(
    network: MaskRCNN, stored: Tensors, change: Callable[[Tensors], Tensors], message: str
) -> None:
    before = np.array(network.rpn.deltas.bias)
    with pytest.raises(WeightsError, match=message):
        torchvision.load(network, change({**stored, "rpn.head.cls_logits.bias": np.ones(3, np.float32)}))
    np.testing.assert_array_equal(network.rpn.deltas.bias, before)


def test_another_number_of_classes(network: MaskRCNN) -> None:
    with pytest.raises(WeightsError, match=r"with 3 classes .*\n.*wrong shape: roi_heads"):
        torchvision.load(network, dict(tensors(0, CLASSES + 1)))


def test_a_network_of_another_origin(tiny: MaskRCNN, stored: Tensors) -> None:
    assert tiny.config.origin == "matterport"
    with pytest.raises(WeightsError, match="not one that follows matterport"):
        torchvision.load(tiny, dict(stored))


def shapes_of(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in tensors.items()}


class TestDescribe:
    def test_the_classes_are_counted(self, stored: Tensors) -> None:
        assert torchvision.describe(shapes_of(stored)) == replace(TORCHVISION, num_classes=CLASSES)

    @pytest.mark.parametrize("name", ["roi_heads.box_predictor.cls_score.weight", "rpn.head.conv.1.0.weight"])
    def test_other_networks(self, stored: Tensors, name: str) -> None:
        with pytest.raises(WeightsError, match="not torchvision's maskrcnn_resnet50_fpn_v2"):
            torchvision.describe(shapes_of(without(name)(stored)))


class TestFile:
    def test_config_of_each_layout(self, file: Path) -> None:
        fit, exact = resolve(file), resolve(file, layout="exact")
        assert fit.config == replace(TORCHVISION, num_classes=CLASSES)
        assert fit.config.proposals == 300
        assert (exact.config.size, exact.config.min_side) == (1333, 800)
        assert (exact.config.proposals, exact.config.min_score) == (1000, 0.05)
        assert fit.class_names == ("background", "class 1", "class 2")

    def test_options_replace_those_of_the_layout(self, file: Path) -> None:
        config = resolve(file, layout="exact", size=500, proposals=50, min_score=0.5).config
        assert (config.size, config.proposals, config.min_score) == (500, 50, 0.5)

    def test_proposals_are_counted(self, file: Path) -> None:
        with pytest.raises(UsageError, match=r"at least 1 proposal .* Got 0"):
            resolve(file, proposals=0)

    def test_a_model_without_proposals(self) -> None:
        with pytest.raises(UsageError, match="one-stage"):
            resolve("small", proposals=50)

    @pytest.mark.usefixtures("untraced", "_built_once")
    def test_finds_something(self, file: Path) -> None:
        segment = live_seg.load(file, engine="keras", size=128, proposals=20, min_score=0.05)
        image = np.random.default_rng(0).integers(0, 256, (72, 128, 3), np.uint8)
        found = segment(image)
        assert len(found)
        assert found.padded
        assert set(found.class_ids.tolist()) <= {1, 2}


@pytest.mark.slow
def test_training_starts_from_a_file_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a ResNet of few blocks, which is soon built."""
    monkeypatch.setitem(RESNET_BLOCKS, "resnet50", (1, 1, 1, 1))
    start, run, lines = write(tmp_path / "start.pth", tensors(0, CLASSES)), tmp_path / "run", list[str]()
    (tmp_path / "start.json").write_text(json.dumps({"class_names": ["background", "disc", "cat"]}))
    data = draw_shapes(tmp_path / "data", 2)
    settings = Settings(
        data=(data,), start=str(start), size=64, batch=2, epochs=2, learning_rate=1e-4, heads_first=0, **EASY
    )
    make = Batches.make

    def stop_in_the_second_epoch(batches: Batches, number: int, index: int) -> Columns:
        if number == 1:
            raise KeyboardInterrupt
        return make(batches, number, index)

    monkeypatch.setattr(Batches, "make", stop_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(settings, run, report=lines.append, quiet=True)
    monkeypatch.setattr(Batches, "make", make)
    resume(run, report=lines.append, quiet=True)
    assert lines[0].endswith("random: box_head/logits, box_head/deltas, mask_head/logits for block.")
    assert all(0 < row["loss"] < math.inf for row in read_table(run / "log.csv", 99))
    segment = live_seg.load(run / "model.weights.h5", engine="keras")
    assert segment.class_names == ("background", "disc", "block")
    assert (segment.config.origin, segment.config.size) == ("torchvision", 64)
