"""Checks of the runtimes: TensorFlow and its GPU, with the reason if it sees none, and OpenVINO."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from live_seg.doctor.findings import Finding
from live_seg.doctor.machine import installed_version, requirements
from live_seg.doctor.probing import ProbeError, run_probe

TENSORFLOW_TIMEOUT = 180.0
"""Seconds: importing TensorFlow from a cold disk takes up to a minute, initializing a GPU some more."""

OPENVINO_TIMEOUT = 60.0

NVIDIA = "0x10de"
"""NVIDIA's vendor id on the PCI bus."""

DISPLAY_CONTROLLER = "0x03"
"""First digits of the PCI class of a GPU."""

PROC, DEV, PCI = Path("/proc"), Path("/dev"), Path("/sys/bus/pci/devices")

INSTALL_CUDA = "pip install 'live-seg[cuda]'"


def tensorflow() -> Finding:
    """Check that TensorFlow can be imported, which GPUs it sees, and why it does not see one that exists."""
    gpu = nvidia_gpu()
    try:
        answer = run_probe("tensorflow", TENSORFLOW_TIMEOUT)
    except ProbeError as error:
        reinstall = "pip install --force-reinstall tensorflow"
        hide_gpu = f"Run CUDA_VISIBLE_DEVICES=-1 live-seg doctor to test without the GPU, or {reinstall}"
        return Finding("bad", f"TensorFlow cannot be loaded: {error}", hide_gpu if gpu else reinstall)
    if answer["gpus"]:
        return Finding("good", f"{answer['version']} on {', '.join(answer['gpus'])}")
    message = f"{answer['version']} on the CPU"
    if gpu is None:
        return Finding("note", f"{message}: no NVIDIA GPU found")
    reason, remedy = why_no_gpu(answer)
    return Finding("note", f"{message}, although there is {gpu}: {reason}", remedy)


def nvidia_gpu() -> str | None:
    """Return the name of this machine's NVIDIA GPU, a general name if its driver fails, None without GPU."""
    if (program := shutil.which("nvidia-smi")) is not None and (names := _gpu_names(program)):
        return names
    if (DEV / "nvidia0").exists() or any((PROC / "driver/nvidia/gpus").glob("*")):
        return "an NVIDIA GPU"
    for device in PCI.glob("*"):
        vendor, kind = (_text(device / name) for name in ("vendor", "class"))
        if vendor == NVIDIA and kind.startswith(DISPLAY_CONTROLLER):
            return "an NVIDIA GPU"
    return None


def _gpu_names(nvidia_smi: str) -> str:
    """Return the names of the GPUs and their driver versions; empty if the driver does not answer."""
    query = [nvidia_smi, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = [line.split(", ") for line in done.stdout.strip().splitlines()]
    return ", ".join(f"{name} (driver {version})" for name, version in lines)


def _text(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""


def why_no_gpu(answer: dict[str, Any]) -> tuple[str, str]:
    """Return the reason why TensorFlow sees no GPU, and the remedy. `answer` is that of its probe."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and (not hidden.strip() or hidden.strip().startswith("-1")):
        return f"CUDA_VISIBLE_DEVICES={hidden} hides it", "unset CUDA_VISIBLE_DEVICES"
    if answer["cuda"] is None:
        return "this TensorFlow is built without CUDA", INSTALL_CUDA
    driver = answer["driver"]
    if driver is None:
        install = "Install NVIDIA's driver; start a container with --gpus all"
        return "its driver's libcuda.so.1 cannot be loaded", install
    if int(driver["cuda"].split(".")[0]) < int(answer["cuda"].split(".")[0]):
        reason = f"its driver supports CUDA up to {driver['cuda']}, TensorFlow needs {answer['cuda']}"
        return reason, "Install a newer NVIDIA driver"
    if driver["error"]:
        return f"its driver does not start: {driver['error']}", "Reinstall NVIDIA's driver and restart"
    if missing := missing_cuda_packages():
        return f"packages for CUDA {answer['cuda']} are missing: {', '.join(missing)}", INSTALL_CUDA
    listing = "import tensorflow as tf; tf.config.list_physical_devices()"
    return "for an unknown reason", f'See TF_CPP_MIN_LOG_LEVEL=0 {sys.executable} -c "{listing}"'


def missing_cuda_packages() -> list[str]:
    """Return the packages of TensorFlow's extra "and-cuda" that are not installed."""
    return [
        wanted.name for wanted in requirements("tensorflow", "and-cuda") if not installed_version(wanted.name)
    ]


def openvino() -> Finding:
    """Check that OpenVINO is installed and which devices it can use."""
    version = installed_version("openvino")
    if version is None:
        message = "not installed: it is faster than TensorFlow on CPUs"
        return Finding("note", message, "pip install 'live-seg[openvino]'")
    try:
        devices = run_probe("openvino", OPENVINO_TIMEOUT)
    except ProbeError as error:
        reinstall = "pip install --force-reinstall openvino"
        return Finding("note", f"{version} cannot be loaded: {error}", reinstall)
    return Finding("good", f"{version} on {', '.join(f'{key} ({name})' for key, name in devices.items())}")
