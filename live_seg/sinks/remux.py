"""The second pass over a video: put its index first, and add the audio of the source.

It runs when the video is complete, because its duration is unknown until then. Packets are copied without
decoding, with constant memory and at the speed of the disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from live_seg.ffmpeg import Span, run, video_span
from live_seg.sinks.containers import Container
from live_seg.sinks.timeline import Timeline

EARLY = 0.05
"""Seconds by which a first audio packet may precede the first frame. It is the priming that decoders of AAC,
MP3 and Opus need and do not play."""

DURATIONS = (
    "setts=pts=PTS:dts=DTS:"
    "duration=if(gt(NEXT_DTS\\,DTS)\\,min(2e9\\,{end:.6f}/TB-PTS)\\,max(1\\,{end:.6f}/TB-DTS+STARTDTS))"
)
"""Bitstream filter for MP4, where ffmpeg computes the duration of a video from the end of the packet of the
latest time, and from the sum of the differences between decoding times. With B-frames of different durations
both would be wrong, and players end where the file says. Other durations are not written."""


@dataclass(frozen=True)
class Audio:
    """The audio tracks of a source, and which parts of them belong to a video."""

    source: Path
    tracks: dict[int, str]
    """{stream index: ffmpeg's name of the codec}."""
    video_start: float
    """Time of the video's first frame in the source, in seconds."""
    cuts: Sequence[tuple[float, float]] = ()
    """(start, end) of the parts to remove, in seconds since `video_start`."""
    until: float | None = None
    """End of the audio in seconds of the video; None for all of it."""

    def options(self, container: Container) -> list[str]:
        """Return ffmpeg's options that select and encode the tracks, of input 1."""
        chosen: list[str] = []
        for number, (stream, codec) in enumerate(self.tracks.items()):
            supported = container.audio_codecs is None or codec in container.audio_codecs
            encoder = "copy" if supported else container.audio_encoder
            chosen += ["-map", f"1:{stream}", f"-c:a:{number}", encoder]
        chosen += ["-bsf:a", self._filter()]
        return chosen + ([] if self.until is None else ["-t", f"{self.until:.6f}"])

    def _filter(self) -> str:
        """Return the bitstream filter that drops the packets outside of the video and moves the others."""
        drop = rf"lt(pts*tb\,-{EARLY})+gt(n\,0)*lt(pts\,0)"
        earlier = ""
        for start, end in self.cuts:
            drop += rf"+gte(pts*tb\,{start:.6f})*lt(pts*tb\,{end:.6f})"
            earlier += rf"-gte(TS*TB\,{end:.6f})*{end - start:.6f}/TB"
        return f"noise=drop={drop}" + (f",setts=ts=TS{earlier}" if self.cuts else "")


@dataclass(frozen=True)
class Ending:
    """Where a video that was made from the file `source` ends, and the audio that belongs to it."""

    source: Path | None
    span: Span | None
    at_end: bool
    """True if the last frame of `source` was written."""

    @classmethod
    def of(cls, source: Path | None, timeline: Timeline, rate: Fraction) -> "Ending":
        """Compare the latest frame in `timeline` with the frames of `source`. Raises SinkError."""
        span = video_span(source) if source else None
        return cls(source, span, span is not None and timeline.latest + 1 / rate >= span.last)

    def last_frame(self, otherwise: float | None = None) -> float | None:
        """Return the end of the last frame in seconds of the source: `otherwise` if it was not written."""
        return self.span.end if self.span and self.at_end else otherwise

    def audio(self, tracks: dict[int, str], timeline: Timeline, end: float) -> Audio | None:
        """Return the audio `tracks` of the source for a video that is `end` seconds long."""
        if self.source is None or not tracks:
            return None
        video_start = timeline.first + (self.span.start if self.span else 0.0)
        return Audio(self.source, tracks, video_start, timeline.cuts, None if self.at_end else end)


def needs_remux(container: Container, audio: Audio | None) -> bool:
    """Return whether a video needs the second pass: for an index at its start, or for audio."""
    return container.fragmented or audio is not None


CONCAT = ("-f", "concat", "-safe", "0")
"""Options of an input that is a list of parts: see `parts.write_list`."""


def remux(
    video: Path,
    to: Path,
    container: Container,
    *,
    end: float,
    audio: Audio | None,
    tag: Sequence[str] = (),
    options: Sequence[str] = (),
) -> None:
    """Copy `video`, which is `end` seconds long, to the file `to` with its index first and with `audio`.

    Sound that `video` has already is kept.
    `tag` is the option for the video's tag in the file; `options` are those of the input `video`. Raises
    SinkError.
    """
    sound: list[str | Path] = []
    if audio:
        sound = ["-itsoffset", f"{-audio.video_start:.6f}", "-i", audio.source]
    durations = ["-bsf:v", DURATIONS.format(end=end)] if container.fragmented else []
    run(
        *("-y", "-copyts", *options, "-i", video, *sound),
        *("-map", "0", "-c", "copy", *tag, *durations, "-map_chapters", "-1"),
        *(audio.options(container) if audio else ()),
        *(*container.final_options, "-f", container.format),
        to=to,
    )
