"""Initial weights of a training: a model, Matterport's weights, a backbone, or YOLOX-Nano."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

import h5py
import keras
import numpy as np

from live_seg.choices import Layers
from live_seg.errors import WeightsError
from live_seg.maskrcnn import yolox
from live_seg.maskrcnn.checkpoint import read_network
from live_seg.maskrcnn.config import MOBILE, SMALL, MaskRCNNConfig
from live_seg.maskrcnn.family import Network, build_network
from live_seg.maskrcnn.model import computing_in
from live_seg.maskrcnn.one_stage import OneStageMaskRCNN
from live_seg.models.spec import resolve

LAYERS: tuple[str, ...] = get_args(Layers)

MOBILENET_STAGES = {"3+": "block_3_expand", "4+": "block_6_expand", "5+": "block_13_expand"}
"""First layer of each trainable stage: its block has the first map of stride 8, 16 or 32."""

TRAINING_MIN_SCORE = 0.05
"""Score threshold while training: COCO's average precision counts detections of low scores, too."""

STRIDE = 64
"""Stride of the coarsest pyramid level. Sides of training images are multiples of it."""

BACKBONE_PREFIX = "backbone:"
"""Prefix of the path of a file of ImageNet weights."""

YOLOX_PREFIX = "yolox:"
"""Prefix of the path of an ONNX file of YOLOX-Nano."""


class InitialNetwork(NamedTuple):
    """A network to train, and which of its layers have random weights."""

    model: Network
    untrained: str  # names of the layers with random weights, "" for none


def build(config: MaskRCNNConfig, precision: str) -> Network:
    """Build a network whose layers compute in `precision`, a Keras dtype policy such as mixed_bfloat16."""
    with computing_in(precision):
        return build_network(config)


def initial_network(
    start: str, class_names: Sequence[str], size: int | None, precision: str
) -> InitialNetwork:
    """Build a network for `class_names` (background first) and give it the initial weights `start`.

    `start` is one of:

    - a model as `live_seg.load` takes it, by name or file,
    - "backbone:FILE", weights of `keras.applications.MobileNetV2(include_top=False)`,
    - "yolox:FILE", YOLOX-Nano as ONNX, for the one-stage network; reading it needs the `onnx` package.

    `size` is the side of training images in pixels; None keeps that of `start`, rounded up to a multiple of
    STRIDE. Raises WeightsError if the weights are unknown, missing or do not fit.
    """
    count = len(class_names)
    if start.startswith(BACKBONE_PREFIX):
        path = Path(start.removeprefix(BACKBONE_PREFIX)).expanduser()
        if not h5py.is_hdf5(path):  # before the network is built, which takes seconds
            raise _no_backbone(path, "it is missing or no HDF5 file")
        model = build(_resized(replace(MOBILE, num_classes=count), size), precision)
        load_backbone(model, path)
        return InitialNetwork(model, "pyramid, rpn, box_head, mask_head")
    if start.startswith(YOLOX_PREFIX):
        model = build(_resized(replace(SMALL, num_classes=count), size), precision)
        yolox.load(
            [model.backbone, model.neck, model.dense_head],
            Path(start.removeprefix(YOLOX_PREFIX)).expanduser(),
        )
        return InitialNetwork(model, "mask_fusion, mask_head")
    spec = resolve(start)
    old = read_network(spec.weights, spec.config)
    model = build(_resized(replace(old.config, num_classes=count), size), precision)
    return InitialNetwork(model, transfer_weights(old, spec.class_names, model, class_names))


def _resized(config: MaskRCNNConfig, size: int | None) -> MaskRCNNConfig:
    side = size or -(-config.size // STRIDE) * STRIDE
    return replace(config, size=side, min_side=min(config.min_side, side), min_score=TRAINING_MIN_SCORE)


def transfer_weights(
    old: Network, old_names: Sequence[str], model: Network, class_names: Sequence[str]
) -> str:
    """Copy the weights of `old` to `model`, whose classes may differ.

    The last layers have outputs for each class. Those of classes that both networks know are copied, matched
    by name regardless of case; the background always is class 0. Returns which layers keep random weights
    for which classes, "" for none.
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


def _last_layers(model: Network) -> dict[str, keras.Layer]:
    """Return the layers with outputs for each class, by name."""
    if isinstance(model, OneStageMaskRCNN):
        return {layer.name: layer for layer in model.dense_head.layers if layer.name.endswith("_classes")}
    box, mask = model.box_head, model.mask_head
    return {"box_head/logits": box.logits, "box_head/deltas": box.deltas, "mask_head/logits": mask.logits}


def load_backbone(model: Network, path: Path) -> None:
    """Load ImageNet weights of `keras.applications.MobileNetV2(include_top=False)` into the backbone.

    Raises WeightsError if `path` is missing or another kind of file.
    """
    whole = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(None, None, 3))
    try:
        whole.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise _no_backbone(path, str(error)) from error
    for layer in _trunk(model).layers:
        if layer.weights:
            layer.set_weights(whole.get_layer(layer.name).get_weights())


def _no_backbone(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"{path} holds no weights of keras.applications.MobileNetV2(include_top=False): {reason}"
    )


def set_trainable(model: Network, layers: Layers) -> None:
    """Make `layers` of `model` trainable and freeze the rest.

    Batch norms stay frozen: batches are too small for statistics of their own. In a one-stage network,
    "heads" is the mask head with its map, and every other value is "all".
    """
    if isinstance(model, OneStageMaskRCNN):
        for part in (model.backbone, model.neck, model.dense_head):
            part.trainable = layers != "heads"
        return
    stages = {f"{i}+": f"stage{i}_block0_conv1" for i in (3, 4, 5)}
    if model.config.backbone == "mobilenetv2":
        stages = MOBILENET_STAGES
    trainable = layers == "all"
    for layer in _trunk(model).layers:
        trainable = trainable or layer.name == stages.get(layers)
        layer.trainable = trainable and not isinstance(layer, keras.layers.BatchNormalization)


def _trunk(model: Network) -> keras.Model:
    """Return the backbone without the scaling of pixel values that precedes MobileNetV2."""
    backbone = model.backbone
    return backbone.layers[-1] if model.config.backbone == "mobilenetv2" else backbone
