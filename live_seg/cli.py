"""The command line: arguments to calls, errors to exit codes. The only module that prints."""

import contextlib
import functools
import inspect
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from live_seg.errors import LiveSegError, SinkError, SourceError, UsageError, WeightsError

if TYPE_CHECKING:
    from live_seg.segmenter import Segmenter
    from live_seg.sinks import Sink
    from live_seg.sources import Source

INTERRUPTED = 130
"""What a shell reports for a program that Ctrl-C ended: 128 + SIGINT."""

EXIT_CODES = {UsageError: 2, SourceError: 3, SinkError: 3, WeightsError: 4}

app = typer.Typer(
    name="live-seg",
    help="Instance segmentation of webcams and video files with Mask R-CNN.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
weights_app = typer.Typer(help="List, download and verify the known weights.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")


class Layout(StrEnum):
    """How a frame is laid into the network's input."""

    FIT = "fit"
    SQUARE = "square"


class Policy(StrEnum):
    """What to do with frames that come faster than they are segmented."""

    ALL = "all"
    LATEST = "latest"



@dataclass(frozen=True)
class Options:
    """What every command that segments takes, apart from its source and its output."""

    model: Annotated[str, typer.Option(help="person, coco, or a weights file.")] = "person"
    classes: Annotated[str | None, typer.Option(help="Only these: person,dog.")] = None
    conf: Annotated[float | None, typer.Option(min=0, max=1, help="Least score of a detection.")] = None
    size: Annotated[int | None, typer.Option(help="Longest side of the network's input, pixels.")] = None
    batch: Annotated[int, typer.Option(min=1, help="Most frames segmented at once.")] = 4
    layout: Annotated[Layout, typer.Option(help="square: Matterport's; fit: hardly any padding.")] = Layout.FIT
    labels: Annotated[bool, typer.Option(help="Write class, score and id.")] = True
    boxes: Annotated[bool, typer.Option(help="Draw boxes.")] = True
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Share of colour in a mask.")] = 0.45
    json: Annotated[Path | None, typer.Option(help="Write one JSON object per frame here.")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", help="Neither progress nor summary.")] = False

    def load(self) -> "Segmenter":
        """Load the model. Raises UsageError and WeightsError."""
        from live_seg.segmenter import load

        return load(
            self.model,
            layout=self.layout.value,
            size=self.size,
            min_score=self.conf,
            classes=self.classes.split(",") if self.classes else None,
        )


Crf = Annotated[int, typer.Option(min=0, max=51, help="Quality of H.264: 0 best, 51 smallest.")]


def main() -> None:
    """Run the program: the entry point of the `live-seg` command."""
    # TensorFlow's C++ log tells of its own workings, not of the user's task.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app()


def _reported(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what `command` raises into a message on stderr and an exit code."""

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> None:
        logging.basicConfig(level=logging.WARNING, format="live-seg: %(message)s", stream=sys.stderr)
        try:
            command(**arguments)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except LiveSegError as error:
            print(f"live-seg: {error}", file=sys.stderr)
            raise typer.Exit(EXIT_CODES.get(type(error), 1)) from None
        except Exception as error:
            if os.environ.get("LIVE_SEG_DEBUG"):
                raise
            told = f"live-seg: unexpected {type(error).__name__}: {error}\nLIVE_SEG_DEBUG=1 shows where."
            print(told, file=sys.stderr)
            raise typer.Exit(1) from None

    return wrapper


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command`, whose last parameter is `options`, the fields of Options as parameters of its own."""
    signature = inspect.signature(command)
    hints = get_type_hints(Options, include_extras=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "options"]
    shared = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(Options)
    ]

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> None:
        options = Options(**{parameter.name: arguments.pop(parameter.name) for parameter in shared})
        command(**arguments, options=options)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


@app.command()
@_reported
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The video to write.")] = Path("demo.mp4"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Neither progress nor summary.")] = False,
) -> None:
    """Segment a clip made on the spot: needs no network and no file of yours."""
    from live_seg.demo import DemoClip
    from live_seg.video_writer import VideoWriter

    with DemoClip() as source:
        sinks = [VideoWriter(output, source.fps, overwrite=overwrite)]
        _process(source, sinks, Options(overwrite=overwrite, quiet=quiet), goal=output)


@app.command()
@_reported
@_with_options
def image(
    inputs: Annotated[list[str], typer.Argument(metavar="IN...", help="Images, folders, globs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="An image, or a folder for several.")],
    options: Options,
) -> None:
    """Segment images."""
    from live_seg.sinks import Images
    from live_seg.sources import open_images

    with open_images(inputs) as source:
        names = [path.stem for path in source.paths]
        if len(set(names)) < len(names):
            names = [f"{index:06d}_{name}" for index, name in enumerate(names)]
        sinks = [Images(output, names=names, overwrite=options.overwrite)]
        _process(source, sinks, options, goal=output, track=False)


@app.command()
@_reported
@_with_options
def video(
    source: Annotated[str, typer.Argument(metavar="IN", help="A video file, URL, or folder of frames.")],
    options: Options,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The video to write.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Show a window, too.")] = False,
    crf: Crf = 23,
    policy: Annotated[Policy | None, typer.Option(help="Default: all for files, latest if live.")] = None,
) -> None:
    """Segment a video; its sound and its time line are kept."""
    if output is None and options.json is None and not show:
        raise UsageError("Nothing to do: give -o OUT.mp4, --json OUT.jsonl or --show.")
    _watch(source, options, output, crf, show=show, policy=policy)


@app.command()
@_reported
@_with_options
def webcam(
    options: Options,
    source: Annotated[str, typer.Option(help="Camera number or URL.")] = "0",
    record: Annotated[Path | None, typer.Option(help="Record the annotated clip here.")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Stop after so long.")] = float("inf"),
    show: Annotated[bool, typer.Option(help="Show a window; q or Esc ends.")] = True,
    crf: Crf = 23,
    policy: Annotated[Policy | None, typer.Option(help="Default: latest, which drops old frames.")] = None,
) -> None:
    """Segment a camera live, in a window."""
    if not show and record is None and options.json is None:
        raise UsageError("Nothing to do: without a window give --record CLIP.mp4 or --json OUT.jsonl.")
    _watch(source, options, record, crf, show=show, policy=policy, limit=seconds)


def _watch(
    spec: str, options: Options, output: Path | None, crf: int, *, show: bool, **how: Any
) -> None:
    """Segment the source `spec` into a video file, a window, or both."""
    from live_seg.sinks import Window
    from live_seg.sources import open_source
    from live_seg.video_writer import VideoWriter

    with open_source(spec) as source:
        sinks: list[Sink] = []
        if output is not None:
            overwrite = options.overwrite
            sinks.append(VideoWriter(output, source.fps, sound=source.sound, crf=crf, overwrite=overwrite))
        if show:
            sinks.append(Window(f"live-seg {source.name}"))
        _process(source, sinks, options, goal=output or options.json, **how)


def _process(
    source: "Source",
    sinks: "Sequence[Sink]",
    options: Options,
    *,
    goal: Path | None,
    track: bool = True,
    policy: Policy | None = None,
    limit: float = float("inf"),
) -> None:
    """Run `source` through the model into `sinks`, with a progress bar and a summary that names `goal`."""
    from tqdm import tqdm

    from live_seg.render import draw
    from live_seg.session import Tally, run, show
    from live_seg.sinks import JsonLines, claim

    if options.json is not None:
        claim(options.json, overwrite=options.overwrite)  # before the model is loaded, which takes seconds
    tally = Tally()
    began = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(sink) for sink in sinks]
            segment = options.load()
            names = segment.class_names
            if options.json is not None:
                opened.append(stack.enter_context(JsonLines(options.json, names, overwrite=options.overwrite)))
            picture = lambda frame, found: draw(  # noqa: E731
                frame.image, found, names, alpha=options.alpha, labels=options.labels, boxes=options.boxes
            )
            results = run(source, segment, batch=options.batch, policy=policy and policy.value, track=track)
            stack.enter_context(contextlib.closing(results))
            bar = stack.enter_context(
                tqdm(total=source.frames, unit="frames", disable=True if options.quiet else None)
            )
            for tally in show(results, picture, opened, limit=limit):
                bar.update()
    finally:
        pass
