"""The command `live-seg train`."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from live_seg.choices import Layers
from live_seg.errors import UsageError


def train(
    images: Annotated[list[Path] | None, typer.Option(help="Folder of photos; may be repeated.")] = None,
    annotations: Annotated[
        list[Path] | None, typer.Option(help="COCO instances file of these photos; one for each folder.")
    ] = None,
    val_images: Annotated[Path | None, typer.Option(help="Folder of photos to measure on.")] = None,
    val_annotations: Annotated[Path | None, typer.Option(help="Their COCO instances file.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A new folder for the run.")] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="person, coco, a weights file, or backbone:FILE.  [default: person]"),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Times each photo is seen.  [default: 30]")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of training pictures, a multiple of 64.  [default: the start's]")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Pictures in a step.  [default: 8]")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--lr", help="Learning rate.  [default: 3e-4]")
    ] = None,
    layers: Annotated[
        Layers | None,
        typer.Option(
            help="What learns: all but the backbone, also its stages from 5 etc. on.  [default: all]"
        ),
    ] = None,
    heads_first: Annotated[
        int | None,
        typer.Option(
            min=0, help="Epochs for the heads alone.  [default: a sixth of all where something starts fresh]"
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of all that is random.  [default: 0]")] = None,
    val_every: Annotated[
        int | None, typer.Option(min=1, help="Epochs between measurements.  [default: 1]")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Neither progress nor summary.")] = False,
) -> None:
    """Train a model on photos with COCO annotations; the outcome is RUN/model.weights.h5."""
    choices = {
        "start": start,
        "epochs": epochs,
        "size": size,
        "batch": batch,
        "learning_rate": learning_rate,
        "layers": layers,
        "heads_first": heads_first,
        "seed": seed,
        "val_every": val_every,
    }
    given = {name: value for name, value in choices.items() if value is not None}
    if resume is not None:
        if given or images or annotations or val_images or val_annotations or output:
            raise UsageError(
                "--resume goes on with the run's own settings: give nothing but --quiet with it."
            )
        _go_on(resume, quiet)
        return
    if output is None:
        raise UsageError("Where to? Give -o RUN_DIR, or --resume RUN_DIR to go on with a run.")
    data = _pairs(images or [], annotations or [])
    if (val_images is None) != (val_annotations is None):
        raise UsageError("--val-images and --val-annotations belong together: give both or neither.")
    val = (val_images, val_annotations) if val_images else None
    _begin(output, quiet, data=data, val=val, **given)


def _pairs(images: list[Path], annotations: list[Path]) -> tuple[tuple[Path, Path], ...]:
    if not images or len(images) != len(annotations):
        raise UsageError(
            f"Each folder of photos needs its file: got {len(images)} times --images and {len(annotations)} "
            "times --annotations."
        )
    return tuple(zip(images, annotations, strict=True))


def _begin(folder: Path, quiet: bool, **given: Any) -> None:
    from live_seg.training.settings import Settings
    from live_seg.training.train import train

    with _summary(folder, quiet):
        train(Settings(**given), folder, report=_report(quiet), quiet=quiet)


def _go_on(folder: Path, quiet: bool) -> None:
    from live_seg.training.train import resume

    with _summary(folder, quiet):
        resume(folder, report=_report(quiet), quiet=quiet)


def _report(quiet: bool) -> Callable[[str], None]:
    return (lambda _: None) if quiet else typer.echo


@contextlib.contextmanager
def _summary(folder: Path, quiet: bool) -> Iterator[None]:
    """Say where the model is; after Ctrl-C, too."""
    model = folder / "model.weights.h5"
    try:
        yield
    except KeyboardInterrupt:
        if not quiet and (folder / "settings.json").exists():
            so_far = f"the last finished epoch is in {model}; " if model.exists() else ""
            typer.echo(f"Interrupted: {so_far}to go on: live-seg train --resume {folder}")
        raise
    if not quiet:
        typer.echo(f"-> {model}")
