"""Options that the commands share: declared once, given to each."""

import functools
import inspect
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, get_type_hints

import typer

from live_seg.choices import EngineName, Layout, Policy
from live_seg.errors import UsageError

if TYPE_CHECKING:
    from live_seg.segmenter import Segmenter
    from live_seg.sinks.recorder import Recorder
    from live_seg.types import Frame, Image, Instances, Source

    Drawing = Callable[..., Image]


@dataclass(frozen=True)
class ModelOptions:
    """What every command that runs a model takes."""

    model: Annotated[str, typer.Option(help="person, coco, or a weights file.")] = "person"
    classes: Annotated[str | None, typer.Option(help="Only these: person,dog.")] = None
    conf: Annotated[float | None, typer.Option(min=0, max=1, help="Least score of a detection.")] = None
    size: Annotated[int | None, typer.Option(help="Longest side of the network's input, pixels.")] = None
    batch: Annotated[int, typer.Option(min=1, help="Most frames segmented at once.")] = 4
    engine: Annotated[EngineName, typer.Option(help="auto: Keras on a GPU, else OpenVINO.")] = "auto"
    layout: Annotated[Layout, typer.Option(help="square: Matterport's; fit: hardly any padding.")] = "fit"
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", help="Neither progress nor summary.")] = False

    def load(self) -> "Segmenter":
        """Load the model. Raises UsageError and WeightsError."""
        from live_seg.models.download import find

        path = find(self.model, quiet=self.quiet)  # a misspelt name is told before NumPy and OpenCV load
        from live_seg.models.load import load

        return load(
            path,
            engine=self.engine,
            layout=self.layout,
            size=self.size,
            min_score=self.conf,
            classes=self.wanted,
        )

    def claimed(self, json: Path | None, other: Path | None, *, otherwise: str) -> list[Path]:
        """Those of two outputs that were asked for, each checked before work that takes minutes.

        Raises UsageError when nothing would come of the work, and then tells `otherwise`; SinkError where a
        file cannot be written.
        """
        from live_seg.files import claim

        outputs = [path for path in (json, other) if path is not None]
        if self.quiet and not outputs:
            raise UsageError(f"Nothing to do: with --quiet give {otherwise}.")
        for path in outputs:
            claim(path, overwrite=self.overwrite)
        return outputs

    def threshold(self) -> float:
        """The least score of a detection: as given, or else the model's own. Raises WeightsError."""
        from live_seg.maskrcnn.config import USUAL_THRESHOLD
        from live_seg.models.card import read_card
        from live_seg.models.download import find

        config = read_card(find(self.model, quiet=self.quiet)).get("config")
        own = config.get("min_score") if isinstance(config, dict) else None
        return next(float(score) for score in (self.conf, own, USUAL_THRESHOLD) if score is not None)

    @property
    def wanted(self) -> list[str] | None:
        """The names in `classes`; None for all."""
        return self.classes.split(",") if self.classes else None


@dataclass(frozen=True)
class Options(ModelOptions):
    """What every command takes that draws what it finds, apart from its source and its output."""

    labels: Annotated[bool, typer.Option(help="Write class, score and id.")] = True
    boxes: Annotated[bool, typer.Option(help="Draw boxes.")] = True
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Share of colour in a mask.")] = 0.45
    effect: Annotated[
        str,
        typer.Option(
            help="mask, blur, pixelate, blur-background, replace-background=IMAGE, grey-background, or "
            "cutout (transparent: .mov, .webm, .png, a folder). Labels, boxes, alpha: of mask alone."
        ),
    ] = "mask"
    json: Annotated[Path | None, typer.Option(help="Write one JSON object per frame here.")] = None

    @property
    def transparent(self) -> bool:
        """Whether the pictures have an alpha channel."""
        return self.effect == "cutout"

    def drawing(self, *, hold: bool = True) -> "Drawing":
        """Make the function that draws what was found: a frame, its instances, the names of the classes.

        With `hold` an effect that hides people keeps, for a moment, what drops out where it was last; that
        takes track ids. Raises UsageError and SourceError for a bad effect.
        """
        from live_seg.drawing.annotate import draw
        from live_seg.drawing.effects import MASK, effect_of
        from live_seg.tracking.retention import Retention

        if self.effect != MASK:
            effect, retention = effect_of(self.effect), Retention()
            if not hold or self.effect not in ("blur", "pixelate"):
                return lambda frame, instances, *_, **__: effect(frame.image, instances)
            return lambda frame, instances, *_, **__: effect(
                frame.image, retention.update(instances, frame.seconds)
            )

        def picture(
            frame: "Frame", instances: "Instances", names: Sequence[str], **switches: bool
        ) -> "Image":
            given = {"labels": self.labels, "boxes": self.boxes} | switches
            return draw(frame.image, instances, names, alpha=self.alpha, **given)

        return picture


@dataclass(frozen=True)
class StreamOptions(Options):
    """What commands take that may read from a network."""

    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds without a picture until a stream counts as dead.")
    ] = 10.0
    reconnect: Annotated[bool, typer.Option(help="Wait for a stream that is gone, or not there yet.")] = True
    propagate: Annotated[
        bool | None,
        typer.Option(
            "--propagate/--no-propagate", help="Show every frame, masks propagated.  [default: when live]"
        ),
    ] = None
    smooth: Annotated[bool, typer.Option("--smooth", help="Average masks and scores over time.")] = False
    crf: Annotated[int, typer.Option(min=0, max=51, help="Quality of H.264: 0 best, 51 smallest.")] = 23
    policy: Annotated[
        Policy | None, typer.Option(help="Frames that come too fast.  [default: latest if live, else all]")
    ] = None

    def open(self, spec: str, **how: Any) -> "Source":
        """Open a source. Raises SourceError and UsageError."""
        from live_seg.sources.opening import open_source

        return open_source(spec, timeout=self.timeout, reconnect=self.reconnect, **how)

    @property
    def running(self) -> dict[str, Any]:
        """What `session.run` is told of it."""
        return {
            "batch": self.batch,
            "policy": self.policy,
            "propagate": self.propagate,
            "smooth": self.threshold() if self.smooth else None,
        }

    def delivering(self) -> Self:
        """The same, with a network that delivers all that is shown: smoothing keeps what grows unsure."""
        if not self.smooth:
            return self
        from live_seg.tracking.smoother import KEEP

        return replace(self, conf=self.threshold() * KEEP)


@dataclass(frozen=True)
class LiveOptions(StreamOptions):
    """What a live session takes besides."""

    camera_size: Annotated[str | None, typer.Option(help="Ask the camera for this: 1280x720.")] = None
    camera_fps: Annotated[float | None, typer.Option(help="Ask the camera for this rate.")] = None
    camera_backend: Annotated[str, typer.Option(help="any, v4l2, avfoundation or gstreamer.")] = "any"
    record: Annotated[
        str | None, typer.Option(help="Record here; {time} and {number:03d} are filled in.")
    ] = None
    record_on: Annotated[
        str | None, typer.Option(help="Record only while one of these is seen: person,dog.")
    ] = None
    pre: Annotated[float, typer.Option(min=0, help="Seconds recorded from before it was seen.")] = 3.0
    post: Annotated[float, typer.Option(min=0, help="Seconds recorded after it was last seen.")] = 5.0
    segment: Annotated[str | None, typer.Option(help="Begin a new file after so long: 10m.")] = None

    def open(self, spec: str, **how: Any) -> "Source":
        """Open a source, a camera as it was asked for. Raises SourceError and UsageError."""
        from live_seg.sources.cameras import CameraSettings, parse_size

        size = parse_size(self.camera_size) if self.camera_size else None
        camera = CameraSettings(size, self.camera_fps, self.camera_backend)
        # V4L2 then ends a silent read by itself. OpenCV reads this once, in whole seconds.
        os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(math.ceil(self.timeout)))
        return super().open(spec, camera=camera, **how)

    @property
    def running(self) -> dict[str, Any]:
        """What `session.run` is told of it; what is shown, the keys decide afterwards."""
        return {**super().running, "smooth": 0.0 if self.smooth else None}

    def check_recording(self) -> None:
        """Refuse, before model and source are opened, what no recording can do. Raises as `recorder` does.

        Classes are checked by the model's card; where it names none, only the model itself can tell.
        """
        from live_seg.models.card import read_card
        from live_seg.models.download import find
        from live_seg.sources.captures import DEFAULT_FPS

        names = read_card(find(self.model, quiet=self.quiet)).get("class_names")
        checked = self if names else replace(self, record_on=None)
        checked.recorder(DEFAULT_FPS, names or ())

    def recorder(self, fps: float, class_names: Sequence[str]) -> "Recorder":
        """Make what records. Raises UsageError and SinkError."""
        from live_seg.models.classes import choose
        from live_seg.sinks.recorder import Recorder, Trigger, parse_duration

        on = None
        if self.record_on:
            wanted = choose(self.record_on.split(","), class_names)
            on = Trigger(frozenset(wanted), self.pre, self.post)
        length = parse_duration(self.segment) if self.segment else math.inf
        template = self.record or "live-seg_{time}.mp4"
        return Recorder(template, fps, trigger=on, segment=length, crf=self.crf, overwrite=self.overwrite)


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command`, in place of its parameter `options`, that dataclass's fields as parameters of its own.

    Their defaults are those of the default of `options` where it has one, else the dataclass's.
    """
    signature = inspect.signature(command)
    given = signature.parameters["options"]
    kind = given.annotation
    standard = kind() if given.default is inspect.Parameter.empty else given.default
    hints = get_type_hints(kind, include_extras=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "options"]
    shared = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=getattr(standard, field.name),
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> None:
        options = kind(**{parameter.name: arguments.pop(parameter.name) for parameter in shared})
        command(**arguments, options=options)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper
