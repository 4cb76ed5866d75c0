"""A converted network in int8: quantised by NNCF, with pictures that show which values occur."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nncf
import openvino
from numpy.typing import NDArray

from live_seg.engines.engine import Prepared
from live_seg.engines.openvino_engine import PARTS, OpenVINOEngine
from live_seg.maskrcnn.config import MaskRCNNConfig

PARTS_IN_INT8 = ("trunk", "heads")
"""Masks stay in float32: they take little time, being made only for what was found, and lose most."""

LAYERS = {"Convolution", "MatMul"}
"""What is worth computing in int8 in the heads: the arithmetic of boxes would only suffer."""


def quantize(source: Path, config: MaskRCNNConfig, pictures: Sequence[Prepared], folder: Path) -> None:
    """Write into `folder` the int8 form of the float32 models in `source`.

    `pictures` should be as varied as those to come; a hundred are enough. Each passes through the network
    several times.
    """
    engine = OpenVINOEngine(source, config)
    nncf.set_log_level("ERROR")
    core = openvino.Core()
    for part in PARTS:
        model = core.read_model(source / f"{part}.xml")
        if part in PARTS_IN_INT8:
            model = nncf.quantize(
                model,
                nncf.Dataset(pictures, _inputs(engine, part)),
                subset_size=len(pictures),
                preset=nncf.QuantizationPreset.MIXED,
                fast_bias_correction=False,  # half the loss of AP
                ignored_scope=nncf.IgnoredScope(types=_left_alone(part, model), validate=False),
            )
        openvino.save_model(model, folder / f"{part}.xml", compress_to_fp16=False)


def _inputs(engine: OpenVINOEngine, part: str) -> Callable[[Prepared], list[NDArray[Any]]]:
    """What `part` of the network is given on a picture's way."""

    def given(prepared: Prepared) -> list[NDArray[Any]]:
        picture, window = prepared
        maps, _ = engine.detect(picture[None], window[None])
        return engine.given(maps, part)

    return given


def _left_alone(part: str, model: openvino.Model) -> list[str]:
    """Types of operations that are not quantised."""
    if part == "trunk":
        return []
    return sorted({operation.get_type_name() for operation in model.get_ops()} - LAYERS)
