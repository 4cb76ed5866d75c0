"""The command line: arguments to calls, errors to exit codes. The only module that prints."""

import contextlib
import functools
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from live_seg.commands.bench import bench
from live_seg.commands.check import doctor
from live_seg.commands.learn import evaluate_model, train
from live_seg.commands.live import summed_up, webcam
from live_seg.commands.optimize import optimize
from live_seg.commands.options import Options, StreamOptions, with_options
from live_seg.errors import LiveSegError, SinkError, SourceError, UsageError, WeightsError

if TYPE_CHECKING:
    from live_seg.sinks.files import Sink
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


def main() -> None:
    """Run the program: the entry point of the `live-seg` command."""
    # TensorFlow's C++ log tells of its own workings, not of the user's task.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        app()
    except SystemExit as end:
        _leave_behind_stuck_reads(end.code)
        raise


def _leave_behind_stuck_reads(code: object) -> None:
    """End at once where a driver still hangs in the read of a camera or stream, whose thread is a daemon.

    A read that returns while the interpreter is taken down would abort the process (before Python 3.14).
    """
    if any(thread.daemon and thread.name.startswith("live_seg ") for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _reported(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what `command` raises into a message on stderr and an exit code."""

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> None:
        logging.basicConfig(level=logging.WARNING, format="live-seg: %(message)s", stream=sys.stderr)
        told_of = logging.WARNING if arguments.get("quiet") else logging.INFO  # what takes long
        logging.getLogger("live_seg.loading").setLevel(told_of)
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
            print(f"live-seg: {_unforeseen(error)}\nLIVE_SEG_DEBUG=1 shows where.", file=sys.stderr)
            raise typer.Exit(1) from None

    return wrapper


def _unforeseen(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"Too little memory. A smaller --size or --batch takes less. {error}".rstrip()
    return f"unexpected {type(error).__name__}: {error}"


@app.command()
@_reported
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The video to write.")] = Path("demo.mp4"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Neither progress nor summary.")] = False,
) -> None:
    """Segment a clip made on the spot: needs no network and no file of yours."""
    from live_seg.demo import DemoClip
    from live_seg.sinks.video_writer import VideoWriter

    with DemoClip() as source:
        sinks = [VideoWriter(output, source.fps, overwrite=overwrite)]
        options = Options(overwrite=overwrite, quiet=quiet)
        _process(source, sinks, options, goal=output, batch=options.batch)


@app.command()
@_reported
@with_options
def image(
    inputs: Annotated[list[str], typer.Argument(metavar="IN...", help="Images, folders, globs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="An image, or a folder for several.")],
    options: Options,
) -> None:
    """Segment images."""
    from live_seg.sinks.files import Images
    from live_seg.sources.stills import open_images

    with open_images(inputs) as source:
        names = [path.stem for path in source.paths]
        if len({name.casefold() for name in names}) < len(names):  # macOS tells no case apart
            names = [f"{index:06d}_{name}" for index, name in enumerate(names)]
        sinks = [Images(output, names=names, alpha=options.transparent, overwrite=options.overwrite)]
        _process(source, sinks, options, goal=output, track=False, batch=options.batch)


@app.command()
@_reported
@with_options
def video(
    source: Annotated[str, typer.Argument(metavar="IN", help="A video file, URL, or folder of frames.")],
    options: StreamOptions,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The video to write, or a folder of pictures.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show a window, too.")] = False,
    every: Annotated[
        int, typer.Option(min=1, help="Segment every Nth frame, carry its masks through the others.")
    ] = 1,
) -> None:
    """Segment a video; its sound and its time line are kept."""
    if output is None and options.json is None and not show:
        raise UsageError("Nothing to do: give -o OUT.mp4, --json OUT.jsonl or --show.")
    from live_seg.screen.window import Window

    with options.open(source, wait=False) as opened:
        sinks = [_outlet(output, opened, options)] if output else []
        if show:
            sinks.append(Window(f"live-seg {opened.name}"))
        goal = output or options.json
        _process(opened, sinks, options.delivering(), goal=goal, every=every, **options.running)


def _outlet(output: Path, source: "Source", options: StreamOptions) -> "Sink":
    """What writes the drawn pictures: a video, or pictures into a folder."""
    from live_seg.sinks.files import Images
    from live_seg.sinks.video_writer import VideoWriter

    alpha, overwrite = options.transparent, options.overwrite
    if output.is_dir() or not output.suffix:
        return Images(output, alpha=alpha, overwrite=overwrite)
    sound, crf = source.sound, options.crf
    return VideoWriter(output, source.fps, sound=sound, crf=crf, alpha=alpha, overwrite=overwrite)


for command in (webcam, train, optimize, bench, doctor):
    app.command()(_reported(command))
app.command("eval")(_reported(evaluate_model))


def _process(
    source: "Source",
    sinks: "Sequence[Sink]",
    options: Options,
    *,
    goal: Path | None,
    track: bool = True,
    **how: Any,
) -> None:
    """Run `source` through the model into `sinks`, with a progress bar and a summary that names `goal`.

    `how` goes to `session.run`.
    """
    from tqdm import tqdm

    from live_seg.session import Tally, run, show
    from live_seg.sinks.files import JsonLines, claim

    tally = Tally()
    with summed_up(tally, [goal] if goal else [], quiet=options.quiet), contextlib.ExitStack() as stack:
        outlets = [stack.enter_context(sink) for sink in sinks]
        if options.json is not None:  # asked before the model loads, which takes seconds
            claim(options.json, overwrite=options.overwrite)
        draw = options.drawing(hold=track)
        segment = options.load()
        if options.json is not None:
            lines = JsonLines(options.json, segment.class_names, overwrite=options.overwrite)
            outlets.append(stack.enter_context(lines))
        found = run(source, segment, track=track, tally=tally, **how)
        stack.enter_context(contextlib.closing(found))
        silent = True if options.quiet else None  # None: also where stderr is no terminal
        bar = stack.enter_context(tqdm(total=source.frames, unit=" frames", disable=silent))
        drawn = functools.partial(draw, names=segment.class_names)
        for _ in show(found, drawn, outlets, tally):
            bar.update()


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
