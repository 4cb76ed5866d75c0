"""A long int8 product in two halves."""

import numpy as np
from openvino import Node, Output, opset13

LONG_SUM = 8192
"""Inputs of a fully connected layer from which on OpenVINO's int8 product takes three quarters of the time in
two halves."""


def is_long_int8(node: Node) -> bool:
    """Whether it is a product of regions (N, C) with int8 weights (K, C), as NNCF writes them, of many C."""
    if node.get_type_name() != "MatMul" or not node.get_attributes()["transpose_b"]:
        return False
    scaled = node.input_value(1).get_node()
    chain = [scaled.get_type_name()]
    while chain[-1] in ("Multiply", "Convert"):
        scaled = scaled.input_value(0).get_node()
        chain.append(scaled.get_type_name())
    return chain == ["Multiply", "Convert", "Constant"] and scaled.get_output_shape(0)[-1] >= LONG_SUM


def in_halves(values: Output, weights: Output) -> Output:
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
