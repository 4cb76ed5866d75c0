"""Segmenter with a tiny network: properties that hold whatever the weights."""

import functools
import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import cbook
from numpy.typing import NDArray
from PIL import Image as Pillow

import live_seg
from live_seg.engines.engine import Engine, Found, Pixels
from live_seg.engines.keras import KerasEngine
from live_seg.engines.openvino.engine import OpenVINOEngine
from live_seg.errors import UsageError, WeightsError
from live_seg.files import read_image
from live_seg.maskrcnn.anchors import to_normalized
from live_seg.maskrcnn.model import MaskRCNN
from live_seg.models import spec
from live_seg.models.card import class_names
from live_seg.models.classes import COCO_CLASSES
from live_seg.segmenter import Segmenter, _resized, rescored
from live_seg.timing import NO_TIMER, StageTimer
from live_seg.training.checkpoint import save
from live_seg.types import Image, Instances
from tests import matterport_weights
from tests.conftest import is_quick
from tests.stand_ins import TINY, untraced_engine

OPENVINO_STAGES = ["trunk", "proposals", "heads", "suppression"]


def noting(function: Callable[..., Any], name: str, calls: list[str]) -> Callable[..., Any]:
    def noted(*arguments: Any) -> Any:
        calls.append(name)
        return function(*arguments)

    return noted


load = functools.partial(live_seg.load, engine="keras")

NAMES = ("background", "cat", "dog")
SIZES = ((48, 64), (64, 48), (60, 60), (48, 64), (20, 90))
"""Height and width of five pictures; the fit layout lays them on three different canvases."""


def picture(height: int, width: int, seed: int = 0) -> Image:
    """A picture of coloured squares of 8 pixels."""
    rng = np.random.default_rng([seed, height, width])
    squares = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return squares.repeat(8, axis=0).repeat(8, axis=1)[:height, :width].copy()


WHOLE = np.array([[0, 0, 1, 1]], np.float32)
"""The box of a whole canvas, normalized."""

PICTURES = [picture(*size, seed) for seed, size in enumerate(SIZES)]


def assert_same(one: Instances, other: Instances) -> None:
    assert one.class_ids.tolist() == other.class_ids.tolist()
    for column in ("boxes", "masks", "scores"):
        np.testing.assert_allclose(getattr(one, column), getattr(other, column), atol=1e-4, err_msg=column)


@pytest.fixture(scope="module")
def keras_engine(tiny: MaskRCNN, pytestconfig: pytest.Config) -> KerasEngine:
    """Return one engine for all tests. With the slow tests it has graphs, which take seconds to trace."""
    return untraced_engine(tiny) if is_quick(pytestconfig) else KerasEngine(tiny)


@pytest.fixture(scope="module", params=["keras", "openvino"])
def engine(
    request: pytest.FixtureRequest, keras_engine: KerasEngine, tiny: MaskRCNN, tiny_converted: Path
) -> Engine:
    return keras_engine if request.param == "keras" else OpenVINOEngine(tiny_converted, tiny.config)


@pytest.fixture(scope="module")
def segment(engine: Engine) -> Segmenter:
    return Segmenter(engine, NAMES)


@pytest.fixture(scope="module")
def square(engine: Engine) -> Segmenter:
    return Segmenter(engine, NAMES, layout="square")


@pytest.fixture(scope="module")
def alone(segment: Segmenter) -> list[Instances]:
    """What is found in each picture when it comes by itself."""
    return [segment([image])[0] for image in PICTURES]


class TestPictures:
    def test_no_picture(self, segment: Segmenter) -> None:
        assert segment([]) == []

    def test_something_is_found_in_each(self, alone: list[Instances]) -> None:
        assert all(len(instances) for instances in alone)
        assert {class_id for found in alone for class_id in found.class_ids.tolist()} == {1, 2}

    def test_what_is_found_is_well_formed(self, alone: list[Instances]) -> None:
        for found, (height, width) in zip(alone, SIZES, strict=True):
            assert np.all(found.boxes >= 0)
            assert np.all(found.boxes[:, 2:] <= [width, height])
            assert np.all(np.rint(found.boxes[:, 2:]) > np.rint(found.boxes[:, :2]))
            assert np.all(np.diff(found.scores) <= 0)
            assert np.all((found.scores > 0) & (found.scores <= 1))
            assert np.all((found.masks >= 0) & (found.masks <= 1))
            assert found.masks.shape[1:] == (28, 28)
            types = [getattr(found, c).dtype for c in ("boxes", "masks", "class_ids", "scores")]
            assert types == [np.float32, np.float32, np.int32, np.float32]
            assert found.bitmaps((height, width)).shape == (len(found), height, width)

    def test_mixed_sizes_come_back_in_order(self, segment: Segmenter, alone: list[Instances]) -> None:
        for found, by_itself in zip(segment(PICTURES), alone, strict=True):
            assert_same(found, by_itself)

    @pytest.mark.parametrize("order", [(3, 0), (0, 3), (0, 0, 3), (3, 0, 0, 3)])
    def test_companions_change_nothing(
        self, segment: Segmenter, alone: list[Instances], order: tuple[int, ...]
    ) -> None:
        for found, position in zip(segment([PICTURES[i] for i in order]), order, strict=True):
            assert_same(found, alone[position])

    def test_one_picture_gives_one_result(self, segment: Segmenter, alone: list[Instances]) -> None:
        assert_same(segment(PICTURES[0]), alone[0])
        for several in (np.stack([PICTURES[0]] * 2), (PICTURES[0], PICTURES[0])):
            found = segment(several)
            assert isinstance(found, list)
            for one in found:
                assert_same(one, alone[0])
        with pytest.raises(UsageError, match=r"Got a Pillow image\. Convert it: live_seg.from_rgb"):
            segment(Pillow.new("RGB", (4, 4)))  # type: ignore[call-overload]

    def test_pictures_are_left_as_they_are(self, segment: Segmenter) -> None:
        image = PICTURES[0].copy()
        image.flags.writeable = False
        segment([image])

    def test_one_graph_for_each_canvas_not_for_each_number(
        self, tiny: MaskRCNN, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        traced: list[str] = []
        for name in ("trunk", "detect", "masks"):
            monkeypatch.setattr(tiny, name, noting(getattr(tiny, name), name, traced))
        segment = Segmenter(KerasEngine(tiny), NAMES)
        for count in (2, 1, 3, 1, 2):
            assert len(segment([PICTURES[0]] * count)) == count
        assert traced == ["trunk", "detect", "masks"]

    def test_a_timer_sees_every_stage(self, segment: Segmenter) -> None:
        timer = StageTimer()
        segment.engine.timer = timer
        try:
            segment(PICTURES[:1])
        finally:
            segment.engine.timer = NO_TIMER
        until_masks = ["trunk", "heads"] if isinstance(segment.engine, KerasEngine) else OPENVINO_STAGES
        assert list(timer.lap()) == ["prepare", *until_masks, "masks", "to pixels"]

    @pytest.mark.parametrize(
        "image",
        [
            np.zeros((10, 10), np.uint8),
            np.zeros((10, 10, 4), np.uint8),
            np.zeros((10, 10, 3), np.float32),
            np.zeros((0, 10, 3), np.uint8),
            np.zeros((1, 10, 10, 3), np.uint8),
        ],
        ids=lambda image: f"{image.shape} {image.dtype}",
    )
    def test_what_is_no_picture(self, segment: Segmenter, image: Any) -> None:
        with pytest.raises(UsageError, match=r"BGR images \(H, W, 3\) uint8"):
            segment([PICTURES[0], image])

    @settings(max_examples=5, deadline=None)
    @given(height=st.integers(1, 200), width=st.integers(1, 200))
    def test_square_takes_any_size(self, square: Segmenter, height: int, width: int) -> None:
        found = square([picture(height, width)])[0]
        assert np.all(found.boxes >= 0)
        assert np.all(found.boxes[:, 2:] <= [width, height])

    @pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2), (2000, 1500)])
    def test_fit_takes_any_shape(self, segment: Segmenter, size: tuple[int, int]) -> None:
        found = segment([picture(*size)])[0]
        assert np.all(found.boxes[:, 2:] <= [size[1], size[0]])


@pytest.mark.parametrize("times", [1.05, 1.7, 2, 3, 5, 12])
def test_shrinking_averages(times: float) -> None:
    photo = np.asarray(cv2.imread(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)), np.uint8)
    height, width = (round(side / times) for side in photo.shape[:2])
    expected = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA).astype(np.float64)
    assert np.abs(_resized(photo, height, width) - expected).mean() < 1.5


@given(size=st.tuples(st.integers(1, 90), st.integers(1, 90)), level=st.integers(0, 255))
def test_resizing_to_any_size(size: tuple[int, int], level: int) -> None:
    resized = _resized(np.full((30, 40, 3), level, np.uint8), *size)
    assert resized.shape == (*size, 3)
    assert np.all(resized == level)


class FixedEngine(Engine):
    """Finds `boxes` (N, 4), normalized, in every image; the score is the image's brightness.

    Has memory for `limit` images at a time. Appends the number of images of each call to `calls`.
    """

    def __init__(self, boxes: NDArray[np.float32] = WHOLE, limit: int = 100) -> None:
        self.config = TINY
        self.boxes = boxes
        self.limit = limit
        self.calls: list[int] = []

    @property
    def device(self) -> str:
        return "none"

    def detect(self, images: Pixels, _: NDArray[np.float32]) -> tuple[None, Found]:
        self.calls.append(len(images))
        if len(images) > self.limit:
            raise MemoryError
        rows = np.repeat(np.arange(len(images), dtype=np.int32), len(self.boxes))
        scores = images[rows, 0, 0, 0].astype(np.float32) / 255
        boxes = np.tile(self.boxes, (len(images), 1))
        return None, Found(rows, boxes, np.ones(len(rows), np.int32), scores)

    def masks(self, _: None, found: Found) -> NDArray[np.float32]:
        return np.ones((len(found.rows), 28, 28), np.float32)


def test_boxes_without_a_whole_pixel_are_dropped() -> None:
    """As in Matterport's code, which rounds the corners first."""
    kept: list[list[float]] = [[10, 10, 20, 20], [10.4, 10.4, 10.6, 10.6]]
    dropped: list[list[float]] = [
        [10, 30, 20, 30],
        [10.1, 10, 10.4, 20],
        [10, 9.6, 20, 10.4],
        [30, 40, 20, 50],
    ]
    pixels = np.array([kept[0], *dropped, kept[1]], np.float32)
    segment = Segmenter(FixedEngine(to_normalized(pixels, (64, 64))), NAMES)
    (found,) = segment([picture(64, 64)])
    np.testing.assert_allclose(found.boxes[:, [1, 0, 3, 2]], kept, atol=1e-4)


def masks_of(*levels: float) -> NDArray[np.float32]:
    """Return masks whose upper half has one level each, below 0.5 in the lower half."""
    masks = np.full((len(levels), 28, 28), 0.49, np.float32)
    masks[:, :14] = np.array(levels, np.float32)[:, None, None]
    return masks


def detections(rows: list[int], scores: list[float]) -> Found:
    """Return detections with boxes and class ids of their own."""
    count = len(rows)
    boxes = np.arange(4 * count, dtype=np.float32).reshape(count, 4)
    class_ids = np.arange(1, count + 1, dtype=np.int32)
    return Found(np.array(rows, np.int32), boxes, class_ids, np.array(scores, np.float32))


class TestMaskScoring:
    def test_scores_are_multiplied_by_the_mean_probability_inside_the_mask(self) -> None:
        masks = masks_of(0.9)
        masks[0, :7] = 0.5  # belongs to the inside
        found, kept = rescored(detections([0], [0.8]), masks, 0.0)
        assert found.scores.dtype == np.float32
        assert found.scores.tolist() == pytest.approx([0.8 * 0.7])
        np.testing.assert_array_equal(kept, masks)

    def test_the_best_of_each_image_come_first_and_keep_their_boxes_and_masks(self) -> None:
        given, masks = detections([0, 0, 0, 1, 1], [0.9, 0.8, 0.7, 0.9, 0.6]), masks_of(0.5, 0.9, 0, 0.6, 1)
        found, kept = rescored(given, masks, 0.0)
        assert found.scores.tolist() == pytest.approx([0.72, 0.45, 0, 0.6, 0.54])
        order = [1, 0, 2, 4, 3]
        assert found.rows.tolist() == [0, 0, 0, 1, 1]
        np.testing.assert_array_equal(found.boxes, given.boxes[order])
        np.testing.assert_array_equal(found.class_ids, given.class_ids[order])
        np.testing.assert_array_equal(kept, masks[order])

    def test_detections_below_the_threshold_are_dropped(self) -> None:
        given, masks = detections([0, 0, 2], [0.9, 1.0, 0.6]), masks_of(0.55, 0.5, 1)
        found, kept = rescored(given, masks, 0.5)
        assert found.rows.tolist() == [0, 2]
        assert found.scores.tolist() == pytest.approx([0.5, 0.6])
        np.testing.assert_array_equal(found.boxes, given.boxes[[1, 2]])
        np.testing.assert_array_equal(kept, masks[[1, 2]])

    def test_an_empty_mask_scores_nothing(self) -> None:
        given = detections([0], [1.0])
        assert rescored(given, masks_of(0.49), 0.0)[0].scores.tolist() == [0]
        assert len(rescored(given, masks_of(0.49), 0.01)[0].rows) == 0

    @pytest.mark.parametrize(("mask_scoring", "scores"), [(False, [[0.8], [1.0]]), (True, [[], [0.75]])])
    def test_only_if_the_config_has_it(
        self, monkeypatch: pytest.MonkeyPatch, mask_scoring: bool, scores: list[list[float]]
    ) -> None:
        engine = FixedEngine()
        engine.config = replace(TINY, mask_scoring=mask_scoring, min_score=0.7)
        monkeypatch.setattr(engine, "masks", lambda _, found: masks_of(*[0.75] * len(found.rows)))
        found = Segmenter(engine, NAMES)([np.full((64, 64, 3), level, np.uint8) for level in (204, 255)])
        assert [one.scores.tolist() for one in found] == [pytest.approx(row) for row in scores]


class TestTooLittleMemory:
    def test_batches_are_halved_until_they_fit(self, caplog: pytest.LogCaptureFixture) -> None:
        engine = FixedEngine(limit=3)
        segment = Segmenter(engine, NAMES)
        images = [np.full((64, 64, 3), brightness, np.uint8) for brightness in range(1, 21)]
        found = segment(images)
        assert engine.calls == [16, 8, 4, *[2] * 10]
        np.testing.assert_allclose([255 * one.scores[0] for one in found], range(1, 21), rtol=1e-5)
        assert len(caplog.records) == 1
        assert "Out of memory with a batch of 16 images" in caplog.text

        engine.calls.clear()
        assert len(segment(images[:5])) == 5
        assert engine.calls == [2, 2, 1], "the batch size that fits is remembered"

    def test_too_little_for_one_image_raises(self) -> None:
        engine = FixedEngine(limit=0)
        with pytest.raises(MemoryError):
            Segmenter(engine, NAMES)([picture(64, 64)] * 3)
        assert engine.calls == [3, 1]


class TestLayouts:
    def test_square_pads_where_fit_does_not(self, square: Segmenter, segment: Segmenter) -> None:
        assert square._place((20, 90)).canvas == (64, 64)
        assert segment._place((20, 90)).canvas == (32, 64)

    def test_layouts_agree_on_a_square_picture_of_the_networks_size(
        self, square: Segmenter, segment: Segmenter
    ) -> None:
        image = picture(64, 64)
        assert_same(square([image])[0], segment([image])[0])


class TestClasses:
    def test_only_those_wanted(self, engine: Engine, alone: list[Instances]) -> None:
        dogs = Segmenter(engine, NAMES, class_ids={2})
        for found, everything in zip(dogs(PICTURES[:2]), alone, strict=False):
            assert_same(found, everything[everything.class_ids == 2])

    def test_none_wanted(self, engine: Engine) -> None:
        assert len(Segmenter(engine, NAMES, class_ids=())(PICTURES[:1])[0]) == 0


@pytest.fixture(scope="module")
def saved(tiny: MaskRCNN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "pets.weights.h5"
    save(tiny, NAMES, path, {"origin": "a test"})
    return path


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """A copy to be damaged: the weights; their card is `card(copied)`."""
    for file in (saved, card(saved)):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path / saved.name


def card(path: Path) -> Path:
    return path.with_name("pets.json")


def change_card(path: Path, **changes: Any) -> None:
    card(path).write_text(json.dumps(json.loads(card(path).read_text()) | changes))


@pytest.mark.usefixtures("_built_once")
class TestLoad:
    @pytest.mark.usefixtures("untraced")
    def test_what_was_saved_finds_the_same_above_the_least_score(
        self, saved: Path, keras_engine: KerasEngine
    ) -> None:
        everything = Segmenter(keras_engine, NAMES)(PICTURES[:1])[0]
        least = float(everything.scores[1:3].mean())
        segment = load(saved, min_score=least)
        assert segment.class_names == NAMES
        found = segment(PICTURES[:1])[0]
        assert len(found) == 2
        assert_same(found, everything[:2])

    def test_options_override_the_card(self, saved: Path) -> None:
        segment = load(str(saved), size=128, min_score=0.25, layout="square", classes=["cat"])
        assert (segment.config.size, segment.config.min_score) == (128, 0.25)
        assert segment.layout == "square"

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"size": 63}, "63 pixels is too small: at least 64"),
            ({"size": 0}, "too small"),
            ({"size": 100, "layout": "square"}, "multiple of 64. Got 100"),
            ({"layout": "round"}, "Unknown layout 'round': expected fit or exact"),
            ({"min_score": 1.01}, "between 0 and 1. Got 1.01"),
            ({"min_score": -0.1}, "between 0 and 1"),
            ({"min_score": float("nan")}, "between 0 and 1"),
            ({"backbone": "resnet10"}, r"Unknown backbone 'resnet10'. Did you mean resnet101"),
            ({"num_classes": 1}, "at least 2 classes, background included. Got 1"),
            ({"classes": ["car"]}, r"no class 'car'. Did you mean cat\?"),
        ],
    )
    def test_impossible_options(self, saved: Path, options: dict[str, Any], told: str) -> None:
        with pytest.raises(UsageError, match=told):
            load(saved, **options)

    def test_a_size_that_does_not_fit_into_memory(self, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(spec, "available_memory", lambda: 10**9)
        with pytest.raises(UsageError, match=r"input of 50000 pixels needs about 625.0 GB .* at most 1984\."):
            load(saved, size=50_000)
        assert spec.resolve(saved, size=1984).config.size == 1984

    def test_the_fit_layout_takes_a_size_that_is_no_multiple_of_64(self, saved: Path) -> None:
        assert load(saved, size=100)._place((48, 64)).canvas == (96, 128)

    def test_an_unknown_model(self) -> None:
        with pytest.raises(WeightsError, match=r"called 'persn'. Did you mean person\?"):
            load("persn")

    def test_no_card(self, copied: Path) -> None:
        card(copied).unlink()
        with pytest.raises(WeightsError, match=r"needs its model card pets\.json beside it"):
            load(copied)

    def test_a_card_that_cannot_be_read(self, copied: Path) -> None:
        card(copied).unlink()
        card(copied).mkdir()
        with pytest.raises(WeightsError, match=r"card .*pets\.json is invalid: .*Is a directory"):
            load(copied)

    def test_a_card_without_a_config(self, copied: Path) -> None:
        change_card(copied, config=None)
        with pytest.raises(WeightsError, match=r"needs its model card .* with the config"):
            load(copied)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"depth": 3}, "depth"),
            ({"backbone": "vgg"}, "vgg"),
        ],
    )
    def test_a_card_of_another_network(
        self, copied: Path, tiny: MaskRCNN, change: dict[str, Any], told: str
    ) -> None:
        change_card(copied, config=asdict(tiny.config) | change)
        with pytest.raises(WeightsError, match=rf"pets\..*{told}"):
            load(copied)

    def test_weights_of_another_network(self, copied: Path) -> None:
        with h5py.File(copied, "r+") as file:
            values = np.asarray(file["box_head/logits/vars/0"])[:, :-1]
            del file["box_head/logits/vars/0"]
            file["box_head/logits/vars/0"] = values
        change_card(copied, sha256=hashlib.sha256(copied.read_bytes()).hexdigest())
        with pytest.raises(WeightsError, match=r"pets\..*does not fit the network of its model card: "):
            load(copied)

    def test_a_card_that_names_other_classes_than_there_are(self, copied: Path) -> None:
        change_card(copied, class_names=["background", "cat"])
        with pytest.raises(WeightsError, match=r"pets\.json names 2 classes, but .* has 3"):
            load(copied)

    @pytest.mark.parametrize("damage", ["text", "empty", "half", "hole"])
    def test_damaged_weights(self, copied: Path, damage: str) -> None:
        content = copied.read_bytes()
        half = len(content) // 2
        damaged = {
            "text": b"This is no HDF5.",
            "empty": b"",
            "half": content[:half],
            "hole": content[:2000] + bytes(2000) + content[4000:],
        }
        copied.write_bytes(damaged[damage])
        with pytest.raises(WeightsError, match=r"pets\.weights\.h5"):
            load(copied)


@pytest.fixture(scope="module")
def matterports(light_resnet: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    path = tmp_path_factory.mktemp("matterport") / "balloon.h5"
    return matterport_weights.write(path, seed=1, classes=6, backbone="resnet50")


@pytest.mark.usefixtures("_built_once")
class TestMatterportsFiles:
    def test_backbone_and_classes_are_read_from_the_file(self, matterports: Path) -> None:
        segment = load(matterports)
        assert segment.config.backbone == "resnet50"
        assert segment.class_names == ("background", *(f"class {number}" for number in range(1, 6)))

    def test_given_they_must_be_the_files(self, matterports: Path) -> None:
        assert load(matterports, backbone="resnet50", num_classes=6).config.num_classes == 6
        with pytest.raises(WeightsError, match="5 classes"):
            load(matterports, num_classes=5)

    def test_a_card_beside_it_names_the_classes(self, matterports: Path, tmp_path: Path) -> None:
        (tmp_path / "balloon.h5").symlink_to(matterports)
        names = ["background", "red", "green", "blue", "black", "white"]
        (tmp_path / "balloon.json").write_text(json.dumps({"class_names": names}))
        assert load(tmp_path / "balloon.h5", classes=["green"]).class_names == tuple(names)

    def test_no_hdf5(self, tmp_path: Path) -> None:
        path = tmp_path / "model.h5"
        path.write_text("This is no HDF5.")
        with pytest.raises(WeightsError, match=r"model\.h5"):
            load(path)

    def test_81_classes_are_cocos(self) -> None:
        assert class_names(Path("mask_rcnn.h5"), 81, {}) == COCO_CLASSES


class TestPersonModel:
    def test_finds_grace_hopper(self) -> None:
        portrait = read_image(Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
        height, width = portrait.shape[:2]
        segment = live_seg.load("person", size=320, min_score=0.2)
        assert segment.class_names == COCO_CLASSES
        found = segment([portrait])[0]
        assert set(found.class_ids.tolist()) == {1}
        sides = np.minimum(found.boxes[:, 2:], [width, height]) - np.maximum(found.boxes[:, :2], 0)
        assert (sides.prod(axis=1) / (width * height)).max(initial=0) > 0.5


def test_threads_that_share_a_segmenter_take_turns() -> None:
    class Noted(Engine):
        config = TINY
        device = "none"
        busy = overlaps = 0

        def detect(self, *_: Any) -> tuple[Any, Found]:
            self.busy += 1
            self.overlaps += self.busy > 1
            time.sleep(0.01)
            self.busy -= 1
            nothing = np.zeros(0, np.int32)
            return None, Found(nothing, np.zeros((0, 4), np.float32), nothing, np.zeros(0, np.float32))

        def masks(self, *_: Any) -> NDArray[np.float32]:
            raise AssertionError("nothing was found")

    engine = Noted()
    segment = Segmenter(engine, NAMES)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: segment([image]), PICTURES * 4))
    assert [len(instances) for (instances,) in found] == [0] * len(found)
    assert engine.overlaps == 0
