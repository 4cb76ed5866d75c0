"""Matterport's weights (Keras 2 `.h5`, as `mask_rcnn_coco.h5`) loaded into our layers.

Every tensor must be used. This is the only module with names of Matterport's layers.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from live_seg.errors import WeightsError
from live_seg.maskrcnn.config import RESNET_BLOCKS, BackboneName

if TYPE_CHECKING:
    import keras

    from live_seg.maskrcnn.model import MaskRCNN

Tensors = dict[str, NDArray[Any]]
"""Arrays by "layer/weight", such as "conv1/kernel"."""

NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def read(path: Path) -> Tensors:
    """Read all tensors of a Keras 2 weights file, or of a model file (group `model_weights`).

    Raises WeightsError when it is another kind of file or truncated.
    """
    with _datasets(path) as datasets:
        return {name: np.asarray(dataset) for name, dataset in datasets.items()}


@contextlib.contextmanager
def _datasets(path: Path) -> Iterator[dict[str, h5py.Dataset]]:
    try:
        with h5py.File(path) as file:
            yield dict(_weights(file.get("model_weights", file)))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} is not a complete Keras 2 weights file in Matterport's layout ({error}). "
            "If it was downloaded, delete it and download it again."
        ) from error


def _weights(root: Any) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield names and arrays. A group is a layer or, for the RPN, a model; it lists its weights."""
    for layer in root.attrs["layer_names"]:
        group = root[layer]
        for weight in group.attrs["weight_names"]:
            name = weight.decode() if isinstance(weight, bytes) else str(weight)
            yield "/".join(name.removesuffix(":0").split("/")[-2:]), group[name]


def describe_file(path: Path) -> tuple[BackboneName, int]:
    """Apply `describe` to the file `path` without reading its tensors. Raises WeightsError as `read`."""
    with _datasets(path) as datasets:
        return describe(datasets)


def describe(tensors: Mapping[str, Any]) -> tuple[BackboneName, int]:
    """Return the backbone and the number of classes, background included, that `tensors` are for.

    Raises WeightsError when they belong to another network than Mask R-CNN.
    """
    logits = tensors.get("mrcnn_class_logits/kernel")
    if logits is None or logits.ndim != 2 or "conv1/kernel" not in tensors:
        raise WeightsError(
            "These weights are not Matterport's Mask R-CNN: expected layers conv1 and mrcnn_class_logits. "
            f"Found {len(tensors)} tensors: {', '.join(sorted(tensors)[:5])} ..."
        )
    deep = any(name.startswith("res4w_") for name in tensors)
    return ("resnet101" if deep else "resnet50"), int(logits.shape[1])


def load(model: "MaskRCNN", tensors: Tensors) -> None:
    """Set every weight of `model` from `tensors`.

    Raises WeightsError that names each missing, unused or misshapen tensor, and leaves the model unchanged.
    """
    if model.config.backbone not in RESNET_BLOCKS:
        raise WeightsError(
            f"Matterport's weights are for {' and '.join(RESNET_BLOCKS)}: they do not fit a "
            f"{model.config.backbone}. Leave the backbone to be read from the file."
        )
    plan = [
        (f"{layer_name}/{weight}", variable)
        for layer_name, layer in _table(model)
        for weight, variable in zip(_weight_names(layer), layer.weights, strict=True)
    ]
    wanted = {name for name, _ in plan}
    problems = [f"missing: {name} {tuple(v.shape)}" for name, v in plan if name not in tensors]
    problems += [
        f"wrong shape: {name} is {tensors[name].shape}, the network has {tuple(variable.shape)}"
        for name, variable in plan
        if name in tensors and not _fits(tensors[name], variable)
    ]
    problems += [f"unused: {name} {tensors[name].shape}" for name in tensors if name not in wanted]
    if problems:
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise WeightsError(
            f"The weights do not fit a {model.config.backbone} with {model.config.num_classes} classes "
            f"(background included):\n  " + "\n  ".join(problems[:20]) + more
        )
    for name, variable in plan:
        variable.assign(tensors[name].reshape(variable.shape))


def _fits(tensor: NDArray[Any], variable: Any) -> bool:
    """Compare shapes. A dense layer may be stored as a convolution: (7, 7, C, n) for (49 C, n)."""
    if len(variable.shape) == 2 and tensor.ndim == 4:
        return (int(np.prod(tensor.shape[:3])), tensor.shape[3]) == tuple(variable.shape)
    return tensor.shape == tuple(variable.shape)


def _weight_names(layer: "keras.Layer") -> tuple[str, ...]:
    return NORM if len(layer.weights) == len(NORM) else ("kernel", "bias")


def _table(model: "MaskRCNN") -> Iterator[tuple[str, "keras.Layer"]]:
    """Yield all layers that have weights with Matterport's names for them."""
    yield from _backbone_table(model.backbone, RESNET_BLOCKS[model.config.backbone])
    for level, (lateral, output) in enumerate(
        zip(model.pyramid.lateral, model.pyramid.output_convs, strict=True), start=2
    ):
        yield f"fpn_c{level}p{level}", lateral
        yield f"fpn_p{level}", output
    yield "rpn_conv_shared", model.rpn.shared
    yield "rpn_class_raw", model.rpn.objectness
    yield "rpn_bbox_pred", model.rpn.deltas
    box, mask = model.box_head, model.mask_head
    for i, (dense, norm) in enumerate(zip(box.hidden, box.norms, strict=True), start=1):
        yield f"mrcnn_class_conv{i}", dense
        yield f"mrcnn_class_bn{i}", norm
    yield "mrcnn_class_logits", box.logits
    yield "mrcnn_bbox_fc", box.deltas
    for i, (conv, norm) in enumerate(zip(mask.convs, mask.norms, strict=True), start=1):
        yield f"mrcnn_mask_conv{i}", conv
        yield f"mrcnn_mask_bn{i}", norm
    yield "mrcnn_mask_deconv", mask.upsample
    yield "mrcnn_mask", mask.logits


def _backbone_table(backbone: "keras.Model", blocks: tuple[int, ...]) -> Iterator[tuple[str, "keras.Layer"]]:
    yield "conv1", backbone.get_layer("stem_conv")
    yield "bn_conv1", backbone.get_layer("stem_norm")
    for stage, count in enumerate(blocks, start=2):
        for block in range(count):
            ours, theirs = f"stage{stage}_block{block}", f"{stage}{chr(ord('a') + block)}_branch"
            for part, branch in enumerate(("2a", "2b", "2c"), start=1):
                yield f"res{theirs}{branch}", backbone.get_layer(f"{ours}_conv{part}")
                yield f"bn{theirs}{branch}", backbone.get_layer(f"{ours}_norm{part}")
            if block == 0:
                yield f"res{theirs}1", backbone.get_layer(f"{ours}_project_conv")
                yield f"bn{theirs}1", backbone.get_layer(f"{ours}_project_norm")
