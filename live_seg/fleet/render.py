"""Draw and encode the frames of a tracked chunk, and write its JSON Lines."""

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_seg.errors import SourceError
from live_seg.fleet.detect import Model, Reading
from live_seg.fleet.results import Results
from live_seg.pipeline.run import run
from live_seg.sinks.codecs import Codec
from live_seg.sinks.containers import container_for
from live_seg.sinks.json_lines import JsonLines
from live_seg.sinks.parts import PartWriter
from live_seg.sinks.timeline import Timeline, Timing
from live_seg.types import Frame, Image, Instances

Draw = Callable[..., Image]
"""Draw the instances of a frame, given the frame, them and the class names as `names`."""

EARLIER = 0.0005
"""Seconds before the first frame at which reading begins."""


@dataclass(frozen=True)
class Style:
    """How the outputs of a file are drawn and written: the same for all of its chunks."""

    video: str | None
    """Name of the video, for its suffix; None without a video."""
    json: bool
    draw: Callable[[], Draw]
    every: int
    timing: Timing
    codec: Codec | None
    """The codec of the video, chosen once, as parts with different ones cannot be joined."""
    crf: int
    alpha: bool
    """True if the drawn images have an alpha channel."""


@dataclass(frozen=True)
class Rendered:
    """A chunk's part of the outputs."""

    video: bytes | None
    """A file, None without a video or if no image is shown."""
    json: bytes
    begin: float
    """Time of the first image of `video` in the output, in seconds."""
    end: float
    """End of the last image."""
    frames: int
    instances: int

    def summary(self) -> bytes:
        """Return all but the files, as JSON."""
        fields = {name: value for name, value in asdict(self).items() if name not in ("video", "json")}
        return json.dumps(fields | {"has_video": self.video is not None}).encode()


@dataclass(frozen=True, eq=False)
class Render:
    """Work for a worker: draw and write the frames of a chunk, whose `tracked` Results are packed.

    `first` is the index of its first frame, `until` the time before which all are, and `places` their times
    in the output, followed by the end of the last one.
    """

    source: str
    style: Style
    tracked: bytes
    first: int
    until: float
    places: NDArray[np.float64]
    rate: Fraction

    def __call__(self, model: Model) -> Rendered:  # noqa: ARG002 - rendering needs no model
        """Return the chunk's part of the outputs. Raises SourceError and SinkError."""
        results = Results.unpack(self.tracked)
        style = self.style
        with tempfile.TemporaryDirectory(prefix="live_seg") as name, contextlib.ExitStack() as stack:
            folder = Path(name)
            video, lines = folder / f"part{Path(style.video or '').suffix}", folder / "lines.jsonl"
            sink = stack.enter_context(JsonLines(lines, results.class_names)) if style.json else None
            writer = _writer(video, style, self.rate) if style.video else None
            count = 0
            try:
                for number, (frame, image, instances) in enumerate(self._drawn(results)):
                    if writer:
                        begin, end = self.places[number : number + 2].tolist()
                        writer.write(image, begin, end)
                    if sink:
                        sink.write(frame, image, instances)
                    count += len(instances)
            except BaseException:
                if writer:
                    writer.close(complete=False)
                raise
            if writer:
                writer.close(complete=True)
            stack.close()
            return Rendered(
                video=video.read_bytes() if writer and writer.begin is not None else None,
                json=lines.read_bytes() if lines.exists() else b"",
                begin=writer.begin or 0.0 if writer else 0.0,
                end=writer.end if writer else 0.0,
                frames=len(self.places) - 1,
                instances=count,
            )

    def _drawn(self, results: Results) -> Iterator[tuple[Frame, Image, Instances]]:
        """Yield the frames, what is drawn and the instances, also propagated ones."""
        if not self.style.video and self.style.every == 1:
            yield from self._undrawn(results)
            return
        draw = self.style.draw()
        reading = Reading(self.source, self.first, max(0.0, float(results.times[0]) - EARLIER), self.until)
        with (
            reading,
            contextlib.closing(
                run(reading, Replay(results.instances), track=False, every=self.style.every)
            ) as shown,
        ):
            for frame, instances in shown:
                drawn = draw(frame, instances, names=results.class_names) if self.style.video else frame.image
                yield frame, drawn, instances
        if len(reading.times) != len(results.times):
            raise SourceError(
                f"{self.source} has changed since its frames were segmented. Run it with --no-resume."
            )

    def _undrawn(self, results: Results) -> Iterator[tuple[Frame, Image, Instances]]:
        """Yield frames without a picture, which JSON Lines do not need."""
        width, height = results.size
        blank: Any = np.broadcast_to(np.uint8(0), (height, width, 3))
        for number, (seconds, instances) in enumerate(
            zip(results.times.tolist(), results.instances, strict=True)
        ):
            yield Frame(self.first + number, seconds, blank), blank, instances


class Replay:
    """Take the place of a model: return the instances of known frames, in order."""

    def __init__(self, instances: Sequence[Instances]) -> None:
        self._rest = iter(instances)

    def __call__(self, images: Sequence[Image]) -> list[Instances]:
        """Return the instances of the next frames, one for each of `images`."""
        return [next(self._rest) for _ in images]


def _writer(path: Path, style: Style, rate: Fraction) -> PartWriter:
    container = container_for(path, alpha=style.alpha)
    assert style.codec is not None
    tag = style.codec.tag if container.fragmented else ()
    timeline = Timeline(rate, style.timing)
    return PartWriter(path, container, timeline, rate, [*style.codec.options(style.crf), *tag])
