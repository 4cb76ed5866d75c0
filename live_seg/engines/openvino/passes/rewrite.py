"""Apply the rewriting passes to a model."""

import platform

from openvino import Model

from live_seg.engines.openvino.passes import halves, strips, winograd

PASSES = (winograd, strips, halves)
"""At most one pass rewrites an operation: the first that applies."""


def rewritten(model: Model) -> Model:
    """Apply the passes to `model`, in place, on x86 CPUs.

    The sizes of its images and regions must be known; the number of regions may be dynamic.
    """
    if platform.machine() in ("x86_64", "AMD64"):
        for node in model.get_ordered_ops():
            for rewriting in PASSES:
                if rewriting.applies(node):
                    node.output(0).replace(rewriting.apply(node))
                    break
        model.validate_nodes_and_infer_types()
    return model
