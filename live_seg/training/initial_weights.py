"""What a training starts from: a model, Matterport's weights, or a backbone alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

import keras
import numpy as np

from live_seg.choices import Layers
from live_seg.errors import WeightsError
from live_seg.maskrcnn import yolox
from live_seg.maskrcnn.config import MOBILE, SMALL, MaskRCNNConfig
from live_seg.maskrcnn.family import Network, build_network
from live_seg.maskrcnn.model import MaskRCNN, computing_in
from live_seg.maskrcnn.one_stage import OneStageMaskRCNN
from live_seg.models.card import class_names as names_of
from live_seg.models.checkpoint import read_network
from live_seg.models.download import find

LAYERS: tuple[str, ...] = get_args(Layers)

MOBILENET_STAGES = {"3+": "block_3_expand", "4+": "block_6_expand", "5+": "block_13_expand"}
"""The first layer of each stage: the stride of 8, 16 or 32 begins in its block."""

UNSURE = 0.05
"""Least score of a detection while training: COCO's figures want unsure ones, too."""

STRIDE = 64
"""Of the coarsest pyramid level: training pictures are multiples of it."""

BACKBONE = "backbone:"
"""Says that what follows names a file of ImageNet weights."""


YOLOX = "yolox:"
"""Says that what follows names an ONNX file of YOLOX-Nano."""


class Start(NamedTuple):
    """A network ready to learn, and what it brings along."""

    model: MaskRCNN
    fresh: str  # which layers start from nothing, "" for none


def build(config: MaskRCNNConfig, precision: str) -> Network:
    """Build a network whose layers compute in `precision`, a Keras dtype policy such as mixed_bfloat16."""
    with computing_in(precision):
        return build_network(config)


def begin(start: str, class_names: Sequence[str], size: int | None, precision: str) -> Start:
    """Build a network for `class_names`, background first, and pictures of `size`, with weights of `start`.

    `start` is a model as `load` takes it, by name or file, or "backbone:" and a file of MobileNetV2 without
    top. `size` None keeps its own, rounded up to a multiple of STRIDE.

    Raises WeightsError when the weights are unknown, missing, or do not fit.
    """
    count = len(class_names)
    if start.startswith(BACKBONE):
        config = _resized(replace(MOBILE, num_classes=count), size)
        model = build(config, precision)
        load_backbone(model, Path(start.removeprefix(BACKBONE)).expanduser())
        return Start(model, "pyramid, rpn, box_head, mask_head")
    if start.startswith(YOLOX):
        model = build(_resized(replace(SMALL, num_classes=count), size), precision)
        yolox.load(
            [model.backbone, model.neck, model.dense_head], Path(start.removeprefix(YOLOX)).expanduser()
        )
        return Start(model, "mask_fusion, mask_head")
    path = find(start)
    old = read_network(path, {})
    model = build(_resized(replace(old.config, num_classes=count), size), precision)
    return Start(model, take_over(old, names_of(path, old.config.num_classes), model, class_names))


def _resized(config: MaskRCNNConfig, size: int | None) -> MaskRCNNConfig:
    side = size or -(-config.size // STRIDE) * STRIDE
    return replace(config, size=side, min_side=min(config.min_side, side), min_score=UNSURE)


def take_over(old: MaskRCNN, old_names: Sequence[str], model: MaskRCNN, class_names: Sequence[str]) -> str:
    """Give `model` the weights of `old`, a network that may know other classes. Tells what starts fresh.

    The last layers have outputs for each class: those of a class that both know by name are taken over.
    """
    theirs, ours = _last_layers(old), _last_layers(model)
    special = {id(variable) for layer in ours.values() for variable in layer.weights}
    for one, other in zip(old.weights, model.weights, strict=True):
        if id(other) not in special:
            other.assign(one)
    places = {name.lower(): place for place, name in enumerate(old_names)}
    places[class_names[0].lower()] = 0
    taken = {new: places[name.lower()] for new, name in enumerate(class_names) if name.lower() in places}
    for name, layer in ours.items():
        first = 1 if name.endswith("_classes") else 0  # a dense head has no output for the background
        to = [new - first for new in taken if new >= first]
        of = [old - first for new, old in taken.items() if new >= first]
        for one, other in zip(theirs[name].weights, layer.weights, strict=True):
            known = np.array(one).reshape(*one.shape[:-1], len(old_names) - first, -1)
            values = np.array(other).reshape(*other.shape[:-1], len(class_names) - first, -1)
            values[..., to, :] = known[..., of, :]
            other.assign(values.reshape(other.shape))
    unknown = [name for place, name in enumerate(class_names) if place not in taken]
    return f"{', '.join(ours)} for {', '.join(unknown)}" if unknown else ""


def _last_layers(model: MaskRCNN) -> dict[str, keras.Layer]:
    """The layers with outputs for each class."""
    if isinstance(model, OneStageMaskRCNN):
        return {layer.name: layer for layer in model.dense_head.layers if layer.name.endswith("_classes")}
    box, mask = model.box_head, model.mask_head
    return {"box_head/logits": box.logits, "box_head/deltas": box.deltas, "mask_head/logits": mask.logits}


def load_backbone(model: MaskRCNN, path: Path) -> None:
    """Start from ImageNet weights of `keras.applications.MobileNetV2(include_top=False)`.

    Raises WeightsError when `path` is no such file.
    """
    whole = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(None, None, 3))
    try:
        whole.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path} holds no weights of keras.applications.MobileNetV2(include_top=False): {error}"
        ) from error
    for layer in _trunk(model).layers:
        if layer.weights:
            layer.set_weights(whole.get_layer(layer.name).get_weights())


def set_trainable(model: MaskRCNN, layers: Layers) -> None:
    """Say what of `model` learns. Batch norms never do: batches are too small for statistics of their own."""
    if isinstance(model, OneStageMaskRCNN):
        for part in (model.backbone, model.neck, model.dense_head):
            part.trainable = layers != "heads"
        return
    stages = {f"{i}+": f"stage{i}_block0_conv1" for i in (3, 4, 5)}
    if model.config.backbone == "mobilenetv2":
        stages = MOBILENET_STAGES
    learns = layers == "all"
    for layer in _trunk(model).layers:
        learns = learns or layer.name == stages.get(layers)
        layer.trainable = learns and not isinstance(layer, keras.layers.BatchNormalization)


def _trunk(model: MaskRCNN) -> keras.Model:
    """The backbone's own layers, which MobileNetV2's has inside, behind the scaling of pictures."""
    backbone = model.backbone
    return backbone.layers[-1] if model.config.backbone == "mobilenetv2" else backbone
