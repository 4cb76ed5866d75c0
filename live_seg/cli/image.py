"""The command `live-seg image`."""

from pathlib import Path
from typing import Annotated

import typer

from live_seg.cli.options import Options, with_options
from live_seg.cli.process import process


@with_options
def image(
    inputs: Annotated[list[str], typer.Argument(metavar="IN...", help="Images, folders, globs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="An image, or a folder for several.")],
    options: Options,
) -> None:
    """Segment images."""
    from live_seg.sinks.images import Images
    from live_seg.sources.image_files import open_images

    with open_images(inputs) as source:
        names = [path.stem for path in source.paths]
        if len({name.casefold() for name in names}) < len(names):  # macOS tells no case apart
            names = [f"{index:06d}_{name}" for index, name in enumerate(names)]
        sinks = [Images(output, names=names, alpha=options.transparent, overwrite=options.overwrite)]
        process(source, sinks, options, goal=output, track=False, batch=options.batch)
