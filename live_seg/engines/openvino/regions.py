"""RoIAlign with OpenVINO's operations, in front of a converted head."""

import numpy as np
import openvino
from openvino import Node, Output, opset13

from live_seg.maskrcnn.rules import Rules


def with_regions(head: openvino.Model, levels: int, channels: int, side: int, rules: Rules) -> openvino.Model:
    """Let `head` read regions of feature maps instead of its first input, regions (K, side, side, channels).

    The new inputs are the maps (1, channels, h, w), boxes (K', 4) of each of the `levels`: see
    `boxes.by_level`, and the other inputs of `head`. Regions are ordered by level.
    """
    first, *others = head.get_parameters()
    maps = [opset13.parameter([1, channels, -1, -1], openvino.Type.f32) for _ in range(levels)]
    boxes = [opset13.parameter([-1, 4], openvino.Type.f32) for _ in range(levels)]
    regions = [_regions(*pair, side, rules) for pair in zip(maps, boxes, strict=True)]
    channels_last = opset13.transpose(opset13.concat(regions, axis=0), [0, 2, 3, 1])
    first.output(0).replace(channels_last.output(0))
    return openvino.Model(head.get_results(), [*maps, *boxes, *others])


def _regions(feature_map: Node, boxes: Node, side: int, rules: Rules) -> Output:
    """Sample one map in boxes (K, 4) -> (K, C, side, side)."""
    image = opset13.multiply(opset13.gather(boxes, [0], 1), np.float32(0))  # (K, 1): all boxes are in image 0
    if rules.samples == 1:
        places = opset13.concat([image, boxes], axis=1)
        return opset13.roi_pooling(feature_map, places, [side, side], 1.0, "bilinear").output(0)
    rows = opset13.convert(opset13.reshape(image, [-1], special_zero=False), "i32")
    return opset13.roi_align(
        feature_map, boxes, rows, side, side, rules.samples, 1.0, "avg", aligned_mode="asymmetric"
    ).output(0)
