"""Video container formats by file suffix, and the codecs used in them."""

from dataclasses import dataclass
from pathlib import Path

from live_seg.errors import SinkError

PRESET = "veryfast"
"""x264's speed preset. 125 frames of 720p at crf 23 on 2 cores: superfast 0.9 s and 1.25 MB, veryfast 1.3 s
and 0.65 MB, faster 1.95 s and 0.78 MB, medium 2.9 s and 0.89 MB."""

BT709_FILTER = (
    "scale=out_color_matrix=bt709:out_range=tv,format={pixels},"
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
)
"""ffmpeg filter that converts to BT.709 and declares it; players disagree about undeclared colours."""

X264_MAX_CRF = 51
"""Lowest quality on x264's scale; 0 is the highest."""


@dataclass(frozen=True)
class Codec:
    """ffmpeg's options for encoding: pixel format, encoder, and the maximum of -crf (None: no -crf)."""

    pixels: str
    encoder: tuple[str, ...]
    max_crf: int | None

    def options(self, crf: int) -> list[str]:
        """Return the ffmpeg options for the quality `crf`, given on x264's scale."""
        quality = [] if self.max_crf is None else ["-crf", str(round(crf * self.max_crf / X264_MAX_CRF))]
        return ["-vf", BT709_FILTER.format(pixels=self.pixels), *self.encoder, *quality]


CLOCK = ("-video_track_timescale", "90000")
"""Ticks per second of MP4 and MOV files: exact for all usual frame rates, and within 6 us for any other."""

FRAGMENTS = ("-frag_duration", "1000000", "-flush_packets", "1")
"""Write a fragment for every second."""

H264 = Codec("yuv420p", ("-c:v", "libx264", "-preset", PRESET), X264_MAX_CRF)
"""Opaque, supported by all players."""

PRORES = Codec("yuva444p10le", ("-c:v", "prores_aw", "-profile:v", "4"), None)
"""Transparent, for video editors: ProRes 4444, alpha accurate to 1 of 255. A 720p frame takes 20 ms of CPU
time; with prores_ks it takes 90 ms, and the mean colour error falls from 0.4 to 0.1."""

VP9 = Codec(
    "yuva420p",
    ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "5", "-row-mt", "1", "-b:v", "0"),
    63,
)
"""Transparent, for browsers."""


@dataclass(frozen=True)
class Container:
    """A file format: ffmpeg's name of it, its video codec, and the audio codecs it supports (None: all).

    Audio in any other codec is re-encoded with ffmpeg's encoder `audio_encoder`.
    """

    format: str
    codec: Codec
    audio_codecs: frozenset[str] | None
    audio_encoder: str = "aac"

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
    ".mp4": Container("mp4", H264, _MP4_AUDIO),
    ".m4v": Container("mp4", H264, _MP4_AUDIO),
    ".mov": Container("mov", H264, _MPEG4_AUDIO | _PCM),
    ".mkv": Container("matroska", H264, None),
}
TRANSPARENT = {
    ".mov": Container("mov", PRORES, _MPEG4_AUDIO | _PCM),
    ".webm": Container("webm", VP9, frozenset({"opus", "vorbis"}), "libopus"),
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
