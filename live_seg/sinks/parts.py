"""Videos written in parts, by several processes, and joined without encoding again."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from live_seg.sinks.containers import Container
from live_seg.sinks.encoder import Encoder
from live_seg.sinks.matroska import MICROSECONDS
from live_seg.sinks.timeline import Timeline
from live_seg.types import Image

ABSOLUTE = ("-copyts",)
"""Keep the times of the images, which are those in the joined video: they are then rounded alike."""

TICKS = 90_000
"""Ticks per second of a fragmented container: see `containers.CLOCK`."""

MILLISECONDS = 1000
"""Ticks per second of a Matroska or WebM file."""


class PartWriter:
    """Encode the images of one part to the file `path`, as `container` and with ffmpeg's options `encoding`.

    `timeline` says at which times an image is shown. Raises SinkError.
    """

    def __init__(
        self, path: Path, container: Container, timeline: Timeline, rate: Fraction, encoding: Sequence[str]
    ) -> None:
        self._path, self._timeline, self._rate = path, timeline, rate
        self._options = [
            *encoding,
            *ABSOLUTE,
            *container.final_options,
            "-f",
            container.format,
        ]
        self._encoder: Encoder | None = None
        self.begin: float | None = None
        """Time of the first image in the joined video, in seconds; None for a part without images."""

    @property
    def end(self) -> float:
        """End of the last image, in seconds."""
        return self._encoder.end if self._encoder else 0.0

    def write(self, image: Image, begin: float, end: float) -> None:
        """Show `image`, (H, W, 3) BGR or (H, W, 4) BGRA uint8, from `begin` to `end` of the joined video."""
        for start, seconds in self._timeline.showings(begin, end):
            if self._encoder is None:
                self._encoder = Encoder(self._path, image.shape, self._rate, self._options)
                self.begin = start
            self._encoder.set_image(image)
            self._encoder.show(start, seconds)

    def close(self, complete: bool) -> None:
        """Complete the file, or stop the encoder."""
        if self._encoder is None:
            return
        if complete:
            try:
                self._encoder.finish()
                return
            finally:
                self._encoder.stop()
        self._encoder.stop()


@dataclass(frozen=True)
class Part:
    """A part of a video, as PartWriter wrote it."""

    path: Path
    begin: float
    """Time of its first image in the joined video, in seconds."""


def write_list(parts: Sequence[Part], path: Path, container: Container) -> None:
    """Write the list of `parts` to the file `path`, for ffmpeg's concat demuxer.

    The demuxer starts each file at the sum of the durations listed before. They are exact differences of the
    parts' first times, in microseconds, so that the times of all images are those within the parts.
    """
    begins = [_rounded(part.begin, container) for part in parts]
    lines = ["ffconcat version 1.0"]
    for number, part in enumerate(parts):
        quoted = str(part.path.absolute()).replace("'", r"'\''")
        lines.append(f"file '{quoted}'")
        if number + 1 < len(parts):
            micro = begins[number + 1] - begins[number]
            lines.append(f"duration {micro // MICROSECONDS}.{micro % MICROSECONDS:06d}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rounded(begin: float, container: Container) -> int:
    """Return the time `begin` as the container's ticks represent it, in microseconds."""
    ticks = TICKS if container.fragmented else MILLISECONDS
    micro = round(begin * MICROSECONDS)
    tick = (micro * ticks + MICROSECONDS // 2) // MICROSECONDS
    return (tick * MICROSECONDS + ticks // 2) // ticks
