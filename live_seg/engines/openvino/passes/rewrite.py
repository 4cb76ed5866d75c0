"""OpenVINO models rewritten to compute the same in less time, where its own convolutions leave some to gain.

Measured on an x86 processor with AVX-512; on other kinds than x86 models stay as they are.
"""

import platform
from math import prod

from openvino import Model, Node

from live_seg.engines.openvino.passes import strips
from live_seg.engines.openvino.passes.halves import in_halves, is_long_int8
from live_seg.engines.openvino.passes.winograd import convolved_picture, convolved_regions

LEAST_CHANNELS = 128
"""Of input and output from which on it is faster: with fewer, the transforms outweigh what is saved."""


def rewritten(model: Model) -> Model:
    """Rewrite the 3x3 convolutions and long int8 products of `model` that gain from it, in place.

    Known are the sizes of its pictures and of its regions; how many regions there are, is not.
    """
    if platform.machine() in ("x86_64", "AMD64"):
        for node in model.get_ordered_ops():
            if _is_plain_3x3(node):
                _rewrite(node)
            elif is_long_int8(node):
                node.output(0).replace(in_halves(*node.input_values()))
        model.validate_nodes_and_infer_types()
    return model


def _rewrite(node: Node) -> None:
    values, weights = node.input_values()
    outputs, inputs = weights.get_shape()[:2]
    one = values.get_partial_shape()[0] == 1
    if values.get_node().get_type_name() == "FakeQuantize":
        cells = prod(length.get_length() for length in list(node.get_output_partial_shape(0))[2:])
        if one and outputs >= strips.MANY_OUTPUTS and cells >= strips.MANY_CELLS:
            node.output(0).replace(strips.in_strips(values, weights))
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
