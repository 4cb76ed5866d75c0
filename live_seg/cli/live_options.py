"""Options of a live session."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from live_seg.cli.options import StreamOptions
from live_seg.cli.panels import ADVANCED, INPUT, OUTPUT, option, refuse_url

if TYPE_CHECKING:
    from live_seg.events.zone import Region, Zone
    from live_seg.sinks.recorder import OnFile, Recorder
    from live_seg.sinks.stream_targets import StreamTarget
    from live_seg.types import Source


@dataclass(frozen=True)
class LiveOptions(StreamOptions):
    """Options of a live session."""

    camera_size: Annotated[str | None, option(INPUT, "Frame size requested of the camera: 1280x720.")] = None
    camera_fps: Annotated[float | None, option(INPUT, "Frame rate requested of the camera.")] = None
    camera_backend: Annotated[str, option(INPUT, "any, v4l2, avfoundation or gstreamer.")] = "any"
    record: Annotated[
        str | None, option(OUTPUT, "Record to this file; {time} and {number:03d} are filled in.")
    ] = None
    microphone: Annotated[
        str | None,
        option(INPUT, "Record this microphone, too: default, or the name of a device.", callback=refuse_url),
    ] = None
    record_on: Annotated[
        str | None, option(OUTPUT, "Record only while one of these classes is visible: person,dog.")
    ] = None
    pre: Annotated[
        float, option(ADVANCED, "Seconds recorded from before the class appeared.", min=0, max=60)
    ] = 3.0
    post: Annotated[float, option(ADVANCED, "Seconds recorded after the class was last seen.", min=0)] = 5.0
    zone: Annotated[
        str | None,
        option(
            ADVANCED,
            "Polygon x1,y1,x2,y2,... in shares of the picture: only instances in it start recordings and "
            "events.",
        ),
    ] = None
    zone_share: Annotated[
        float, option(ADVANCED, "Share of an instance's mask that must be in the zone.", min=0, max=1)
    ] = 0.5
    on_event: Annotated[
        str | None,
        option(
            OUTPUT,
            "Send events as JSON to this URL (HTTP POST) or command (standard input).",
            callback=None,
        ),
    ] = None
    stream: Annotated[
        str | None,
        option(
            OUTPUT, "Stream to this server: rtmp://, rtsp://, srt://, or http:// for WHIP.", callback=None
        ),
    ] = None
    virtual_camera: Annotated[
        str | None, option(OUTPUT, "Write to this device of v4l2loopback: /dev/video10.")
    ] = None
    segment: Annotated[str | None, option(ADVANCED, "Start a new file after this duration: 10m.")] = None

    def open(self, spec: str, *, camera_returns: bool = False, **arguments: Any) -> "Source":
        """Open the source `spec`, a camera with the requested settings. Raises SourceError and UsageError.

        A camera that is lost is waited for if `camera_returns`.
        """
        from live_seg.sources.cameras import CameraSettings, parse_size

        size = parse_size(self.camera_size) if self.camera_size else None
        camera = CameraSettings(size, self.camera_fps, self.camera_backend, camera_returns)
        # V4L2 then ends a silent read by itself. OpenCV reads this once, in whole seconds.
        os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(math.ceil(self.timeout)))
        return super().open(spec, camera=camera, **arguments)

    @property
    def run_arguments(self) -> dict[str, Any]:
        """The keyword arguments of `pipeline.run.run`: smoothing keeps all scores, as keys choose later."""
        return {**super().run_arguments, "smooth": 0.0 if self.smooth else None}

    def check_recording(self) -> None:
        """Check the recording options before the model and the source are opened.

        Classes are checked against the model's card; without a card they are checked once the model is
        loaded. Raises as `recorder` does.
        """
        from live_seg.models.card import read_card
        from live_seg.models.download import find
        from live_seg.sources.captures import DEFAULT_FPS

        names = read_card(find(self.model, quiet=self.quiet)).get("class_names")
        checked = self if names else replace(self, record_on=None)
        checked.recorder(DEFAULT_FPS, names or ())

    def parsed_zone(self) -> "Zone | None":
        """Return the zone in which instances count; None for the whole picture. Raises UsageError."""
        from live_seg.events.zone import Zone

        return Zone.parse(self.zone, self.zone_share) if self.zone else None

    def stream_targets(self) -> "list[StreamTarget]":
        """Return the server and the virtual camera to stream to. Raises UsageError and SinkError."""
        from live_seg.sinks.stream_targets import streaming_server, virtual_camera

        targets = [streaming_server(self.stream, self.encoding())] if self.stream else []
        return targets + ([virtual_camera(self.virtual_camera)] if self.virtual_camera else [])

    def recorder(
        self,
        fps: float,
        class_names: Sequence[str],
        on_file: "OnFile | None" = None,
        zone: "Region | None" = None,
    ) -> "Recorder":
        """Return the recorder for frames at `fps` per second. Raises UsageError and SinkError.

        `zone` limits where instances start a recording.
        """
        from live_seg.events.trigger import Trigger
        from live_seg.models.classes import choose
        from live_seg.sinks.recorder import Recorder, parse_duration

        trigger = None
        if self.record_on:
            class_ids = choose(self.record_on.split(","), class_names)
            trigger = Trigger(frozenset(class_ids), self.pre, self.post, zone)
        length = parse_duration(self.segment) if self.segment else math.inf
        template = self.record or "live-seg_{time}.mp4"
        encoding = self.encoding()
        return Recorder(
            template,
            fps,
            trigger=trigger,
            segment=length,
            encoding=encoding,
            overwrite=self.overwrite,
            on_file=on_file,
        )
