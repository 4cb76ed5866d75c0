"""What `live_seg.doctor.asking` runs in a process of its own: one probe, whose answer is printed as JSON."""

import ctypes
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from live_seg.errors import LiveSegError

MATHEMATICS = {
    12: {"cufft": 11, "cusolver": 11, "cusparse": 12},
    13: {"cufft": 12, "cusolver": 12, "cusparse": 12},
}
"""Versions of the libraries that do not bear CUDA's own, by that (component table of its release notes)."""


def tensorflow() -> dict[str, Any]:
    """TensorFlow's version and the GPUs it sees; where none, what of CUDA can be loaded."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    answer = {
        "version": tf.__version__,
        "gpus": [known.get("device_name", gpu.name) for known, gpu in zip(details, gpus, strict=True)],
    }
    build = tf.sysconfig.get_build_info()
    if gpus or not build.get("is_cuda_build"):
        return answer | {"cuda": None}
    cuda, cudnn = build["cuda_version"], build["cudnn_version"]
    return answer | {"cuda": cuda, "lacking": lacking(_names(cuda, cudnn), sys.path), "driver": driver()}


def _names(cuda: str, cudnn: str) -> list[str]:
    """File names of the libraries that a TensorFlow built for these versions loads."""
    major = int(cuda.split(".")[0])
    versions = {"cudart": major, "cublas": major, "cublasLt": major} | MATHEMATICS.get(major, {})
    versions["cudnn"] = int(cudnn.split(".")[0])
    return [f"lib{library}.so.{version}" for library, version in versions.items()]


def lacking(names: Iterable[str], folders: Iterable[str]) -> list[str]:
    """Those of the libraries that load neither by name nor out of NVIDIA's wheels in `folders`."""
    wheels = [path for folder in folders for path in Path(folder).glob("nvidia/*/lib")]
    return [
        name
        for name in names
        if not any(_loads(place) for place in (name, *(str(wheel / name) for wheel in wheels)))
    ]


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def driver() -> dict[str, Any] | None:
    """The newest CUDA that the NVIDIA driver knows, and its error if it does not start; None: no driver."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version, words = ctypes.c_int(), ctypes.c_char_p()
    code = cuda.cuInit(0)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuGetErrorString(code, ctypes.byref(words))
    error = f"{(words.value or b'unknown error').decode()} ({code})" if code else None
    return {"cuda": f"{version.value // 1000}.{version.value % 1000 // 10}", "error": error}


def openvino() -> dict[str, Any]:
    """OpenVINO's devices: short name -> full name."""
    importlib.import_module("live_seg.engines.openvino")  # keeps OpenVINO from reporting its use
    from openvino import Core

    core = Core()
    return {name: core.get_property(name, "FULL_DEVICE_NAME") for name in core.available_devices}


def window() -> dict[str, Any]:
    """Open a window, for a moment. Raises SinkError."""
    from live_seg.ui.window import Window

    Window("live-seg doctor").close()
    return {}


def segmentation() -> dict[str, Any]:
    """Find the people on the demo clip's first picture with the bundled model, and take the times."""
    began = time.perf_counter()
    from live_seg.models.load import load
    from live_seg.sources.demo import DemoClip

    segment = load("person")
    with DemoClip() as source:
        image = next(iter(source)).image
    people = len(segment([image])[0])
    ready = time.perf_counter()
    segment([image])
    return {"people": people, "start": ready - began, "picture": time.perf_counter() - ready}


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    probe.__name__: probe for probe in (tensorflow, openvino, window, segmentation)
}


def main() -> None:
    """Run the probe that the command line names, and write its answer as the last line of stdout."""
    answer: dict[str, Any] = {}
    try:
        answer = PROBES[sys.argv[1]]()
    except LiveSegError as error:
        answer = {"failed": str(error)}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")


if __name__ == "__main__":
    main()
