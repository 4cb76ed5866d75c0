"""Real-time instance segmentation of webcams and video files with Mask R-CNN.

    import live_seg

    segment = live_seg.load("person")
    for frame, instances in live_seg.run("street.mp4", segment):
        print(frame.seconds, instances.boxes)

Names are loaded when first used: importing the package loads neither TensorFlow nor OpenCV.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from live_seg.drawing.annotate import draw
    from live_seg.errors import LiveSegError, SinkError, SourceError, UsageError, WeightsError
    from live_seg.models.load import load
    from live_seg.pipeline.run import run
    from live_seg.segmenter import Segmenter
    from live_seg.sources.opening import open_source
    from live_seg.types import Frame, Instances

__version__ = "0.2.0"

_HOME = {
    "LiveSegError": "errors",
    "SinkError": "errors",
    "SourceError": "errors",
    "UsageError": "errors",
    "WeightsError": "errors",
    "Frame": "types",
    "Instances": "types",
    "Segmenter": "segmenter",
    "load": "models.load",
    "draw": "drawing.annotate",
    "open_source": "sources.opening",
    "run": "pipeline.run",
}

__all__ = [
    "Frame",
    "Instances",
    "LiveSegError",
    "Segmenter",
    "SinkError",
    "SourceError",
    "UsageError",
    "WeightsError",
    "draw",
    "load",
    "open_source",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
