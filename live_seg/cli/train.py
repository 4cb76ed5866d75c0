"""The command `live-seg train`."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from live_seg.choices import Layers
from live_seg.cli.native_messages import hidden_native_messages
from live_seg.cli.options import Quiet
from live_seg.cli.panels import ADVANCED, INPUT, MODEL, OUTPUT, option
from live_seg.errors import UsageError


def train(
    images: Annotated[
        list[Path] | None,
        option(INPUT, "Folder of photos; may be repeated."),
    ] = None,
    annotations: Annotated[
        list[Path] | None,
        option(INPUT, "COCO instances file, one per folder of photos."),
    ] = None,
    val_images: Annotated[Path | None, option(INPUT, "Folder of validation photos.")] = None,
    val_annotations: Annotated[
        Path | None, option(INPUT, "COCO instances file of the validation photos.")
    ] = None,
    start: Annotated[
        str | None,
        option(
            MODEL,
            "Initial weights: small, coco, coco-v2, a weights file, backbone:FILE, or yolox:FILE (ONNX).",
            "--from",
            show_default="small",
        ),
    ] = None,
    size: Annotated[
        int | None,
        option(
            MODEL,
            "Side of the training images in pixels, a multiple of 64.",
            show_default="that of the initial weights",
        ),
    ] = None,
    layers: Annotated[
        Layers | None,
        option(
            MODEL,
            "Layers to train: the heads, also the backbone from stage 5, 4 or 3 on, or all.",
            show_default="all",
        ),
    ] = None,
    output: Annotated[Path | None, option(OUTPUT, "New folder for the run.", "-o", "--output")] = None,
    resume: Annotated[
        Path | None, option(OUTPUT, "Resume the run in this folder; with --epochs, extend it.")
    ] = None,
    quiet: Quiet = False,
    epochs: Annotated[
        int | None,
        option(ADVANCED, "Passes over the training photos.", min=1, show_default="30"),
    ] = None,
    batch: Annotated[
        int | None,
        option(ADVANCED, "Images per step.", min=1, show_default="8"),
    ] = None,
    learning_rate: Annotated[
        float | None,
        option(ADVANCED, "Learning rate.", "--lr", show_default="3e-4"),
    ] = None,
    heads_first: Annotated[
        int | None,
        option(
            ADVANCED,
            "Epochs that train the heads alone at first.",
            min=0,
            show_default="a sixth of all if any layer is new",
        ),
    ] = None,
    val_every: Annotated[
        int | None,
        option(ADVANCED, "Epochs between validations.", min=1, show_default="1"),
    ] = None,
    seed: Annotated[
        int | None,
        option(ADVANCED, "Random seed.", min=0, show_default="0"),
    ] = None,
) -> None:
    """Train a model on photos with COCO annotations; use it with --model RUN_DIR."""
    choices = {
        "start": start,
        "size": size,
        "batch": batch,
        "learning_rate": learning_rate,
        "layers": layers,
        "heads_first": heads_first,
        "seed": seed,
        "val_every": val_every,
    }
    chosen: dict[str, Any] = {name: value for name, value in choices.items() if value is not None}
    if resume is not None:
        if chosen or images or annotations or val_images or val_annotations or output:
            raise UsageError("--resume uses the settings of the run: give only --epochs and --quiet with it.")
        _resume(resume, epochs, quiet)
        return
    if output is None:
        raise UsageError("Give -o RUN_DIR for a new run, or --resume RUN_DIR to continue one.")
    data = _pairs(images or [], annotations or [])
    if (val_images is None) != (val_annotations is None):
        raise UsageError("--val-images and --val-annotations belong together: give both or neither.")
    val = (val_images, val_annotations) if val_images else None
    if epochs is not None:
        chosen["epochs"] = epochs
    _train(output, quiet, data=data, val=val, **chosen)


def _pairs(images: list[Path], annotations: list[Path]) -> tuple[tuple[Path, Path], ...]:
    """Pair each folder with its annotations. Raises UsageError if their numbers differ."""
    if not images or len(images) != len(annotations):
        raise UsageError(
            f"Give --annotations once for each --images: got {len(images)} times --images and "
            f"{len(annotations)} times --annotations."
        )
    return tuple(zip(images, annotations, strict=True))


def _train(folder: Path, quiet: bool, **settings: Any) -> None:
    with hidden_native_messages(), _final_report(folder, quiet):
        from live_seg.training.settings import Settings
        from live_seg.training.train import train

        train(Settings(**settings), folder, report=_report(quiet), quiet=quiet)


def _resume(folder: Path, epochs: int | None, quiet: bool) -> None:
    with hidden_native_messages(), _final_report(folder, quiet):
        from live_seg.training.train import resume

        resume(folder, epochs=epochs, report=_report(quiet), quiet=quiet)


def _report(quiet: bool) -> Callable[[str], None]:
    return (lambda _: None) if quiet else typer.echo


@contextlib.contextmanager
def _final_report(folder: Path, quiet: bool) -> Iterator[None]:
    """Print where the best model is, or after Ctrl-C how to resume the run."""
    model = folder / "model.weights.h5"
    try:
        yield
    except KeyboardInterrupt:
        if not quiet and (folder / "settings.json").exists():
            finished = f"{model} holds the best epoch so far. " if model.exists() else ""
            typer.echo(f"Interrupted. {finished}Resume with: live-seg train --resume {folder}")
        raise
    if not quiet:
        typer.echo(f"-> {model}")
