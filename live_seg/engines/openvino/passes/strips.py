"""A large int8 convolution in two strips of rows."""

from collections.abc import Sequence

from openvino import Node, Output, opset13

MANY_OUTPUTS, MANY_CELLS = 512, 128 * 128
"""Channels and cells of an output from which on OpenVINO's int8 convolution of signed values drops to half
its speed; in strips it does not."""


def in_strips(values: Output, weights: Output) -> Output:
    """Convolve the upper and the lower half of the rows, each with the row it needs of the other."""
    height = values.get_shape()[2]
    middle = height // 2

    def strip(first: int, last: int, margins: Sequence[int]) -> Node:
        rows = opset13.slice(values, [first], [last], [1], [2])
        above, below = margins
        return opset13.convolution(rows, weights, [1, 1], [above, 1], [below, 1], [1, 1])

    halves = [strip(0, middle + 1, (1, 0)), strip(middle - 1, height, (0, 1))]
    return opset13.concat(halves, 2).output(0)
