"""The command line: arguments to calls, errors to exit codes. The only module that prints."""

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from live_seg.errors import LiveSegError, SinkError, SourceError, UsageError, WeightsError
from live_seg.options import ModelOptions, Options, Policy, with_options

if TYPE_CHECKING:
    from live_seg.session import Tally
    from live_seg.sinks import Sink
    from live_seg.structures import Source

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
        except BrokenPipeError:
            raise  # typer ends quietly: whoever read what was printed wants no more
        except Exception as error:
            if os.environ.get("LIVE_SEG_DEBUG"):
                raise
            told = f"live-seg: unexpected {type(error).__name__}: {error}\nLIVE_SEG_DEBUG=1 shows where."
            print(told, file=sys.stderr)
            raise typer.Exit(1) from None

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
@with_options
def image(
    inputs: Annotated[list[str], typer.Argument(metavar="IN...", help="Images, folders, globs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="An image, or a folder for several.")],
    options: Options,
) -> None:
    """Segment images."""
    from live_seg.sinks import Images
    from live_seg.stills import open_images

    with open_images(inputs) as source:
        names = [path.stem for path in source.paths]
        if len({name.casefold() for name in names}) < len(names):  # macOS tells no case apart
            names = [f"{index:06d}_{name}" for index, name in enumerate(names)]
        sinks = [Images(output, names=names, overwrite=options.overwrite)]
        _process(source, sinks, options, goal=output, track=False)


@app.command()
@_reported
@with_options
def video(
    source: Annotated[str, typer.Argument(metavar="IN", help="A video file, URL, or folder of frames.")],
    options: Options,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The video to write.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Show a window, too.")] = False,
    crf: Crf = 23,
    policy: Annotated[Policy | None, typer.Option(help="Default: latest if live, else all.")] = None,
) -> None:
    """Segment a video; its sound and its time line are kept."""
    if output is None and options.json is None and not show:
        raise UsageError("Nothing to do: give -o OUT.mp4, --json OUT.jsonl or --show.")
    _watch(source, options, output, crf, show=show, policy=policy)


@app.command()
@_reported
@with_options
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


EVAL_OPTIONS = ModelOptions(conf=0.05, batch=1)
"""COCO's figures want unsure detections, too; one photo at a time, the speed is a latency."""


@app.command("eval")
@_reported
@with_options
def evaluate_model(
    images: Annotated[Path, typer.Option(help="Folder of the photos.")],
    annotations: Annotated[Path, typer.Option(help="COCO instances file of these photos.")],
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    results: Annotated[Path | None, typer.Option(help="Write the detections here, as COCO results.")] = None,
    options: ModelOptions = EVAL_OPTIONS,
) -> None:
    """Measure a model on annotated photos: COCO's average precision of boxes and masks."""
    from live_seg.evaluate import evaluate, save
    from live_seg.sinks import claim
    from live_seg.truth import Truth

    outputs = [path for path in (json, results) if path is not None]
    if options.quiet and not outputs:
        raise UsageError("Nothing to do: with --quiet give --json OUT.json or --results OUT.json.")
    if json is not None and json == results:
        raise UsageError(f"--json and --results both name {json}. Give each a file of its own.")
    for path in outputs:  # asked before the work, which takes minutes
        claim(path, overwrite=options.overwrite)
    truth = Truth(images, annotations)
    found = evaluate(options.load(), truth, batch=options.batch, classes=options.wanted, quiet=options.quiet)
    if json is not None:
        save(found.metrics(), json, indent=2)
    if results is not None:
        save(found.detections, results)
    if not options.quiet:
        print("\n".join([found.report(), *(f"-> {path}" for path in outputs)]))


def _watch(
    spec: str,
    options: Options,
    output: Path | None,
    crf: int,
    *,
    show: bool,
    policy: Policy | None,
    **how: Any,
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
        _process(source, sinks, options, goal=output or options.json, policy=policy and policy.value, **how)


def _process(
    source: "Source",
    sinks: "Sequence[Sink]",
    options: Options,
    *,
    goal: Path | None,
    limit: float = float("inf"),
    **how: Any,
) -> None:
    """Run `source` through the model into `sinks`, with a progress bar and a summary that names `goal`.

    `limit` is in seconds of source time; `how` goes to `session.run`.
    """
    from tqdm import tqdm

    from live_seg.session import Tally, run, show
    from live_seg.sinks import JsonLines, claim

    tally = Tally()
    with _summary(tally, goal, quiet=options.quiet), contextlib.ExitStack() as stack:
        outlets = [stack.enter_context(sink) for sink in sinks]
        if options.json is not None:  # asked before the model loads, which takes seconds
            claim(options.json, overwrite=options.overwrite)
        segment = options.load()
        if options.json is not None:
            lines = JsonLines(options.json, segment.class_names, overwrite=options.overwrite)
            outlets.append(stack.enter_context(lines))
        results = run(source, segment, batch=options.batch, **how)
        stack.enter_context(contextlib.closing(results))
        silent = True if options.quiet else None  # None: also where stderr is no terminal
        bar = stack.enter_context(tqdm(total=source.frames, unit=" frames", disable=silent))
        for _ in show(results, options.drawing(segment), outlets, tally, limit=limit):
            bar.update()


@contextlib.contextmanager
def _summary(tally: "Tally", goal: Path | None, *, quiet: bool) -> Iterator[None]:
    """Print what was done, in one line, once the outputs are closed; also after Ctrl-C."""
    interrupted = False
    try:
        yield
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        if not quiet and (sys.exc_info()[0] is None or interrupted):
            print(
                f"{'Interrupted: ' if interrupted else ''}{tally.frames} frames in {tally.seconds:.1f} s "
                f"({tally.fps:.1f} fps), {tally.instances} instances"
                + (f" -> {goal}" if goal and tally.frames else "")
            )


@weights_app.command("list")
@_reported
def list_weights() -> None:
    """Show the known weights and where they are."""
    from live_seg.weights import WEIGHTS, status

    for name, weights in WEIGHTS.items():
        size = f"{weights.size / 1e6:.0f} MB" if weights.size else ""
        print(f"{name:8} {len(weights.classes) - 1:3} classes  {size:>7}  {status(name)}; {weights.origin}")


@weights_app.command("download")
@_reported
def download_weights(name: Annotated[str, typer.Argument(help="As shown by `weights list`.")]) -> None:
    """Download weights into the cache folder, or go on where a download broke off."""
    from live_seg.weights import download

    print(download(name))


@weights_app.command("verify")
@_reported
def verify_weights(name: Annotated[str, typer.Argument(help="As shown by `weights list`.")]) -> None:
    """Check size and hash of weights that are here."""
    from live_seg.weights import verify

    print(f"{verify(name)} is sound.")
