"""torchvision's weights (`maskrcnn_resnet50_fpn_v2`) loaded into our layers.

Every tensor must be used. This is the only module with names of torchvision's layers.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from live_seg.errors import WeightsError
from live_seg.maskrcnn.config import RESNET_BLOCKS, TORCHVISION, MaskRCNNConfig
from live_seg.maskrcnn.rules import BOX_POOL

if TYPE_CHECKING:
    import keras

    from live_seg.maskrcnn.model import MaskRCNN

Tensors = dict[str, NDArray[Any]]
"""Arrays by their names in the state dict, such as "backbone.body.conv1.weight"."""

Convert = Callable[[NDArray[Any]], NDArray[Any]]
"""Turns one tensor into the layout of Keras."""

NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}

IGNORED = ".num_batches_tracked"
"""End of the name of a counter that batch norms keep while training."""

XY_TO_YX = [1, 0, 3, 2]
"""Order of dy dx dh dw in deltas dx dy dw dh."""

PROPOSAL_UNITS = np.array([10, 10, 5, 5], np.float32)
"""The RPN's deltas in torchvision are in units of 1, ours in MOVE_UNIT and STRETCH_UNIT of `boxes`."""

CLASSES_FROM = "roi_heads.box_predictor.cls_score.weight"


def describe(shapes: Mapping[str, tuple[int, ...]]) -> MaskRCNNConfig:
    """Return the config of the network whose tensors have `shapes`, by name.

    Raises WeightsError when they belong to another network than Mask R-CNN v2.
    """
    logits, second = shapes.get(CLASSES_FROM, ()), "rpn.head.conv.1.0.weight"
    if len(logits) != 2 or second not in shapes:
        raise WeightsError(
            "These weights are not torchvision's maskrcnn_resnet50_fpn_v2: expected tensors "
            f"{CLASSES_FROM} and {second}. Found {len(shapes)}: {', '.join(sorted(shapes)[:5])} ..."
        )
    return replace(TORCHVISION, num_classes=logits[0])


def exact(config: MaskRCNNConfig) -> MaskRCNNConfig:
    """Return `config` with the settings of the exact layout: torchvision's own."""
    return replace(config, size=1333, proposals=1000, min_score=0.05)


def load(model: "MaskRCNN", tensors: Tensors) -> None:
    """Set every weight of `model` from `tensors`.

    Raises WeightsError that names each missing, unused or misshapen tensor, and leaves the model unchanged.
    """
    if model.config.origin != "torchvision":
        raise WeightsError(
            f"torchvision's weights fit its own network, not one that follows {model.config.origin}."
        )
    plan = list(_plan(model))
    wanted = {name for name, _, _ in plan}
    problems = [f"missing: {name} for {tuple(v.shape)}" for name, _, v in plan if name not in tensors]
    values: list[tuple[Any, NDArray[Any]]] = []
    for name, convert, variable in plan:
        if name in tensors:
            converted = _converted(tensors[name], convert)
            if converted is None or converted.shape != tuple(variable.shape):
                problems.append(f"wrong shape: {name} is {tensors[name].shape}, for {tuple(variable.shape)}")
            else:
                values.append((variable, converted))
    problems += [
        f"unused: {name} {tensor.shape}"
        for name, tensor in tensors.items()
        if name not in wanted and not _is_counter(name, wanted)
    ]
    if problems:
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise WeightsError(
            f"The weights do not fit torchvision's network with {model.config.num_classes} classes "
            "(background included):\n  " + "\n  ".join(problems[:20]) + more
        )
    for variable, converted in values:
        variable.assign(converted)


def _is_counter(name: str, wanted: set[str]) -> bool:
    """Return whether `name` is the counter of a batch norm whose statistics are wanted."""
    return name.endswith(IGNORED) and name.removesuffix(IGNORED) + ".running_mean" in wanted


def _converted(tensor: NDArray[Any], convert: Convert) -> NDArray[Any] | None:
    """Return the tensor in the layout of Keras; None if it does not even have the number of axes."""
    try:
        return convert(tensor)
    except ValueError:
        return None


def _plan(model: "MaskRCNN") -> Iterator[tuple[str, Convert, Any]]:
    """Yield for each variable the tensor it is made from, and how."""
    for name, layer, converts in _table(model):
        if hasattr(layer, "moving_mean"):
            for ours, theirs in NORM.items():
                yield f"{name}.{theirs}", _as_it_is, getattr(layer, ours)
            continue
        yield f"{name}.weight", converts[0], layer.kernel
        if layer.bias is not None:
            yield f"{name}.bias", converts[1], layer.bias


def _as_it_is(tensor: NDArray[Any]) -> NDArray[Any]:
    return tensor


def _convolution(kernel: NDArray[Any]) -> NDArray[Any]:
    """Convert OIHW to HWIO. The same order of axes converts a transposed convolution, IOHW, to HWOI."""
    return kernel.transpose(2, 3, 1, 0)


def _dense(kernel: NDArray[Any]) -> NDArray[Any]:
    return kernel.transpose(1, 0)


def _flattened(channels: int, side: int) -> Convert:
    """Return the conversion of a dense layer that reads regions (C, side, side), ours (side, side, C)."""

    def convert(kernel: NDArray[Any]) -> NDArray[Any]:
        units = kernel.reshape(-1, channels, side, side).transpose(2, 3, 1, 0)
        return units.reshape(side * side * channels, -1)

    return convert


def _deltas(convert: Convert, units: NDArray[Any]) -> Convert:
    """Return the conversion of a layer whose outputs are dx dy dw dh of each class or anchor."""

    def converted(tensor: NDArray[Any]) -> NDArray[Any]:
        ours = convert(tensor)
        outputs: NDArray[Any] = ours.reshape(*ours.shape[:-1], -1, 4)[..., XY_TO_YX] * units
        return outputs.reshape(ours.shape)

    return converted


PLAIN = (_convolution, _as_it_is)
DENSE = (_dense, _as_it_is)
ONES = np.ones(4, np.float32)


def _table(model: "MaskRCNN") -> Iterator[tuple[str, "keras.Layer", tuple[Convert, Convert]]]:
    """Yield torchvision's name of each layer, the layer, and the conversions of its kernel and bias."""
    for name, layer in _backbone_table(model.backbone, RESNET_BLOCKS[model.config.backbone]):
        yield name, layer, PLAIN
    pyramid, levels = model.pyramid, len(model.pyramid.lateral)
    for kind, convs, first in (("inner", pyramid.lateral, 0), ("layer", pyramid.output_convs, levels)):
        for i, conv in enumerate(convs):
            yield f"backbone.fpn.{kind}_blocks.{i}.0", conv, PLAIN
            yield f"backbone.fpn.{kind}_blocks.{i}.1", pyramid.norms[first + i], PLAIN
    for i, conv in enumerate((model.rpn.shared, *model.rpn.further)):
        yield f"rpn.head.conv.{i}.0", conv, PLAIN
    yield "rpn.head.cls_logits", model.rpn.objectness, PLAIN
    units = (_deltas(_convolution, PROPOSAL_UNITS), _deltas(_as_it_is, PROPOSAL_UNITS))
    yield "rpn.head.bbox_pred", model.rpn.deltas, units
    yield from _heads_table(model)


def _heads_table(model: "MaskRCNN") -> Iterator[tuple[str, "keras.Layer", tuple[Convert, Convert]]]:
    box, mask = model.box_head, model.mask_head
    for head, part in (("box", box), ("mask", mask)):
        norms = box.conv_norms if head == "box" else mask.norms
        for i, (conv, norm) in enumerate(zip(part.convs, norms, strict=True)):
            yield f"roi_heads.{head}_head.{i}.0", conv, PLAIN
            yield f"roi_heads.{head}_head.{i}.1", norm, PLAIN
    (dense,) = box.hidden
    flattened = _flattened(model.config.pyramid_channels, BOX_POOL)
    yield f"roi_heads.box_head.{len(box.convs) + 1}", dense, (flattened, _as_it_is)
    yield "roi_heads.box_predictor.cls_score", box.logits, DENSE
    yield "roi_heads.box_predictor.bbox_pred", box.deltas, (_deltas(_dense, ONES), _deltas(_as_it_is, ONES))
    yield "roi_heads.mask_predictor.conv5_mask", mask.upsample, PLAIN
    yield "roi_heads.mask_predictor.mask_fcn_logits", mask.logits, PLAIN


def _backbone_table(backbone: "keras.Model", blocks: tuple[int, ...]) -> Iterator[tuple[str, "keras.Layer"]]:
    body = "backbone.body"
    yield f"{body}.conv1", backbone.get_layer("stem_conv")
    yield f"{body}.bn1", backbone.get_layer("stem_norm")
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            ours, theirs = f"stage{stage + 1}_block{block}", f"{body}.layer{stage}.{block}"
            for part in (1, 2, 3):
                yield f"{theirs}.conv{part}", backbone.get_layer(f"{ours}_conv{part}")
                yield f"{theirs}.bn{part}", backbone.get_layer(f"{ours}_norm{part}")
            if block == 0:
                yield f"{theirs}.downsample.0", backbone.get_layer(f"{ours}_project_conv")
                yield f"{theirs}.downsample.1", backbone.get_layer(f"{ours}_project_norm")
