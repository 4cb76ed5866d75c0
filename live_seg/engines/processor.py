"""The instruction sets of the processor."""

import platform
from pathlib import Path

import cv2

CPU_AVX_512VNNI = 23
"""OpenCV's number of this instruction set: `CV_CPU_AVX_512VNNI` in opencv2/core/hal/interface.h."""


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
