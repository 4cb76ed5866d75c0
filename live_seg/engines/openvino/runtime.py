"""OpenVINO itself: its core, compilation for one input size, and inference."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from live_seg.engines.openvino.passes.rewrite import rewritten
from live_seg.engines.openvino.signals import own_signal_stack

NO_MEMORY = ("bad_alloc", "failed to map segment", "Resource temporarily unavailable", "Cannot allocate")
"""Parts of OpenVINO's messages when memory runs out."""


@contextlib.contextmanager
def out_of_memory() -> Iterator[None]:
    """Raise OpenVINO's errors about memory as MemoryError."""
    try:
        yield
    except RuntimeError as error:
        if any(words in str(error) for words in NO_MEMORY):
            raise MemoryError("OpenVINO has too little memory for this network.") from error
        raise


@functools.cache
def core() -> openvino.Core:
    """Return OpenVINO's core with its CPU plugin loaded: one for the whole process."""
    with out_of_memory(), own_signal_stack():
        core = openvino.Core()
        core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin
    return core


def compiled(
    model: openvino.Model,
    shapes: list[list[int]],
    properties: dict[str, str],
    *,
    first_type: str | None = None,
    rewrite: bool = True,
) -> openvino.CompiledModel:
    """Compile a copy of `model` for inputs of `shapes`, -1 where a length stays open. Raises MemoryError.

    `first_type`, such as "uint8", becomes the type of the first input. Without `rewrite` the passes that save
    time at the cost of rounding errors are left out.
    """
    model = model.clone()
    if first_type is not None:
        model.get_parameters()[0].set_element_type(openvino.Type(np.dtype(first_type)))
    model.reshape(dict(enumerate(shapes)))
    with out_of_memory():
        return core().compile_model(rewritten(model) if rewrite else model, "CPU", properties)


def infer(request: openvino.InferRequest, first: int, inputs: list[NDArray[Any]]) -> None:
    """Run `request` with `inputs` as its inputs from number `first` on.

    The request keeps no NumPy array alive, so it gets copies.
    """
    for position, values in enumerate(inputs, start=first):
        request.set_input_tensor(position, openvino.Tensor(values))
    with out_of_memory():
        request.infer()


def inputs_of(request: openvino.InferRequest) -> list[NDArray[Any]]:
    """Return copies of the inputs that `request` was run with last."""
    return [np.array(tensor.data) for tensor in request.input_tensors]
