"""A state dict of torchvision's `maskrcnn_resnet50_fpn_v2`, made from a seed.

The values are random but well scaled: activations stay of order one, proposals differ from place to place and
scores are spread, so that a mistake anywhere changes the detections.
"""

import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from live_seg.maskrcnn.config import RESNET_BLOCKS

Tensors = dict[str, NDArray[np.float32]]

GAINS = {"cls_logits": 6.0, "rpn.head.bbox_pred": 0.15, "cls_score": 14.0, "box_predictor.bbox_pred": 0.6}
"""Gains of the last layers, by part of the name; that of others is 2."""


def tensors(seed: int, classes: int) -> Tensors:
    """Make the tensors; the same arguments give the same. `classes` counts the background."""
    return {name: _values(seed, name, shape) for name, shape in shapes(classes)}


def _values(seed: int, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith("running_var"):
        return np.ones(shape, np.float32)
    if name.endswith(("bias", "running_mean")):
        return 0.1 * rng.standard_normal(shape, np.float32)
    if len(shape) == 1:  # the scale of a batch norm; the last of a bottleneck adds to the shortcut
        gain = 0.3 if name.endswith("bn3.weight") else 1.0
        return (gain * rng.uniform(0.7, 1.3, shape)).astype(np.float32)
    gain = next((gain for part, gain in GAINS.items() if part in name), 2.0)
    kernel = rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(gain / np.prod(shape[1:])))
    kernel -= kernel.mean(axis=tuple(range(1, len(shape))), keepdims=True)
    return kernel


def shapes(classes: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes, in torchvision's layout: OIHW."""
    yield from _normed("backbone.body.conv1", "backbone.body.bn1", 64, 3, 7)
    inputs = 64
    for stage, blocks in enumerate(RESNET_BLOCKS["resnet50"], start=1):
        width = 32 * 2**stage
        for block in range(blocks):
            name = f"backbone.body.layer{stage}.{block}"
            yield from _normed(f"{name}.conv1", f"{name}.bn1", width, inputs, 1)
            yield from _normed(f"{name}.conv2", f"{name}.bn2", width, width, 3)
            yield from _normed(f"{name}.conv3", f"{name}.bn3", 4 * width, width, 1)
            if block == 0:
                yield from _normed(f"{name}.downsample.0", f"{name}.downsample.1", 4 * width, inputs, 1)
            inputs = 4 * width
    for level in range(4):
        name = f"backbone.fpn.inner_blocks.{level}"
        yield from _normed(f"{name}.0", f"{name}.1", 256, 256 * 2**level, 1)
    for level in range(4):
        name = f"backbone.fpn.layer_blocks.{level}"
        yield from _normed(f"{name}.0", f"{name}.1", 256, 256, 3)
    for i in range(2):
        yield from _biased(f"rpn.head.conv.{i}.0", 256, 256, 3, 3)
    yield from _biased("rpn.head.cls_logits", 3, 256, 1, 1)
    yield from _biased("rpn.head.bbox_pred", 12, 256, 1, 1)
    for head in ("box", "mask"):
        for i in range(4):
            name = f"roi_heads.{head}_head.{i}"
            yield from _normed(f"{name}.0", f"{name}.1", 256, 256, 3)
    yield from _biased("roi_heads.box_head.5", 1024, 256 * 7 * 7)
    yield from _biased("roi_heads.box_predictor.cls_score", classes, 1024)
    yield from _biased("roi_heads.box_predictor.bbox_pred", 4 * classes, 1024)
    yield "roi_heads.mask_predictor.conv5_mask.weight", (256, 256, 2, 2)
    yield "roi_heads.mask_predictor.conv5_mask.bias", (256,)
    yield from _biased("roi_heads.mask_predictor.mask_fcn_logits", classes, 256, 1, 1)


def _normed(
    conv: str, norm: str, outputs: int, inputs: int, side: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{conv}.weight", (outputs, inputs, side, side)
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{norm}.{part}", (outputs,)


def _biased(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]
