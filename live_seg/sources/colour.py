"""Colours and pixel shapes of video files, and the ffmpeg filters that convert them to square BGR pixels."""

import re
from dataclasses import dataclass
from fractions import Fraction

HDR_TRANSFERS = ("smpte2084", "arib-std-b67")
"""ffmpeg's names of PQ and HLG (ITU-R BT.2100)."""

SDR_RANGE = "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709"
"""Convert to linear light with BT.709's primaries; 100 cd/m2 is SDR's white."""

TONEMAP = "tonemap=tonemap=hable:desat=0"
"""Hable's curve, which keeps details in highlights, as most players do."""

TO_RGB = "zscale=t=bt709:m=gbr:r=pc,format=gbrp"

YUV_TO_RGB = "zscale=m=gbr:r=pc:f=bicubic,format=gbrp"
"""Interpolate the color channels, which ffmpeg's usual conversion repeats; the size must be even."""

YUV = ("yuv", "nv", "p0", "p2", "p4")
"""Beginnings of ffmpeg's names of YUV formats."""

SQUARE = "scale=w='if(gte(sar,1),round(iw*sar),iw)':h='if(gte(sar,1),ih,round(ih/sar))',setsar=1"
"""Enlarge the shorter side of non-square pixels, after rotation."""

HD = (1280, 720)
"""Width or height in pixels from which untagged video is BT.709, as players assume; OpenCV assumes BT.601."""


@dataclass(frozen=True)
class VideoFormat:
    """Format and colours that a file declares for its video."""

    pixels: str
    """ffmpeg's name of the pixel format, such as yuv420p10le."""
    full_range: bool
    matrix: str
    """ffmpeg's name of the YUV matrix, such as bt709; unknown if not declared."""
    primaries: str
    transfer: str
    size: tuple[int, int]
    """(width, height) as coded."""
    aspect: Fraction = Fraction(1)
    """Width of a pixel divided by its height."""

    @property
    def hdr(self) -> bool:
        """True for PQ and HLG."""
        return self.transfer in HDR_TRANSFERS

    @property
    def deep(self) -> bool:
        """True for more than 8 bits per channel."""
        return re.search(r"(9|10|12|14|16)(le|be)$|^[px][02]1\d", self.pixels) is not None

    @property
    def yuv(self) -> bool:
        """True if the pixels are YUV."""
        return self.pixels.startswith(YUV)

    @property
    def large(self) -> bool:
        """True for HD."""
        return self.size[0] >= HD[0] or self.size[1] >= HD[1]

    @property
    def untagged_hd(self) -> bool:
        """True for YUV in HD whose matrix is not declared."""
        return self.yuv and self.large and self.matrix == "unknown"

    @property
    def needs_conversion(self) -> bool:
        """True if OpenCV shows wrong colours, or stretched."""
        wide = self.primaries == "bt2020"
        return self.hdr or wide or self.deep or self.full_range or self.untagged_hd or self.aspect != 1

    def filters(self) -> str:
        """Return ffmpeg's filters to square pixels with BT.709's colours, for a last conversion to bgr24."""
        chain = [self._tags()]
        if self.hdr or self.primaries == "bt2020":
            chain += [SDR_RANGE, *([TONEMAP] if self.hdr else []), TO_RGB]
        elif self.yuv and not (self.size[0] % 2 or self.size[1] % 2):
            chain += [YUV_TO_RGB]
        chain += [SQUARE] if self.aspect != 1 else []
        return ",".join(filter(None, chain))

    def _tags(self) -> str:
        """Return the filter that declares what the file does not, as zscale guesses nothing."""
        wide = self.hdr or self.primaries == "bt2020"
        missing = {"colorspace": self.matrix, "color_primaries": self.primaries, "color_trc": self.transfer}
        usual = ("bt709" if self.large else "smpte170m",) * 3
        if wide:
            usual = ("bt2020nc", "bt2020", "bt2020-10")
        tags = [
            f"{tag}={value}"
            for (tag, declared), value in zip(missing.items(), usual, strict=True)
            if declared == "unknown"
        ]
        return f"setparams={':'.join(tags)}" if tags and (wide or self.yuv) else ""


def parse_format(listing: str) -> VideoFormat | None:
    """Parse the first video stream in what `ffmpeg -i FILE` prints; None if there is none."""
    streams = re.findall(r"^ *Stream #0:\d+.*?: Video: (.*)$", listing, re.MULTILINE)
    shown = [line for line in streams if "(attached pic)" not in line]
    found = shown and re.search(r", (\w+)(?:\(([^)]*)\))?, (\d+)x(\d+)(?: \[SAR (\d+):(\d+))?", shown[0])
    if not found:
        return None
    pixels, details, width, height, across, down = found.groups()
    fields = [field.strip() for field in (details or "").split(",")]
    colours = next((field for field in fields if _is_colours(field)), "unknown").split("/")
    matrix, primaries, transfer = colours if len(colours) == 3 else colours[:1] * 3
    aspect = Fraction(int(across), int(down)) if across and int(across) and int(down) else Fraction(1)
    full = "pc" in fields or pixels.startswith("yuvj")
    return VideoFormat(pixels, full, matrix, primaries, transfer, (int(width), int(height)), aspect)


def _is_colours(field: str) -> bool:
    """Return whether a detail of a pixel format is "matrix/primaries/transfer", or one name for all three."""
    known = ("bt", "smpte", "ycgco", "fcc", "gbr", "ictcp", "unknown", "chroma-derived")
    return "/" in field or field.startswith(known)
