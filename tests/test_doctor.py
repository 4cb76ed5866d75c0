"""`live-seg doctor`: findings of each check on faulty systems, the table, JSON, exit codes."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import psutil
import pytest
from typer.testing import CliRunner, Result

from live_seg.cli.main import app
from live_seg.doctor import accelerators, checks, machine, model, video
from live_seg.doctor.findings import Check, Finding, verdict
from live_seg.doctor.probing import ProbeError, run_probe
from live_seg.errors import LiveSegError, SinkError, SourceError, WeightsError
from live_seg.models import registry
from live_seg.sinks.video_writer import VideoWriter
from tests.live import FakeCapture, put_captures
from tests.stand_ins import ROOT

EPYC = "processor : 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx avx2 avx512f avx512_vnni\n"
GRAVITON = "processor : 0\nFeatures\t: fp asimd asimddp i8mm bf16\n"
OLD = "model name : Core i7-3770\nflags : fpu sse2 avx\n"

SEES_NONE: dict[str, Any] = {
    "version": "2.21.0",
    "gpus": [],
    "cuda": "12.5.1",
    "driver": {"cuda": "12.8", "error": None},
}
"""The answer of a TensorFlow that sees no GPU although nothing is missing."""

TENSORFLOW = """
    print("noise")
    __version__ = "2.21.0"
    class config:
        list_physical_devices = staticmethod(lambda kind: [])
    class sysconfig:
        get_build_info = staticmethod(lambda: {build})
"""
"""A stand-in for a TensorFlow that sees no GPU."""

Fake = Callable[[str, str], None]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system with an empty /proc and /dev and no PCI bus. Returns its /proc."""
    for module in (machine, accelerators):
        monkeypatch.setattr(module, "PROC", tmp_path / "proc")
    for module in (accelerators, video):
        monkeypatch.setattr(module, "DEV", tmp_path / "dev")
    monkeypatch.setattr(accelerators, "PCI", tmp_path / "pci")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(sys, "platform", "linux")
    (tmp_path / "dev").mkdir()
    return tmp_path / "proc"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Return a function that replaces a module in child processes."""

    def put(name: str, program: str) -> None:
        write(tmp_path / "modules" / f"{name}.py", textwrap.dedent(program))

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "modules"), str(ROOT)]))
    return put


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Package versions to report instead of the installed ones; None: not installed."""
    replaced: dict[str, str | None] = {}
    real = metadata.version

    def version(name: str) -> str:
        value = replaced[name] if name in replaced else real(name)
        if value is None:
            raise metadata.PackageNotFoundError(name)
        return value

    monkeypatch.setattr(metadata, "version", version)
    return replaced


def answering(monkeypatch: pytest.MonkeyPatch, module: Any, answer: dict[str, Any] | str) -> list[str]:
    """Make every probe of `module` return `answer`, or fail with a text. Returns the probes."""
    asked: list[str] = []

    def run_probe(name: str, timeout: float) -> dict[str, Any]:
        assert timeout > 0
        asked.append(name)
        if isinstance(answer, str):
            raise ProbeError(answer)
        return answer

    monkeypatch.setattr(module, "run_probe", run_probe)
    return asked


def program(path: Path, text: str) -> Path:
    """Write an executable shell script."""
    write(path, f"#!/bin/sh\n{text}\n").chmod(0o755)
    return path


def test_supported_python() -> None:
    finding = machine.python()
    assert finding.state == "good"
    assert sys.executable in finding.message


def test_unsupported_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.9.1")
    finding = machine.python()
    assert finding.state == "bad"
    assert finding.message.startswith("3.9.1")
    assert ">=3.11" in finding.message


def test_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PACKAGE", "live-seg-that-is-not-there")
    assert (machine.python().state, machine.python().remedy) == ("note", "pip install .")
    assert machine.packages() == Finding("good", "")


def test_packages_lists_every_runtime_requirement() -> None:
    finding = machine.packages()
    assert finding.state == "good"
    assert f"tensorflow {metadata.version('tensorflow')}" in finding.message
    assert "hypothesis" not in finding.message


def test_missing_and_outdated_packages(versions: dict[str, str | None]) -> None:
    versions |= {"h5py": None, "keras": "3.9.2"}
    assert machine.packages() == Finding(
        "bad", "h5py is missing; keras 3.9.2, expected >=3.10", "pip install 'h5py' 'keras>=3.10'"
    )


def test_any_opencv_wheel_suffices(versions: dict[str, str | None]) -> None:
    versions |= {"opencv-python": None, "opencv-contrib-python-headless": "4.12.0.88"}
    finding = machine.packages()
    assert finding.state == "good"
    assert "opencv-python 4.12.0.88" in finding.message


@pytest.mark.parametrize(
    ("cpuinfo", "state", "message"),
    [
        (EPYC, "good", "AMD EPYC, AVX2, AVX-512, AVX-512 VNNI"),
        (GRAVITON, "good", "bfloat16, int8 dot product, int8 matrix product"),
        (OLD, "note", "Core i7-3770; without AVX2"),
        ("", "good", platform.machine()),
    ],
)
def test_cpu_features(proc: Path, cpuinfo: str, state: str, message: str) -> None:
    write(proc / "cpuinfo", cpuinfo)
    finding = machine.cpu()
    assert finding.state == state
    assert message in finding.message


def test_system_without_proc(proc: Path) -> None:
    assert not proc.exists()
    assert machine.cpu().message.endswith(f"cores usable, {platform.machine()}")
    assert "GB" in machine.memory().message


@pytest.mark.usefixtures("proc")
def test_cpu_features_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    output = (
        "machdep.cpu.brand_string: Apple M2\nhw.optional.arm.FEAT_I8MM: 1\nhw.optional.arm.FEAT_BF16: 0\n"
    )
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, output))
    assert machine.cpu().message.endswith("Apple M2, int8 matrix product")


def test_container_limits(proc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    write(proc / "self/cgroup", "0::/pod/box\n")
    memory = SimpleNamespace(total=10**12, available=9 * 10**11)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert machine.usable_cores() == 16
    write(tmp_path / "cgroup/cpu.max", "max 100000\n")
    write(tmp_path / "cgroup/pod/cpu.max", "250000 100000\n")
    write(tmp_path / "cgroup/pod/box/memory.max", "1500000000\n")
    write(tmp_path / "cgroup/memory.max", "max\n")
    assert machine.usable_cores() == 3
    finding = machine.memory()
    assert (finding.state, finding.message) == ("note", "1.5 GB, 1.5 GB free; 2 GB are recommended")


def test_crash_of_a_probe_becomes_an_error(fake: Fake) -> None:
    fake("tensorflow", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    with pytest.raises(ProbeError, match=r"crashed \(SIGILL\); this CPU lacks an instruction"):
        run_probe("tensorflow", 60)


def test_failing_import_is_reported_by_its_last_line(fake: Fake) -> None:
    fake("tensorflow", "raise ImportError('libfoo.so.1: cannot open shared object file')")
    with pytest.raises(ProbeError, match=r"^ImportError: libfoo\.so\.1: cannot open"):
        run_probe("tensorflow", 60)


def test_probe_that_exits_silently(fake: Fake) -> None:
    fake("tensorflow", "import os; os._exit(7)")
    with pytest.raises(ProbeError, match="exit code 7"):
        run_probe("tensorflow", 60)


def test_hanging_probe_times_out(fake: Fake) -> None:
    fake("tensorflow", "import threading; threading.Event().wait()")
    with pytest.raises(ProbeError, match=r"no answer within 0\.5 s"):
        run_probe("tensorflow", 0.5)


def test_probe_ignores_modules_in_the_current_folder(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("openvino", "class Core:\n    available_devices = []")
    write(tmp_path / "json.py", "raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    assert run_probe("openvino", 60) == {}


def test_probe_of_a_tensorflow_built_with_cuda(fake: Fake) -> None:
    build = {"is_cuda_build": True, "cuda_version": "99.1"}
    fake("tensorflow", TENSORFLOW.format(build=build))
    answer = run_probe("tensorflow", 60)
    assert answer.pop("driver", 0) != 0
    assert answer == {"version": "2.21.0", "gpus": [], "cuda": "99.1"}


def test_probe_of_a_tensorflow_built_without_cuda(fake: Fake) -> None:
    fake("tensorflow", TENSORFLOW.format(build={"is_cuda_build": False}))
    assert run_probe("tensorflow", 60) == {"version": "2.21.0", "gpus": [], "cuda": None}


def test_missing_cuda_packages_are_those_that_the_extra_adds(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None]
) -> None:
    declared = [
        "numpy>=1.26",
        'cudnn; extra == "and-cuda"',
        'cublas>=12; extra == "and-cuda"',
        'nowhere; extra == "and-cuda" and sys_platform == "nowhere"',
        'other; extra == "other"',
    ]
    monkeypatch.setattr(metadata, "requires", {"tensorflow": declared}.get)
    versions |= {"numpy": None, "cudnn": "9.1", "cublas": None, "nowhere": None, "other": None}
    assert accelerators.missing_cuda_packages() == ["cublas"]


@pytest.mark.usefixtures("proc")
def test_gpu_that_tensorflow_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, accelerators, {"version": "2.21.0", "gpus": ["NVIDIA L4"]})
    assert accelerators.tensorflow() == Finding("good", "2.21.0 on NVIDIA L4")


@pytest.mark.usefixtures("proc")
def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    asked = answering(monkeypatch, accelerators, SEES_NONE)
    assert accelerators.tensorflow() == Finding("note", "2.21.0 on the CPU: no NVIDIA GPU found")
    assert asked == ["tensorflow"]


@pytest.mark.usefixtures("proc")
def test_tensorflow_that_fails_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    answering(monkeypatch, accelerators, "it crashed (SIGSEGV)")
    finding = accelerators.tensorflow()
    assert (finding.state, finding.remedy) == ("bad", "pip install --force-reinstall tensorflow")
    assert finding.message == "TensorFlow cannot be loaded: it crashed (SIGSEGV)"
    (accelerators.DEV / "nvidia0").touch()
    assert "CUDA_VISIBLE_DEVICES=-1" in accelerators.tensorflow().remedy


@pytest.mark.parametrize(
    ("changes", "reason", "remedy"),
    [
        ({"driver": None}, "libcuda.so.1 cannot be loaded", "--gpus all"),
        ({"driver": {"cuda": "11.8", "error": None}}, "supports CUDA up to 11.8", "newer NVIDIA driver"),
        ({"driver": {"cuda": "12.8", "error": "no device (100)"}}, "not start: no device (100)", "Reinstall"),
        ({"cuda": None}, "built without CUDA", "live-seg[cuda]"),
        ({}, "an unknown reason", "TF_CPP_MIN_LOG_LEVEL=0"),
    ],
)
@pytest.mark.usefixtures("proc")
def test_reason_why_tensorflow_sees_no_gpu(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], reason: str, remedy: str
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (accelerators.DEV / "nvidia0").touch()
    monkeypatch.setattr(accelerators, "missing_cuda_packages", list)
    answering(monkeypatch, accelerators, SEES_NONE | changes)
    finding = accelerators.tensorflow()
    assert finding.state == "note"
    assert finding.message.startswith("2.21.0 on the CPU, although there is an NVIDIA GPU: ")
    assert reason in finding.message
    assert remedy in finding.remedy


def test_missing_cuda_packages_are_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(accelerators, "missing_cuda_packages", lambda: ["nvidia-cudnn-cu12"])
    reason, remedy = accelerators.why_no_gpu(SEES_NONE)
    assert reason == "packages for CUDA 12.5.1 are missing: nvidia-cudnn-cu12"
    assert "live-seg[cuda]" in remedy


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpu(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    reason, remedy = accelerators.why_no_gpu(SEES_NONE)
    assert (reason, remedy) == (f"CUDA_VISIBLE_DEVICES={hidden} hides it", "unset CUDA_VISIBLE_DEVICES")


@pytest.mark.usefixtures("proc")
def test_gpu_names_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = program(tmp_path / "bin/nvidia-smi", "echo 'NVIDIA L4, 570.1'; echo 'NVIDIA T4, 570.1'")
    monkeypatch.setenv("PATH", str(smi.parent))
    assert accelerators.nvidia_gpu() == "NVIDIA L4 (driver 570.1), NVIDIA T4 (driver 570.1)"
    program(smi, "exit 9")  # no driver answers
    assert accelerators.nvidia_gpu() is None


@pytest.mark.parametrize(("kind", "found"), [("0x030200", "an NVIDIA GPU"), ("0x020000", None)])
@pytest.mark.usefixtures("proc")
def test_gpu_on_the_pci_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, found: str | None
) -> None:
    monkeypatch.setenv("PATH", "")
    write(tmp_path / "pci/0000:01/vendor", "0x10de\n")
    write(tmp_path / "pci/0000:01/class", f"{kind}\n")
    assert accelerators.nvidia_gpu() == found


def test_openvino_devices(versions: dict[str, str | None], fake: Fake) -> None:
    versions["openvino"] = None
    missing = accelerators.openvino()
    assert (missing.state, missing.remedy) == ("note", "pip install 'live-seg[openvino]'")
    versions["openvino"] = "2026.4.1"
    core = "class Core:\n    available_devices = ['CPU']\n    get_property = lambda *_: 'AMD EPYC'"
    fake("openvino", core)
    assert accelerators.openvino() == Finding("good", "2026.4.1 on CPU (AMD EPYC)")
    fake("openvino", "raise ImportError('broken')")
    assert accelerators.openvino().message == "2026.4.1 cannot be loaded: ImportError: broken"


def test_installed_opencv_reads_videos() -> None:
    assert "reads videos" in video.opencv().message


def test_conflicting_opencv_wheels(versions: dict[str, str | None]) -> None:
    versions |= dict.fromkeys(machine.OPENCV_WHEELS) | {
        "opencv-python": "5.0.0.93",
        "opencv-python-headless": "5.0.0.93",
    }
    finding = video.opencv()
    assert finding.state == "note"
    assert finding.message.endswith("; opencv-python and opencv-python-headless overwrite each other")
    assert finding.remedy == (
        "pip uninstall -y opencv-python opencv-python-headless; pip install opencv-python"
    )


@pytest.mark.parametrize(
    ("built", "state", "message"),
    [
        ("  GUI:        QT5\n  Video I/O:\n    FFMPEG:    YES\n", "good", "windows by QT5, reads videos"),
        ("  GUI:        NONE\n  Video I/O:\n    FFMPEG:   YES\n", "note", "no windows, reads videos"),
        ("  GUI:        GTK3\n  Video I/O:\n    FFMPEG:    NO\n", "bad", "reads no videos"),
    ],
)
def test_opencv_build_options(monkeypatch: pytest.MonkeyPatch, built: str, state: str, message: str) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: built)
    finding = video.opencv()
    assert finding.state == state
    assert message in finding.message
    assert bool(finding.remedy) == (state != "good")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("libGL.so.1: cannot open shared object file", "sudo apt install libgl1 libglib2.0-0"),
        ("No module named 'cv2'", "pip install opencv-python"),
    ],
)
def test_opencv_that_fails_to_import(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    versions: dict[str, str | None],
    error: str,
    remedy: str,
) -> None:
    versions |= dict.fromkeys(machine.OPENCV_WHEELS)
    write(tmp_path / "cv2.py", f"raise ImportError({error!r})")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "cv2")
    assert video.opencv() == Finding("bad", f"it cannot be imported: {error}", remedy)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no DISPLAY")
def test_window_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    finding = video.window()
    assert finding.state == "note"
    assert finding.message.startswith("Cannot show a window: there is no display")


def test_window_that_can_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, video, {})
    assert (video.window().state, asked) == ("good", ["window"])


def test_bundled_ffmpeg_has_all_encoders() -> None:
    finding = video.ffmpeg()
    assert finding.state == "good"
    assert finding.message.endswith("with libx264, aac, prores_ks, libvpx-vp9")


@pytest.mark.parametrize(
    ("encoders", "state", "lacks"),
    [
        ("libx264 prores_ks libvpx-vp9", "note", "lacks aac (audio that is not copied)"),
        ("aac prores_ks libvpx-vp9", "bad", "lacks libx264 (videos)"),
    ],
)
def test_ffmpeg_without_an_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoders: str, state: str, lacks: str
) -> None:
    lines = "; ".join(f"echo ' V....D {name}  words'" for name in encoders.split())
    poor = program(tmp_path / "ffmpeg", f"echo 'ffmpeg version 4.2 Copyright' >&2; {lines}")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(poor))
    finding = video.ffmpeg()
    assert (finding.state, finding.message) == (state, f"4.2 ({poor}) {lacks}")
    assert finding.remedy.startswith("unset IMAGEIO_FFMPEG_EXE; ")


def test_missing_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", missing)
    finding = video.ffmpeg()
    assert (finding.state, finding.remedy) == ("bad", "pip install --force-reinstall imageio-ffmpeg")
    assert "No ffmpeg exe could be found." in finding.message


def test_ffmpeg_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nowhere"))
    assert video.ffmpeg().state == "bad"


def test_video_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert video.round_trip().state == "good"
    assert list(tmp_path.iterdir()) == []


def test_video_that_is_read_back_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = VideoWriter.write
    monkeypatch.setattr(
        VideoWriter, "write", lambda self, frame, image, found: real(self, frame, image // 2, found)
    )
    finding = video.round_trip()
    assert finding.state == "bad"
    assert "5 frames of (64, 48) were read back" in finding.message


@pytest.mark.usefixtures("proc")
def test_no_camera() -> None:
    finding = video.cameras()
    assert finding.state == "note"
    assert "/dev/video0" in finding.remedy


@pytest.mark.usefixtures("proc")
def test_cameras_that_open_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (0, 2, 3, 9):
        (video.DEV / f"video{number}").touch()
    first, last = FakeCapture(), FakeCapture()
    put_captures(monkeypatch, first, FakeCapture(opens=False), last)
    assert video.cameras() == Finding("good", "0 (160x120); 3 (160x120)")
    assert (first.released, last.released) == (True, True)


@pytest.mark.usefixtures("proc")
def test_all_camera_numbers_are_tried_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    put_captures(monkeypatch, *(FakeCapture(opens=False) for _ in video.CAMERAS))
    finding = video.cameras()
    assert (finding.state, finding.remedy) == ("note", "")
    assert finding.message.startswith("none: Cannot open camera 0.")


@pytest.mark.usefixtures("proc")
def test_camera_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    (video.DEV / "video1").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    put_captures(monkeypatch, FakeCapture(opens=False))
    assert "usermod -aG video" in video.cameras().remedy


def test_cache_that_does_not_exist_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVE_SEG_CACHE", str(tmp_path / "new" / "cache"))
    monkeypatch.setattr(model, "MIN_FREE_SPACE", 0)
    finding = model.cache()
    assert finding.state == "good"
    assert finding.message.startswith(str(tmp_path / "new" / "cache"))
    assert list(tmp_path.iterdir()) == []


def test_unwritable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVE_SEG_CACHE", str(write(tmp_path / "file", "") / "cache"))
    finding = model.cache()
    assert (finding.state, "LIVE_SEG_CACHE" in finding.remedy) == ("note", True)
    assert "cannot be written" in finding.message


def test_nearly_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setenv("LIVE_SEG_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 9 * 10**8, 10**8))
    finding = model.cache()
    assert (finding.state, finding.message) == ("note", f"{tmp_path}, 0.1 GB free; 1 GB are recommended")


def test_bundled_weights_are_verified() -> None:
    assert model.bundled().state == "good"


def test_damaged_bundled_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BUNDLED_FOLDERS", (tmp_path,))
    write(tmp_path / "small.json", json.dumps({"sha256": "a" * 64}))
    write(tmp_path / "small.weights.h5", "torn")
    finding = Check("model", model.bundled, WeightsError).run()
    assert finding.state == "bad"
    assert f"instead of {'a' * 64}" in finding.message
    (tmp_path / "small.weights.h5").unlink()
    assert "small.weights.h5 is missing" in Check("model", model.bundled).run().message


@pytest.mark.parametrize("name", ["coco", "coco-v2"])
def test_downloaded_weights(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVE_SEG_CACHE", str(tmp_path))
    download = f"live-seg weights download {name}"
    assert model.downloaded(name) == Finding("note", "not downloaded", download)
    write(tmp_path / registry.WEIGHTS[name].file, "torn")
    damaged = model.downloaded(name)
    assert (damaged.state, damaged.remedy) == ("note", download)
    assert "4 bytes instead of" in damaged.message
    monkeypatch.setattr(registry, "verify", lambda name: tmp_path / name)
    assert model.downloaded(name) == Finding("good", f"verified: {tmp_path / name}")


@pytest.mark.parametrize(
    ("answer", "state", "message"),
    [
        ({"people": 3, "start": 4.0, "frame": 0.125}, "good", "3 people found in the demo clip"),
        ({"people": 0, "start": 4.0, "frame": 0.125}, "bad", "finds no person"),
        ("it crashed (SIGKILL)", "bad", "does not run: it crashed (SIGKILL)"),
    ],
)
def test_segmentation_findings(
    monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any] | str, state: str, message: str
) -> None:
    answering(monkeypatch, model, answer)
    finding = model.segmentation()
    assert finding.state == state
    assert message in finding.message


def test_error_of_a_probe_reaches_the_finding(fake: Fake) -> None:
    fake(
        "sitecustomize",
        """
        import sys, types
        from live_seg.errors import WeightsError
        def load(name):
            raise WeightsError(f"{name}: torn")
        loading = sys.modules["live_seg.models.load"] = types.ModuleType("live_seg.models.load")
        loading.load = load
        """,
    )
    assert model.segmentation() == Finding("bad", "the bundled model does not run: person: torn")


def broken() -> Finding:
    raise ValueError("not what it should be")


def misread() -> Finding:
    raise SourceError("Cannot read it.")


def test_an_exception_becomes_a_finding() -> None:
    assert Check("it", broken).run() == Finding("bad", "ValueError: not what it should be")
    assert Check("it", misread).run() == Finding("bad", "Cannot read it.")


def interrupted() -> Finding:
    raise KeyboardInterrupt


GOOD = Check("ground", lambda: Finding("good", "is firm"))
NOTE = Check("camera", lambda: Finding("note", "none", "Plug one in"))
BAD_SINK = Check("sink", lambda: Finding("bad", "is\n  clogged", "Pull the plug"), SinkError)
BAD_MODEL = Check("model", lambda: Finding("bad", "is torn"), WeightsError)


def test_first_bad_finding_determines_the_error() -> None:
    found = [(check, check.run()) for check in (GOOD, BAD_MODEL, BAD_SINK)]
    with pytest.raises(WeightsError, match=r"would not work here: see model, sink\.$"):
        verdict(found)


def doctor(monkeypatch: pytest.MonkeyPatch, *with_checks: Check, words: tuple[str, ...] = ()) -> Result:
    monkeypatch.setattr(checks, "CHECKS", with_checks)
    return CliRunner().invoke(app, ["doctor", *words])


def test_findings_as_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    result = doctor(monkeypatch, GOOD, NOTE, BAD_SINK)
    assert result.stdout == (
        "ground  good  is firm\n"
        "camera  note  none\n"
        "              -> Plug one in\n"
        "sink    bad   is clogged\n"
        "              -> Pull the plug\n"
    )
    assert result.stderr == "live-seg: Segmenting would not work here: see sink.\n"


def test_verdict_without_bad_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    result = doctor(monkeypatch, GOOD)
    assert (result.exit_code, result.stdout) == (0, "ground  good  is firm\nSegmenting works here.\n")
    result = doctor(monkeypatch, GOOD, NOTE)
    assert result.exit_code == 0
    assert result.stdout.endswith("\nSegmenting works here; see also: camera.\n")


@pytest.mark.parametrize(
    ("check", "code"),
    [
        (BAD_MODEL, 4),
        (BAD_SINK, 3),
        (Check("opencv", misread, SourceError), 3),
        (Check("cpu", broken), 1),
        (Check("cpu", interrupted), 130),
    ],
)
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, check: Check, code: int) -> None:
    assert doctor(monkeypatch, GOOD, check, NOTE).exit_code == code


def test_findings_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    result = doctor(monkeypatch, NOTE, words=("--json",))
    findings = [{"name": "camera", "state": "note", "message": "none", "remedy": "Plug one in"}]
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {"works": True, "findings": findings}
    result = doctor(monkeypatch, NOTE, BAD_MODEL, words=("--json",))
    assert (result.exit_code, json.loads(result.stdout)["works"]) == (4, False)
    assert "see model" in result.stderr


@pytest.mark.parametrize("no_color", ["", "1"])
def test_terminal_output_is_coloured_and_wrapped(monkeypatch: pytest.MonkeyPatch, no_color: str) -> None:
    from live_seg.cli.doctor import _formatted

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", no_color)
    lines = _formatted(Finding("good", "word " * 20, "do this"), indent=8).splitlines()
    assert lines[0].startswith("good  " if no_color else "\x1b[32mgood  \x1b[0m")
    assert lines[-1] == " " * 14 + "-> do this"
    assert max(map(len, lines[1:])) <= 40
    assert len(lines) == 5


def test_every_check_has_a_name_and_an_exit_code() -> None:
    names = [check.name for check in checks.CHECKS]
    assert len(set(names)) == len(names)
    assert all(issubclass(check.error, LiveSegError) for check in checks.CHECKS)


def test_ctrl_c_during_a_probe(fake: Fake, tmp_path: Path) -> None:
    """The program ends with 130, without a traceback, and ends its probe."""
    if sys.platform == "win32":
        pytest.skip("needs a FIFO")
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    fake("tensorflow", f"import threading; open({str(ready)!r}, 'w').close(); threading.Event().wait()")
    start = """
        from live_seg.cli.main import main
        from live_seg.doctor import accelerators, checks
        from live_seg.doctor.findings import Check
        checks.CHECKS = (Check("TensorFlow", accelerators.tensorflow),)
        main()
    """
    command = [sys.executable, "-c", textwrap.dedent(start), "doctor"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        ready.open().close()  # opens once the probe runs
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
    assert (process.returncode, output, errors) == (130, "TensorFlow  ", "")
