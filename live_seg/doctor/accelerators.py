"""Checks of what computes: TensorFlow and its GPU, with the missing piece of CUDA; OpenVINO."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from live_seg.doctor.asking import ProbeError, ask
from live_seg.doctor.findings import Finding
from live_seg.doctor.machine import installed

TENSORFLOW_SECONDS = 180.0
"""Importing it from a cold disk takes up to a minute, a first look at a GPU some seconds."""

OPENVINO_SECONDS = 60.0

NVIDIA = "0x10de"
"""NVIDIA's vendor number on the PCI bus."""

PROC, DEV, PCI = Path("/proc"), Path("/dev"), Path("/sys/bus/pci/devices")

WITH_CUDA = "pip install 'live-seg[cuda]'"


def tensorflow() -> Finding:
    """Whether TensorFlow can be imported, and the GPUs it sees; if it sees none of those here, why."""
    gpu = nvidia_gpu()
    try:
        answer = ask("tensorflow", TENSORFLOW_SECONDS)
    except ProbeError as error:
        again = "pip install --force-reinstall tensorflow"
        without = f"CUDA_VISIBLE_DEVICES=-1 live-seg doctor leaves the GPU out; else {again}"
        return Finding("bad", f"TensorFlow cannot be loaded: {error}", without if gpu else again)
    if answer["gpus"]:
        return Finding("good", f"{answer['version']} on {', '.join(answer['gpus'])}")
    told = f"{answer['version']} on the CPU"
    if gpu is None:
        return Finding("note", f"{told}: no NVIDIA GPU here")
    reason, remedy = why_unseen(answer)
    return Finding("note", f"{told}, though there is {gpu}: {reason}", remedy)


def nvidia_gpu() -> str | None:
    """The NVIDIA GPU of this machine, by name where its driver works; None when there is none."""
    if (program := shutil.which("nvidia-smi")) is not None and (names := _told_by(program)):
        return names
    if (DEV / "nvidia0").exists() or any((PROC / "driver/nvidia/gpus").glob("*")):
        return "an NVIDIA GPU"
    for device in PCI.glob("*"):
        vendor, kind = (_text(device / name) for name in ("vendor", "class"))
        if vendor == NVIDIA and kind.startswith("0x03"):  # display controllers
            return "an NVIDIA GPU"
    return None


def _told_by(nvidia_smi: str) -> str:
    """Names of the GPUs and the driver's version; empty when the driver does not answer."""
    query = [nvidia_smi, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = [line.split(", ") for line in done.stdout.strip().splitlines()]
    return ", ".join(f"{name} (driver {version})" for name, version in lines)


def _text(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""


def why_unseen(answer: dict[str, Any]) -> tuple[str, str]:
    """Why TensorFlow, which gave this `answer`, sees no GPU, and the way out."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and (not hidden.strip() or hidden.strip().startswith("-1")):
        return f"CUDA_VISIBLE_DEVICES={hidden} hides it", "unset CUDA_VISIBLE_DEVICES"
    if answer["cuda"] is None:
        return "this TensorFlow is built without CUDA", WITH_CUDA
    driver = answer["driver"]
    if driver is None:
        install = "Install NVIDIA's driver; start a container with --gpus all"
        return "its driver's libcuda.so.1 cannot be loaded", install
    if answer["lacking"]:
        return f"of CUDA {answer['cuda']} lacks {', '.join(answer['lacking'])}", WITH_CUDA
    if int(driver["cuda"].split(".")[0]) < int(answer["cuda"].split(".")[0]):
        reason = f"its driver knows CUDA up to {driver['cuda']}, TensorFlow needs {answer['cuda']}"
        return reason, "Install a newer NVIDIA driver"
    if driver["error"]:
        return f"its driver does not start: {driver['error']}", "Install NVIDIA's driver anew, and restart"
    look = "import tensorflow as tf; tf.config.list_physical_devices()"
    return "for no known reason", f'TF_CPP_MIN_LOG_LEVEL=0 {sys.executable} -c "{look}" tells more'


def openvino() -> Finding:
    """Whether OpenVINO is there, and on what it runs."""
    version = installed("openvino")
    if version is None:
        return Finding(
            "note", "not installed: it is faster than TensorFlow on CPUs", "pip install 'live-seg[openvino]'"
        )
    try:
        devices = ask("openvino", OPENVINO_SECONDS)
    except ProbeError as error:
        return Finding(
            "note", f"{version} cannot be loaded: {error}", "pip install --force-reinstall openvino"
        )
    return Finding("good", f"{version} on {', '.join(f'{key} ({name})' for key, name in devices.items())}")
