"""Quantize a converted network to int8 with NNCF, calibrated on images."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13

from live_seg.engines.engine import Prepared
from live_seg.engines.openvino.engine import OpenVINOEngine
from live_seg.engines.openvino.passes import winograd
from live_seg.engines.openvino.runtime import core
from live_seg.engines.openvino.signals import own_signal_stack
from live_seg.engines.openvino.two_stage import REGIONS_AT_ONCE
from live_seg.maskrcnn.config import MaskRCNNConfig

CALIBRATION_SCORE = 0.05
"""Score threshold of detections whose masks are used for calibration."""

LAYERS = {"Convolution", "ConvolutionBackpropData", "MatMul"}
"""Operations that are quantized after the trunk. The arithmetic of boxes would only lose precision."""

MOVES = {"Reshape", "Transpose"}
"""Operations that int8 values may pass through; not Concat, whose parts may be empty and have no range."""


def quantize(source: Path, config: MaskRCNNConfig, images: Sequence[Prepared], folder: Path) -> None:
    """Write into `folder` the int8 form of the float32 models in `source`.

    `images` should be as varied as those to be segmented; a hundred are enough. Each is run several times.
    """
    proposals = min(config.proposals, REGIONS_AT_ONCE)  # the inputs of one inference are used
    engine = OpenVINOEngine(source, replace(config, min_score=CALIBRATION_SCORE, proposals=proposals))
    images = [(np.rint(image).astype(np.uint8), window) for image, window in images]
    logging.getLogger("nncf").setLevel(logging.ERROR)
    for part in engine.parts:
        model = _without_transposes(core().read_model(source / f"{part}.xml"))
        used = [image for image in images if part != "masks" or _has_detections(engine, image)]
        if used:
            dataset = nncf.Dataset(used, _inputs(engine, part))
            one_stage = config.first_stage == "yolox"
            model = _quantized(model, part, dataset, len(used), one_stage=one_stage)
        openvino.save_model(model, folder / f"{part}.xml", compress_to_fp16=False)


def _quantized(
    model: openvino.Model, part: str, dataset: nncf.Dataset, count: int, *, one_stage: bool
) -> openvino.Model:
    with own_signal_stack():
        return nncf.quantize(
            model,
            dataset,
            subset_size=count,
            preset=nncf.QuantizationPreset.MIXED,
            # Correction layer by layer halves the loss of AP, but fails in NNCF on one-stage networks.
            fast_bias_correction=one_stage,
            ignored_scope=_ignored(part, model, one_stage=one_stage),
        )


def _inputs(engine: OpenVINOEngine, part: str) -> Callable[[Prepared], list[NDArray[Any]]]:
    """Return a function that maps an image to the inputs of `part` of the network."""

    def given(prepared: Prepared) -> list[NDArray[Any]]:
        image, window = prepared
        maps, found = engine.detect(image[None], window[None])
        if part == "masks":
            engine.masks(maps, found)
        return engine.given(maps, part)

    return given


def _has_detections(engine: OpenVINOEngine, prepared: Prepared) -> bool:
    image, window = prepared
    return len(engine.detect(image[None], window[None])[1].rows) > 0


CHANNELS_LAST = [0, 2, 3, 1]
"""The permutation from OpenVINO's order of axes to that of Keras."""


def _without_transposes(model: openvino.Model) -> openvino.Model:
    """Permute the weights of fully connected layers, in place, so that they read regions channels first."""
    for product in model.get_ordered_ops():
        if product.get_type_name() != "MatMul" or not product.get_attributes()["transpose_b"]:
            continue
        flat, weights = (value.get_node() for value in product.input_values())
        transposed = flat.input_value(0).get_node() if flat.get_type_name() == "Reshape" else flat
        if transposed.get_type_name() != "Transpose" or not _is_constant(product.input_value(1)):
            continue
        if list(transposed.input_value(1).get_node().data) != CHANNELS_LAST:
            continue
        regions = transposed.input_value(0)
        _, channels, *side = regions.get_partial_shape()
        shape = [length.get_length() for length in (*side, channels)]
        if weights.data.shape[1] == np.prod(shape):
            kernel = weights.data.reshape(-1, *shape).transpose(0, 3, 1, 2).reshape(weights.data.shape)
            flat = opset13.reshape(regions, [0, -1], special_zero=True)
            new = opset13.matmul(flat, opset13.constant(kernel), transpose_a=False, transpose_b=True)
            product.output(0).replace(new.output(0))
    return model


def _ignored(part: str, model: openvino.Model, *, one_stage: bool) -> nncf.IgnoredScope:
    """Return the operations of `part` that are not quantized."""
    if part == "trunk":
        exact = _decoding(model) | _mask_fusion(model) if one_stage else set()
        return nncf.IgnoredScope(names=sorted(exact))
    operations = model.get_ops()
    types = {operation.get_type_name() for operation in operations} - LAYERS - MOVES
    products = [operation for operation in operations if operation.get_type_name() == "MatMul"]
    weightless = [product for product in products if not _is_constant(product.input_value(1))]
    # On regions, a fifth of the multiplications in float32 takes less time than all of them in int8.
    faster = [operation for operation in operations if winograd.applies(operation)]
    names = [operation.get_friendly_name() for operation in (*weightless, *faster)]
    return nncf.IgnoredScope(types=sorted(types), names=names, validate=False)


def _decoding(model: openvino.Model) -> set[str]:
    """Return the names of a dense head's last convolutions and all operations behind them.

    Their results are coordinates in pixels and logits, for which eight bits are too few.
    """
    return _before(model.outputs[1:], last="Convolution")


def _mask_fusion(model: openvino.Model) -> set[str]:
    """Return the names of the operations that only the map for masks needs.

    They are few. In int8 they cost the bundled model 0.011 of the 0.017 mask AP lost on 80 classes.
    """
    return _before(model.outputs[:1]) - _before(model.outputs[1:])


def _before(outputs: Sequence[openvino.Output], last: str | None = None) -> set[str]:
    """Return the names of the operations that lead to `outputs`, back to those of type `last`."""
    names: set[str] = set()
    waiting = [output.get_node().input_value(0).get_node() for output in outputs]
    while waiting:
        node = waiting.pop()
        if node.get_type_name() == "Constant" or node.get_friendly_name() in names:
            continue
        names.add(node.get_friendly_name())
        if node.get_type_name() != last:
            waiting += [value.get_node() for value in node.input_values()]
    return names


def _is_constant(value: openvino.Output) -> bool:
    return bool(value.get_node().get_type_name() == "Constant")
