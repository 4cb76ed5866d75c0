"""Convert a Keras network into OpenVINO models that run without Keras.

The network is split where OpenVINO is slow: at the choice of the top-k of many anchors, and before the final
NMS. The models accept images of any size. Feature maps between them are channels first, as in OpenVINO.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import openvino
import tensorflow as tf

from live_seg.engines.openvino.passes.transposes import without_inverse_transposes
from live_seg.errors import UsageError
from live_seg.maskrcnn.boxes import Tensor
from live_seg.maskrcnn.family import Network
from live_seg.maskrcnn.one_stage import OneStageMaskRCNN


def convert(model: Network, folder: Path) -> None:
    """Write `model` with its current weights into `folder`: NAME.xml and NAME.bin of each part, in float32.

    trunk: image (1, H, W, 3) uint8 RGB -> maps (1, C, h, w), finest first, scores (1, A), deltas (1, A, 4).
    heads: maps, scores (1, N), deltas and anchors (1, N, 4), window (1, 4) -> boxes (1, M, 4), class ids and
    scores (1, M) of candidates. masks: maps, boxes (K, 4), class ids (K,) -> (K, 28, 28).
    Raises UsageError where Keras does not run on TensorFlow.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise UsageError(
            f"Conversion for OpenVINO needs Keras on TensorFlow. Got {backend}: "
            "unset KERAS_BACKEND, or use --engine keras."
        )
    if isinstance(model, OneStageMaskRCNN):
        _convert_one_stage(model, folder)
        return
    channels = model.config.pyramid_channels
    levels = model.config.finer_levels + len(model.config.anchor_scales) - 1
    maps = [_input(1, channels, None, None) for _ in range(levels)]

    def trunk(image: Tensor) -> Any:
        maps, scores, deltas = model.trunk(image)
        return [*_transposed(maps, (0, 3, 1, 2)), scores, deltas]

    def heads(*inputs: Tensor) -> Any:
        return list(model.heads(_transposed(inputs[:levels], (0, 2, 3, 1)), *inputs[levels:]))

    def masks(*inputs: Tensor) -> Any:
        boxes, class_ids = inputs[levels:]
        maps = _transposed(inputs[:levels], (0, 2, 3, 1))
        return model.masks(maps, boxes, tf.zeros_like(class_ids), class_ids)

    anchors = [_input(1, None), _input(1, None, 4), _input(1, None, 4), _input(1, 4)]
    detections = [_input(None, 4), tf.TensorSpec((None,), tf.int32)]
    _write(trunk, [tf.TensorSpec((1, None, None, 3), tf.uint8)], folder / "trunk.xml")
    _write(heads, [*maps, *anchors], folder / "heads.xml")
    _write(masks, [*maps, *detections], folder / "masks.xml")


def _convert_one_stage(model: OneStageMaskRCNN, folder: Path) -> None:
    """Write the two parts of a one-stage network.

    trunk: image -> map (1, C, h, w), scores (1, A, classes), boxes (1, A, 4). masks: map, boxes (K, 4).
    """

    def trunk(image: Tensor) -> Any:
        maps, scores, boxes = model.trunk(image)
        return [*_transposed(maps, (0, 3, 1, 2)), scores, boxes]

    def masks(fused: Tensor, boxes: Tensor) -> Any:
        rows = tf.zeros(tf.shape(boxes)[:1], tf.int32)
        return model.masks(_transposed([fused], (0, 2, 3, 1)), boxes, rows, rows)

    channels = model.config.mask_channels
    _write(trunk, [tf.TensorSpec((1, None, None, 3), tf.uint8)], folder / "trunk.xml")
    _write(masks, [_input(1, channels, None, None), _input(None, 4)], folder / "masks.xml")


def _input(*shape: int | None) -> tf.TensorSpec:
    return tf.TensorSpec(shape, tf.float32)


def _transposed(maps: Sequence[Tensor], order: tuple[int, ...]) -> list[Tensor]:
    return [tf.transpose(one, order) for one in maps]


def _write(function: Callable[..., Any], inputs: list[tf.TensorSpec], path: Path) -> None:
    graph = tf.function(function, input_signature=inputs, autograph=False)
    try:
        model = openvino.convert_model(graph)
    except RuntimeError as error:  # OpenVINO also wraps exceptions of Python, such as of Ctrl-C
        if "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from None
        raise
    model = without_inverse_transposes(_declared_outputs(model))
    openvino.save_model(model, path, compress_to_fp16=False)


def _declared_outputs(model: openvino.Model) -> openvino.Model:
    """Drop outputs that the converted function does not return.

    The conversion adds one for every activation with a gradient of its own, such as SiLU, and OpenVINO would
    copy them all. TensorFlow names what a function returns Identity:0, Identity_1:0, ...
    """
    by_name = {name: output for output in model.outputs for name in output.get_names()}
    names = ["Identity:0", *(f"Identity_{i}:0" for i in range(1, len(model.outputs)))]
    kept = [by_name[name].get_node().input_value(0) for name in names if name in by_name]
    return openvino.Model(kept, model.get_parameters())
