"""The probes that `live_seg.doctor.probing` runs in a separate process. Each prints its answer as JSON."""

import ctypes
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from live_seg.errors import LiveSegError


def tensorflow() -> dict[str, Any]:
    """Return TensorFlow's version and the GPUs it sees; without one, its CUDA version and the driver."""
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
    return answer | {"cuda": build["cuda_version"], "driver": driver()}


def driver() -> dict[str, Any] | None:
    """Return the newest CUDA version that the NVIDIA driver supports, and its error if it does not start.

    None if there is no driver.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version, message = ctypes.c_int(), ctypes.c_char_p()
    code = cuda.cuInit(0)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuGetErrorString(code, ctypes.byref(message))
    error = f"{(message.value or b'unknown error').decode()} ({code})" if code else None
    return {"cuda": f"{version.value // 1000}.{version.value % 1000 // 10}", "error": error}


def openvino() -> dict[str, Any]:
    """Return OpenVINO's devices: short name -> full name."""
    importlib.import_module("live_seg.engines.openvino")  # disables OpenVINO's telemetry
    from openvino import Core

    core = Core()
    return {name: core.get_property(name, "FULL_DEVICE_NAME") for name in core.available_devices}


def window() -> dict[str, Any]:
    """Open and close a window. Raises SinkError."""
    from live_seg.ui.window import Window

    Window("live-seg doctor").close()
    return {}


def segmentation() -> dict[str, Any]:
    """Return the number of people that the bundled model finds in the demo clip's first frame.

    With the seconds until the first result ("start") and for the second ("frame").
    """
    started = time.perf_counter()
    from live_seg.models.load import load
    from live_seg.sources.demo import DemoClip

    segment = load("person")
    with DemoClip() as source:
        image = next(iter(source)).image
    people = len(segment([image])[0])
    ready = time.perf_counter()
    segment([image])
    return {"people": people, "start": ready - started, "frame": time.perf_counter() - ready}


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    probe.__name__: probe for probe in (tensorflow, openvino, window, segmentation)
}


def main() -> None:
    """Run the probe that the command line names and write its answer as the last line of stdout."""
    answer: dict[str, Any] = {}
    try:
        answer = PROBES[sys.argv[1]]()
    except LiveSegError as error:
        answer = {"error": str(error)}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")


if __name__ == "__main__":
    main()
