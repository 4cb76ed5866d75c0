"""Video codecs and ffmpeg's options of their encoders, in software and in hardware."""

from dataclasses import dataclass
from typing import get_args

from live_seg.choices import EncoderName, VideoCodec

BT709_FILTER = (
    "scale=out_color_matrix=bt709:out_range=tv,format={pixels},"
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
)
"""ffmpeg filter that converts to BT.709 and declares it; players disagree about undeclared colours."""

MAX_CRF = 51
"""Lowest quality on x264's scale; 0 is the highest."""


@dataclass(frozen=True)
class Codec:
    """ffmpeg's options for encoding.

    `quality` names the options that set the quality, from `best` to `worst`; empty if it cannot be set.
    """

    name: str
    """Name for messages."""
    pixels: str
    """Pixel format of the encoder's input."""
    encoder: tuple[str, ...]
    quality: tuple[str, ...] = ("-crf",)
    best: int = 0
    worst: int = MAX_CRF
    upload: str = ""
    """Filter that moves images to the device of the encoder."""
    tag: tuple[str, ...] = ()
    """Options of an MP4 or MOV file, also of one that the video is copied to."""

    def options(self, crf: int) -> list[str]:
        """Return the options for the quality `crf`, given on x264's scale."""
        value = str(round(self.best + (self.worst - self.best) * crf / MAX_CRF))
        quality = [word for name in self.quality for word in (name, value)]
        return ["-vf", BT709_FILTER.format(pixels=self.pixels) + self.upload, *self.encoder, *quality]


HVC1 = ("-tag:v", "hvc1")
"""The tag of HEVC that Apple's players require in MP4 and MOV files."""

X264 = Codec("x264", "yuv420p", ("-c:v", "libx264", "-preset", "veryfast"))
"""H.264, opaque, supported by all players. 125 frames of 720p at crf 23 on 2 cores, by preset: superfast
0.9 s and 1.25 MB, veryfast 1.3 s and 0.65 MB, faster 1.95 s and 0.78 MB, medium 2.9 s and 0.89 MB."""

X265 = Codec(
    "x265",
    "yuv420p",
    ("-c:v", "libx265", "-preset", "superfast", "-x265-params", "log-level=error"),
    tag=HVC1,
)
"""HEVC. At the same crf, 125 frames of 720p take 3 times the CPU time of x264, have the same size and a PSNR
1 dB higher."""

SVT_AV1 = Codec("svt-av1", "yuv420p", ("-c:v", "libsvtav1", "-preset", "9"), worst=63)
"""AV1. 125 frames of 720p take 1.7 times the CPU time of x264."""

PRORES = Codec("prores", "yuva444p10le", ("-c:v", "prores_aw", "-profile:v", "4"), ())
"""Transparent, for video editors: ProRes 4444, alpha accurate to 1 of 255. A 720p frame takes 20 ms of CPU
time; with prores_ks it takes 90 ms, and the mean colour error falls from 0.4 to 0.1."""

VP9 = Codec(
    "vp9",
    "yuva420p",
    ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "5", "-row-mt", "1", "-b:v", "0"),
    worst=63,
)
"""Transparent, for browsers."""

SOFTWARE: dict[VideoCodec, Codec] = {"h264": X264, "hevc": X265, "av1": SVT_AV1}

HARDWARE: tuple[EncoderName, ...] = ("nvenc", "qsv", "videotoolbox", "amf", "vaapi")
"""Encoders in hardware, the preferred ones first. VA-API is the last because it reaches the same devices as
others, with fewer controls."""

CODECS: tuple[VideoCodec, ...] = get_args(VideoCodec)

VAAPI_DEVICE = ("-init_hw_device", "vaapi=va", "-filter_hw_device", "va")


def hardware(encoder: EncoderName, codec: VideoCodec) -> Codec:
    """Return the options of one of HARDWARE for `codec`. Whether it works here is found out by a probe."""
    name, av1 = f"{codec}_{encoder}", codec == "av1"
    tag = HVC1 if codec == "hevc" else ()
    own: tuple[str, ...] = ("-c:v", name)
    if encoder == "nvenc":
        options = (*own, "-preset", "p4", "-rc", "vbr", "-b:v", "0")
        return Codec(name, "yuv420p", options, ("-cq",), 1, 63 if av1 else 51, tag=tag)
    if encoder == "qsv":
        return Codec(name, "nv12", (*own, "-preset", "faster"), ("-global_quality",), 1, tag=tag)
    if encoder == "amf":
        return Codec(name, "nv12", (*own, "-rc", "cqp"), ("-qp_i", "-qp_p"), 0, 255 if av1 else 51, tag=tag)
    if encoder == "vaapi":
        constant = (*VAAPI_DEVICE, *own, "-rc_mode", "CQP")
        worst = 255 if av1 else 51
        return Codec(name, "nv12", constant, ("-global_quality",), 1, worst, ",hwupload", tag)
    return Codec(name, "nv12", own, ("-q:v",), 100, 1, tag=tag)
