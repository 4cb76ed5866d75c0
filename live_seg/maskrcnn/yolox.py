"""Published weights of YOLOX-Nano, read from its ONNX file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from live_seg.errors import WeightsError


def layer_names() -> Iterator[str]:
    """Name our convolutions in the order in which the exporter wrote YOLOX-Nano's."""
    yield "stem"
    for stage, blocks in ((2, 1), (3, 3), (4, 3), (5, 1)):
        yield from _separable(f"stage{stage}_down")
        if stage == 5:
            yield from ("stage5_pool_reduce", "stage5_pool_merge")
        yield from _csp(f"stage{stage}", blocks)
    yield "neck_lateral5"
    yield from _csp("neck_up4", 1)
    yield "neck_lateral4"
    yield from _csp("neck_up3", 1)
    for level in (4, 5):
        yield from _separable(f"neck_down{level}")
        yield from _csp(f"neck_out{level}", 1)
    for level in (3, 4, 5):
        yield f"head{level}_stem"
        for i in range(2):
            yield from _separable(f"head{level}_class{i}")
        yield f"head{level}_classes"
        for i in range(2):
            yield from _separable(f"head{level}_box{i}")
        yield from (f"head{level}_boxes", f"head{level}_objectness")


def _separable(name: str) -> Iterator[str]:
    yield from (f"{name}_depthwise", f"{name}_pointwise")


def _csp(name: str, blocks: int) -> Iterator[str]:
    yield from (f"{name}_main", f"{name}_side")
    for i in range(blocks):
        yield from (f"{name}_block{i}_reduce", *_separable(f"{name}_block{i}"))
    yield f"{name}_merge"


def read(path: Path) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Read kernels and biases of YOLOX-Nano's ONNX file, by our layer names, in Keras' layout.

    Kernels are (h, w, in, out), depthwise ones (h, w, channels, 1); the stem takes RGB instead of BGR. Raises
    WeightsError when the file is not YOLOX-Nano, UsageError when the `onnx` package is missing.
    """
    import onnx
    from onnx import numpy_helper

    try:
        graph = onnx.load(path).graph
    except Exception as error:  # protobuf raises its own kinds
        raise WeightsError(f"Cannot read {path} as ONNX: {error}.") from error
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    convolutions = [node.input for node in graph.node if node.op_type == "Conv"]
    names = list(layer_names())
    if len(convolutions) != len(names):
        raise WeightsError(f"{path} has {len(convolutions)} convolutions; YOLOX-Nano has {len(names)}.")
    found = {}
    for name, (_, kernel, bias) in zip(names, convolutions, strict=True):
        found[name] = (_kernel(name, tensors[kernel]), np.array(tensors[bias], np.float32))
    return found


def _kernel(name: str, kernel: NDArray[Any]) -> NDArray[np.float32]:
    if name == "stem":
        return _unfocused(kernel)
    order = (2, 3, 0, 1) if name.endswith("depthwise") else (2, 3, 1, 0)
    return np.ascontiguousarray(kernel.transpose(order), np.float32)


def _unfocused(kernel: NDArray[Any]) -> NDArray[np.float32]:
    """Turn the 3x3 kernel over Focus' 12 channels into the same 6x6 kernel over RGB.

    Focus joins the pixels (0, 0), (1, 0), (0, 1), (1, 1) of each 2x2 cell, BGR each (YOLOX `Focus`).
    """
    filters = kernel.shape[0]
    wide = np.zeros((6, 6, 3, filters), np.float32)
    for place, (down, right) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        part = kernel[:, 3 * place : 3 * place + 3][:, ::-1]  # BGR to RGB
        wide[down::2, right::2] = part.transpose(2, 3, 1, 0)
    return wide


def load(models: list[keras.Model], path: Path) -> None:
    """Load YOLOX-Nano's weights into the layers of `models`. Raises WeightsError where one does not fit."""
    layers = {layer.name: layer for model in models for layer in model.layers if layer.weights}
    weights = read(path)
    if set(layers) != set(weights):
        raise WeightsError(f"{path} and the network differ in layers: {sorted(set(layers) ^ set(weights))}.")
    for name, layer in layers.items():
        if [tuple(v.shape) for v in layer.weights] != [array.shape for array in weights[name]]:
            raise WeightsError(f"{path}: layer {name} has shapes that differ from the network's.")
        layer.set_weights(list(weights[name]))
