"""The command `live-seg optimize`."""

from typing import TYPE_CHECKING, Annotated

import typer

from live_seg.commands.options import Layout
from live_seg.errors import SourceError

if TYPE_CHECKING:
    from live_seg.structures import Image


def optimize(
    calibrate: Annotated[str, typer.Option(metavar="VIDEO", help="A video, folder or picture like yours.")],
    model: Annotated[str, typer.Option(help="person, coco, or a weights file.")] = "person",
    size: Annotated[int | None, typer.Option(help="Longest side of the network's input, pixels.")] = None,
    layout: Annotated[Layout, typer.Option(help="As it will be used.")] = Layout.FIT,
    frames: Annotated[int, typer.Option(min=1, help="Most frames to calibrate with.")] = 64,
) -> None:
    """Make a model faster on CPUs: its int8 form, which `--engine auto` then prefers.

    The network's numbers become 8 bits wide; frames of VIDEO show which values occur, so take one like those
    to be segmented. Takes minutes, once.
    """
    from live_seg.loading import quantized
    from live_seg.weights import find

    path = find(model)
    pictures = _spread(calibrate, frames)
    made = quantized(path, pictures, layout=layout.value, size=size)
    print(f"{path.name} in int8 -> {made.folder}; live-seg now uses it for --engine auto.")


def _spread(spec: str, most: int) -> list["Image"]:
    """At most `most` frames of a source, evenly spread as far as it tells its length."""
    from live_seg.sources.opening import open_source

    with open_source(spec) as source:
        step = max(1, (source.frames or most) // most)
        chosen = [frame.image for frame in source if frame.index % step == 0 and frame.index < step * most]
    if not chosen:
        raise SourceError(f"{spec} holds no frame to calibrate with.")
    return chosen
