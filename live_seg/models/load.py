"""A model by name or file, ready to segment: which weights, which options, which engine."""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from live_seg.choices import EngineName, Layout
from live_seg.engines.engine import Engine
from live_seg.engines.openvino import cache
from live_seg.errors import UsageError, WeightsError, nearest
from live_seg.maskrcnn.config import BACKBONES, BackboneName
from live_seg.models.card import class_names
from live_seg.models.download import find
from live_seg.segmenter import Segmenter
from live_seg.types import Image

if TYPE_CHECKING:
    from live_seg.maskrcnn.model import MaskRCNN

logger = logging.getLogger(__name__)

SMALLEST_SIZE = 64
"""The coarsest pyramid level, of stride 64, has at least one cell."""


def load(
    model: str | Path = "person",
    *,
    engine: EngineName = "auto",
    backbone: BackboneName | None = None,
    num_classes: int | None = None,
    layout: Layout = "fit",
    size: int | None = None,
    min_score: float | None = None,
    classes: Iterable[str] | None = None,
) -> Segmenter:
    """Make a Segmenter from a model by name ("person", "coco") or from a weights file.

    A file is either in Matterport's layout (`.h5`; backbone and number of classes, background included, are
    read from it where not given) or ours (`.weights.h5`, with a JSON card of the same stem beside it). `size`
    is the longest side of the network's input in pixels; `min_score`, 0..1, the least score of a detection;
    `classes` names the only ones wanted.

    `engine` "auto" is Keras where it has a GPU, in float16 if that GPU is fast in it, or where OpenVINO is
    not installed; else OpenVINO, in int8 where that form exists ("person" brings it, `optimize` makes it),
    else in float32, converted at first use.

    Raises WeightsError when the weights are unknown, missing, damaged or do not fit, UsageError for an
    impossible option or an engine that is not installed.
    """
    path, made_of = find(str(model)), _made_of(backbone, num_classes)
    use = {"size": _checked_size(size, layout), "min_score": _checked_score(min_score)}
    chosen = {key: value for key, value in use.items() if value is not None}
    runs = _engine(_checked_engine(engine), path, made_of, chosen)
    names = class_names(path, runs.config.num_classes)
    return Segmenter(runs, names, layout=layout, classes=classes)


def _engine(name: EngineName, path: Path, made_of: dict[str, Any], chosen: dict[str, Any]) -> Engine:
    if name == "auto":
        name = _better_keras() or name
    if name.startswith("keras"):
        network = _network(path, made_of | chosen, "mixed_float16" if name == "keras-float16" else "float32")
        from live_seg.engines.keras import KerasEngine

        return KerasEngine(network)
    from live_seg.engines.openvino.engine import OpenVINOEngine

    form = None if name == "openvino" else cache.find(path, "int8", made_of)
    if form is None and name == "openvino-int8":
        raise WeightsError(
            f"{path} has no int8 form yet. Make it with frames of your own: "
            f"live-seg optimize --model {path} --calibrate VIDEO"
        )
    form = form or converted(path, made_of)
    return OpenVINOEngine(form.folder, replace(form.config, **chosen), cache=cache.compiled_folder())


def converted(path: Path, made_of: dict[str, Any] | None = None) -> cache.Converted:
    """The float32 form for OpenVINO of the weights file at `path`, made now if it is not there.

    `made_of`: fields of the config to go by instead of the file's. Raises WeightsError.
    """
    made_of = made_of or {}
    found = cache.find(path, "float32", made_of)
    if found is not None:
        return found
    logger.info("Converting %s for OpenVINO: takes a moment, once.", path.name)
    with silenced_stderr():
        from live_seg.engines.openvino.convert import convert
    network = _network(path, made_of)
    return cache.keep(path, "float32", made_of, network.config, lambda folder: convert(network, folder))


def quantized(
    path: Path,
    pictures: Iterable[Image],
    *,
    backbone: BackboneName | None = None,
    num_classes: int | None = None,
    layout: Layout = "fit",
    size: int | None = None,
) -> cache.Converted:
    """Make the int8 form of the weights file at `path`, and keep it in the cache.

    `pictures` (H, W, 3) uint8 BGR, a hundred or so like those to be segmented, show which values occur; they
    are laid out as `load` would, with `layout` and `size`. `backbone` and `num_classes` as `load` will be
    given them. Raises WeightsError, and UsageError for an impossible option, for no picture, or when OpenVINO
    or NNCF is not installed.
    """
    _checked_engine("openvino-int8")
    if find_spec("nncf") is None:
        raise UsageError("NNCF, which makes int8 forms, is not installed: pip install 'live-seg[openvino]'.")
    from live_seg.engines.openvino.engine import OpenVINOEngine
    from live_seg.engines.openvino.quantize import quantize

    made_of = _made_of(backbone, num_classes)
    form = converted(path, made_of)
    config = replace(form.config, size=_checked_size(size, layout) or form.config.size)
    names = class_names(path, config.num_classes)
    segment = Segmenter(OpenVINOEngine(form.folder, config), names, layout=layout)
    prepared = [segment.prepared(picture) for picture in pictures]
    if not prepared:
        raise UsageError("Calibration takes at least one picture.")
    return cache.keep(
        path, "int8", made_of, form.config, lambda folder: quantize(form.folder, config, prepared, folder)
    )


def _network(path: Path, options: dict[str, Any], dtype: str = "float32") -> "MaskRCNN":
    with silenced_stderr():
        from live_seg.models.checkpoint import read_network
    return read_network(path, options, dtype)


@contextlib.contextmanager
def silenced_stderr() -> Iterator[None]:
    """Send stderr nowhere: while TensorFlow loads, it tells of itself there at any log level."""
    saved = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _better_keras() -> EngineName | None:
    """The form of Keras that is better than OpenVINO, because of a GPU or because it is the only one there.

    JAX is only ever asked for by name.
    """
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        return "keras"
    abilities = _gpu_abilities()
    if not abilities:
        return None if find_spec("openvino") is not None else "keras"
    return "keras-float16" if min(abilities) >= FAST_IN_HALF else "keras"


FAST_IN_HALF = (7, 0)
"""NVIDIA's compute capability from which on a GPU has tensor cores, which multiply float16 matrices."""


def _gpu_abilities() -> list[tuple[int, int]]:
    """The compute capability of each GPU that TensorFlow can use."""
    # TensorFlow takes seconds to load and to look. Linux under Windows has dxg for all of its GPUs.
    if not [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("dxg")]:
        return []
    with silenced_stderr():
        import tensorflow as tf

    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [detail.get("compute_capability", (0, 0)) for detail in details]


def _checked_engine(name: EngineName) -> EngineName:
    names: tuple[str, ...] = get_args(EngineName)
    if name not in names:
        raise UsageError(f"Unknown engine {name!r}. {nearest(name, names)}")
    if name.startswith("openvino") and find_spec("openvino") is None:
        raise UsageError(
            "OpenVINO is not installed: pip install 'live-seg[openvino]', or use --engine keras."
        )
    return name


def _made_of(backbone: BackboneName | None, num_classes: int | None) -> dict[str, Any]:
    """Fields of the config that were given, checked."""
    network = {"backbone": _checked_backbone(backbone), "num_classes": _checked_count(num_classes)}
    return {key: value for key, value in network.items() if value is not None}


def _checked_backbone(backbone: BackboneName | None) -> BackboneName | None:
    if backbone is not None and backbone not in BACKBONES:
        raise UsageError(f"Unknown backbone {backbone!r}. {nearest(backbone, BACKBONES)}")
    return backbone


def _checked_count(num_classes: int | None) -> int | None:
    if num_classes is not None and num_classes < 2:
        raise UsageError(f"A network has at least 2 classes, background included. Got {num_classes}.")
    return num_classes


def _checked_size(size: int | None, layout: Layout) -> int | None:
    if layout not in ("fit", "square"):
        raise UsageError(f"Unknown layout {layout!r}: expected fit or square.")
    if size is not None and size < SMALLEST_SIZE:
        raise UsageError(f"A network input of {size} pixels is too small: at least {SMALLEST_SIZE}.")
    if size is not None and layout == "square" and size % 64:
        raise UsageError(f"The square layout needs a size that is a multiple of 64. Got {size}.")
    return size


def _checked_score(score: float | None) -> float | None:
    if score is not None and not 0 <= score <= 1:
        raise UsageError(f"A least score lies between 0 and 1. Got {score}.")
    return score
