"""Properties of convolutions that passes decide by."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import Node, Output


def is_plain_3x3(node: Node) -> bool:
    """Return whether `node` is a 3x3 convolution with stride 1 that keeps the known size of its maps.

    Its input is one image or a dynamic number of regions.
    """
    if node.get_type_name() != "Convolution":
        return False
    values, weights = (list(value.get_partial_shape()) for value in node.input_values())
    one_or_any = values[0].is_dynamic or values[0] == 1
    if not one_or_any or not all(length.is_static for length in (*values[1:], *weights)):
        return False
    attributes = node.get_attributes()
    ones = all(list(attributes[name]) == [1, 1] for name in ("strides", "dilations", "pads_begin"))
    kept = list(node.get_output_partial_shape(0))[2:] == values[2:]
    return weights[2:] == [3, 3] and ones and kept


def is_one_image(node: Node) -> bool:
    """Return whether the input of the convolution `node` is one image, rather than regions."""
    return bool(node.input_value(0).get_partial_shape()[0] == 1)


def is_int8(node: Node) -> bool:
    """Return whether the input of the convolution `node` is quantized."""
    return bool(node.input_value(0).get_node().get_type_name() == "FakeQuantize")


def constant_of(value: Output) -> NDArray[np.float32] | None:
    """Return the constant weights in `value`, also those of NNCF: int8 times a scale. None for others."""
    node: Any = value.get_node()
    if node.get_type_name() == "Constant":
        return np.asarray(node.data)
    if node.get_type_name() == "Multiply":
        converted, scale = (one.get_node() for one in node.input_values())
        if converted.get_type_name() == "Convert" and scale.get_type_name() == "Constant":
            numbers = converted.input_value(0).get_node()
            if numbers.get_type_name() == "Constant":
                return np.asarray(numbers.data.astype(np.float32) * scale.data)
    return None
