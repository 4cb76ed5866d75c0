"""Video container formats by file suffix, and what they can hold."""

from dataclasses import dataclass
from pathlib import Path

from live_seg.errors import SinkError
from live_seg.sinks.codecs import PRORES, VP9, Codec

CLOCK = ("-video_track_timescale", "90000")
"""Ticks per second of MP4 and MOV files: exact for all usual frame rates, and within 6 us for any other."""

FRAGMENTS = ("-frag_duration", "1000000", "-flush_packets", "1")
"""Write a fragment for every second."""


@dataclass(frozen=True)
class Container:
    """A file format: ffmpeg's name of it, and the audio codecs it supports (None: all).

    Audio in any other codec is re-encoded with ffmpeg's encoder `audio_encoder`.
    """

    format: str
    audio_codecs: frozenset[str] | None
    audio_encoder: str = "aac"
    codec: Codec | None = None
    """The video codec of a transparent format; None for a choice."""

    @property
    def fragmented(self) -> bool:
        """True for a format that has one index, without which nothing plays, unless it is fragmented."""
        return self.format in ("mp4", "mov")

    @property
    def partial_options(self) -> tuple[str, ...]:
        """The options of a file that can be played at any moment, a second behind at most."""
        if self.fragmented:
            return (*CLOCK, "-movflags", "+frag_keyframe+delay_moov+default_base_moof", *FRAGMENTS)
        return ("-cluster_time_limit", "1000", "-flush_packets", "1")

    @property
    def final_options(self) -> tuple[str, ...]:
        """The options of a complete file: an index at its start allows playback while it loads."""
        return (*CLOCK, "-movflags", "+faststart") if self.fragmented else ()


_MPEG4_AUDIO = frozenset({"aac", "ac3", "alac", "eac3", "mp3"})
_MP4_AUDIO = _MPEG4_AUDIO | {"flac", "opus"}
_PCM = frozenset(f"pcm_{kind}{order}" for kind in ("s16", "s24", "s32", "f32") for order in ("le", "be"))
OPAQUE = {
    ".mp4": Container("mp4", _MP4_AUDIO),
    ".m4v": Container("mp4", _MP4_AUDIO),
    ".mov": Container("mov", _MPEG4_AUDIO | _PCM),
    ".mkv": Container("matroska", None),
}
TRANSPARENT = {
    ".mov": Container("mov", _MPEG4_AUDIO | _PCM, codec=PRORES),
    ".webm": Container("webm", frozenset({"opus", "vorbis"}), "libopus", VP9),
}


def container_for(path: Path, *, alpha: bool) -> Container:
    """Return the format for the suffix of `path`, for images with or without an alpha channel.

    Raises SinkError for any other suffix.
    """
    known = TRANSPARENT if alpha else OPAQUE
    if path.suffix.lower() in known:
        return known[path.suffix.lower()]
    if alpha:
        raise SinkError(
            f"{path.name} cannot hold transparent video. Use .mov (ProRes 4444), .webm (VP9) or a folder "
            "(PNG)."
        )
    raise SinkError(f"Cannot write video as {path.name}. Use one of {', '.join(known)}.")
