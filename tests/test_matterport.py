"""Weights in Matterport's layout: every tensor finds its place, or the error names it."""

from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
import pytest

from live_seg.errors import WeightsError
from live_seg.maskrcnn import matterport
from live_seg.maskrcnn.checkpoint import read_network
from live_seg.maskrcnn.config import RESNET_BLOCKS, MaskRCNNConfig
from live_seg.maskrcnn.matterport import Tensors
from live_seg.maskrcnn.model import MaskRCNN
from tests.matterport_weights import write
from tests.stand_ins import built_once

pytestmark = pytest.mark.usefixtures("light_resnet")

CLASSES = 6


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "small.h5"
    return write(file, seed=1, classes=CLASSES, backbone="resnet50")


@pytest.fixture(scope="module")
def stored(path: Path) -> Tensors:
    return matterport.read(path)


@pytest.fixture(scope="module")
def model() -> MaskRCNN:
    return built_once(MaskRCNNConfig(num_classes=CLASSES, backbone="resnet50"))


def sums(model: MaskRCNN) -> list[float]:
    return [float(np.abs(values).sum()) for values in model.get_weights()]


def test_backbone_and_classes_are_read_from_the_tensors(stored: Tensors) -> None:
    assert matterport.describe(stored) == ("resnet50", CLASSES)
    deeper = stored | {"res4w_branch2a/kernel": np.zeros((1, 1, 1024, 256))}
    assert matterport.describe(deeper) == ("resnet101", CLASSES)


def test_every_tensor_of_the_file_ends_up_in_the_model(model: MaskRCNN, stored: Tensors) -> None:
    matterport.load(model, stored)
    np.testing.assert_array_equal(model.backbone.get_layer("stem_conv").kernel, stored["conv1/kernel"])
    number = RESNET_BLOCKS["resnet50"][-1] - 1
    last = model.backbone.get_layer(f"stage5_block{number}_norm3")
    variance = stored[f"bn5{'abc'[number]}_branch2c/moving_variance"]
    np.testing.assert_array_equal(last.moving_variance, variance)
    np.testing.assert_array_equal(model.rpn.deltas.bias, stored["rpn_bbox_pred/bias"])
    np.testing.assert_array_equal(model.mask_head.logits.kernel, stored["mrcnn_mask/kernel"])
    hidden = stored["mrcnn_class_conv1/kernel"]
    assert hidden.shape == (7, 7, 256, 1024)
    np.testing.assert_array_equal(model.box_head.hidden[0].kernel, hidden.reshape(-1, 1024))
    assert sorted(sums(model)) == sorted(float(np.abs(values).sum()) for values in stored.values())


def test_the_file_of_a_whole_model_is_read_alike(tmp_path: Path, stored: Tensors) -> None:
    file = tmp_path / "whole.h5"
    write(file, seed=1, classes=CLASSES, backbone="resnet50", under_model_weights=True)
    whole = matterport.read(file)
    assert list(whole) == list(stored)
    assert all(np.array_equal(whole[name], stored[name]) for name in stored)


def named(names: Iterable[str], kind: str, error: pytest.ExceptionInfo[WeightsError]) -> None:
    lines = str(error.value).splitlines()
    for name in names:
        assert any(line.startswith(f"  {kind}: {name} ") for line in lines), (name, lines)


def test_each_tensor_is_missed_by_name(model: MaskRCNN, stored: Tensors) -> None:
    names, before = list(stored), sums(model)
    for start in range(0, len(names), 20):
        gone = names[start : start + 20]
        rest = {name: values for name, values in stored.items() if name not in gone}
        with pytest.raises(WeightsError) as error:
            matterport.load(model, rest)
        named(gone, "missing", error)
    assert sums(model) == before


def test_each_tensor_of_the_wrong_shape_is_named(model: MaskRCNN, stored: Tensors) -> None:
    names, before = list(stored), sums(model)
    for start in range(0, len(names), 20):
        wrong = {name: np.zeros((*stored[name].shape, 1)) for name in names[start : start + 20]}
        with pytest.raises(WeightsError) as error:
            matterport.load(model, stored | wrong)
        named(wrong, "wrong shape", error)
    assert sums(model) == before


def test_tensors_without_a_place_are_named(model: MaskRCNN, stored: Tensors) -> None:
    before = sums(model)
    extra = {"mrcnn_mask_conv5/kernel": np.zeros((3, 3, 256, 256)), "conv1/extra": np.zeros(1)}
    with pytest.raises(WeightsError) as error:
        matterport.load(model, {name: values + 1 for name, values in stored.items()} | extra)
    named(extra, "unused", error)
    assert sums(model) == before


def test_many_faults_are_cut_short(model: MaskRCNN) -> None:
    with pytest.raises(WeightsError, match=r"and \d+ more$") as error:
        matterport.load(model, {})
    assert len(str(error.value).splitlines()) == 22


@pytest.mark.slow
def test_too_many_classes_asked_for(path: Path) -> None:
    with pytest.raises(WeightsError, match="81 classes") as error:
        read_network(path, MaskRCNNConfig(backbone="resnet50", num_classes=81))
    parts = [
        f"{layer}/{w}"
        for layer in ("mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask")
        for w in ("kernel", "bias")
    ]
    named(parts, "wrong shape", error)


def test_a_mobile_network_takes_no_such_weights(stored: Tensors, tiny: MaskRCNN) -> None:
    before = sums(tiny)
    with pytest.raises(WeightsError, match=r"resnet50 and resnet101.*mobilenetv2"):
        matterport.load(tiny, stored)
    assert sums(tiny) == before


def test_what_is_no_mask_rcnn_is_refused(stored: Tensors) -> None:
    with pytest.raises(WeightsError, match="expected layers conv1 and mrcnn_class_logits"):
        matterport.describe({"dense_1/kernel": np.zeros((4, 4))})
    with pytest.raises(WeightsError, match="not Matterport's"):
        matterport.describe({})
    with pytest.raises(WeightsError, match="not Matterport's"):
        matterport.describe(stored | {"mrcnn_class_logits/kernel": np.zeros(1024)})


def make_text(file: Path) -> None:
    file.write_text("404: Not Found\n")


def make_empty(file: Path) -> None:
    file.touch()


def make_truncated(file: Path) -> None:
    with h5py.File(file, "w") as whole:
        whole.attrs["layer_names"] = [b"conv1"]
        whole.create_group("conv1").attrs["weight_names"] = [b"conv1/kernel:0"]
        whole["conv1/conv1/kernel:0"] = np.ones((7, 7, 3, 64))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def make_other_h5(file: Path) -> None:
    with h5py.File(file, "w") as other:
        other["measurements"] = np.arange(10)


def make_h5_without_its_tensors(file: Path) -> None:
    with h5py.File(file, "w") as other:
        other.attrs["layer_names"] = [b"conv1"]
        other.create_group("conv1").attrs["weight_names"] = [b"conv1/kernel:0"]


def make_names_that_are_no_text(file: Path) -> None:
    with h5py.File(file, "w") as other:
        other.attrs["layer_names"] = [b"conv1"]
        other.create_group("conv1").attrs["weight_names"] = [b"conv1/\xed:0"]


def make_a_number_instead_of_names(file: Path) -> None:
    with h5py.File(file, "w") as other:
        other.attrs["layer_names"] = 5


def make_nothing(file: Path) -> None:
    assert not file.exists()


@pytest.mark.parametrize(
    "make",
    [
        make_text,
        make_empty,
        make_truncated,
        make_other_h5,
        make_h5_without_its_tensors,
        make_names_that_are_no_text,
        make_a_number_instead_of_names,
        make_nothing,
    ],
    ids=lambda make: make.__name__.removeprefix("make_"),
)
def test_damaged_files_are_named(make: object, tmp_path: Path) -> None:
    file = tmp_path / "weights.h5"
    assert callable(make)
    make(file)
    with pytest.raises(WeightsError, match=r"weights\.h5 is not a complete Keras 2 weights file"):
        matterport.read(file)
