"""Pass: compute a large int8 convolution in two strips of rows."""

from collections.abc import Sequence
from math import prod

from openvino import Node, Output, opset13

from live_seg.engines.openvino.passes.convolutions import is_int8, is_one_image, is_plain_3x3

MANY_OUTPUTS, MANY_CELLS = 512, 128 * 128
"""From this many output channels and cells on, OpenVINO's int8 convolution of signed values drops to half its
speed. In strips it does not."""


def applies(node: Node) -> bool:
    """Return whether `node` is a plain 3x3 int8 convolution of one image with an output that large."""
    if not is_plain_3x3(node) or not is_int8(node) or not is_one_image(node):
        return False
    _, outputs, *size = node.get_output_partial_shape(0)
    cells = prod(length.get_length() for length in size)
    return bool(outputs.get_length() >= MANY_OUTPUTS and cells >= MANY_CELLS)


def apply(node: Node) -> Output:
    """Return the output of the convolution `node`, computed in strips."""
    return in_strips(*node.input_values())


def in_strips(values: Output, weights: Output) -> Output:
    """Convolve the upper and the lower half of the rows separately, each with one row of the other half."""
    height = values.get_shape()[2]
    middle = height // 2

    def strip(first: int, last: int, margins: Sequence[int]) -> Node:
        rows = opset13.slice(values, [first], [last], [1], [2])
        above, below = margins
        return opset13.convolution(rows, weights, [1, 1], [above, 1], [below, 1], [1, 1])

    halves = [strip(0, middle + 1, (1, 0)), strip(middle - 1, height, (0, 1))]
    return opset13.concat(halves, 2).output(0)
