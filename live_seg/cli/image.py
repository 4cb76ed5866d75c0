"""The command `live-seg image`."""

from pathlib import Path
from typing import Annotated

import typer

from live_seg.cli.expand import with_options
from live_seg.cli.options import Options
from live_seg.cli.outputs import check_outputs, inputs_of, refuse_standard_output
from live_seg.cli.panels import OUTPUT, option
from live_seg.cli.process import process
from live_seg.cli.unused import refuse_unused


@with_options
def image(
    inputs: Annotated[list[str], typer.Argument(metavar="IN...", help="Images, folders or globs.")],
    output: Annotated[
        Path,
        option(OUTPUT, "An image, or a folder for several images.", "-o", "--output"),
    ],
    options: Options,
) -> None:
    """Segment images."""
    refuse_unused(options)
    refuse_standard_output(output)
    from live_seg.sinks.images import Images
    from live_seg.sources.image_files import open_images

    with open_images(inputs) as source:
        check_outputs([output, options.json], inputs_of(source, options))
        names = [path.stem for path in source.paths]
        if len({name.casefold() for name in names}) < len(names):  # macOS file names ignore case
            names = [f"{index:06d}_{name}" for index, name in enumerate(names)]
        sinks = [Images(output, names=names, alpha=options.transparent, overwrite=options.overwrite)]
        process(source, sinks, options.with_safe_threshold(), output=output, track=False, batch=options.batch)
