"""The command `live-seg webcam`."""

import contextlib
import functools
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from live_seg.cli.options import LiveOptions, with_options
from live_seg.errors import SinkError, UsageError

if TYPE_CHECKING:
    from live_seg.sinks.recorder import Recorder
    from live_seg.types import Sink
    from live_seg.ui.controls import Controls
    from live_seg.ui.session import Screen
from live_seg.cli.process import summed_up

Show = Literal["window", "web", "none"]
"""Where a session is shown."""


@with_options
def webcam(
    options: LiveOptions,
    source: Annotated[str, typer.Option(help="Camera number or URL.")] = "0",
    seconds: Annotated[float, typer.Option(min=0, help="Stop after so long.")] = float("inf"),
    show: Annotated[
        Show | None, typer.Option(help="Where; ? tells the keys.  [default: window; web without a display]")
    ] = None,
    web_address: Annotated[
        str, typer.Option(help="HOST:PORT of the web page; with 0.0.0.0 others who know its URL may watch.")
    ] = "127.0.0.1:8460",
) -> None:
    """Segment a camera live: every frame is shown, the masks propagated until new ones come.

    However it ends, a recording is finished and keeps its name; one that fails does not end the session, but
    the exit code is 3.
    """
    _check(options, show)
    from tqdm import tqdm

    from live_seg.files import claim
    from live_seg.pipeline.run import run
    from live_seg.pipeline.stats import Tally
    from live_seg.sinks.json_lines import JsonLines
    from live_seg.ui.controls import Controls
    from live_seg.ui.session import Session

    tally, written, shown = Tally(), list[Path](), show != "none"
    with summed_up(tally, written, quiet=options.quiet), contextlib.ExitStack() as stack:
        draw, sinks = options.drawing(), list["Sink"]()
        threshold = options.threshold()
        controls = Controls(threshold, least=threshold / 2 if shown else threshold)
        controls.labels, controls.boxes = options.labels, options.boxes
        if options.json is not None:  # asked before the model loads, which takes seconds
            written.append(options.json)
            claim(options.json, overwrite=options.overwrite)
        if records := shown or options.record or options.record_on:
            options.check_recording()
        screen = stack.enter_context(_screen(show, web_address, source, controls)) if shown else None
        opened = stack.enter_context(options.open(source))
        # Less sure ones, too: a key shows them.
        segment = replace(options, conf=controls.least).load()
        controls.recording = options.record is not None and options.record_on is None
        recorder = options.recorder(opened.fps, segment.class_names) if records else None
        if recorder is not None:
            stack.callback(_name_recordings, recorder, written)
        drawn = functools.partial(draw, names=segment.class_names)
        session = stack.enter_context(Session(drawn, controls, tally, screen=screen, recorder=recorder))
        if options.json is not None:
            lines = JsonLines(options.json, segment.class_names, overwrite=options.overwrite)
            sinks.append(stack.enter_context(lines))
        found = run(opened, segment, tally=tally, idle=session.idle, **options.running)
        stack.enter_context(contextlib.closing(found))
        bar = stack.enter_context(tqdm(unit=" frames", disable=True if options.quiet else None))
        for _ in session.show(found, sinks, limit=seconds):
            bar.update()


def _check(options: LiveOptions, show: Show | None) -> None:
    """Refuse what cannot work before anything is opened."""
    recorded = options.record or options.record_on
    if show == "none" and not (recorded or options.json):
        raise UsageError("Nothing to do: with --show none give --record CLIP.mp4 or --json OUT.jsonl.")
    if recorded and options.transparent:
        raise UsageError("Live recordings have no transparency: use another effect, or live-seg video.")


def _screen(show: Show | None, web_address: str, source: str, controls: "Controls") -> "Screen":
    """Open what the session is shown on: a window where that was asked for or can be had, else a web page."""
    from live_seg.sources.streams import redacted
    from live_seg.ui.window import Window

    title = f"live-seg {redacted(source) if '://' in source else source}"
    if show != "web":
        try:
            return Window(title, controls)
        except SinkError:
            if show == "window":
                raise
    from live_seg.ui.web.page import WebPage

    page = WebPage(title, controls, web_address)
    print(f"live-seg: watch at {page.url}", file=sys.stderr)
    return page


def _name_recordings(recorder: "Recorder", written: list[Path]) -> None:
    """Add to `written` what `recorder` has completed."""
    written += recorder.written
