"""The forms of a model that OpenVINO runs: float32, converted on first use, and int8, made by calibration."""

import logging
from collections.abc import Sequence
from pathlib import Path

from live_seg.engines.engine import Prepared
from live_seg.engines.openvino import cache
from live_seg.engines.spec import ModelSpec
from live_seg.errors import WeightsError

logger = logging.getLogger(__name__)


def form_of(spec: ModelSpec, precision: cache.Precision) -> Path:
    """Return the folder of the form of `spec` in `precision`. Raises WeightsError."""
    if precision == "float32":
        return converted(spec)
    found = cache.find(spec, precision)
    if found is None:
        raise WeightsError(
            f"{spec.weights} has no int8 form yet. Create it with a video like those to be segmented: "
            f"live-seg optimize --model {spec.weights} --calibrate VIDEO"
        )
    return found


def converted(spec: ModelSpec, *, beside: bool = False) -> Path:
    """Return the folder of the float32 form of `spec`.

    Without one it is created now, in the cache or `beside` the weights. Raises WeightsError.
    """
    found = cache.find(spec, "float32")
    if found is not None:
        return found
    logger.info("Converting %s for OpenVINO: takes a moment, once.", spec.weights.name)
    from live_seg.engines.openvino.convert import convert
    from live_seg.maskrcnn.checkpoint import read_network

    network = read_network(spec.weights, spec.config)
    return cache.keep(spec, "float32", lambda folder: convert(network, folder), beside=beside)


def quantized(spec: ModelSpec, images: Sequence[Prepared], *, beside: bool = False) -> Path:
    """Create the int8 form of `spec` and return its folder, in the cache or `beside` the weights.

    `images` show which values occur: see `quantize`. Raises WeightsError.
    """
    from live_seg.engines.openvino.quantize import quantize

    source = converted(spec)
    return cache.keep(
        spec, "int8", lambda folder: quantize(source, spec.config, images, folder), beside=beside
    )
