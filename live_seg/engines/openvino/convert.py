"""A Keras network turned into OpenVINO models, in three parts that OpenVINO runs without Keras.

Between the parts lies what OpenVINO is slow at, choosing the best of very many anchors; after them the last
NMS, which has few boxes left. The models take pictures of any size. Maps pass from one to the next channels
first, as OpenVINO keeps them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import openvino
import tensorflow as tf

from live_seg.engines.openvino.passes.transposes import without_idle_transposes
from live_seg.errors import UsageError
from live_seg.maskrcnn.boxes import Tensor
from live_seg.maskrcnn.model import MaskRCNN


def convert(model: MaskRCNN, folder: Path) -> None:
    """Write `model` as it is now into `folder`: NAME.xml and NAME.bin for each of the three, in float32.

    trunk: picture (1, H, W, 3) uint8 RGB -> maps (1, C, h, w), finest first, scores (1, A), deltas (1, A, 4).
    heads: maps, scores (1, N), deltas and anchors (1, N, 4), window (1, 4) -> boxes (1, M, 4), class ids and
    scores (1, M) of what may be a detection. masks: maps, boxes (K, 4), class ids (K,) -> (K, 28, 28).
    Raises UsageError where Keras does not run on TensorFlow.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise UsageError(
            f"Converting for OpenVINO takes Keras on TensorFlow, not on {backend}: "
            "unset KERAS_BACKEND, or use --engine keras."
        )
    channels = model.config.pyramid_channels
    levels = model.config.finer_levels + len(model.config.anchor_scales) - 1
    maps = [_input(1, channels, None, None) for _ in range(levels)]

    def trunk(picture: Tensor) -> Any:
        maps, scores, deltas = model.trunk(picture)
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


def _input(*shape: int | None) -> tf.TensorSpec:
    return tf.TensorSpec(shape, tf.float32)


def _transposed(maps: Sequence[Tensor], order: tuple[int, ...]) -> list[Tensor]:
    return [tf.transpose(one, order) for one in maps]


def _write(function: Callable[..., Any], inputs: list[tf.TensorSpec], path: Path) -> None:
    graph = tf.function(function, input_signature=inputs, autograph=False)
    try:
        model = openvino.convert_model(graph)
    except RuntimeError as error:  # also what Python raised below OpenVINO's C++ side, such as by Ctrl-C
        if "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from None
        raise
    openvino.save_model(without_idle_transposes(model), path, compress_to_fp16=False)
