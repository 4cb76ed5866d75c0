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
from live_seg.engines.openvino.regions import with_regions
from live_seg.errors import UsageError
from live_seg.maskrcnn.boxes import Tensor
from live_seg.maskrcnn.family import Network
from live_seg.maskrcnn.one_stage import OneStageMaskRCNN
from live_seg.maskrcnn.rules import BOX_POOL, MASK_POOL


def convert(model: Network, folder: Path) -> None:
    """Write `model` with its current weights into `folder`: NAME.xml and NAME.bin of each part, in float32.

    trunk: image (1, H, W, 3) uint8 RGB -> maps (1, C, h, w), finest first, scores (1, A), deltas (1, A, 4).
    heads: maps, boxes by level -> probabilities (K, classes), deltas (K, classes, 4). masks: maps, boxes by
    level, class ids (K,) -> (K, 28, 28). `boxes.by_level` makes the boxes, and all rows are in its order.
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
    channels, rules = model.config.pyramid_channels, model.config.rules
    levels = model.config.finer_levels + len(model.config.anchor_scales) - 1

    def trunk(image: Tensor) -> Any:
        maps, scores, deltas = model.trunk(image)
        return [*_transposed(maps, (0, 3, 1, 2)), scores, deltas]

    def heads(regions: Tensor) -> Any:
        logits, deltas = model.box_head(regions)
        return [tf.nn.softmax(logits), deltas]

    def masks(regions: Tensor, class_ids: Tensor) -> Any:
        return tf.sigmoid(model.mask_head(regions, class_ids))

    _save(_converted(trunk, [tf.TensorSpec((1, None, None, 3), tf.uint8)]), folder / "trunk.xml")
    for name, head, side, more in (
        ("heads", heads, BOX_POOL, []),
        ("masks", masks, MASK_POOL, [tf.TensorSpec((None,), tf.int32)]),
    ):
        converted = _converted(head, [_input(None, side, side, channels), *more])
        _save(with_regions(converted, levels, channels, side, rules), folder / f"{name}.xml")


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
    _save(_converted(trunk, [tf.TensorSpec((1, None, None, 3), tf.uint8)]), folder / "trunk.xml")
    _save(_converted(masks, [_input(1, channels, None, None), _input(None, 4)]), folder / "masks.xml")


def _input(*shape: int | None) -> tf.TensorSpec:
    return tf.TensorSpec(shape, tf.float32)


def _transposed(maps: Sequence[Tensor], order: tuple[int, ...]) -> list[Tensor]:
    return [tf.transpose(one, order) for one in maps]


def _converted(function: Callable[..., Any], inputs: list[tf.TensorSpec]) -> openvino.Model:
    graph = tf.function(function, input_signature=inputs, autograph=False)
    try:
        model = openvino.convert_model(graph)
    except RuntimeError as error:  # OpenVINO also wraps exceptions of Python, such as of Ctrl-C
        if "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from None
        raise
    return _declared_outputs(model)


def _save(model: openvino.Model, path: Path) -> None:
    openvino.save_model(without_inverse_transposes(model), path, compress_to_fp16=False)


def _declared_outputs(model: openvino.Model) -> openvino.Model:
    """Drop outputs that the converted function does not return.

    The conversion adds one for every activation with a gradient of its own, such as SiLU, and OpenVINO would
    copy them all. TensorFlow names what a function returns Identity:0, Identity_1:0, ...
    """
    by_name = {name: output for output in model.outputs for name in output.get_names()}
    names = ["Identity:0", *(f"Identity_{i}:0" for i in range(1, len(model.outputs)))]
    kept = [by_name[name].get_node().input_value(0) for name in names if name in by_name]
    return openvino.Model(kept, model.get_parameters())
