"""The command `live-seg video`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from live_seg.cli.expand import with_options
from live_seg.cli.options import StreamOptions
from live_seg.cli.panels import ADVANCED, INPUT, OUTPUT, option
from live_seg.cli.process import process
from live_seg.cli.unused import refuse_unused_of_video
from live_seg.errors import UsageError

if TYPE_CHECKING:
    from live_seg.types import Sink, Source

Gaps = Literal["keep", "cut"]
"""Treatments of long times without a frame."""

IMAGES_FPS = 25.0
"""Frames per second of a folder of images."""


@with_options
def video(
    source: Annotated[str, typer.Argument(metavar="IN", help="A video file, URL, or folder of frames.")],
    options: StreamOptions,
    output: Annotated[
        Path | None,
        option(OUTPUT, "The video to write, or a folder for images.", "-o", "--output"),
    ] = None,
    start: Annotated[str | None, option(INPUT, "Begin at this time of the file: 1:20 or 80.")] = None,
    end: Annotated[str | None, option(INPUT, "End before this time of the file: 2:00 or 120.")] = None,
    show: Annotated[bool, option(OUTPUT, "Show a window.", "--show")] = False,
    every: Annotated[
        int,
        option(ADVANCED, "Segment every Nth frame and propagate its masks to the others.", min=1),
    ] = 1,
    fps: Annotated[
        float | None,
        option(
            OUTPUT,
            "Constant frame rate of the video: frames are repeated or left out.",
            min=0.001,
            max=1000,
            show_default="every frame at its own time; 25 for a folder of images",
        ),
    ] = None,
    gaps: Annotated[
        Gaps | None,
        option(
            ADVANCED,
            "keep all times without frames, or cut those above 10 s to one frame.",
            show_default="keep up to one hour, cut above",
        ),
    ] = None,
) -> None:
    """Segment a video and keep its audio and the time of every frame."""
    if output is None and options.json is None and not show:
        raise UsageError("Nothing to do: give -o OUT.mp4, --json OUT.jsonl or --show.")
    refuse_unused_of_video(options, source, writes_video=output is not None and output.suffix != "")
    options = options.with_safe_threshold()
    from live_seg.sources.excerpt import parse_time
    from live_seg.ui.playback import Playback
    from live_seg.ui.window import Window

    part = {name: parse_time(text) for name, text in (("start", start), ("end", end)) if text is not None}
    with options.open(source, wait=False, image_fps=fps or IMAGES_FPS, **part) as opened:
        sinks = [_video_or_images(output, opened, options, fps, gaps)] if output else []
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


def _video_or_images(
    output: Path, source: "Source", options: StreamOptions, fps: float | None, gaps: Gaps | None
) -> "Sink":
    """Return the sink for `output`: images if it is a folder or has no suffix, else a video."""
    from live_seg.sinks.images import Images
    from live_seg.sinks.timeline import MAX_GAP, SHORT_GAP, Timing
    from live_seg.sinks.video_writer import VideoWriter

    alpha, overwrite = options.transparent, options.overwrite
    if output.is_dir() or not output.suffix:
        return Images(output, alpha=alpha, overwrite=overwrite)
    longest = {None: MAX_GAP, "keep": math.inf, "cut": SHORT_GAP}[gaps]
    return VideoWriter(
        output,
        fps or source.fps,
        timing=Timing(constant=fps is not None, max_gap=longest),
        audio=source.audio,
        crf=options.crf,
        alpha=alpha,
        overwrite=overwrite,
    )
