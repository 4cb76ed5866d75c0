"""A Mask R-CNN weights file in the layout of Matterport's `mask_rcnn_coco.h5`, made from a seed.

The values are random but well scaled: activations stay of order one through the network, proposals differ
from place to place and classes are confident, so that a mistake anywhere changes the detections.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

Weights = dict[str, NDArray[np.float32]]
Layers = Iterator[tuple[str, str, Weights]]
"""For each layer: the group it is stored in, its name, its weights; a layer without any stands there too."""

BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
BRANCH_GAIN = {2: 0.35, 3: 0.35, 4: 0.12, 5: 0.35}
"""How much a block adds to its shortcut, by stage: stage 4 has many blocks."""


def write(
    path: Path, *, seed: int, classes: int, backbone: str = "resnet101", under_model_weights: bool = False
) -> Path:
    """Write the file; the same arguments give the same tensors. `classes` counts the background. -> `path`"""
    groups: dict[str, Weights] = {}
    for group, layer, weights in _layers(seed, classes, backbone):
        members = groups.setdefault(group, {})
        members.update({f"{layer}/{name}:0": value for name, value in weights.items()})
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if under_model_weights else file
        root.attrs["layer_names"] = [name.encode() for name in groups]
        root.attrs["keras_version"] = b"2.0.8"
        for name, members in groups.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [weight.encode() for weight in members]
            for weight, value in members.items():
                group[weight] = value
    return path


def _random(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _kernel(seed: int, name: str, *shape: int, gain: float = 2.0) -> Layers:
    """A convolution or dense layer. Filters sum to zero: what differs between places counts."""
    rng = _random(seed, name)
    kernel = rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(gain / np.prod(shape[:-1])))
    kernel -= kernel.mean(axis=tuple(range(len(shape) - 1)), keepdims=True)
    bias = 0.05 * rng.standard_normal(shape[-1], np.float32)
    group = "rpn_model" if name.startswith("rpn_") else name
    yield group, name, {"kernel": kernel, "bias": bias}


def _norm(seed: int, name: str, channels: int, gain: float = 1.0) -> Layers:
    rng = _random(seed, name)
    weights = {
        "gamma": gain * rng.uniform(0.7, 1.3, channels),
        "beta": 0.1 * rng.standard_normal(channels),
        "moving_mean": 0.1 * rng.standard_normal(channels),
        "moving_variance": rng.uniform(0.6, 1.6, channels),
    }
    yield name, name, {key: value.astype(np.float32) for key, value in weights.items()}


def _bare(*names: str) -> Layers:
    yield from ((name, name, {}) for name in names)


def _layers(seed: int, classes: int, backbone: str) -> Layers:
    yield from _bare("input_image", "zero_padding2d_1")
    # Pictures are 0..255 less the mean: the stem brings them to order one.
    yield from _kernel(seed, "conv1", 7, 7, 3, 64, gain=2 / 60**2)
    yield from _norm(seed, "bn_conv1", 64)
    yield from _bare("activation_1", "max_pooling2d_1")
    channels = 64
    for stage, count in enumerate(BLOCKS[backbone], start=2):
        for block in range(count):
            yield from _block(seed, stage, block, channels)
            channels = 64 * 2**stage
    yield from _pyramid(seed)
    yield from _heads(seed, classes)


def _block(seed: int, stage: int, block: int, channels: int) -> Layers:
    tag, filters = f"{stage}{chr(ord('a') + block)}", 16 * 2**stage
    sizes = {"2a": (1, channels, filters), "2b": (3, filters, filters), "2c": (1, filters, 4 * filters)}
    for branch, (side, inputs, outputs) in sizes.items():
        yield from _kernel(seed, f"res{tag}_branch{branch}", side, side, inputs, outputs)
        gain = BRANCH_GAIN[stage] if branch == "2c" else 1.0
        yield from _norm(seed, f"bn{tag}_branch{branch}", outputs, gain)
    if block == 0:
        yield from _kernel(seed, f"res{tag}_branch1", 1, 1, channels, 4 * filters, gain=1.0)
        yield from _norm(seed, f"bn{tag}_branch1", 4 * filters)
    yield from _bare(f"add_{tag}", f"activation_{tag}_1", f"activation_{tag}_2", f"res{tag}_out")


def _pyramid(seed: int) -> Layers:
    for level in (5, 4, 3, 2):
        yield from _kernel(seed, f"fpn_c{level}p{level}", 1, 1, 64 * 2**level, 256, gain=0.5)
        if level < 5:
            yield from _bare(f"fpn_p{level + 1}upsampled", f"fpn_p{level}add")
    for level in (5, 2, 3, 4):
        yield from _kernel(seed, f"fpn_p{level}", 3, 3, 256, 256, gain=0.5)
    yield from _bare("fpn_p6")
    yield from _kernel(seed, "rpn_conv_shared", 3, 3, 256, 512)
    yield from _kernel(seed, "rpn_class_raw", 1, 1, 512, 6, gain=20.0)
    yield from _kernel(seed, "rpn_bbox_pred", 1, 1, 512, 12)


def _heads(seed: int, classes: int) -> Layers:
    yield from _bare("rpn_class_logits", "rpn_class", "rpn_bbox", "ROI", "input_anchors", "input_image_meta")
    yield from _kernel(seed, "mrcnn_class_conv1", 7, 7, 256, 1024)
    yield from _norm(seed, "mrcnn_class_bn1", 1024)
    yield from _kernel(seed, "mrcnn_class_conv2", 1, 1, 1024, 1024)
    yield from _norm(seed, "mrcnn_class_bn2", 1024)
    yield from _kernel(seed, "mrcnn_class_logits", 1024, classes, gain=250.0)
    yield from _kernel(seed, "mrcnn_bbox_fc", 1024, 4 * classes)
    yield from _bare("roi_align_classifier", "pool_squeeze", "mrcnn_class", "mrcnn_bbox", "mrcnn_detection")
    yield from _bare("activation_class_1", "activation_class_2", "roi_align_mask")
    for i in (1, 2, 3, 4):
        yield from _kernel(seed, f"mrcnn_mask_conv{i}", 3, 3, 256, 256)
        yield from _norm(seed, f"mrcnn_mask_bn{i}", 256)
        yield from _bare(f"activation_mask_{i}")
    yield from _kernel(seed, "mrcnn_mask_deconv", 2, 2, 256, 256)
    yield from _kernel(seed, "mrcnn_mask", 1, 1, 256, classes, gain=60.0)
