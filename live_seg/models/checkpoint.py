"""Weights files into Keras networks: ours with a model card, and Matterport's."""

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

from live_seg.errors import WeightsError
from live_seg.maskrcnn import matterport
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.maskrcnn.family import Network, build_network
from live_seg.maskrcnn.model import MaskRCNN, computing_in
from live_seg.models.card import card_of, read_card


def read_network(path: Path, options: dict[str, Any], dtype: str = "float32") -> Network:
    """Build the network whose weights are in the file at `path`; `options` override fields of its config.

    `dtype` is a policy of Keras: see `computing_in`. Raises WeightsError when the weights are damaged or do
    not fit.
    """
    with computing_in(dtype):
        if path.name.endswith(".weights.h5"):
            return _read_own(path, options)
        return _read_matterport(path, options)


def _read_own(path: Path, options: dict[str, Any]) -> Network:
    config = read_card(path).get("config")
    if not isinstance(config, dict):
        raise WeightsError(f"{path} needs its model card {card_of(path).name} beside it, with the config.")
    try:
        model = build_network(replace(MaskRCNNConfig.from_json(config), **options))
        model.load_weights(path)
    except (TypeError, ValueError, KeyError, OSError) as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, 300)
        raise WeightsError(f"{path} does not fit the network of its model card: {reason}") from error
    return model


def _read_matterport(path: Path, options: dict[str, Any]) -> MaskRCNN:
    tensors = matterport.read(path)
    backbone, num_classes = matterport.describe(tensors)
    config = MaskRCNNConfig(backbone=backbone, num_classes=num_classes)
    model = MaskRCNN(replace(config, **options))
    matterport.load(model, tensors)
    return model
