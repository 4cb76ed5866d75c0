"""Options shared by several commands, each declared once as a field of a dataclass."""

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from live_seg.choices import HIDING, EncoderName, EngineName, Hide, Layout, Policy, VideoCodec
from live_seg.cli.native_messages import hidden_native_messages
from live_seg.cli.outputs import check_outputs, model_files
from live_seg.cli.panels import ADVANCED, LIVE, MODEL, OUTPUT, option
from live_seg.errors import UsageError

if TYPE_CHECKING:
    from live_seg.segmenter import Segmenter
    from live_seg.sinks.encoding import Encoding
    from live_seg.types import Frame, Image, Instances, Sink, Source

    DrawFunction = Callable[..., Image]


ModelName = Annotated[str, option(MODEL, "Name (small, person, coco, coco-v2) or path of a weights file.")]
InputSize = Annotated[
    int | None,
    option(MODEL, "Longest side of the network's input in pixels.", show_default="the model's own"),
]
LayoutChoice = Annotated[
    Layout,
    option(
        ADVANCED,
        "fit pads as little as possible, exact prepares images as the model's origin: on a square, or as "
        "torchvision does.",
        show_choices=False,
    ),
]
Overwrite = Annotated[bool, option(OUTPUT, "Replace existing files.", "--overwrite")]
Quiet = Annotated[bool, option(OUTPUT, "Suppress progress and summary.", "--quiet")]

HIDING_SCORE = 0.02
"""Score threshold for hiding chosen classes. On the 150 photos of a validation set, with the bundled model
and --hide box, 16% of the pixels of large and medium persons stay visible at 0.5, 3.4% at 0.25, 2.5% at 0.05
and 1.8% at 0.02 (benchmarks/measure_hiding.py)."""


@dataclass(frozen=True)
class ModelOptions:
    """Options of every command that runs a model."""

    model: ModelName = "small"
    classes: Annotated[
        str | None, option(MODEL, "Detect only these classes: person,dog.", show_default="all")
    ] = None
    conf: Annotated[
        float | None, option(MODEL, "Score threshold.", min=0, max=1, show_default="the model's own")
    ] = None
    engine: Annotated[
        EngineName,
        option(
            MODEL,
            "auto, keras, keras-float16, openvino or openvino-int8. auto is Keras on a GPU, else OpenVINO.",
            show_choices=False,
        ),
    ] = "auto"
    size: InputSize = None
    overwrite: Overwrite = False
    quiet: Quiet = False
    batch: Annotated[int, option(ADVANCED, "Maximum number of frames segmented at once.", min=1, max=64)] = 4
    layout: LayoutChoice = "fit"
    proposals: Annotated[
        int | None,
        option(
            ADVANCED,
            "Boxes that a two-stage model examines in each image. Fewer are faster.",
            min=1,
            show_default="the model's own",
        ),
    ] = None

    def load(self) -> "Segmenter":
        """Load the model. Raises UsageError and WeightsError."""
        from live_seg.models.download import find

        path = find(self.model, quiet=self.quiet)  # report a misspelt name before loading NumPy and OpenCV
        with hidden_native_messages():
            from live_seg.models.load import load

            return load(
                path,
                engine=self.engine,
                layout=self.layout,
                size=self.size,
                proposals=self.proposals,
                min_score=self.conf,
                classes=self.class_list,
            )

    def claim_outputs(self, *paths: Path | None, inputs: Sequence[Path] = (), expected: str) -> list[Path]:
        """Return the output paths that were given, after checking that each file can be written.

        Raises UsageError for --quiet without one (`expected`), or if one would replace an input; SinkError.
        """
        from live_seg.files import check_target

        outputs = list(filter(None, paths))
        if self.quiet and not outputs:
            raise UsageError(f"Nothing to do: with --quiet give {expected}.")
        check_outputs(outputs, [*inputs, *model_files(self.model)])
        for path in outputs:
            check_target(path, overwrite=self.overwrite)
        return outputs

    def score_threshold(self) -> float:
        """Return the score threshold, 0 to 1: `conf` if given, else the model's own. Raises WeightsError."""
        from live_seg.maskrcnn.config import USUAL_THRESHOLD
        from live_seg.models.card import read_card
        from live_seg.models.download import find

        config = read_card(find(self.model, quiet=self.quiet)).get("config")
        own = config.get("min_score") if isinstance(config, dict) else None
        return next(float(score) for score in (self.conf, own, USUAL_THRESHOLD) if score is not None)

    @property
    def class_list(self) -> list[str] | None:
        """The names in `classes`; None for all classes."""
        return self.classes.split(",") if self.classes else None


@dataclass(frozen=True)
class Options(ModelOptions):
    """Options of every command that draws what it detects."""

    effect: Annotated[
        str,
        option(
            OUTPUT,
            "mask, blur, pixelate, blur-background, replace-background=FILE, grey-background or cutout. "
            "cutout needs .mov, .webm, .png or a folder. Labels, boxes and alpha apply to mask only.",
        ),
    ] = "mask"
    hide: Annotated[
        Hide,
        option(
            OUTPUT,
            "What blur and pixelate hide: mask, hull (its convex hull), or box (hull and box).",
            show_choices=False,
        ),
    ] = "box"
    json: Annotated[Path | None, option(OUTPUT, "Write one JSON object per frame; - is stdout.")] = None
    labels: Annotated[bool, option(ADVANCED, "Draw class, score and track id.")] = True
    boxes: Annotated[bool, option(ADVANCED, "Draw boxes.")] = True
    alpha: Annotated[float, option(ADVANCED, "Opacity of the mask colors.", min=0, max=1)] = 0.45

    @property
    def hides(self) -> bool:
        """True if the effect hides what is found."""
        return self.effect in HIDING

    def with_safe_threshold(self) -> Self:
        """Return options with HIDING_SCORE as threshold, to hide `classes`, unless a threshold was given."""
        return replace(self, conf=HIDING_SCORE) if self.hides and self.classes and self.conf is None else self

    @property
    def json_to_stdout(self) -> bool:
        """True if JSON Lines are written to stdout."""
        return self.json == Path("-")

    @property
    def say(self) -> Callable[[str], None]:
        """Return the function that prints the summary: to stdout, or to stderr if that is taken."""
        return functools.partial(print, file=sys.stderr) if self.json_to_stdout else print

    def check_json(self) -> None:
        """Check that the file for JSON Lines, if any, can be written. Raises SinkError."""
        from live_seg.files import check_target

        if self.json is not None and not self.json_to_stdout:
            check_target(self.json, overwrite=self.overwrite)

    def json_sink(self, names: Sequence[str]) -> "Sink":
        """Return the sink for `json`, with class `names` by id. Raises SinkError."""
        from live_seg.sinks.json_lines import JsonLines, JsonStream

        if self.json is None or self.json_to_stdout:
            return JsonStream(sys.stdout.buffer, names)
        return JsonLines(self.json, names, overwrite=self.overwrite)

    @property
    def transparent(self) -> bool:
        """True if the drawn images have an alpha channel."""
        return self.effect == "cutout"

    def draw_function(self, *, retain: bool = True) -> "DrawFunction":
        """Return a function that draws the instances of a frame, given the frame, them and the class names.

        With `retain`, blur and pixelate keep covering a lost instance for a moment at its last position;
        this needs track ids. Raises UsageError and SourceError for an invalid effect.
        """
        from live_seg.drawing.annotate import draw
        from live_seg.drawing.effects import MASK, effect_of
        from live_seg.tracking.retention import Retention

        if self.effect != MASK:
            effect, retention = effect_of(self.effect, self.hide), Retention()
            if not retain or not self.hides:
                return lambda frame, instances, *_, **__: effect(frame.image, instances)
            return lambda frame, instances, *_, **__: effect(
                frame.image, retention.update(instances, frame.seconds)
            )

        def annotated(
            frame: "Frame", instances: "Instances", names: Sequence[str], **switches: bool
        ) -> "Image":
            shown = {"labels": self.labels, "boxes": self.boxes} | switches
            return draw(frame.image, instances, names, alpha=self.alpha, **shown)

        return annotated


@dataclass(frozen=True)
class StreamOptions(Options):
    """Options of commands that read a video, a stream or a camera."""

    smooth: Annotated[bool, option(OUTPUT, "Smooth masks and scores over time.", "--smooth")] = False
    crf: Annotated[int, option(ADVANCED, "Video quality: 0 is best, 51 smallest.", min=0, max=51)] = 23
    codec: Annotated[VideoCodec, option(ADVANCED, "Codec of the video: h264, hevc or av1.")] = "h264"
    encoder: Annotated[
        EncoderName | None,
        option(
            ADVANCED,
            "auto (hardware where it works), x264, nvenc, qsv, vaapi, videotoolbox or amf.",
            show_choices=False,
            show_default="software",
        ),
    ] = None
    fail_secure: Annotated[
        bool,
        option(OUTPUT, "Hide the whole frame where a track was lost inside the picture.", "--fail-secure"),
    ] = False
    delay: Annotated[
        float,
        option(
            LIVE, "Show frames this many seconds later, to hide what is found late from before.", min=0, max=5
        ),
    ] = 0.0
    propagate: Annotated[
        bool | None,
        option(
            LIVE,
            "Show every frame, with masks propagated from the latest segmented one.",
            "--propagate/--no-propagate",
            show_default="when live",
        ),
    ] = None
    policy: Annotated[
        Policy | None,
        option(
            LIVE,
            "Process all frames, or only the latest when frames arrive too fast.",
            show_default="latest when live, else all",
        ),
    ] = None
    sound: Annotated[bool, option(ADVANCED, "Keep the sound of streams.", "--sound/--no-sound")] = True
    reconnect: Annotated[bool, option(ADVANCED, "Wait for a stream that is lost or not yet there.")] = True
    timeout: Annotated[
        float,
        option(ADVANCED, "Seconds without a frame after which a stream counts as lost.", min=0.1, max=86400),
    ] = 10.0

    def open(self, spec: str, **arguments: Any) -> "Source":
        """Open the source `spec`. Raises SourceError and UsageError."""
        from live_seg.sources.opening import open_source

        return open_source(spec, timeout=self.timeout, reconnect=self.reconnect, **arguments)

    def encoding(self) -> "Encoding":
        """Return how videos are encoded. Raises UsageError."""
        from live_seg.sinks.encoding import Encoding

        return Encoding(self.crf, self.codec, self.encoder)

    @property
    def run_arguments(self) -> dict[str, Any]:
        """The keyword arguments of `pipeline.run.run` that these options set."""
        return {
            "batch": self.batch,
            "policy": self.policy,
            "propagate": self.propagate,
            "smooth": self.score_threshold() if self.smooth else None,
        }

    def with_network_threshold(self) -> Self:
        """Return options whose network also delivers the lower scores that smoothing keeps showing."""
        if not self.smooth:
            return self
        from live_seg.tracking.smoother import HYSTERESIS

        return replace(self, conf=self.score_threshold() * HYSTERESIS)
