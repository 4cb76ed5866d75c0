"""Load a model by name or file: name -> ModelSpec -> engine -> Segmenter."""

from collections.abc import Iterable
from pathlib import Path

from live_seg.choices import EngineName, Layout
from live_seg.engines.auto import fastest
from live_seg.engines.table import checked, create, installed
from live_seg.errors import UsageError
from live_seg.maskrcnn.config import BackboneName
from live_seg.models.spec import resolve
from live_seg.segmenter import Segmenter
from live_seg.types import Image


def load(
    model: str | Path = "small",
    *,
    engine: EngineName = "auto",
    backbone: BackboneName | None = None,
    num_classes: int | None = None,
    layout: Layout = "fit",
    size: int | None = None,
    proposals: int | None = None,
    min_score: float | None = None,
    classes: str | Iterable[str] | None = None,
) -> Segmenter:
    """Load a model by its name, such as "small", "person" or "coco", or from a weights file.

    A file is either ours (`.weights.h5`, with its JSON model card beside it), has Matterport's layout
    (`.h5`), or is a state dict of torchvision's `maskrcnn_resnet50_fpn_v2` (`.pth`). The number of classes,
    background included, and Matterport's backbone are read from the file unless given.

    `layout` "fit" pads images as little as possible; "exact" prepares them as the implementation that the
    model comes from, for torchvision's also with its size, number of proposals and score threshold. `size` is
    the longest side of the network's input in pixels, `proposals` the number of boxes that the first of two
    stages passes to the second, `min_score` the score threshold, 0..1, `classes` the names of the classes to
    detect: "person", "person,dog" or a list.

    The engine "auto" is the fastest one available: Keras on a GPU, in float16 where that is fast; otherwise
    OpenVINO, if it is installed, in int8 where the model has that form and the CPU has fast int8 arithmetic,
    else in float32. OpenVINO's float32 form is converted on first use; `live-seg optimize` creates int8.

    Raises WeightsError when the weights are unknown, missing, damaged or do not fit, UsageError for an
    invalid option or an engine that is not installed.
    """
    checked(engine)
    spec = resolve(
        model,
        backbone=backbone,
        num_classes=num_classes,
        layout=layout,
        size=size,
        proposals=proposals,
        min_score=min_score,
        classes=classes,
    )
    runs = create(fastest(spec) if engine == "auto" else engine, spec)
    return Segmenter(runs, spec.class_names, layout=layout, class_ids=spec.class_ids)


def quantized(
    model: str | Path,
    images: Iterable[Image],
    *,
    backbone: BackboneName | None = None,
    num_classes: int | None = None,
    layout: Layout = "fit",
    size: int | None = None,
) -> Path:
    """Create the int8 form of a model, keep it in the cache, and return its folder.

    `images` (H, W, 3) uint8 BGR, a hundred like those to be segmented, show which values occur. The
    other options are those of `load`. Raises WeightsError, and UsageError for an invalid option, without any
    image, or when OpenVINO or NNCF is not installed.
    """
    checked("openvino-int8")
    if not installed("nncf"):
        raise UsageError("NNCF, which quantizes models, is not installed: pip install 'live-seg[openvino]'.")
    from live_seg.engines.openvino import forms

    spec = resolve(model, backbone=backbone, num_classes=num_classes, layout=layout, size=size)
    segment = Segmenter(create("openvino", spec), spec.class_names, layout=layout)
    prepared = [segment.prepared(image) for image in images]
    if not prepared:
        raise UsageError("Calibration needs at least one image.")
    return forms.quantized(spec, prepared)
