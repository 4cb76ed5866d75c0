"""Resolve a model's name or file, once, into the ModelSpec that engine and segmenter work from."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from live_seg.choices import Layout
from live_seg.engines.spec import ModelSpec
from live_seg.errors import UsageError, WeightsError, nearest
from live_seg.files import reading, sha256_of
from live_seg.maskrcnn.config import BACKBONES, BackboneName, MaskRCNNConfig
from live_seg.memory import available_memory
from live_seg.models.card import card_of, class_names, read_card
from live_seg.models.classes import choose
from live_seg.models.download import find
from live_seg.models.registry import WEIGHTS

SMALLEST_SIZE = 64
"""Pixels: the coarsest pyramid level, of stride 64, then has one cell."""

BYTES_PER_PIXEL = {"csp-darknet-nano": 120, "mobilenetv2": 250}
BYTES_OF_OTHERS = 400
"""Memory for the activations of a network, per pixel of its input: measured with OpenVINO, which needs least.
A ResNet-50 takes 400 MB at 1024 x 1024."""


def resolve(
    model: str | Path,
    *,
    backbone: BackboneName | None = None,
    num_classes: int | None = None,
    layout: Layout = "fit",
    size: int | None = None,
    proposals: int | None = None,
    min_score: float | None = None,
    classes: str | Iterable[str] | None = None,
) -> ModelSpec:
    """Resolve `model` and the options of `load`: find the file, read its card, check and apply the options.

    Raises WeightsError when the weights are unknown, missing or without a usable card, UsageError for an
    invalid option.
    """
    made_of = _given(backbone=_checked_backbone(backbone), num_classes=_checked_count(num_classes))
    used = _given(
        size=_checked_size(size, layout),
        proposals=_checked_proposals(proposals),
        min_score=_checked_score(min_score),
    )
    known = WEIGHTS.get(str(model))
    path = find(str(model))
    card = read_card(path)
    _check_bytes(path, card)
    config = replace(_config(path, card, layout), **made_of, **used)
    _check_square(config, layout)
    if proposals is not None and config.first_stage == "yolox":
        raise UsageError(f"{model} is a one-stage network: it has no proposals to count.")
    _check_memory(config)
    names = class_names(path, config.num_classes, card)
    available = names[1:] if known is None or known.restricted_to is None else known.restricted_to
    if isinstance(classes, str):
        classes = classes.split(",")
    chosen = available if classes is None else tuple(classes)
    everything = classes is None and available == names[1:]
    class_ids = None if everything else choose(chosen, names, available)
    return ModelSpec(path, config, names, class_ids, card, made_of)


def _given(**options: Any) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _config(path: Path, card: dict[str, Any], layout: Layout) -> MaskRCNNConfig:
    """Return the config of the network whose weights are in the file `path`, which has the card `card`."""
    if path.suffix == ".pth":
        from live_seg.maskrcnn import torch_file, torchvision

        config = torchvision.describe(torch_file.read_shapes(path))
        return config if layout == "fit" else torchvision.exact(config)
    if not path.name.endswith(".weights.h5"):
        from live_seg.maskrcnn import matterport

        backbone, num_classes = matterport.describe_file(path)
        return MaskRCNNConfig(backbone=backbone, num_classes=num_classes)
    fields = card.get("config")
    if not isinstance(fields, dict):
        raise WeightsError(f"{path} needs its model card {card_of(path).name} beside it, with the config.")
    return MaskRCNNConfig.from_json(fields)


def _check_bytes(path: Path, card: dict[str, Any]) -> None:
    """Raise WeightsError if the file `path` has another sha256 than its card says."""
    expected = card.get("sha256")
    with reading(path):
        if expected is not None and sha256_of(path) != expected:
            raise WeightsError(
                f"{path} is damaged, or {card_of(path).name} is the card of another file: their sha256 "
                "differ. Copy or download both again; for a bundled model, reinstall live_seg."
            )


def _check_memory(config: MaskRCNNConfig) -> None:
    """Raise UsageError if a square input of the config's size would not fit into the free memory."""
    each = BYTES_PER_PIXEL.get(config.backbone, BYTES_OF_OTHERS)
    needed, free = each * config.size**2, available_memory()
    if needed > free:
        largest = int((free / each) ** 0.5) // 64 * 64
        raise UsageError(
            f"A network input of {config.size} pixels needs about {needed / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are available. Choose a size of at most {max(largest, SMALLEST_SIZE)}."
        )


def _checked_backbone(backbone: BackboneName | None) -> BackboneName | None:
    if backbone is not None and backbone not in BACKBONES:
        raise UsageError(f"Unknown backbone {backbone!r}. {nearest(backbone, BACKBONES)}")
    return backbone


def _checked_count(num_classes: int | None) -> int | None:
    if num_classes is not None and num_classes < 2:
        raise UsageError(f"A network has at least 2 classes, background included. Got {num_classes}.")
    return num_classes


def _checked_size(size: int | None, layout: Layout) -> int | None:
    if layout not in get_args(Layout):
        raise UsageError(f"Unknown layout {layout!r}: expected fit or exact.")
    if size is not None and size < SMALLEST_SIZE:
        raise UsageError(f"A network input of {size} pixels is too small: at least {SMALLEST_SIZE}.")
    return size


def _check_square(config: MaskRCNNConfig, layout: Layout) -> None:
    """Raise UsageError if the exact layout is a square whose coarsest map would have fractions of a cell."""
    if layout != "fit" and config.origin != "torchvision" and config.size % 64:
        raise UsageError(
            f"The exact layout of this model is a square whose size is a multiple of 64. Got {config.size}."
        )


def _checked_proposals(proposals: int | None) -> int | None:
    if proposals is not None and proposals < 1:
        raise UsageError(f"The first stage passes at least 1 proposal to the second. Got {proposals}.")
    return proposals


def _checked_score(score: float | None) -> float | None:
    if score is not None and not 0 <= score <= 1:
        raise UsageError(f"A score threshold is between 0 and 1. Got {score}.")
    return score
