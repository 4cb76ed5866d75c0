"""Video file formats by file name ending, and the codecs that pictures become in them."""

from dataclasses import dataclass
from pathlib import Path

from live_seg.errors import SinkError

PRESET = "veryfast"
"""x264's effort. 125 frames of 720p on 2 cores: superfast 0.9 s and 1.25 MB, veryfast 1.3 s and 0.65 MB,
faster 1.95 s and 0.78 MB, medium 2.9 s and 0.89 MB (crf 23): the smallest file, the model keeps the cores."""

COLOURS = (
    "scale=out_color_matrix=bt709:out_range=tv,format={pixels},"
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
)
"""BT.709, converted to and declared, as otherwise each player guesses by itself."""

X264_MAX_CRF = 51
"""The other end of x264's quality scale, whose 0 is the best."""


@dataclass(frozen=True)
class Codec:
    """How ffmpeg encodes pictures: its pixel format, its encoder, and the worst value of its -crf, if any."""

    pixels: str
    encoder: tuple[str, ...]
    worst: int | None

    def options(self, crf: int) -> list[str]:
        """Tell ffmpeg; `crf` is on x264's scale."""
        quality = [] if self.worst is None else ["-crf", str(round(crf * self.worst / X264_MAX_CRF))]
        return ["-vf", COLOURS.format(pixels=self.pixels), *self.encoder, *quality]


H264 = Codec("yuv420p", ("-c:v", "libx264", "-preset", PRESET), X264_MAX_CRF)
"""Plays everywhere."""

PRORES = Codec("yuva444p10le", ("-c:v", "prores_aw", "-profile:v", "4"), None)
"""Transparent, for video editors: ProRes 4444, alpha within 1 of 255. 20 ms of CPU for 720p;
prores_ks takes 90, for colours that are 0.1 instead of 0.4 off."""

VP9 = Codec(
    "yuva420p",
    ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "5", "-row-mt", "1", "-b:v", "0"),
    63,
)
"""Transparent, for browsers."""


@dataclass(frozen=True)
class Container:
    """A file format: ffmpeg's name for it, its pictures' codec, and the audio codecs it can hold (None: all).

    Audio in any other codec is encoded again, with ffmpeg's encoder `audio`.
    """

    format: str
    codec: Codec
    holds: frozenset[str] | None
    audio: str = "aac"


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
    """Find the format that the ending of `path` stands for, with or without transparent pictures.

    Raises SinkError, naming those that can be used.
    """
    known = TRANSPARENT if alpha else OPAQUE
    if path.suffix.lower() in known:
        return known[path.suffix.lower()]
    if alpha:
        raise SinkError(
            f"{path.name} cannot hold transparent pictures; use .mov (ProRes 4444), .webm (VP9) or a folder "
            "(PNG)."
        )
    raise SinkError(f"Cannot write video as {path.name}; use one of {', '.join(known)}.")
