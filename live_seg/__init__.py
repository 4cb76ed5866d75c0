"""Real-time instance segmentation of webcams and video files with Mask R-CNN.

    import live_seg

    segment = live_seg.load("small")
    for frame, instances in live_seg.run("street.mp4", segment):
        print(frame.seconds, instances)

Exports are imported on first use, so `import live_seg` loads neither TensorFlow nor OpenCV.
"""

# As in `typing`, whose import takes long enough for a Ctrl-C to leave a traceback.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from live_seg.drawing.annotate import draw
    from live_seg.drawing.effects import blur_background, cutout, grey_background, replace_background
    from live_seg.drawing.hiding import blur, pixelate
    from live_seg.errors import LiveSegError, SinkError, SourceError, UsageError, WeightsError
    from live_seg.exports.formats import convert
    from live_seg.images import from_rgb
    from live_seg.models.load import load
    from live_seg.pipeline.run import run
    from live_seg.pipeline.run_many import run_many
    from live_seg.segmenter import Segmenter
    from live_seg.sinks.encoding import Encoding
    from live_seg.sinks.json_lines import JsonLines
    from live_seg.sinks.video_writer import VideoWriter
    from live_seg.sources.opening import open_source
    from live_seg.tracking.tracker import Tracker
    from live_seg.types import Frame, Instance, Instances, Sink, Source
    from live_seg.ui.window import Window

__version__ = "0.2.0"

_MODULES = {
    "Encoding": "sinks.encoding",
    "Frame": "types",
    "Instance": "types",
    "Instances": "types",
    "JsonLines": "sinks.json_lines",
    "LiveSegError": "errors",
    "Segmenter": "segmenter",
    "Sink": "types",
    "SinkError": "errors",
    "Source": "types",
    "SourceError": "errors",
    "Tracker": "tracking.tracker",
    "UsageError": "errors",
    "VideoWriter": "sinks.video_writer",
    "WeightsError": "errors",
    "Window": "ui.window",
    "blur": "drawing.hiding",
    "blur_background": "drawing.effects",
    "convert": "exports.formats",
    "cutout": "drawing.effects",
    "draw": "drawing.annotate",
    "from_rgb": "images",
    "grey_background": "drawing.effects",
    "load": "models.load",
    "open_source": "sources.opening",
    "pixelate": "drawing.hiding",
    "replace_background": "drawing.effects",
    "run": "pipeline.run",
    "run_many": "pipeline.run_many",
}
"""The module that defines each export."""

__all__ = [
    "Encoding",
    "Frame",
    "Instance",
    "Instances",
    "JsonLines",
    "LiveSegError",
    "Segmenter",
    "Sink",
    "SinkError",
    "Source",
    "SourceError",
    "Tracker",
    "UsageError",
    "VideoWriter",
    "WeightsError",
    "Window",
    "blur",
    "blur_background",
    "convert",
    "cutout",
    "draw",
    "from_rgb",
    "grey_background",
    "load",
    "open_source",
    "pixelate",
    "replace_background",
    "run",
    "run_many",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
