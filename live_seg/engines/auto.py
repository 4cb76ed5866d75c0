"""Choose the fastest engine that is available: the engine "auto"."""

import os
import platform
from pathlib import Path

import cv2

from live_seg.choices import EngineName
from live_seg.engines.openvino import cache
from live_seg.engines.spec import ModelSpec
from live_seg.engines.table import installed

FLOAT16_CAPABILITY = (7, 0)
"""Lowest CUDA compute capability with tensor cores, which multiply float16 matrices."""

CPU_AVX_512VNNI = 23
"""OpenCV's number of this instruction set: `CV_CPU_AVX_512VNNI` in opencv2/core/hal/interface.h."""


def fastest(spec: ModelSpec) -> EngineName:
    """Return the name of the fastest engine for `spec` on this computer.

    Keras is chosen where TensorFlow has a GPU, where OpenVINO is not installed, and where KERAS_BACKEND names
    another backend. Otherwise OpenVINO is chosen: in int8 if the model has that form and the CPU has fast
    int8 arithmetic, else in float32.
    """
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        return "keras"
    if capabilities := gpu_capabilities():
        return "keras-float16" if min(capabilities) >= FLOAT16_CAPABILITY else "keras"
    if not installed("openvino"):
        return "keras"
    return "openvino-int8" if has_fast_int8() and cache.find(spec, "int8") else "openvino"


def gpu_capabilities() -> list[tuple[int, int]]:
    """Return the compute capability of each GPU that TensorFlow can use."""
    # Importing TensorFlow takes seconds. WSL has the device dxg instead of one per GPU.
    if not [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("dxg")]:
        return []
    import tensorflow as tf

    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [detail.get("compute_capability", (0, 0)) for detail in details]


def has_fast_int8() -> bool:
    """Return whether the CPU is an x86 with VNNI, the dot product instructions for int8.

    Without VNNI int8 is hardly faster than float32, and on ARM int8 results can be wrong (openvino #34673).
    OpenVINO's property OPTIMIZATION_CAPABILITIES does not help: it lists INT8 for every CPU. OpenCV reports
    AVX512-VNNI on all systems; AVX-VNNI, of CPUs without AVX-512, is only found on Linux.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return cv2.checkHardwareSupport(CPU_AVX_512VNNI) or _has_avx_vnni(Path("/proc/cpuinfo"))


def _has_avx_vnni(cpuinfo: Path) -> bool:
    return cpuinfo.exists() and " avx_vnni " in cpuinfo.read_text(encoding="utf-8").replace("\n", " ")
