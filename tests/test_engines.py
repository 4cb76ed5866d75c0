"""Engines: selection in NumPy, conversion, quantization, the cache of converted networks, memory."""

import json
import logging
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import openvino
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from numpy.typing import NDArray

from live_seg.engines.engine import Engine, Found, Pixels, Prepared
from live_seg.engines.keras import KerasEngine
from live_seg.engines.openvino import cache as store
from live_seg.engines.openvino import quantize as quantization
from live_seg.engines.openvino import two_stage
from live_seg.engines.openvino.boxes import by_level
from live_seg.engines.openvino.convert import convert
from live_seg.engines.openvino.engine import OpenVINOEngine
from live_seg.engines.openvino.nms import best_first, top_k
from live_seg.engines.openvino.two_stage import TwoStage
from live_seg.engines.spec import ModelSpec
from live_seg.errors import UsageError, WeightsError
from live_seg.maskrcnn.model import MaskRCNN
from live_seg.maskrcnn.ops import devices, out_of_memory
from live_seg.maskrcnn.roi import Detections, select
from live_seg.models.card import read_card
from live_seg.segmenter import Segmenter
from live_seg.types import Image
from tests.clips import names
from tests.marks import slow
from tests.stand_ins import ROOT, TINY


def prepared(seed: int, canvas: tuple[int, int] = (64, 64)) -> Prepared:
    """Coloured squares of 8 pixels that leave a margin at the bottom."""
    squares = np.random.default_rng(seed).integers(0, 255, (canvas[0] // 8, canvas[1] // 8, 3), np.uint8)
    picture = squares.repeat(8, axis=0).repeat(8, axis=1)
    picture[-8:] = 0
    return picture, np.array([0, 0, 1 - 8 / canvas[0], 1], np.float32)


def batch(count: int, canvas: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    pictures, windows = zip(*(prepared(seed, canvas) for seed in range(count)), strict=True)
    return np.stack(pictures), np.stack(windows)


def assert_well_formed(found: Found, masks: NDArray[np.float32]) -> None:
    assert masks.shape == (len(found.rows), 28, 28)
    for values in (found.boxes, found.scores, masks):
        assert values.dtype == np.float32
        assert np.all((values >= 0) & (values <= 1))
    assert np.all(found.class_ids > 0)


class TestSuppression:
    @given(
        seed=st.integers(0, 2**32 - 1),
        count=st.sampled_from([1, 7, 30]),
        classes=st.integers(1, 4),
        keep=st.sampled_from([1, 3, 40]),
        min_score=st.sampled_from([0.0, 0.4, 1.0]),
        max_iou=st.sampled_from([0.0, 0.3, 0.7]),
    )
    def test_is_that_of_the_network(
        self, seed: int, count: int, classes: int, keep: int, min_score: float, max_iou: float
    ) -> None:
        rng = np.random.default_rng(seed)
        corners = rng.uniform(0, 0.7, (count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(0, 0.6, (count, 2))], axis=1, dtype=np.float32)
        class_ids = rng.integers(0, classes + 1, count).astype(np.int32)
        scores = (rng.permutation(count) / count).astype(np.float32)  # all different
        limits: dict[str, Any] = {"keep": keep, "min_score": min_score, "max_iou": max_iou}
        kept = best_first(boxes, class_ids, scores, **limits)
        theirs = select(
            Detections(*(ops.convert_to_tensor(part[None]) for part in (boxes, class_ids, scores))), **limits
        )
        expected = [np.asarray(ops.convert_to_numpy(part))[0] for part in theirs]
        real = expected[1] > 0
        assert len(kept) == real.sum()
        for ours, padded in zip((boxes, class_ids, scores), expected, strict=True):
            np.testing.assert_array_equal(ours[kept], padded[real])

    def test_of_nothing(self) -> None:
        nothing = np.empty((0, 4), np.float32), np.empty(0, np.int32), np.empty(0, np.float32)
        kept = best_first(*nothing, keep=5, min_score=0.0, max_iou=0.5)
        assert kept.tolist() == []
        assert kept.dtype == np.intp

    @given(scores=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=12), count=st.integers(1, 15))
    def test_of_equal_scores_the_first_come_first(self, scores: list[float], count: int) -> None:
        best = np.argsort(-np.array(scores, np.float32), kind="stable")[:count]
        np.testing.assert_array_equal(top_k(np.array(scores, np.float32), count), best)

    def test_nan_comes_last(self) -> None:
        nan = float("nan")
        assert top_k(np.array([nan, 0.5, nan, nan], np.float32), 2).tolist() == [1, 0]


def assert_both_find_the_same(
    one: Engine, other: Engine, inputs: tuple[NDArray[np.uint8], NDArray[np.float32]]
) -> None:
    (maps, found), (their_maps, theirs) = one.detect(*inputs), other.detect(*inputs)
    assert found.rows.tolist() == theirs.rows.tolist()
    assert set(found.rows.tolist()) == set(range(len(inputs[0])))
    assert found.class_ids.tolist() == theirs.class_ids.tolist()
    np.testing.assert_allclose(found.boxes, theirs.boxes, atol=1e-5)
    np.testing.assert_allclose(found.scores, theirs.scores, atol=1e-5)
    masks, their_masks = one.masks(maps, found), other.masks(their_maps, theirs)
    np.testing.assert_allclose(masks, their_masks, atol=1e-4)
    assert_well_formed(theirs, their_masks)


class TestConversion:
    @pytest.mark.usefixtures("untraced")
    def test_finds_what_keras_finds(self, tiny: MaskRCNN, tiny_converted: Path) -> None:
        engines = KerasEngine(tiny), OpenVINOEngine(tiny_converted, tiny.config)
        for count, canvas in ((3, (64, 64)), (1, (32, 64)), (2, (64, 64))):
            assert_both_find_the_same(*engines, batch(count, canvas))

    @pytest.mark.usefixtures("untraced")
    @pytest.mark.parametrize("most", [slow(1), 7])
    def test_regions_in_parts(
        self, tiny: MaskRCNN, tiny_converted: Path, monkeypatch: pytest.MonkeyPatch, most: int
    ) -> None:
        monkeypatch.setattr(two_stage, "REGIONS_AT_ONCE", most)
        assert_both_find_the_same(
            KerasEngine(tiny), OpenVINOEngine(tiny_converted, tiny.config), batch(2, (64, 64))
        )

    @pytest.mark.usefixtures("untraced")
    def test_network_with_one_class_per_region(
        self, tiny: MaskRCNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tiny, "config", replace(tiny.config, every_class=False))
        convert(tiny, tmp_path)
        assert_both_find_the_same(
            KerasEngine(tiny), OpenVINOEngine(tmp_path, tiny.config), batch(2, (64, 64))
        )

    def test_needs_tensorflow(self, tiny: MaskRCNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
        with pytest.raises(UsageError, match="Got jax: unset KERAS_BACKEND"):
            convert(tiny, tmp_path)
        assert names(tmp_path) == []

    @pytest.mark.parametrize(
        ("words", "raised"),
        [("Converting input model\nKeyboardInterrupt: <EMPTY>", KeyboardInterrupt), ("no", RuntimeError)],
    )
    def test_interrupted(
        self,
        tiny: MaskRCNN,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        words: str,
        raised: type[BaseException],
    ) -> None:
        def fail(_: Any) -> None:
            raise RuntimeError(words)

        monkeypatch.setattr(openvino, "convert_model", fail)
        with pytest.raises(raised):
            convert(tiny, tmp_path)

    @pytest.mark.parametrize("part", TwoStage.PARTS)
    def test_damaged_models(self, tiny_converted: Path, tmp_path: Path, part: str) -> None:
        for file in tiny_converted.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / f"{part}.bin").write_bytes(b"")
        with pytest.raises(WeightsError, match=r"is damaged. Delete that folder"):
            OpenVINOEngine(tmp_path, TINY)


def test_the_inputs_of_each_part_are_kept(tiny: MaskRCNN, tiny_converted: Path) -> None:
    """Calibration uses them: memory reused in the meantime would spoil the int8 form."""
    engine = OpenVINOEngine(tiny_converted, tiny.config)
    picture, window = prepared(0)
    maps, found = engine.detect(picture[None], window[None])
    engine.masks(maps, found)
    boxes, class_ids = found.boxes.copy(), found.class_ids.copy()
    del found
    reused = [np.full((1, n, 4), np.nan, np.float32) for n in range(1, tiny.config.candidates + 1)]
    np.testing.assert_array_equal(engine.given(maps, "trunk")[0], picture[None])
    levels = len(tiny.config.anchor_scales) - 1 + tiny.config.finer_levels
    regions = np.concatenate(engine.given(maps, "heads")[levels:])
    assert regions.shape == (tiny.config.proposals, 4)
    assert np.all((regions >= 0) & (regions <= 1))
    *given_boxes, given_ids = engine.given(maps, "masks")[levels:]
    expected, order = by_level(boxes, (64, 64), levels, tiny.config)
    assert sum(map(len, expected)) == len(boxes)
    for mine, theirs in zip(given_boxes, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(given_ids, class_ids[order])
    assert np.isnan(reused[0]).all()


def operations(path: Path) -> set[str]:
    return {operation.get_type_name() for operation in openvino.Core().read_model(path).get_ops()}


@pytest.fixture(scope="module")
def in_int8(tiny: MaskRCNN, tiny_converted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    quantization.quantize(tiny_converted, tiny.config, [prepared(seed) for seed in range(4)], folder)
    return folder


class TestQuantization:
    def test_all_parts_are_there_and_in_int8(self, in_int8: Path, tiny_converted: Path) -> None:
        assert names(in_int8) == sorted(
            f"{part}.{kind}" for part in TwoStage.PARTS for kind in ("bin", "xml")
        )
        for part in TwoStage.PARTS:
            assert "FakeQuantize" in operations(in_int8 / f"{part}.xml")
        assert (in_int8 / "trunk.bin").stat().st_size < (tiny_converted / "trunk.bin").stat().st_size / 2

    def test_the_device_names_the_precision(self, in_int8: Path, tiny_converted: Path) -> None:
        assert OpenVINOEngine(in_int8, TINY).device.startswith("OpenVINO int8, ")
        assert OpenVINOEngine(tiny_converted, TINY).device.startswith("OpenVINO float32, ")

    @pytest.mark.parametrize("canvas", [(32, 64), slow((64, 64)), slow((96, 64))], ids=str)
    def test_instances_are_well_formed(self, in_int8: Path, tiny: MaskRCNN, canvas: tuple[int, int]) -> None:
        engine = OpenVINOEngine(in_int8, tiny.config)
        maps, found = engine.detect(*batch(2, canvas))
        assert set(found.rows.tolist()) == {0, 1}
        assert_well_formed(found, engine.masks(maps, found))

    def test_where_nothing_is_found_masks_stay_in_float32(
        self, tiny: MaskRCNN, tiny_converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(quantization, "CALIBRATION_SCORE", 1.1)
        quantization.quantize(tiny_converted, tiny.config, [prepared(0)], tmp_path)
        assert "FakeQuantize" not in operations(tmp_path / "masks.xml")


def write(folder: Path) -> None:
    (folder / "trunk.xml").write_text("a model")


def spec_of(weights: Path, **made_of: Any) -> ModelSpec:
    return ModelSpec(weights, TINY, (), card=read_card(weights), made_of=made_of)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "pets.json").write_text(json.dumps({"config": {"size": 64}, "class_names": []}))
    path = tmp_path / "models" / "pets.weights.h5"
    path.write_bytes(b"numbers")
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIVE_SEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


class TestStore:
    def test_a_kept_form_is_found(self, weights: Path, cache: Path) -> None:
        assert store.find(spec_of(weights), "float32") is None
        kept = store.keep(spec_of(weights), "float32", write)
        assert kept.parent == cache
        assert names(kept) == ["source.json", "trunk.xml"]
        assert store.find(spec_of(weights), "float32") == kept

    def test_precisions_and_options_are_kept_apart(self, weights: Path, cache: Path) -> None:
        kept = store.keep(spec_of(weights, num_classes=3), "float32", write)
        assert store.find(spec_of(weights, num_classes=3), "float32") == kept
        assert store.find(spec_of(weights), "float32") is None
        assert store.find(spec_of(weights, num_classes=3), "int8") is None
        assert names(cache) == [kept.name]

    def test_a_stale_form_is_not_found(
        self, weights: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.keep(spec_of(weights), "float32", write)
        assert cache.exists()
        before = weights.read_bytes()
        weights.write_bytes(b"other numbers")
        assert store.find(spec_of(weights), "float32") is None
        weights.write_bytes(before)
        assert store.find(spec_of(weights), "float32") is not None
        card = weights.with_name("pets.json")
        text = card.read_text()
        card.write_text(json.dumps({"config": {"size": 128}}))
        assert store.find(spec_of(weights), "float32") is None
        card.write_text(text.replace("[]", '["cat"]'))  # nothing of the network
        assert store.find(spec_of(weights), "float32") is not None
        monkeypatch.setattr(store, "version", lambda _: "2099.1")
        assert store.find(spec_of(weights), "float32") is None

    @pytest.mark.parametrize("format_", [0, store.FORMATS["rpn"] + 1])
    def test_a_form_in_another_format_is_not_found(
        self, weights: Path, monkeypatch: pytest.MonkeyPatch, format_: int
    ) -> None:
        store.keep(spec_of(weights), "int8", write, beside=True)
        monkeypatch.setitem(store.FORMATS, "rpn", format_)
        assert store.find(spec_of(weights), "int8") is None

    def test_beside_the_weights(self, weights: Path, cache: Path) -> None:
        beside = store.keep(spec_of(weights), "int8", write, beside=True)
        assert beside == weights.with_name("pets-int8")
        assert store.find(spec_of(weights), "int8") == beside
        assert not cache.exists()

    def test_the_cached_form_takes_precedence(self, weights: Path, cache: Path) -> None:
        store.keep(spec_of(weights), "int8", write, beside=True)
        own = store.keep(spec_of(weights), "int8", write)
        assert own.parent == cache
        assert store.find(spec_of(weights), "int8") == own

    @pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()], ids=repr)
    def test_an_interrupted_write_leaves_nothing(
        self, weights: Path, cache: Path, error: BaseException
    ) -> None:
        def break_off(folder: Path) -> None:
            write(folder)
            raise error

        with pytest.raises(type(error)):
            store.keep(spec_of(weights), "float32", break_off)
        assert names(cache) == []
        assert store.find(spec_of(weights), "float32") is None
        kept = store.keep(spec_of(weights), "float32", write)
        with pytest.raises(type(error)):
            store.keep(spec_of(weights), "float32", break_off)
        assert store.find(spec_of(weights), "float32") == kept  # the old one stays

    def test_no_room(self, weights: Path, cache: Path) -> None:
        def fill_up(_: Path) -> None:
            raise OSError(28, "No space left on device")

        with pytest.raises(
            WeightsError, match=r"No space left.*Free disk space, .*LIVE_SEG_CACHE .*or .*keras"
        ):
            store.keep(spec_of(weights), "float32", fill_up)
        assert names(cache) == []

    def test_no_folder_can_be_made(
        self, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("LIVE_SEG_CACHE", str(tmp_path / "file" / "cache"))
        assert store.find(spec_of(weights), "float32") is None
        with pytest.raises(WeightsError, match=r"Cannot keep the converted network in .*file/cache"):
            store.keep(spec_of(weights), "float32", write)
        assert store.compiled_folder() is None

    def test_a_file_in_its_place(self, weights: Path, cache: Path) -> None:
        kept = store.keep(spec_of(weights), "float32", write)
        (kept / "trunk.xml").unlink()
        (kept / "source.json").unlink()
        kept.rmdir()
        kept.touch()
        assert store.find(spec_of(weights), "float32") is None
        with pytest.raises(WeightsError, match="Not a directory"):
            store.keep(spec_of(weights), "float32", write)
        assert names(cache) == [kept.name]

    def test_a_cache_that_cannot_be_written(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert store.compiled_folder() == cache / "compiled"
        assert (cache / "compiled").is_dir()
        monkeypatch.setattr("os.access", lambda *_: False)
        assert store.compiled_folder() is None

    @pytest.mark.parametrize(
        "text", [b"", b"{broken", b"[]", b"{}", b'{"source": 3}', b"\xff\xfe\x00"], ids=repr
    )
    def test_a_damaged_source_file_is_ignored(self, weights: Path, text: bytes) -> None:
        beside = store.keep(spec_of(weights), "int8", write, beside=True)
        (beside / "source.json").write_bytes(text)
        assert store.find(spec_of(weights), "int8") is None
        store.keep(spec_of(weights), "int8", write, beside=True)
        assert store.find(spec_of(weights), "int8") == beside

    def test_two_writers_leave_one_valid_folder(self, weights: Path, cache: Path) -> None:
        start, faults = threading.Barrier(3), []

        def convert_again_and_again() -> None:
            start.wait()
            try:
                for _ in range(30):
                    store.keep(spec_of(weights), "float32", write)
            except WeightsError as error:
                faults.append(error)

        threads = [threading.Thread(target=convert_again_and_again) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []
        found = store.find(spec_of(weights), "float32")
        assert found is not None
        assert names(cache) == [found.name]
        assert names(found) == ["source.json", "trunk.xml"]


class Narrow(Engine):
    """Finds one thing in each picture, as wide as the picture is bright, but takes only `most` at once."""

    def __init__(self, most: int, *, at_masks: bool = False) -> None:
        self.config = TINY
        self.most = most
        self.at_masks = at_masks
        self.tried: list[int] = []

    @property
    def device(self) -> str:
        return "nothing"

    def detect(self, pictures: Pixels, windows: NDArray[np.float32]) -> tuple[Any, Found]:
        assert len(pictures) == len(windows)
        self.tried.append(len(pictures))
        if len(pictures) > self.most and not self.at_masks:
            raise MemoryError("The device has too little memory: OOM.")
        widths = pictures.mean(axis=(1, 2, 3)) / 255
        boxes = np.array([[0, 0, 1, width] for width in widths], np.float32)
        rows = np.arange(len(pictures), dtype=np.int32)
        return None, Found(rows, boxes, np.ones_like(rows), np.full(len(rows), 0.9, np.float32))

    def masks(self, maps: Any, found: Found) -> NDArray[np.float32]:
        assert maps is None
        if len(found.rows) > self.most:
            raise MemoryError("The device has too little memory: OOM.")
        return np.ones((len(found.rows), 28, 28), np.float32)


def grey(level: int) -> Image:
    return np.full((64, 64, 3), level, np.uint8)


LEVELS = (40, 80, 120, 160, 200)


@pytest.mark.parametrize("at_masks", [False, True], ids=["detect", "masks"])
class TestTooLittleMemory:
    def test_batches_are_halved_permanently(self, at_masks: bool, caplog: pytest.LogCaptureFixture) -> None:
        engine = Narrow(2, at_masks=at_masks)
        segment = Segmenter(engine, ("background", "thing"))
        for _ in range(2):
            widths = [float(found.boxes[0, 2]) for found in segment([grey(level) for level in LEVELS])]
            np.testing.assert_allclose(widths, [64 * level / 255 for level in LEVELS], atol=1)
        assert engine.tried == [5, 2, 2, 1, 2, 2, 1]
        assert caplog.record_tuples == [
            (
                "live_seg.segmenter",
                logging.WARNING,
                "Out of memory with a batch of 5 images: using smaller batches.",
            )
        ]

    def test_batches_are_halved_repeatedly(self, at_masks: bool, caplog: pytest.LogCaptureFixture) -> None:
        engine = Narrow(1, at_masks=at_masks)
        found = Segmenter(engine, ("background", "thing"))([grey(level) for level in LEVELS])
        assert [len(instances) for instances in found] == [1] * 5
        assert engine.tried == [5, 2, 1, 1, 1, 1, 1]
        assert len(caplog.records) == 1

    def test_for_one_picture(self, at_masks: bool) -> None:
        segment = Segmenter(Narrow(0, at_masks=at_masks), ("background", "thing"))
        with pytest.raises(MemoryError, match="too little memory"):
            segment([grey(level) for level in LEVELS])


class ResourceExhaustedError(Exception):
    """Bears the name of TensorFlow's."""


class TestOutOfMemory:
    @pytest.mark.parametrize(
        "error", [ResourceExhaustedError("OOM"), RuntimeError("RESOURCE_EXHAUSTED: Out of memory")], ids=repr
    )
    def test_becomes_a_memory_error(self, error: Exception) -> None:
        with pytest.raises(MemoryError, match="The device has too little memory: ") as told, out_of_memory():
            raise error
        assert told.value.__cause__ is error

    @pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), MemoryError()], ids=repr)
    def test_other_errors_are_unchanged(self, error: BaseException) -> None:
        with pytest.raises(type(error)) as told, out_of_memory():
            raise error
        assert told.value is error


@pytest.mark.parametrize(
    ("there", "told"),
    [
        (["cpu:0"], "CPU"),
        (["cpu:0", "gpu:0"], "GPU"),
        (["gpu:0", "gpu:1"], "2 x GPU"),
        ([], "CPU"),
    ],
)
def test_devices(monkeypatch: pytest.MonkeyPatch, there: list[str], told: str) -> None:
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: there)
    assert devices() == told


def run_python(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
def test_ctrl_c_is_safe_after_openvino_is_released(tiny_converted: Path, tmp_path: Path) -> None:
    program = f"""
import gc, os, signal, time
from pathlib import Path
import numpy as np
from live_seg.engines.openvino.engine import OpenVINOEngine
from live_seg.engines.openvino.quantize import quantize
from tests.stand_ins import TINY
picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
pictures = [(picture, np.array([0, 0, 1, 1], np.float32))] * 2
quantize(Path({str(tiny_converted)!r}), TINY, pictures, Path({str(tmp_path)!r}))
gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    print("heard")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["heard"])


@pytest.mark.slow
def test_no_telemetry_is_sent(tmp_path: Path) -> None:
    """A stand-in for OpenVINO's telemetry says whether it is imported, and sends nothing."""
    (tmp_path / "openvino_telemetry.py").write_text('print("imported")\nraise ImportError\n')
    program = "import openvino, openvino.tools.ovc, nncf"
    start = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    assert run_python(f"{start}; import live_seg.engines.openvino; {program}") == ""
    assert "imported" in run_python(f"{start}; {program}"), "the stand-in is where OpenVINO looks"
