"""OpenVINO models rewritten to compute the same in less time, where its own convolutions leave some to gain.

Measured on an x86 processor with AVX-512; on other kinds than x86 models stay as they are.
"""

import platform
from collections.abc import Sequence
from math import prod

import numpy as np
from openvino import Model, Node, Output, opset13

from live_seg.engines.winograd import convolved_picture, convolved_regions

LEAST_CHANNELS = 128
"""Of input and output from which on it is faster: with fewer, the transforms outweigh what is saved."""

MANY_OUTPUTS, MANY_CELLS = 512, 128 * 128
"""Channels and cells of an output from which on OpenVINO's int8 convolution of signed values drops to half
its speed; in strips it does not."""

LONG_SUM = 8192
"""Inputs of a fully connected layer from which on OpenVINO's int8 product takes three quarters of the time in
two halves."""


def rewritten(model: Model) -> Model:
    """Rewrite the 3x3 convolutions and long int8 products of `model` that gain from it, in place.

    Known are the sizes of its pictures and of its regions; how many regions there are, is not.
    """
    if platform.machine() in ("x86_64", "AMD64"):
        for node in model.get_ordered_ops():
            if _is_plain_3x3(node):
                _rewrite(node)
            elif _is_long_int8(node):
                node.output(0).replace(_in_halves(*node.input_values()))
        model.validate_nodes_and_infer_types()
    return model


def _rewrite(node: Node) -> None:
    values, weights = node.input_values()
    outputs, inputs = weights.get_shape()[:2]
    one = values.get_partial_shape()[0] == 1
    if values.get_node().get_type_name() == "FakeQuantize":
        cells = prod(length.get_length() for length in list(node.get_output_partial_shape(0))[2:])
        if one and outputs >= MANY_OUTPUTS and cells >= MANY_CELLS:
            node.output(0).replace(_in_strips(values, weights))
    elif weights.get_node().get_type_name() == "Constant" and min(inputs, outputs) >= LEAST_CHANNELS:
        convolved = convolved_picture if one else convolved_regions
        node.output(0).replace(convolved(values, weights.get_node().data))


def _is_plain_3x3(node: Node) -> bool:
    """Whether it is a convolution 3x3, of stride 1, with a margin that keeps the size, which is known.

    Of one picture, or of a number of regions that is not known.
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


def _in_strips(values: Output, weights: Output) -> Output:
    """Convolve the upper and the lower half of the rows, each with the row it needs of the other."""
    height = values.get_shape()[2]
    middle = height // 2

    def strip(first: int, last: int, margins: Sequence[int]) -> Node:
        rows = opset13.slice(values, [first], [last], [1], [2])
        above, below = margins
        return opset13.convolution(rows, weights, [1, 1], [above, 1], [below, 1], [1, 1])

    halves = [strip(0, middle + 1, (1, 0)), strip(middle - 1, height, (0, 1))]
    return opset13.concat(halves, 2).output(0)


def _is_long_int8(node: Node) -> bool:
    """Whether it is a product of regions (N, C) with int8 weights (K, C), as NNCF writes them, of many C."""
    if node.get_type_name() != "MatMul" or not node.get_attributes()["transpose_b"]:
        return False
    scaled = node.input_value(1).get_node()
    chain = [scaled.get_type_name()]
    while chain[-1] in ("Multiply", "Convert"):
        scaled = scaled.input_value(0).get_node()
        chain.append(scaled.get_type_name())
    return chain == ["Multiply", "Convert", "Constant"] and scaled.get_output_shape(0)[-1] >= LONG_SUM


def _in_halves(values: Output, weights: Output) -> Output:
    """Sum the products of the first and of the second half of the inputs."""
    converted, scale = weights.get_node().input_values()
    numbers = converted.get_node().input_value(0).get_node().data
    length = numbers.shape[1]

    def part(first: int, last: int) -> Node:
        kernel = opset13.constant(np.ascontiguousarray(numbers[:, first:last]))
        kernel = opset13.multiply(opset13.convert(kernel, "f32"), scale)
        some = opset13.slice(values, [first], [last], [1], [1])
        return opset13.matmul(some, kernel, transpose_a=False, transpose_b=True)

    return opset13.add(part(0, length // 2), part(length // 2, length)).output(0)
