"""Loading: names and files to specs, specs to engines; the bundled model without Keras."""

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from matplotlib import cbook

from live_seg.choices import EngineName
from live_seg.engines import auto, processor, table
from live_seg.engines.keras import KerasEngine
from live_seg.engines.openvino import cache as store
from live_seg.engines.openvino.engine import OpenVINOEngine
from live_seg.engines.openvino.forms import converted
from live_seg.errors import UsageError, WeightsError
from live_seg.files import read_image
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.maskrcnn.model import MaskRCNN
from live_seg.models import registry
from live_seg.models.download import find
from live_seg.models.load import load, quantized
from live_seg.models.registry import Weights
from live_seg.models.spec import resolve
from live_seg.training.checkpoint import save
from live_seg.types import Image, Instances
from tests.conftest import is_quick
from tests.stand_ins import ROOT

NAMES = ("background", "cat", "dog")
GRACE = Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))


@pytest.fixture(scope="module")
def saved(tiny: MaskRCNN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "pets.weights.h5"
    save(tiny, NAMES, path, {"origin": "a test"})
    return path


@pytest.fixture(autouse=True)
def read(tiny: MaskRCNN, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """No network is built: `tiny` is there already. Returns the files that would have been read."""
    asked: list[Path] = []

    def read_network(path: Path, config: MaskRCNNConfig, _dtype: str = "float32") -> MaskRCNN:
        asked.append(path)
        monkeypatch.setattr(tiny, "config", config)
        return tiny

    for module in ("live_seg.engines.keras", "live_seg.maskrcnn.checkpoint"):
        monkeypatch.setattr(f"{module}.read_network", read_network)
    return asked


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one."""
    monkeypatch.setenv("LIVE_SEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "Path", machine_with())
    monkeypatch.setattr(auto, "has_fast_int8", lambda: True)


@pytest.fixture
def int8(saved: Path, tiny_converted: Path, cache: Path) -> Path:
    """Stands where the int8 form would: which numbers are in it does not matter for choosing it."""
    assert not cache.exists()
    return store.keep(resolve(saved), "int8", copying(tiny_converted))


def copying(source: Path) -> Callable[[Path], None]:
    def copy(folder: Path) -> None:
        for file in source.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())

    return copy


def machine_with(*devices: str) -> type[Path]:
    """A Path that sees these files in /dev."""

    class Seen(type(Path())):  # type: ignore[misc]
        def glob(self, pattern: str, **how: Any) -> Any:
            if str(self) != "/dev":
                return super().glob(pattern, **how)
            return iter([Path("/dev", name) for name in devices if Path(name).match(pattern)])

    return Seen


def lacking(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    monkeypatch.setattr(table, "find_spec", lambda name: None if name in packages else find_spec(name))


def picture(height: int = 64, width: int = 64) -> Image:
    squares = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return squares.repeat(8, axis=0).repeat(8, axis=1)


def folders_of_engines(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of the models of every OpenVINOEngine made from now on."""
    folders: list[Path] = []
    make = OpenVINOEngine.__init__

    def noted(self: OpenVINOEngine, folder: Path, config: MaskRCNNConfig, **how: Any) -> None:
        folders.append(folder)
        make(self, folder, config, **how)

    monkeypatch.setattr(OpenVINOEngine, "__init__", noted)
    return folders


@pytest.mark.usefixtures("no_gpu")
class TestAuto:
    def test_int8_where_that_is(
        self, saved: Path, int8: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chosen = folders_of_engines(monkeypatch)
        assert isinstance(load(saved).engine, OpenVINOEngine)
        assert (chosen, read) == ([int8], [])

    def test_float32_where_that_is_not(
        self, saved: Path, tiny_converted: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert not cache.exists()
        float32 = store.keep(resolve(saved), "float32", copying(tiny_converted))
        chosen = folders_of_engines(monkeypatch)
        assert isinstance(load(saved).engine, OpenVINOEngine)
        assert chosen == [float32]

    @pytest.mark.usefixtures("int8")
    def test_float32_on_a_cpu_without_fast_int8(
        self, saved: Path, tiny_converted: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        float32 = store.keep(resolve(saved), "float32", copying(tiny_converted))
        monkeypatch.setattr(auto, "has_fast_int8", lambda: False)
        chosen = folders_of_engines(monkeypatch)
        load(saved)
        assert chosen == [float32]

    def test_keras_without_openvino(self, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lacking(monkeypatch, "openvino")
        assert isinstance(load(saved).engine, KerasEngine)

    @pytest.mark.usefixtures("int8")
    def test_keras_when_jax_is_asked_for(self, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KERAS_BACKEND", "jax")
        assert isinstance(load(saved).engine, KerasEngine)

    @pytest.mark.usefixtures("int8")
    @pytest.mark.parametrize(
        ("devices", "listed", "engine"),
        [
            (["nvidia0", "nvidiactl"], [(9, 0)], "Keras float16"),
            (["nvidia0", "nvidiactl"], [], "OpenVINO float32"),  # without CUDA's libraries
            (["dxg"], [(7, 0)], "Keras float16"),  # WSL
            (["nvidia0"], [(6, 1)], "Keras float32"),
            (["nvidia0", "nvidia1"], [(8, 6), (6, 1)], "Keras float32"),
            (["nvidia0"], [None], "Keras float32"),  # a GPU that does not tell
            (["nvidiactl", "video0"], None, "OpenVINO float32"),
        ],
    )
    def test_keras_on_a_gpu_that_tensorflow_can_use(
        self,
        saved: Path,
        monkeypatch: pytest.MonkeyPatch,
        devices: list[str],
        listed: list[tuple[int, int] | None] | None,
        engine: str,
    ) -> None:
        def list_devices(_: str) -> list[tuple[int, int] | None]:
            assert listed is not None, "looked for GPUs, which takes seconds"
            return listed

        def details(ability: tuple[int, int] | None) -> dict[str, Any]:
            return {} if ability is None else {"compute_capability": ability}

        def read_network(_: Path, config: MaskRCNNConfig, dtype: str) -> SimpleNamespace:
            parts = dict.fromkeys(("trunk", "detect", "masks"))
            compute_dtype = keras.DTypePolicy(dtype).compute_dtype
            return SimpleNamespace(config=config, compute_dtype=compute_dtype, variables=[], **parts)

        monkeypatch.setattr("live_seg.engines.keras.read_network", read_network)
        monkeypatch.setattr(auto, "Path", machine_with(*devices))
        monkeypatch.setattr("live_seg.engines.keras.grow_memory", lambda: None)
        monkeypatch.setattr(tf.config, "list_physical_devices", list_devices)
        monkeypatch.setattr(tf.config.experimental, "get_device_details", details)
        assert load(saved).engine.device.startswith(engine)


class TestFastInt8:
    @pytest.mark.parametrize(
        ("machine", "avx512_vnni", "flags", "fast"),
        [
            ("x86_64", True, "", True),
            ("AMD64", True, "", True),
            ("x86_64", False, "flags : fpu avx2 avx_vnni", True),
            ("x86_64", False, "flags : fpu avx2 avx_vnni_int8", False),
            ("x86_64", False, "", False),
            ("arm64", True, "", False),
            ("aarch64", False, "", False),
        ],
    )
    def test_x86_with_vnni(
        self,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        machine: str,
        avx512_vnni: bool,
        flags: str,
        fast: bool,
    ) -> None:
        (tmp_path / "cpuinfo").write_text(f"{flags}\nbugs :\n")
        monkeypatch.setattr(platform, "machine", lambda: machine)
        monkeypatch.setattr(cv2, "checkHardwareSupport", lambda number: avx512_vnni and number == 23)
        monkeypatch.setattr(processor, "Path", lambda path: tmp_path / Path(path).name)
        assert processor.has_fast_int8() == fast

    def test_a_system_without_cpuinfo(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "AMD64")
        monkeypatch.setattr(cv2, "checkHardwareSupport", lambda _: False)
        monkeypatch.setattr(processor, "Path", lambda _: tmp_path / "nowhere")
        assert not processor.has_fast_int8()


class TestTable:
    def test_has_every_engine_that_can_be_chosen(self) -> None:
        assert {"auto", *table.ENGINES} == set(get_args(EngineName))

    def test_every_module_creates_engines(self) -> None:
        for entry in table.ENGINES.values():
            assert callable(import_module(entry.module).create)


class TestRestrictedModel:
    @pytest.fixture(autouse=True)
    def cats(self, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make the weights known as `cats`, restricted to one of their classes."""
        entry = Weights("cats", saved.name, NAMES, "a test", restricted_to=("cat",))
        monkeypatch.setitem(registry.WEIGHTS, "cats", entry)
        monkeypatch.setattr(registry, "BUNDLED_FOLDERS", (saved.parent,))

    @pytest.mark.usefixtures("untraced")
    def test_detects_its_classes_alone(self, saved: Path) -> None:
        images = [picture(32, 64)]
        restricted = load("cats", engine="keras", min_score=0.0)
        assert restricted.class_names == NAMES
        assert set(restricted(images)[0].class_ids.tolist()) == {1}
        assert set(load(saved, engine="keras", min_score=0.0)(images)[0].class_ids.tolist()) == {1, 2}

    def test_resolves_to_ids(self, saved: Path) -> None:
        assert resolve("cats").class_ids == frozenset({1})
        assert resolve("cats", classes=["Cat"]).class_ids == frozenset({1})
        assert resolve("cats", classes=[]).class_ids == frozenset()
        assert resolve(saved).class_ids is None
        for both in (["cat", "dog"], "cat,dog"):
            assert resolve(saved, classes=both).class_ids == frozenset({1, 2})
        assert resolve(saved, classes="dog").class_ids == frozenset({2})

    def test_has_no_other_class(self) -> None:
        with pytest.raises(UsageError, match="no class 'dog'"):
            load("cats", classes=["dog"])


class TestAsked:
    def test_an_unknown_engine(self, saved: Path) -> None:
        with pytest.raises(UsageError, match=r"Unknown engine 'openvno'. Did you mean openvino"):
            load(saved, engine="openvno")  # type: ignore[arg-type]

    @pytest.mark.parametrize("engine", ["openvino", "openvino-int8"])
    def test_openvino_is_not_there(self, saved: Path, monkeypatch: pytest.MonkeyPatch, engine: Any) -> None:
        lacking(monkeypatch, "openvino")
        with pytest.raises(UsageError, match=r"pip install 'live-seg\[openvino\]', or use --engine keras"):
            load(saved, engine=engine)

    @pytest.mark.parametrize("package", ["openvino", "nncf"])
    def test_what_quantizes_is_not_there(
        self, saved: Path, monkeypatch: pytest.MonkeyPatch, package: str
    ) -> None:
        lacking(monkeypatch, package)
        with pytest.raises(UsageError, match=r"not installed: pip install 'live-seg\[openvino\]'"):
            quantized(saved, [picture()])

    def test_no_int8_form(self, saved: Path, cache: Path) -> None:
        assert not cache.exists()
        with pytest.raises(WeightsError, match=r"live-seg optimize --model .*pets.weights.h5 --calibrate"):
            load(saved, engine="openvino-int8")

    def test_calibration_takes_a_picture(self, saved: Path, tiny_converted: Path, cache: Path) -> None:
        assert not cache.exists()
        store.keep(resolve(saved), "float32", copying(tiny_converted))
        with pytest.raises(UsageError, match="at least one image"):
            quantized(saved, iter([]))
        assert store.find(resolve(saved), "int8") is None

    def test_a_form_for_a_network_as_described(
        self, saved: Path, tiny_converted: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
    ) -> None:
        assert not cache.exists()
        copy = copying(tiny_converted)
        monkeypatch.setattr("live_seg.engines.openvino.convert.convert", lambda _, folder: copy(folder))
        monkeypatch.setattr("live_seg.engines.openvino.quantize.quantize", lambda *given: copy(given[-1]))
        form = quantized(saved, [picture()], num_classes=3)
        assert store.find(resolve(saved), "int8") is None
        chosen = folders_of_engines(monkeypatch)
        load(saved, engine="openvino-int8", num_classes=3)
        assert chosen == [form]

    def test_a_cache_that_cannot_be_written_costs_only_time(
        self,
        saved: Path,
        tiny_converted: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("LIVE_SEG_CACHE", str(tmp_path / "file" / "cache"))
        form = tiny_converted
        monkeypatch.setattr(store, "find", lambda *_: form)
        assert len(load(saved, engine="openvino")([picture()])[0])


def assert_same(one: Instances, other: Instances) -> None:
    assert one.class_ids.tolist() == other.class_ids.tolist()
    for column in ("boxes", "masks", "scores"):
        np.testing.assert_allclose(getattr(one, column), getattr(other, column), atol=1e-3, err_msg=column)


class TestConversion:
    def test_happens_once(
        self,
        saved: Path,
        tiny_converted: Path,
        cache: Path,
        read: list[Path],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        assert not cache.exists()
        copy = copying(tiny_converted)
        monkeypatch.setattr("live_seg.engines.openvino.convert.convert", lambda _, folder: copy(folder))
        caplog.set_level("INFO", "live_seg.engines.openvino.forms")
        first = converted(resolve(saved))
        told = [record.getMessage() for record in caplog.records]
        assert told == ["Converting pets.weights.h5 for OpenVINO: takes a moment, once."]
        assert converted(resolve(saved)) == first
        assert isinstance(load(saved, engine="openvino").engine, OpenVINOEngine)
        assert read == [saved]
        assert len(caplog.records) == 1

    @pytest.mark.usefixtures("untraced")
    def test_options_mean_the_same_as_with_keras(
        self,
        saved: Path,
        tiny: MaskRCNN,
        tiny_converted: Path,
        monkeypatch: pytest.MonkeyPatch,
        pytestconfig: pytest.Config,
    ) -> None:
        form, least = tiny_converted, 0.33 if is_quick(pytestconfig) else 0.5
        monkeypatch.setattr(store, "find", lambda *_: form)
        options: dict[str, Any] = {"size": 128, "min_score": least, "layout": "square", "classes": ["dog"]}
        segments = [load(saved, engine=engine, **options) for engine in ("keras", "openvino")]
        found = [segment([picture(32, 64)])[0] for segment in segments]
        assert segments[0].config == segments[1].config
        assert segments[0].class_names == segments[1].class_names == NAMES
        assert 0 < len(found[1]) < tiny.config.detections
        assert set(found[1].class_ids.tolist()) == {2}
        assert np.all(found[1].scores >= least)
        assert_same(*found)


class TestBundledModel:
    @pytest.mark.parametrize("precision", ["float32", "int8"])
    def test_its_forms_are_made_of_these_weights(
        self, cache: Path, precision: Literal["float32", "int8"]
    ) -> None:
        assert not cache.exists()
        path = find("small")
        folder = path.with_name(f"small-{precision}")
        source = json.loads((folder / "source.json").read_text())["source"]
        card = json.loads(path.with_name("small.json").read_text())
        assert source["weights"] == hashlib.sha256(path.read_bytes()).hexdigest() == card["sha256"]
        assert source["card"] == card["config"]
        for name in ("small", "person"):
            assert store.find(resolve(name), precision) == folder

    def test_segments_without_keras(self) -> None:
        program = (
            "import sys, live_seg; from live_seg.engines import auto\n"
            "from live_seg.sources.image_files import read_image; from pathlib import Path\n"
            "auto.gpu_capabilities = list\n"
            f"found = live_seg.load()([read_image(Path({str(GRACE)!r}))])[0]\n"
            "print(len(found) > 0, sorted({'tensorflow', 'keras', 'jax', 'nncf'} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert (done.stdout.strip(), done.stderr) == ("True []", "")

    @pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
    def test_other_engines_find_what_keras_finds(self, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """All engines with graphs if `whole`, else OpenVINO alone and Keras without."""
        monkeypatch.undo()  # the network itself, not the tiny one
        if not whole:
            monkeypatch.setattr("live_seg.engines.keras.compiled", lambda function, _: function)
        portrait = read_image(GRACE)
        size = (portrait.shape[0], portrait.shape[1])
        pictures = [portrait, np.ascontiguousarray(portrait[:, ::-1])][: 2 if whole else 1]
        side = None if whole else 320
        expected = load("person", engine="keras", size=side)(pictures)
        others: tuple[tuple[EngineName, str, float, float], ...] = (
            ("openvino", "OpenVINO float32", 0.99, 0.001),
            ("openvino-int8", "OpenVINO int8", 0.8, 0.15),
            ("keras-float16", "Keras float16", 0.98, 0.01),
        )
        for engine, device, least_iou, atol in others if whole else others[:2]:
            other = load("person", engine=engine, size=side)
            assert other.engine.device.startswith(device)
            for ours, theirs in zip(other(pictures), expected, strict=True):
                assert len(ours) == len(theirs) > 0
                assert ours.class_ids.tolist() == theirs.class_ids.tolist()
                for one, two in zip(ours.bitmaps(size), theirs.bitmaps(size), strict=True):
                    assert (one & two).sum() / (one | two).sum() > least_iou
                np.testing.assert_allclose(ours.scores, theirs.scores, atol=atol)
                assert ours.masks.dtype == ours.boxes.dtype == ours.scores.dtype == np.float32
