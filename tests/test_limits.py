"""Upper limits: each is an error before the run that names the limit."""

from pathlib import Path

import openvino
import pytest
from typer.testing import CliRunner

from live_seg.cli.main import app
from live_seg.engines.openvino import engine, runtime
from live_seg.engines.openvino.engine import OpenVINOEngine
from live_seg.errors import SinkError, SourceError, UsageError
from live_seg.files import claim
from live_seg.sinks.file_names import FileNames
from live_seg.sinks.images import Images
from live_seg.sources.cameras import CameraSettings, parse_size
from live_seg.sources.opening import open_source
from live_seg.training.settings import Settings
from tests.stand_ins import TINY


@pytest.mark.parametrize("spec", [100, 10**10, "100", "/dev/video700", "9" * 5000])
def test_camera_numbers(spec: str | int) -> None:
    with pytest.raises(SourceError, match="Cameras are numbered from 0 to 99"):
        open_source(spec)


@pytest.mark.parametrize("text", ["99999x9", "9x99999", "9" * 5000 + "x1"])
def test_camera_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="size"):
        CameraSettings(parse_size(text))


@pytest.mark.parametrize("fps", [1001, float("inf"), float("nan")])
def test_camera_rates(fps: float) -> None:
    with pytest.raises(UsageError, match="at most 1000 frames per second"):
        CameraSettings(fps=fps)


@pytest.mark.parametrize("timeout", [86_401.0, 1e300, float("inf"), float("nan"), 0.0])
def test_timeouts(timeout: float) -> None:
    with pytest.raises(UsageError, match="at most 86400"):
        open_source("tcp://127.0.0.1:9", timeout=timeout)


@pytest.mark.parametrize(
    "arguments",
    [
        ("video", "a.mp4", "-o", "b.mp4", "--batch", "65"),
        ("video", "a.mp4", "-o", "b.mp4", "--timeout", "86401"),
        ("webcam", "--timeout", "1e300"),
        ("webcam", "--record-on", "person", "--pre", "61"),
        ("optimize", "--calibrate", "a.mp4", "--frames", "513"),
    ],
    ids=" ".join,
)
def test_options(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "less than or equal to" in " ".join(done.output.split())


@pytest.mark.parametrize(("field", "value"), [("batch", 1025), ("size", 4160), ("size", 50_000)])
def test_training(field: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"{field}.*(at most|up to)"):
        Settings(data=((Path(), Path()),), **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["0999999999d", "100d", "d%", "x", "*>9"])
def test_the_width_of_numbers_in_file_names(form: str) -> None:
    with pytest.raises(UsageError, match="is no format of a number with up to 99 digits"):
        FileNames(f"a_{{number:{form}}}.mp4")
    FileNames("a_{number}.mp4")
    FileNames("a_{number:03d}.mp4")


@pytest.mark.parametrize(
    "name", ["a" * 300 + ".mp4", "a" * 248 + ".mp4", "é" * 130 + ".mp4", "a" * 256 + "/b.mp4"]
)
def test_file_names_that_are_too_long(tmp_path: Path, name: str) -> None:
    with pytest.raises(SinkError, match=r"The name .*\.\.\. is too long for a file system"):
        claim(tmp_path / name, overwrite=False)
    claim(tmp_path / ("a" * 243 + ".mp4"), overwrite=False)


def test_names_of_images_are_checked_before_the_first(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="too long"):
        Images(tmp_path / "out", names=["a", "b" * 250])


@pytest.mark.parametrize("message", ["std::bad_alloc", "x.so: failed to map segment from shared object"])
def test_too_little_memory_for_a_network_is_no_damage(
    tiny_converted: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    class Full:
        def read_model(self, _: Path) -> openvino.Model:
            raise RuntimeError(message)

    monkeypatch.setattr(engine, "core", Full)
    with pytest.raises(MemoryError, match="too little memory for this network"):
        OpenVINOEngine(tiny_converted, TINY)
    with pytest.raises(RuntimeError, match="broken"), runtime.out_of_memory():
        raise RuntimeError("broken")
