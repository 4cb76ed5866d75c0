"""The command `live-seg webcam`, and the line in which commands say what was done."""

import contextlib
import functools
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from live_seg.commands.options import LiveOptions, with_options
from live_seg.errors import UsageError

if TYPE_CHECKING:
    from live_seg.session import Tally
    from live_seg.sinks.files import Sink
    from live_seg.sinks.recorder import Recorder


@with_options
def webcam(
    options: LiveOptions,
    source: Annotated[str, typer.Option(help="Camera number or URL.")] = "0",
    seconds: Annotated[float, typer.Option(min=0, help="Stop after so long.")] = float("inf"),
    show: Annotated[bool, typer.Option(help="Show a window; ? tells its keys.")] = True,
) -> None:
    """Segment a camera live: every frame is shown, the masks carried along until new ones come.

    However it ends, a recording is finished and keeps its name; one that fails does not end the session, but
    the exit code is 3.
    """
    _check(options, show)
    from tqdm import tqdm

    from live_seg.screen.controls import Controls
    from live_seg.screen.viewer import Viewer
    from live_seg.screen.window import Window
    from live_seg.session import Tally, run
    from live_seg.sinks.files import JsonLines, claim

    tally, written = Tally(), list[Path]()
    with summed_up(tally, written, quiet=options.quiet), contextlib.ExitStack() as stack:
        draw, sinks = options.drawing(), list["Sink"]()
        threshold = options.threshold()
        controls = Controls(threshold, least=threshold / 2 if show else threshold)
        controls.labels, controls.boxes = options.labels, options.boxes
        window = stack.enter_context(Window(f"live-seg {source}", controls)) if show else None
        if options.json is not None:  # asked before the model loads, which takes seconds
            written.append(options.json)
            claim(options.json, overwrite=options.overwrite)
        opened = stack.enter_context(options.open(source))
        # Less sure ones, too: a key shows them.
        segment = replace(options, conf=controls.least).load()
        controls.recording = options.record is not None and options.record_on is None
        recorder = None
        if show or options.record or options.record_on:
            recorder = options.recorder(opened.fps, segment.class_names)
            stack.callback(_name_recordings, recorder, written)
        drawn = functools.partial(draw, names=segment.class_names)
        viewer = stack.enter_context(Viewer(drawn, controls, tally, window=window, recorder=recorder))
        if options.json is not None:
            lines = JsonLines(options.json, segment.class_names, overwrite=options.overwrite)
            sinks.append(stack.enter_context(lines))
        found = stack.enter_context(contextlib.closing(run(opened, segment, tally=tally, **options.running)))
        bar = stack.enter_context(tqdm(unit=" frames", disable=True if options.quiet else None))
        for _ in viewer.show(found, sinks, limit=seconds):
            bar.update()


def _check(options: LiveOptions, show: bool) -> None:
    """Refuse what cannot work before anything is opened."""
    recorded = options.record or options.record_on
    if not (show or recorded or options.json):
        raise UsageError("Nothing to do: without a window give --record CLIP.mp4 or --json OUT.jsonl.")
    if recorded and options.transparent:
        raise UsageError("Live recordings have no transparency: use another effect, or live-seg video.")


def _name_recordings(recorder: "Recorder", written: list[Path]) -> None:
    """Add to `written` what `recorder` has completed."""
    written += recorder.written


@contextlib.contextmanager
def summed_up(tally: "Tally", written: list[Path], *, quiet: bool) -> Iterator[None]:
    """Print what was done, and where it was written, once the outputs are closed; also after Ctrl-C."""
    interrupted = False
    try:
        yield
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        if not quiet and (sys.exc_info()[0] is None or interrupted):
            goal = f" -> {', '.join(map(str, written))}" if written and tally.frames else ""
            print(f"{'Interrupted: ' if interrupted else ''}{tally.summary()}{goal}")
