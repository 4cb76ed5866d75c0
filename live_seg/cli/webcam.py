"""The command `live-seg webcam`."""

import contextlib
import functools
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from live_seg.cli.expand import with_options
from live_seg.cli.hiding import hiding_of
from live_seg.cli.live_events import Events, sending_events
from live_seg.cli.live_options import LiveOptions
from live_seg.cli.live_sound import microphone_of, record_sound, stream_sound
from live_seg.cli.outputs import check_outputs, inputs_of
from live_seg.cli.panels import ADVANCED, INPUT, LIVE, option
from live_seg.cli.process import final_summary
from live_seg.cli.several import check_several, for_source, labels_of, several
from live_seg.cli.unused import refuse, refuse_unused_of_webcam
from live_seg.errors import SinkError, SourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from live_seg.events.zone import Region
    from live_seg.sinks.stream_targets import StreamTarget
    from live_seg.types import Frame, Sink, Source
    from live_seg.ui.controls import Controls
    from live_seg.ui.session import Screen

Show = Literal["window", "web", "none"]
"""The places where a session can be shown."""


@with_options
def webcam(
    options: LiveOptions,
    source: Annotated[
        list[str] | None,
        option(
            INPUT,
            "Camera number, screen, URL or file. Give it several times for a mosaic of several sources.",
            show_default="0",
        ),
    ] = None,
    show: Annotated[
        Show | None,
        option(
            LIVE,
            "Where to show the session. Press ? there to list the keys.",
            show_default="window, or web without a display",
        ),
    ] = None,
    seconds: Annotated[
        float, option(LIVE, "Stop after this many seconds.", min=0, show_default="no limit")
    ] = float("inf"),
    web_address: Annotated[
        str,
        option(ADVANCED, "HOST:PORT of the web page. With 0.0.0.0 everyone who knows its URL can watch."),
    ] = "127.0.0.1:8460",
) -> None:
    """Segment a camera live. Every frame is shown; masks are propagated until the next result.

    A recording is completed however the session ends. A recording that fails does not end the session, but
    the exit code is 3.
    """
    _check(options, show)
    sources = source or ["0"]
    refuse_unused_of_webcam(options, sources)
    options = options.with_safe_threshold()
    if len(sources) > 1:
        check_several(options)
        several(options, sources, show, seconds, web_address)
    else:
        only = for_source(options, labels_of(sources)[0])
        _single(only, sources[0], show, seconds, web_address)


def _single(options: LiveOptions, source: str, show: Show | None, seconds: float, web_address: str) -> None:
    """Segment one source live."""
    from live_seg.pipeline.run import run
    from live_seg.pipeline.stats import Tally
    from live_seg.ui.session import Session
    from live_seg.ui.zone import ChosenZone

    tally, written, about, shown = Tally(), list[Path](), list[str](), show != "none"
    with final_summary(tally, written, about, options) as completing_begins, contextlib.ExitStack() as stack:
        events = stack.enter_context(sending_events(options.on_event, source, about))
        hiding, controls = hiding_of(options), initial_controls(options, shown)
        records = _check_files(options, shown)
        targets = options.stream_targets()
        screen = stack.enter_context(open_screen(show, web_address, source, controls)) if shown else None
        opening = functools.partial(options.open, source, keep_sound=stream_sound(options, records=records))
        if (opened := _opened(opening, screen, seconds)) is None:
            return
        events.watch(stack.enter_context(opened))
        check_outputs([options.json], inputs_of(opened, options))
        segment = replace(options, conf=controls.minimum).load()
        names, zone = segment.class_names, ChosenZone(controls, options.zone_share)
        about.append(f"{options.model} with {segment.engine.device}")
        recorder = options.recorder(opened.fps, names, events.file, zone) if records else None
        if recorder is not None:
            recorder.keep(inputs_of(opened, options))
            record_sound(recorder, stack.enter_context(microphone_of(options, opened)), opened)
            stack.callback(lambda found: written.extend(found.written), recorder)
        draw = functools.partial(hiding.draw, names=names)
        session = stack.enter_context(Session(draw, controls, tally, screen=screen, recorder=recorder))
        sinks = list["Sink"]()
        stack.callback(lambda: written.extend(path for sink in sinks for path in sink.outputs))
        sinks += map(stack.enter_context, side_sinks(options, names, events, zone))
        sinks += [stack.enter_context(streaming(target, opened.fps, about)) for target in targets]
        results = run(opened, segment, tally=tally, idle=session.idle, **options.run_arguments)
        stack.enter_context(contextlib.closing(results))
        stack.callback(completing_begins)  # the first to be called at the end
        filled = hiding.fill(results, select=controls.select)
        _count(session.show(filled, sinks, limit=seconds, source=opened), quiet=options.quiet)
        if session.starved:
            raise SourceError(f"No frame arrived from {opened.name} within {seconds:g} s.")


def _check_files(options: LiveOptions, shown: bool) -> bool:
    """Return whether recordings are possible. Raises UsageError and SinkError if a file is not."""
    options.check_json()
    records = bool(shown or options.record or options.record_on)
    if records:
        options.check_recording()
    return records


def _count(frames: "Iterator[Frame]", *, quiet: bool) -> None:
    """Take all `frames` and show their number."""
    from tqdm import tqdm

    with tqdm(unit=" frames", disable=True if quiet else None) as bar:
        for _ in frames:
            bar.update()


def _check(options: LiveOptions, show: Show | None) -> None:
    """Raise UsageError for options that contradict each other, before anything is opened."""
    recorded = options.record or options.record_on
    streamed = options.stream or options.virtual_camera
    if show == "none" and not (recorded or streamed or options.json or options.on_event):
        raise UsageError(
            "Nothing to do: with --show none give --record CLIP.mp4 or --json OUT.jsonl, or --on-event, "
            "--stream or --virtual-camera."
        )
    options.parsed_zone()
    if show == "none" and not recorded:
        refuse(options, ("microphone",), "nothing is recorded. Give --record FILE or --record-on CLASS.")
    if (recorded or streamed) and options.transparent:
        raise UsageError(
            "Live recordings and streams cannot be transparent: use another --effect, or record first and "
            "run live-seg video --effect cutout."
        )


def side_sinks(
    options: LiveOptions, class_names: "Sequence[str]", events: Events, zone: "Region"
) -> "Iterator[Sink]":
    """Yield the sinks beside window and recording. Instances in `zone` cause events."""
    from live_seg.events.watcher import Watcher

    if options.json is not None:
        yield options.json_sink(class_names)
    if events.notifier is not None:
        yield Watcher(events.notifier, class_names, zone, events.named)


@contextlib.contextmanager
def streaming(target: "StreamTarget", fps: float, about: list[str]) -> "Iterator[Sink]":
    """Yield a sink that streams to `target`. Add its counts to `about` at the end."""
    from live_seg.sinks.stream_out import StreamOut

    with StreamOut(target, fps) as stream:
        try:
            yield stream
        finally:
            about.append(stream.summary)


def _opened(opening: "Callable[..., Source]", screen: "Screen | None", seconds: float) -> "Source | None":
    """Open the source with `opening`. Returns None if the user quits before it is open.

    Raises SourceError and UsageError, also if it does not open within `seconds`.
    """
    from live_seg.ui.session import FIRST_FRAME_SECONDS

    ends_at = time.monotonic() + max(seconds, FIRST_FRAME_SECONDS)
    quits = False

    def idle() -> bool:
        nonlocal quits
        quits = screen is not None and not screen.wait(0)
        return not quits and time.monotonic() < ends_at

    try:
        return opening(idle=idle)
    except SourceError as error:
        if quits:
            return None
        if time.monotonic() < ends_at:
            raise
        raise SourceError(f"{error} It was limited by --seconds {seconds:g}.") from error


def initial_controls(options: LiveOptions, shown: bool) -> "Controls":
    """Return the initial state of the session's switches."""
    from live_seg.ui.controls import Controls

    threshold = options.score_threshold()
    # The network also delivers lower scores if keys can lower the threshold.
    controls = Controls(threshold, minimum=threshold / 2 if shown else threshold)
    controls.labels, controls.boxes = options.labels, options.boxes
    controls.recording = options.record is not None and options.record_on is None
    if options.record_on or options.on_event:
        zone = options.parsed_zone()
        controls.zone = () if zone is None else zone.corners
    return controls


def open_screen(show: Show | None, web_address: str, source: str, controls: "Controls") -> "Screen":
    """Open the window or web page of a session.

    Without --show it is a window if one can be opened, else a web page. Raises SinkError.
    """
    from live_seg.ui.window import Window
    from live_seg.urls import redacted

    title = f"live-seg {redacted(source)}"
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
