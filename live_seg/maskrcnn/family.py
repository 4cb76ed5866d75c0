"""Networks by config: build one and find its losses."""

import functools
from collections.abc import Callable

import keras

from live_seg.maskrcnn import one_stage_losses, training
from live_seg.maskrcnn.boxes import Tensor
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.maskrcnn.model import MaskRCNN
from live_seg.maskrcnn.one_stage import OneStageMaskRCNN

Network = MaskRCNN | OneStageMaskRCNN


def build_network(config: MaskRCNNConfig) -> Network:
    """Build the network that `config` describes, with random weights."""
    return OneStageMaskRCNN(config) if config.first_stage == "yolox" else MaskRCNN(config)


def detector_variables(model: Network) -> list[keras.Variable]:
    """Return the variables that usually start from published weights: the backbone, or a whole detector."""
    parts = [model.backbone]
    if isinstance(model, OneStageMaskRCNN):
        parts += [model.neck, model.dense_head]
    return [variable for part in parts for variable in part.variables]


def losses_of(model: Network) -> tuple[tuple[str, ...], Callable[..., dict[str, Tensor]]]:
    """Return the names of the losses of `model`, and the function that computes them.

    The function takes images (B, H, W, 3), their Truth, a Sampling and a SeedGenerator.
    """
    module = one_stage_losses if isinstance(model, OneStageMaskRCNN) else training
    return module.LOSSES, functools.partial(module.losses, model)
