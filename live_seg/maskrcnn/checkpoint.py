"""Load weights files into Keras networks."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
from keras import ops

from live_seg.errors import WeightsError
from live_seg.maskrcnn import matterport, torchvision
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.maskrcnn.family import Network, build_network
from live_seg.maskrcnn.model import MaskRCNN, computing_in
from live_seg.maskrcnn.torch_file import read_tensors


def read_network(path: Path, config: MaskRCNNConfig, dtype: str = "float32") -> Network:
    """Build the network of `config` and load the weights file `path` into it.

    The file is a `.weights.h5` of Keras 3, a `.pth` of torchvision, or has Matterport's layout. `dtype` is a
    Keras dtype policy: see `computing_in`. Raises WeightsError when the weights are damaged or do not fit.
    """
    read: Callable[[Path, MaskRCNNConfig], Network] = _read_own
    if not path.name.endswith(".weights.h5"):
        read = _read_torchvision if path.suffix == ".pth" else _read_matterport
    with computing_in(dtype):
        model = read(path, config)
    for variable in model.variables:
        if not np.isfinite(ops.convert_to_numpy(variable)).all():
            raise WeightsError(f"{path} is damaged: {variable.path} contains NaN or infinity. Copy it again.")
    return model


def _read_own(path: Path, config: MaskRCNNConfig) -> Network:
    try:
        model = build_network(config)
        model.load_weights(path)
    except (TypeError, ValueError, KeyError, OSError) as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, 300)
        raise WeightsError(f"{path} does not fit the network of its model card: {reason}") from error
    return model


def _read_matterport(path: Path, config: MaskRCNNConfig) -> MaskRCNN:
    tensors = matterport.read(path)
    model = MaskRCNN(config)
    matterport.load(model, tensors)
    return model


def _read_torchvision(path: Path, config: MaskRCNNConfig) -> MaskRCNN:
    tensors = read_tensors(path)
    model = MaskRCNN(config)
    torchvision.load(model, tensors)
    return model
