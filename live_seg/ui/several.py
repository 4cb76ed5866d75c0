"""Interactive live session with several sources: a mosaic, and outputs of each source."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from live_seg.errors import SinkError
from live_seg.pipeline.member import Member
from live_seg.pipeline.stats import Tally
from live_seg.sinks.recorder import Recorder
from live_seg.types import Frame, Image, Instances, Sink
from live_seg.ui.controls import Controls
from live_seg.ui.hud import Message
from live_seg.ui.metrics import Metrics, Rate
from live_seg.ui.mosaic import Mosaic
from live_seg.ui.recording import Recording
from live_seg.ui.session import Screen
from live_seg.ui.snapshot import save_snapshot

DISPLAY_INTERVAL = 1 / 30
"""Seconds between two pictures of the mosaic."""

PAUSED_REFRESH = 0.1
"""Seconds between redraws while paused, unless a key is pressed earlier."""

NOTHING = Instances.empty()


@dataclass
class Outputs:
    """The drawing function, sinks and recorder of one source."""

    draw: Callable[..., Image]
    """Draws a frame, given its instances and the switches `labels`, `boxes` and `masks`."""
    sinks: Sequence[Sink]
    recorder: Recorder | None
    tally: Tally = field(default_factory=Tally)


class _Part:
    """The outputs of one source at work."""

    def __init__(self, outputs: Outputs, message: Message, recording: bool) -> None:
        self.outputs = outputs
        self.controls = Controls(recording=recording)
        self.recording = (
            Recording(outputs.recorder, self.controls, message) if outputs.recorder is not None else None
        )

    def write(self, frame: Frame, image: Image, instances: Instances) -> None:
        for sink in self.outputs.sinks:
            sink.write(frame, image, instances)
        if self.recording is not None:
            self.recording.write(frame, image, instances)


class SeveralSession:
    """Draw the frames of several sources, write each to the outputs of its source, and show a mosaic.

    `outputs` returns the outputs of a source, given its position and first frame; it is called once for each.
    `together` are sinks of the mosaic. Keys act on all sources. `total` counts the frames of all.
    """

    def __init__(
        self,
        members: Sequence[Member],
        outputs: Callable[[int, Frame], Outputs],
        controls: Controls,
        total: Tally,
        *,
        screen: Screen | None = None,
        together: Sequence[Sink] = (),
    ) -> None:
        self._members, self._outputs, self._controls, self._total = members, outputs, controls, total
        self._screen, self._together = screen, together
        self._mosaic = Mosaic([member.lane.name.rpartition("/")[2] for member in members])
        controls.sources = len(members)
        self._parts: dict[int, _Part] = {}
        self._message = Message()
        self._shown_rate, self._network_rate = Rate(), Rate()
        self._recording = controls.recording
        self._began = time.monotonic()
        self._displayed = 0.0

    def show(
        self, results: Iterator[tuple[int, Frame, Instances]], *, limit: float = float("inf")
    ) -> Iterator[Frame]:
        """Show all results until they end, the user quits, or `limit` seconds have passed since the first.

        Yields each frame shown. Raises SinkError.
        """
        for position, frame, found in results:
            if not self._parts:
                self._began = time.monotonic()
            if time.monotonic() - self._began >= limit or self._controls.ended:
                return
            if position not in self._parts:
                outputs = self._outputs(position, frame)
                self._parts[position] = _Part(outputs, self._message, self._recording)
            part = self._parts[position]
            self._follow_keys()
            instances = self._controls.select(found)
            switches = {name: getattr(self._controls, name) for name in ("labels", "boxes", "masks")}
            image = part.outputs.draw(frame, instances, **switches)
            part.write(frame, image, instances)
            self._mosaic.place(position, image)
            self._count(position, frame, instances)
            self._display()
            yield frame
            if self._controls.paused:
                self._pause()

    def idle(self) -> bool:
        """Update the screen while no frame arrives. Returns False once the user quit."""
        self._display()
        return not self._controls.ended

    def close(self) -> None:
        """Complete all recordings. Raises SinkError when one failed."""
        failures = []
        for part in self._parts.values():
            if part.recording is not None:
                try:
                    part.recording.close()
                except SinkError as error:
                    failures.append(error)
        if failures:
            raise failures[0]

    def _follow_keys(self) -> None:
        """Start or stop all recordings if a key requested it, else copy their state to the controls."""
        own = [part.controls for part in self._parts.values()]
        if self._controls.recording != self._recording:
            for controls in own:
                controls.recording = self._controls.recording
        elif own:
            self._controls.recording = any(controls.recording for controls in own)
        self._recording = self._controls.recording

    def _count(self, position: int, frame: Frame, instances: Instances) -> None:
        now, tally, member = time.monotonic(), self._parts[position].outputs.tally, self._members[position]
        new = member.segmented - tally.segmented
        tally.started_at, tally.segmented = member.lane.started_at, member.segmented
        before = tally.dropped
        tally.shown(frame, instances, now - self._began)
        self._shown_rate.add(now)
        for _ in range(new):
            self._network_rate.add(now)
        total = self._total
        total.frames += 1
        total.instances += len(instances)
        total.seconds, total.started_at = now - self._began, self._began
        total.segmented += new
        total.dropped += tally.dropped - before
        total.latency.add(tally.latency.last)

    def _display(self) -> None:
        """Show the mosaic, at most once in DISPLAY_INTERVAL."""
        now = time.monotonic()
        if now - self._displayed < DISPLAY_INTERVAL:
            return
        self._displayed = now
        picture = self._mosaic.picture(self._controls.enlarged)
        frame = Frame(self._total.frames, now - self._began, picture)
        for sink in self._together:
            sink.write(frame, picture, NOTHING)
        if self._controls.take_snapshot():
            self._message.show(f"saved {save_snapshot(frame, picture, Path())[0].name}", now)
        if self._screen is not None:
            self._screen.write(frame, picture, NOTHING, self._metrics(now), self._message.at(now))

    def _metrics(self, now: float) -> Metrics:
        recorded = [
            now - self._began - part.recording.started_at
            for part in self._parts.values()
            if part.recording is not None and part.recording.started_at is not None
        ]
        latency = self._total.latency
        return Metrics(
            camera_fps=self._shown_rate.per_second(now),
            network_fps=self._network_rate.per_second(now),
            latency=latency.last if latency.count else None,
            instances=self._total.instances,
            dropped=self._total.dropped,
            recorded=max(0.0, *recorded) if recorded else None,
        )

    def _pause(self) -> None:
        """Handle keys until the user resumes or quits; recordings stop their clocks."""
        since = time.monotonic()
        recordings = [part.recording for part in self._parts.values() if part.recording is not None]
        for recording in recordings:
            recording.pause()
        while self._screen is not None and self._controls.paused and not self._controls.ended:
            self._display()
            self._screen.wait(PAUSED_REFRESH)
        for recording in recordings:
            recording.resume(time.monotonic() - since)
