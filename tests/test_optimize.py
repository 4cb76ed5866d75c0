"""`live-seg optimize` with a tiny model and clip, and the message for insufficient memory."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nncf
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from live_seg.cli.main import app
from live_seg.cli.optimize import _evenly_spaced
from live_seg.cli.options import Options
from live_seg.engines import auto, table
from live_seg.engines.openvino import cache as store
from live_seg.engines.openvino.engine import OpenVINOEngine
from live_seg.errors import WeightsError
from live_seg.maskrcnn.model import MaskRCNN
from live_seg.models import load as loading
from live_seg.models.load import load
from live_seg.models.spec import resolve
from live_seg.sources import opening
from live_seg.training.checkpoint import save
from live_seg.types import Frame, Source
from tests.clips import clip, names


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames."""
    return clip(tmp_path_factory.mktemp("clips") / "street.mp4", rate="10", size="64x64")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIVE_SEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


@pytest.fixture
def saved(tiny: MaskRCNN, tiny_converted: Path, tmp_path: Path, cache: Path) -> Path:
    """The tiny model, its float32 form in the cache."""
    path = tmp_path / "pets.weights.h5"
    save(tiny, ("background", "cat", "dog"), path, {"origin": "a test"})

    def write(folder: Path) -> None:
        for file in tiny_converted.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())

    assert store.keep(resolve(path), "float32", write).parent == cache
    return path


@pytest.fixture(autouse=True)
def calibrated_with(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images that each part was quantized with. Quantizes less exactly, but faster."""
    counts: list[int] = []
    quantize = nncf.quantize

    def quickly(model: Any, dataset: Any, **how: Any) -> Any:
        counts.append(how["subset_size"])
        return quantize(model, dataset, **how | {"fast_bias_correction": True})

    monkeypatch.setattr(nncf, "quantize", quickly)
    return counts


def invoke(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, ["optimize", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    return result


@pytest.mark.slow
def test_int8_form_is_used_by_auto(
    saved: Path, video: Path, cache: Path, calibrated_with: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = invoke("--model", saved, "--calibrate", video, "--frames", "3")
    form = store.find(resolve(saved), "int8")
    assert form is not None
    assert (result.exit_code, result.stderr) == (0, "")
    message = f"pets.weights.h5 in int8 -> {form}; live-seg now uses it for --engine auto.\n"
    assert result.stdout == message
    assert calibrated_with == [3, 3, 3]
    float32 = store.find(resolve(saved), "float32")
    assert float32 is not None
    assert set(names(cache)) == {"compiled", float32.name, form.name}
    monkeypatch.setattr(auto, "gpu_capabilities", list)
    monkeypatch.setattr(auto, "has_fast_int8", lambda: True)
    engine = load(saved).engine
    assert isinstance(engine, OpenVINOEngine)
    assert engine.device.startswith("OpenVINO int8")
    found = load(saved)([np.zeros((64, 64, 3), np.uint8)])[0]
    assert len(found)
    assert np.isfinite(found.masks).all()


def test_quiet_prints_nothing(saved: Path, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy(*_: Any, **__: Any) -> Path:
        print("Statistics collection 100%")
        return saved.parent

    monkeypatch.setattr(loading, "quantized", noisy)
    assert invoke("--model", saved, "--calibrate", video, "--quiet").output == ""
    done = invoke("--model", saved, "--calibrate", video)  # to no terminal
    assert done.stdout.startswith("pets.weights.h5 in int8 -> ")
    assert done.stderr == ""


def test_calibration_video_is_required() -> None:
    result = invoke()
    assert result.exit_code == 2
    assert "--calibrate" in result.stderr


def test_missing_video(saved: Path) -> None:
    result = invoke("--model", saved, "--calibrate", "nowhere.mp4")
    assert result.exit_code == 3
    assert "nowhere.mp4" in result.stderr


def test_unknown_model(video: Path) -> None:
    result = invoke("--model", "prson", "--calibrate", video)
    assert result.exit_code == 4
    assert "Did you mean person?" in result.stderr


@pytest.mark.parametrize("package", ["openvino", "nncf"])
def test_missing_package(saved: Path, video: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(table, "find_spec", lambda name: None if name == package else name)
    result = invoke("--model", saved, "--calibrate", video)
    assert result.exit_code == 2
    assert "pip install 'live-seg[openvino]'" in result.stderr


def test_too_small_size(saved: Path, video: Path) -> None:
    result = invoke("--model", saved, "--calibrate", video, "--size", "32")
    assert result.exit_code == 2
    assert "32 pixels is too small" in result.stderr


def test_ctrl_c_leaves_no_partial_files(
    saved: Path, video: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    before = names(cache)
    monkeypatch.setattr(nncf, "quantize", interrupted)
    result = invoke("--model", saved, "--calibrate", video)
    assert (result.exit_code, result.stdout) == (130, "")
    assert [name for name in names(cache) if name != "compiled"] == before
    with pytest.raises(WeightsError, match="no int8 form"):
        load(saved, engine="openvino-int8")


class Endless(Source):
    """A source of unknown length with increasingly bright frames."""

    name = "a camera"
    fps = 30.0
    size = (4, 4)
    frames: int | None = None
    live = True

    def __iter__(self) -> Iterator[Frame]:
        for index in itertools.count():
            assert index < 1000, "reads on and on"
            yield Frame(index, index / 30, np.full((4, 4, 3), index % 256, np.uint8))

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    ("frames", "chosen"), [(None, [0, 1, 2, 3]), (100, [0, 25, 50, 75]), (3, [0, 1, 2, 3]), (9, [0, 2, 4, 6])]
)
def test_calibration_frames_are_evenly_spaced(
    monkeypatch: pytest.MonkeyPatch, frames: int | None, chosen: list[int]
) -> None:
    source = Endless()
    source.frames = frames
    monkeypatch.setattr(opening, "open_source", lambda *_, **__: source)
    assert [int(image[0, 0, 0]) for image in _evenly_spaced("0", 4)] == chosen


@pytest.mark.parametrize("words", ["", "The device has too little memory: OOM"])
def test_out_of_memory_is_reported_without_a_traceback(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    def segment(_: Any) -> None:
        raise MemoryError(words)

    segment.class_names = ("background",)  # type: ignore[attr-defined]
    segment.engine = SimpleNamespace(device="a processor")  # type: ignore[attr-defined]
    monkeypatch.setattr(Options, "load", lambda _: segment)
    result = CliRunner().invoke(app, ["video", str(video), "-o", str(tmp_path / "out.mp4"), "--quiet"])
    assert result.exit_code == 1
    first = "live-seg: Out of memory. Use a smaller --size or --batch."
    assert result.stderr.splitlines() == [
        f"{first} {words}".rstrip(),
        "Set LIVE_SEG_DEBUG=1 to see the traceback.",
    ]
    assert not (tmp_path / "out.mp4").exists()
