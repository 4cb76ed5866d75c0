"""The command `live-seg optimize`."""

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from live_seg.choices import Layout
from live_seg.errors import SourceError

if TYPE_CHECKING:
    from live_seg.types import Image


def optimize(
    calibrate: Annotated[str, typer.Option(metavar="VIDEO", help="A video, folder or picture like yours.")],
    model: Annotated[str, typer.Option(help="person, coco, or a weights file.")] = "person",
    size: Annotated[int | None, typer.Option(help="Longest side of the network's input, pixels.")] = None,
    layout: Annotated[Layout, typer.Option(help="As it will be used.")] = "fit",
    frames: Annotated[int, typer.Option(min=1, help="Most frames to calibrate with.")] = 64,
    quiet: Annotated[bool, typer.Option("--quiet", help="Neither progress nor summary.")] = False,
) -> None:
    """Make a model faster on CPUs: its int8 form, which `--engine auto` then prefers.

    The network's numbers become 8 bits wide; frames of VIDEO show which values occur, so take one like those
    to be segmented. Takes minutes, once.
    """
    from live_seg.models.download import find
    from live_seg.models.load import quantized

    path = find(model, quiet=quiet)
    pictures = _spread(calibrate, frames)
    with _bars_on_stderr(shown=not quiet):
        made = quantized(path, pictures, layout=layout, size=size)
    if not quiet:
        print(f"{path.name} in int8 -> {made.folder}; live-seg now uses it for --engine auto.")


@contextlib.contextmanager
def _bars_on_stderr(*, shown: bool) -> Iterator[None]:
    """Show NNCF's progress bars, which are drawn on stdout, like all others: on stderr, if on a terminal."""
    with Path(os.devnull).open("w") as nowhere:
        stream = sys.stderr if shown and sys.stderr.isatty() else nowhere
        with contextlib.redirect_stdout(stream):
            yield


def _spread(spec: str, most: int) -> list["Image"]:
    """At most `most` frames of a source, evenly spread as far as it tells its length."""
    from live_seg.sources.opening import open_source

    with open_source(spec) as source:
        step = max(1, (source.frames or most) // most)
        spread = (frame.image for frame in source if frame.index % step == 0)
        chosen = list(itertools.islice(spread, most))
    if not chosen:
        raise SourceError(f"{spec} holds no frame to calibrate with.")
    return chosen
