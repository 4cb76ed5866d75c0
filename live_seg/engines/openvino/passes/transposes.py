"""Pass: remove pairs of transposes that cancel out."""

import numpy as np
import openvino


def without_inverse_transposes(model: openvino.Model) -> openvino.Model:
    """Remove transposes, in place, that invert the one before. The conversion leaves such pairs."""
    for back in model.get_ordered_ops():
        if back.get_type_name() != "Transpose":
            continue
        there = back.input_value(0).get_node()
        if there.get_type_name() == "Transpose":
            first, second = (node.input_value(1).get_node().data for node in (there, back))
            if np.array_equal(first[second], np.arange(len(first))):
                back.output(0).replace(there.input_value(0))
    return model
