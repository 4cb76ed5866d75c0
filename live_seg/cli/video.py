"""The command `live-seg video`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from live_seg.cli.expand import with_options
from live_seg.cli.options import StreamOptions
from live_seg.cli.panels import ADVANCED, OUTPUT, option
from live_seg.cli.process import process
from live_seg.cli.unused import refuse_unused_of_video
from live_seg.errors import UsageError

if TYPE_CHECKING:
    from live_seg.types import Sink, Source


@with_options
def video(
    source: Annotated[str, typer.Argument(metavar="IN", help="A video file, URL, or folder of frames.")],
    options: StreamOptions,
    output: Annotated[
        Path | None,
        option(OUTPUT, "The video to write, or a folder for images.", "-o", "--output"),
    ] = None,
    show: Annotated[bool, option(OUTPUT, "Show a window.", "--show")] = False,
    every: Annotated[
        int,
        option(ADVANCED, "Segment every Nth frame and propagate its masks to the others.", min=1),
    ] = 1,
) -> None:
    """Segment a video and keep its audio and timestamps."""
    if output is None and options.json is None and not show:
        raise UsageError("Nothing to do: give -o OUT.mp4, --json OUT.jsonl or --show.")
    refuse_unused_of_video(options, source, writes_video=output is not None and output.suffix != "")
    from live_seg.ui.playback import Playback
    from live_seg.ui.window import Window

    with options.open(source, wait=False) as opened:
        sinks = [_video_or_images(output, opened, options)] if output else []
        if show:
            window = Window(f"live-seg {opened.name}")
            sinks.append(window if opened.live else Playback(window))
        process(
            opened,
            sinks,
            options.with_network_threshold(),
            output=output or options.json,
            every=every,
            **options.run_arguments,
        )


def _video_or_images(output: Path, source: "Source", options: StreamOptions) -> "Sink":
    """Return the sink for `output`: images if it is a folder or has no suffix, else a video."""
    from live_seg.sinks.images import Images
    from live_seg.sinks.video_writer import VideoWriter

    alpha, overwrite = options.transparent, options.overwrite
    if output.is_dir() or not output.suffix:
        return Images(output, alpha=alpha, overwrite=overwrite)
    audio, crf = source.audio, options.crf
    return VideoWriter(output, source.fps, audio=audio, crf=crf, alpha=alpha, overwrite=overwrite)
