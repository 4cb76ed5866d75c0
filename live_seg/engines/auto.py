"""Choose the fastest engine that is available: the engine "auto"."""

import os
from pathlib import Path

from live_seg.choices import EngineName
from live_seg.engines.openvino import cache
from live_seg.engines.processor import has_fast_int8
from live_seg.engines.spec import ModelSpec
from live_seg.engines.table import installed

FLOAT16_CAPABILITY = (7, 0)
"""Lowest CUDA compute capability with tensor cores, which multiply float16 matrices."""


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
