"""The command `live-seg convert`."""

from pathlib import Path
from typing import Annotated

import typer

from live_seg.choices import ExportFormat
from live_seg.cli.messages import clean
from live_seg.cli.options import Overwrite, Quiet
from live_seg.cli.outputs import check_outputs, refuse_standard_output
from live_seg.cli.panels import OUTPUT, option


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="JSON Lines written by --json.")],
    to: Annotated[ExportFormat, option(OUTPUT, "coco, youtube-vis, mot or mots.", show_choices=False)],
    output: Annotated[
        Path | None, option(OUTPUT, "The file to write.", "-o", "--output", show_default="IN with the format")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Convert detections from --json to the formats of other tools."""
    from live_seg.exports.formats import SUFFIXES
    from live_seg.exports.formats import convert as convert_file

    target = output or source.with_name(f"{source.stem}.{to}{SUFFIXES[to]}")
    refuse_standard_output(target)
    check_outputs([target], [source])
    frames = convert_file(source, to, target, overwrite=overwrite)
    if not quiet:
        print(clean(f"{frames} frames -> {target}"))
