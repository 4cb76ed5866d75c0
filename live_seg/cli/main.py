"""The command line: arguments to calls, errors to exit codes. The only module that prints."""

import functools
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from live_seg.cli.bench import bench
from live_seg.cli.demo import demo
from live_seg.cli.doctor import doctor
from live_seg.cli.eval import evaluate_model
from live_seg.cli.image import image
from live_seg.cli.optimize import optimize
from live_seg.cli.train import train
from live_seg.cli.video import video
from live_seg.cli.webcam import webcam
from live_seg.cli.weights import download_weights, list_weights, verify_weights
from live_seg.errors import LiveSegError, SinkError, SourceError, UsageError, WeightsError
from live_seg.sources.driver_thread import driver_calls_pending

INTERRUPTED = 130
"""What a shell reports for a program that Ctrl-C ended: 128 + SIGINT."""

QUIET_LIBRARIES = {
    "OPENCV_FFMPEG_LOGLEVEL": "-8",  # AV_LOG_QUIET
    "OPENCV_LOG_LEVEL": "SILENT",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
"""Environment variables that suppress native log messages: every failure is reported as an exception."""

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
    for name, level in QUIET_LIBRARIES.items():
        os.environ.setdefault(name, level)
    try:
        app()
    except SystemExit as end:
        _leave_behind_stuck_reads(end.code)
        raise


def _leave_behind_stuck_reads(code: object) -> None:
    """End the process at once while a camera driver or video library hangs (see DriverThread)."""
    if driver_calls_pending():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _reported(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what `command` raises into a message on stderr and an exit code."""

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> None:
        logging.basicConfig(level=logging.WARNING, format="live-seg: %(message)s", stream=sys.stderr)
        told_of = logging.WARNING if arguments.get("quiet") else logging.INFO  # what takes long
        logging.getLogger("live_seg.models.load").setLevel(told_of)
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


for command in (demo, image, video, webcam, train, optimize, bench, doctor):
    app.command()(_reported(command))
app.command("eval")(_reported(evaluate_model))
for name, weights_command in (
    ("list", list_weights),
    ("download", download_weights),
    ("verify", verify_weights),
):
    weights_app.command(name)(_reported(weights_command))
