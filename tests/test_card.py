"""Model cards: which fields are refused, and which weights do not pass."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from live_seg.choices import EngineName
from live_seg.engines.openvino import cache as store
from live_seg.errors import WeightsError
from live_seg.maskrcnn.checkpoint import read_network
from live_seg.maskrcnn.config import MOBILE, SMALL, MaskRCNNConfig
from live_seg.models.card import card_of, class_names, read_card
from live_seg.models.classes import COCO_CATEGORIES, COCO_CLASSES
from live_seg.models.load import load
from live_seg.models.spec import resolve
from live_seg.training.checkpoint import save

if TYPE_CHECKING:
    from live_seg.maskrcnn.model import MaskRCNN

NAMES = ("background", "cat", "dog")


def with_card(folder: Path, content: Any) -> Path:
    """Write a card; return the path of its weights file, which does not exist."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / "pets.json").write_bytes(text)
    return folder / "pets.weights.h5"


@pytest.mark.parametrize("config", [MaskRCNNConfig(), MOBILE, SMALL], ids=lambda config: config.backbone)
def test_configs_survive_json(config: MaskRCNNConfig) -> None:
    assert MaskRCNNConfig.from_json(json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize(
    "content", [{}, {"class_names": None, "config": None}, {"origin": {"any": 1}}], ids=str
)
def test_every_field_may_be_missing(tmp_path: Path, content: dict[str, Any]) -> None:
    known = {key: value for key, value in content.items() if value is not None}
    assert read_card(with_card(tmp_path, content)) == known


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("size", "512", r"Expected `int`, got `str` - at `\$.size`"),
        ("size", 512.5, "got `float`"),
        ("size", True, "got `bool`"),
        ("size", None, "got `null`"),
        ("size", 63, ">= 64"),
        ("size", 10**9, "<= 16384"),
        ("num_classes", 1, ">= 2"),
        ("num_classes", 10**12, "<= 10000"),
        ("min_score", 1.5, "<= 1"),
        ("min_score", -0.1, ">= 0"),
        ("detection_iou", [], "Expected `float`"),
        ("proposals", 0, ">= 1"),
        ("pyramid_channels", 10**6, "<= 1024"),
        ("box_units", -1, ">= 1"),
        ("first_level", 9, "<= 5"),
        ("mean_pixel", [1, 2], "length 3"),
        ("mean_pixel", [1, 2, 300], r"<= 255.* at `\$.mean_pixel\[2\]`"),
        ("anchor_scales", [], "length >= 1"),
        ("anchor_ratios", [0.5, 0], "> 0"),
        ("anchor_octaves", "11", "Expected `array`"),
        ("backbone", "resnet49", "Invalid enum value 'resnet49'"),
        ("backbone", "csp-darknet-nano", "first stage rpn does not fit"),
        ("first_stage", "yolox", "first stage yolox does not fit"),
        ("mask_scoring", 1, "Expected `bool`"),
        ("colour", 1, "Unknown field 'colour'"),
    ],
)
def test_a_field_of_the_config(tmp_path: Path, field: str, value: Any, reason: str) -> None:
    path = with_card(tmp_path, {"config": asdict(MOBILE) | {field: value}})
    with pytest.raises(WeightsError, match=rf"card .*pets.json is invalid: .*{reason}"):
        read_card(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"\xff\xfe", "malformed"),
        (b'{"class_names": NaN}', "malformed"),
        (b'{"measured": 1e999}', "out of range"),
        (b"[" * 10**6, "."),
        (b'{"a":' * 10**6, "recursion"),
        ([], "Expected `object`"),
        ({"config": []}, r"Expected `object`, got `array` - at `\$.config`"),
        ({"sha256": "abc"}, "matching regex"),
        ({"sha256": 5}, "Expected `str`"),
        ({"class_names": "cat"}, "Expected `array`"),
        ({"class_names": ["background", 5]}, r"got `int` - at `\$.class_names\[1\]`"),
        ({"class_names": ["background", ""]}, "1 to 100 characters, got ''"),
        ({"class_names": ["background", "x" * 101]}, "1 to 100 characters"),
        ({"class_names": ["background", "a\x1b[31m"]}, "control characters"),
        ({"class_names": ["background", " cat"]}, "spaces at its ends"),
        ({"class_names": ["background", "cat", "Cat"]}, "'Cat' occurs twice"),
        (b'{"class_names": ["background", "\\ud800"]}', "."),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_card_that_is_damaged(tmp_path: Path, content: Any, reason: str) -> None:
    with pytest.raises(WeightsError, match=rf"card .*pets.json is invalid: .*{reason}"):
        read_card(with_card(tmp_path, content))


@pytest.fixture
def saved(tiny: "MaskRCNN", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIVE_SEG_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "pets.weights.h5"
    save(tiny, NAMES, path, {"origin": "a test"})
    return path


@pytest.mark.parametrize("engine", ["keras", "keras-float16", "openvino", "openvino-int8"])
def test_zeros_in_the_weights_are_noticed_by_every_engine(
    saved: Path, tiny_converted: Path, engine: EngineName
) -> None:
    def copy(folder: Path) -> None:
        shutil.copytree(tiny_converted, folder, dirs_exist_ok=True)

    store.keep(resolve(saved), "float32", copy)
    store.keep(resolve(saved), "int8", copy)
    content = bytearray(saved.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 10_000] = bytes(10_000)
    saved.write_bytes(content)
    with pytest.raises(
        WeightsError, match=r"pets.weights.h5 is damaged, or pets.json is the card of another"
    ):
        load(saved, engine=engine)


def test_zeros_in_a_converted_network_are_noticed(
    saved: Path, tiny_converted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def copy(folder: Path) -> None:
        shutil.copytree(tiny_converted, folder, dirs_exist_ok=True)

    kept = store.keep(resolve(saved), "float32", copy)
    assert store.find(resolve(saved), "float32") == kept
    content = bytearray((kept / "trunk.bin").read_bytes())
    content[5000:6000] = bytes(1000)
    (kept / "trunk.bin").write_bytes(content)
    assert store.find(resolve(saved), "float32") is None
    assert "trunk.bin is damaged and will not be used" in caplog.text
    (kept / "trunk.bin").unlink()
    assert store.find(resolve(saved), "float32") is None


@pytest.mark.parametrize("damage", ["missing", "nested", "one file"])
def test_a_converted_network_without_valid_digests_is_not_used(
    saved: Path, tiny_converted: Path, damage: str
) -> None:
    def copy(folder: Path) -> None:
        shutil.copytree(tiny_converted, folder, dirs_exist_ok=True)

    kept = store.keep(resolve(saved), "float32", copy)
    about = json.loads((kept / store.SOURCE).read_text(encoding="utf-8"))
    if damage == "one file":
        del about["sha256"]["trunk.bin"]
    else:
        del about["sha256"]
    text = "[" * 10**6 if damage == "nested" else json.dumps(about)
    (kept / store.SOURCE).write_text(text, encoding="utf-8")
    assert store.find(resolve(saved), "float32") is None


@pytest.mark.usefixtures("_built_once")
@pytest.mark.parametrize("value", [np.nan, pytest.param(np.inf, marks=pytest.mark.slow)])
def test_weights_that_are_not_finite(saved: Path, tiny: "MaskRCNN", value: float) -> None:
    with h5py.File(saved, "r+") as file:
        arrays: list[h5py.Dataset] = []
        file.visititems(lambda _, item: arrays.append(item) if isinstance(item, h5py.Dataset) else None)
        arrays[len(arrays) // 2][...] = value
    with pytest.raises(WeightsError, match=r"pets.weights.h5 is damaged: .* contains NaN or infinity"):
        read_network(saved, replace(tiny.config))


def test_names_without_a_card_are_cocos_in_the_order_of_the_file() -> None:
    assert class_names(Path("mask_rcnn_coco.h5"), 81, {}) == COCO_CLASSES
    assert class_names(Path("maskrcnn.pth"), 91, {}) == COCO_CATEGORIES
    assert class_names(Path("other.h5"), 91, {})[90] == "class 90"
    assert class_names(Path("other.pth"), 3, {}) == ("background", "class 1", "class 2")


def test_a_card_has_the_name_of_its_weights() -> None:
    for name in ("pets.weights.h5", "pets.h5", "pets.pth"):
        assert card_of(Path("a") / name) == Path("a/pets.json")
