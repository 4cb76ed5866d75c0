"""`live-seg webcam` with several sources."""

import contextlib
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from live_seg.cli.live_events import Events, sending_events
from live_seg.cli.live_options import LiveOptions
from live_seg.cli.live_sound import microphone_of, record_sound, stream_sound
from live_seg.cli.outputs import inputs_of
from live_seg.cli.process import final_summary
from live_seg.cli.unused import refuse
from live_seg.errors import SourceError, UsageError
from live_seg.sound import Sound
from live_seg.urls import redacted

if TYPE_CHECKING:
    from live_seg.cli.webcam import Show
    from live_seg.events.zone import Region
    from live_seg.pipeline.member import Member
    from live_seg.types import Frame
    from live_seg.ui.several import Outputs

DEFAULT_RECORDING = "live-seg_{source}_{time}.mp4"

MOSAIC_FPS = 30.0
"""Nominal frame rate of the mosaic in a stream."""


def labels_of(sources: Sequence[str]) -> list[str]:
    """Return a short name for each source that can be part of a file name, each used once."""
    labels: list[str] = []
    for source in sources:
        name = (
            redacted(source).partition("?")[0].partition("://")[2] if "://" in source else Path(source).stem
        )
        plain = re.sub(r"[^\w.-]+", "-", name.replace("***@", "")).strip("-.") or "source"
        number = sum(label == plain or label.startswith(f"{plain}-") for label in labels)
        labels.append(f"{plain}-{number + 1}" if number else plain)
    return labels


def for_source(options: LiveOptions, label: str) -> LiveOptions:
    """Return `options` with `{source}` in the names of files replaced by `label`."""
    record = options.record and options.record.replace("{source}", label)
    json = options.json and Path(str(options.json).replace("{source}", label))
    return replace(options, record=record, json=json)


def check_several(options: LiveOptions) -> None:
    """Raise UsageError for options that do not fit several sources."""
    for name, template in (("--record", options.record), ("--json", options.json)):
        if template is not None and "{source}" not in str(template):
            raise UsageError(f"{name} needs {{source}} in the name for several sources. Got {template}.")
    refuse(options, ("policy", "propagate"), "several sources are always shown live. Leave it out.")
    refuse(options, ("delay", "fail_secure"), "several sources are shown at once. Leave it out.")


def _check_files(options: LiveOptions, labels: Sequence[str]) -> None:
    """Raise UsageError and SinkError if a file of a source could not be written."""
    for label in labels:
        own = for_source(options, label)
        if options.record:
            own.check_recording()
        own.check_json()


def several(
    options: LiveOptions, sources: Sequence[str], show: "Show | None", seconds: float, web_address: str
) -> None:
    """Segment several sources live with one model, and show a mosaic."""
    from tqdm import tqdm

    from live_seg.cli.webcam import initial_controls, open_screen, streaming
    from live_seg.pipeline.many import SharedKeyframes
    from live_seg.pipeline.stats import Tally
    from live_seg.ui.several import SeveralSession
    from live_seg.ui.zone import ChosenZone

    labels, shown = labels_of(sources), show != "none"
    controls = initial_controls(options, shown)
    if shown or options.record_on:
        options = replace(options, record=options.record or DEFAULT_RECORDING)
    tally, written, about = Tally(), list[Path](), list[str]()
    with final_summary(tally, written, about, options) as completing_begins, contextlib.ExitStack() as stack:
        events = stack.enter_context(sending_events(options.on_event, "several sources", about, one=False))
        _check_files(options, labels)
        targets = options.stream_targets()
        title = ", ".join(labels)
        screen = stack.enter_context(open_screen(show, web_address, title, controls)) if shown else None
        segment = replace(options, conf=controls.minimum).load()
        about.append(f"{options.model} with {segment.engine.device}")
        together = [stack.enter_context(streaming(target, MOSAIC_FPS, about)) for target in targets]
        each = [Events(events.notifier, label) for label in labels]
        zone = ChosenZone(controls, options.zone_share)
        sound = stack.enter_context(microphone_of(options))
        files = _Files(options, labels, each, segment.class_names, zone, stack, sound)
        stack.callback(lambda: written.extend(files.complete()))
        members = joined_sources(options, sources, each)
        outputs = functools.partial(files.outputs, members)
        session = SeveralSession(members, outputs, controls, tally, screen=screen, together=together)
        stack.callback(session.close)
        running = SharedKeyframes(members, segment, batch=options.batch, idle=session.idle)
        running.on_end = ends = _Ends(members, each)
        bar = stack.enter_context(tqdm(unit=" frames", disable=True if options.quiet else None))
        with running as results:
            for _ in session.show(iter(results), limit=seconds):
                bar.update()
            completing_begins()
        about.append(_segmented(labels, members))
        ends.check()


def _segmented(labels: Sequence[str], members: "Sequence[Member]") -> str:
    counts = [f"{member.segmented} of {label}" for label, member in zip(labels, members, strict=True)]
    return f"segmented {', '.join(counts)}"


def joined_sources(options: LiveOptions, sources: Sequence[str], each: Sequence[Events]) -> "list[Member]":
    """Return a member for each source."""
    from live_seg.pipeline.run_many import joined

    keep = stream_sound(options, records=bool(options.record))
    return joined(
        sources,
        functools.partial(options.open, wait=False, camera_returns=options.reconnect, keep_sound=keep),
        smooth=options.run_arguments["smooth"],
        retries=options.reconnect,
        on_open=lambda position, source: each[position].watch(source),
    )


@dataclass(frozen=True)
class _Ends:
    """Reports the end of each source, and keeps its error."""

    members: "Sequence[Member]"
    events: Sequence[Events]
    errors: list[SourceError] = field(default_factory=list)

    def __call__(self, position: int, error: SourceError | None) -> None:
        self.events[position].ended(self.members[position].lane.source, error)
        if error is not None:
            self.errors.append(error)

    def check(self) -> None:
        """Raise the first error."""
        if self.errors:
            raise self.errors[0]


@dataclass(frozen=True)
class _Files:
    """The files and events of all sources, which `stack` closes."""

    options: LiveOptions
    labels: Sequence[str]
    events: Sequence[Events]
    class_names: Sequence[str]
    zone: "Region"
    stack: contextlib.ExitStack
    sound: Sound | None
    opened: "list[Outputs]" = field(default_factory=list)

    def outputs(self, members: "Sequence[Member]", position: int, _: "Frame") -> "Outputs":
        """Open the outputs of one source, whose first frame has arrived. Raises SinkError."""
        from live_seg.cli.webcam import side_sinks
        from live_seg.ui.several import Outputs

        options, events = for_source(self.options, self.labels[position]), self.events[position]
        source = members[position].lane.source
        fps = MOSAIC_FPS if source is None else source.fps
        found = side_sinks(options, self.class_names, events, self.zone)
        sinks = [self.stack.enter_context(sink) for sink in found]
        recorder = None
        if options.record:
            recorder = options.recorder(fps, self.class_names, events.file, self.zone)
        if recorder is not None and source is not None:
            recorder.keep(inputs_of(source, options))
            record_sound(recorder, self.sound, members[position].lane)
        draw = functools.partial(options.draw_function(), names=self.class_names)
        self.opened.append(Outputs(draw, sinks, recorder))
        return self.opened[-1]

    def complete(self) -> Iterator[Path]:
        """Yield the names of the complete files."""
        for outputs in self.opened:
            yield from (path for sink in outputs.sinks for path in sink.outputs)
            yield from outputs.recorder.written if outputs.recorder else ()
