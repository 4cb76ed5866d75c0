"""The command `live-seg demo`."""

from pathlib import Path
from typing import Annotated

import typer

from live_seg.cli.options import Options
from live_seg.cli.panels import refuse_url
from live_seg.cli.process import process


def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The video to write.", callback=refuse_url)
    ] = Path("demo.mp4"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Suppress progress and summary.")] = False,
) -> None:
    """Segment a generated clip: needs no download and no input file."""
    from live_seg.sinks.video_writer import VideoWriter
    from live_seg.sources.demo import DemoClip

    with DemoClip() as source:
        sinks = [VideoWriter(output, source.fps, overwrite=overwrite)]
        options = Options(overwrite=overwrite, quiet=quiet)
        process(source, sinks, options, output=output, batch=options.batch)
