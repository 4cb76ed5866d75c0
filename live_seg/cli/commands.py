"""The commands of the program. Their modules are imported when they are run, not for the list of commands."""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from live_seg.cli.messages import clean
from live_seg.cli.panels import PanelCommand
from live_seg.cli.signals import exit_code

Command = Callable[..., None]

SUMMARIES = {
    "webcam": "Segment a camera live. Every frame is shown; masks are propagated until the next result.",
    "video": "Segment videos and keep their audio and the time of every frame.",
    "image": "Segment images.",
    "serve": "Segment the cameras of browsers: open the page, allow the camera, see the result.",
    "demo": "Segment a generated clip: needs no download and no input file.",
    "convert": "Convert detections from --json to the formats of other tools.",
    "optimize": "Quantize a model to int8, which is faster on CPUs; `--engine auto` then uses it.",
    "train": "Train a model on photos with COCO annotations; use it with --model RUN_DIR.",
    "eval": "Measure a model on annotated photos: COCO's average precision of boxes and masks.",
    "bench": "Measure the speed of a model on this machine, by stage and end to end.",
    "doctor": "Check this machine: packages, CPU, GPU, OpenCV, ffmpeg, weights, cameras, and a test "
    "segmentation.",
}
"""The first paragraph of each command's docstring, by the name of the command and of its module."""

FUNCTIONS = {"eval": "evaluate_model"}
"""The function of a command that is not called like it."""

MARKUP: Any = "markdown"
"""How the help texts are written."""


class Group(TyperGroup):
    """A group whose commands are loaded when they are run, and whose usage errors are clean."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Parse the options before the command."""
        with _clean_usage_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Parse the command with its options, and run it."""
        try:
            with _clean_usage_errors():
                return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:  # while the command was loaded
            raise typer.Exit(exit_code(interrupt)) from None

    def resolve_command(self, *arguments: Any) -> Any:
        """Return the name, the loaded command and its arguments."""
        name, command, rest = super().resolve_command(*arguments)
        return name, loaded(command), rest


class _NotLoaded(TyperCommand):
    """A command of which the name and the summary are known. Its callback loads it."""


def add_commands(app: typer.Typer, wrap: Callable[[Command], Command]) -> None:
    """Add all commands to `app`. `wrap` is applied to the function of each."""

    def add(name: str) -> None:
        @app.command(name, cls=_NotLoaded, help=SUMMARIES[name])
        def load() -> Any:
            module = importlib.import_module(f"live_seg.cli.{name}")
            own = typer.Typer(rich_markup_mode=MARKUP, add_completion=False)
            own.command(name, cls=PanelCommand)(wrap(getattr(module, FUNCTIONS.get(name, name))))
            return typer.main.get_command(own)

    for name in SUMMARIES:
        add(name)


def loaded(command: Any) -> Any:
    """Return the command with its options, importing its module if it has not been."""
    return command.callback() if isinstance(command, _NotLoaded) and command.callback else command


@contextlib.contextmanager
def _clean_usage_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # typer has no public name for the class of usage errors
        if isinstance(message := getattr(error, "message", None), str):
            error.message = clean(message)  # type: ignore[attr-defined]
        raise
