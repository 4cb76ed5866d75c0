"""A converted network in int8: quantised by NNCF, with pictures that show which values occur."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nncf
import openvino
from numpy.typing import NDArray

from live_seg.engines.engine import Prepared
from live_seg.engines.openvino_engine import PARTS, OpenVINOEngine, core
from live_seg.engines.signals import own_signal_stack
from live_seg.maskrcnn.config import MaskRCNNConfig

UNSURE = 0.05
"""Least score of a detection whose mask is drawn for calibration: unsure ones will have masks, too."""

LAYERS = {"Convolution", "ConvolutionBackpropData", "MatMul"}
"""What is worth computing in int8 behind the trunk: the arithmetic of boxes would only suffer."""


def quantize(source: Path, config: MaskRCNNConfig, pictures: Sequence[Prepared], folder: Path) -> None:
    """Write into `folder` the int8 form of the float32 models in `source`.

    `pictures` should be as varied as those to come; a hundred are enough. Each passes through the network
    several times.
    """
    engine = OpenVINOEngine(source, replace(config, min_score=UNSURE))
    logging.getLogger("nncf").setLevel(logging.ERROR)
    for part in PARTS:
        model = core().read_model(source / f"{part}.xml")
        shown = [picture for picture in pictures if part != "masks" or _shows_something(engine, picture)]
        if shown:
            model = _quantized(model, part, nncf.Dataset(shown, _inputs(engine, part)), len(shown))
        openvino.save_model(model, folder / f"{part}.xml", compress_to_fp16=False)


def _quantized(model: openvino.Model, part: str, dataset: nncf.Dataset, count: int) -> openvino.Model:
    with own_signal_stack():
        return nncf.quantize(
            model,
            dataset,
            subset_size=count,
            preset=nncf.QuantizationPreset.MIXED,
            fast_bias_correction=False,  # half the loss of AP
            ignored_scope=nncf.IgnoredScope(types=_left_alone(part, model), validate=False),
        )


def _inputs(engine: OpenVINOEngine, part: str) -> Callable[[Prepared], list[NDArray[Any]]]:
    """What `part` of the network is given on a picture's way."""

    def given(prepared: Prepared) -> list[NDArray[Any]]:
        picture, window = prepared
        maps, found = engine.detect(picture[None], window[None])
        if part == "masks":
            engine.masks(maps, found)
        return engine.given(maps, part)

    return given


def _shows_something(engine: OpenVINOEngine, prepared: Prepared) -> bool:
    picture, window = prepared
    return len(engine.detect(picture[None], window[None])[1].rows) > 0


def _left_alone(part: str, model: openvino.Model) -> list[str]:
    """Types of operations that are not quantised."""
    if part == "trunk":
        return []
    return sorted({operation.get_type_name() for operation in model.get_ops()} - LAYERS)
