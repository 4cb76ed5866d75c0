"""The command `live-seg video`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from live_seg.cli.options import StreamOptions, with_options
from live_seg.errors import UsageError

if TYPE_CHECKING:
    from live_seg.types import Sink, Source
from live_seg.cli.process import process


@with_options
def video(
    source: Annotated[str, typer.Argument(metavar="IN", help="A video file, URL, or folder of frames.")],
    options: StreamOptions,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The video to write, or a folder of pictures.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show a window, too.")] = False,
    every: Annotated[
        int, typer.Option(min=1, help="Segment every Nth frame, propagate its masks to the others.")
    ] = 1,
) -> None:
    """Segment a video; its audio and its time line are kept."""
    if output is None and options.json is None and not show:
        raise UsageError("Nothing to do: give -o OUT.mp4, --json OUT.jsonl or --show.")
    from live_seg.ui.window import Window

    with options.open(source, wait=False) as opened:
        sinks = [_outlet(output, opened, options)] if output else []
        if show:
            sinks.append(Window(f"live-seg {opened.name}"))
        goal = output or options.json
        process(opened, sinks, options.delivering(), goal=goal, every=every, **options.running)


def _outlet(output: Path, source: "Source", options: StreamOptions) -> "Sink":
    """What writes the drawn pictures: a video, or pictures into a folder."""
    from live_seg.sinks.images import Images
    from live_seg.sinks.video_writer import VideoWriter

    alpha, overwrite = options.transparent, options.overwrite
    if output.is_dir() or not output.suffix:
        return Images(output, alpha=alpha, overwrite=overwrite)
    audio, crf = source.audio, options.crf
    return VideoWriter(output, source.fps, audio=audio, crf=crf, alpha=alpha, overwrite=overwrite)
