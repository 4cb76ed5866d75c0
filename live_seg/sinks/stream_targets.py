"""Where live video goes: ffmpeg's options for streaming servers and virtual cameras."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from live_seg.errors import SinkError, UsageError
from live_seg.sinks.encoding import Encoding
from live_seg.urls import redacted

KEYFRAMES = ("-force_key_frames", "expr:gte(t,n_forced*2)")
"""A keyframe every 2 s, the longest that a new viewer waits."""

LOW_DELAY = ("-bf", "0", "-flush_packets", "1")
"""No frame waits for a later one."""

FORMATS = {
    "rtmp": ("-f", "flv"),
    "rtmps": ("-f", "flv"),
    "rtsp": ("-f", "rtsp", "-rtsp_transport", "tcp"),
    "rtsps": ("-f", "rtsp", "-rtsp_transport", "tcp"),
    "srt": ("-f", "mpegts"),
    "http": ("-f", "whip"),
    "https": ("-f", "whip"),
}
"""ffmpeg's options by scheme; http and https are WHIP."""

SHORTEST_SECRET = 4
"""Characters; replacing shorter keys of an RTMP path would garble ffmpeg's messages."""


@dataclass(frozen=True)
class StreamTarget:
    """A destination that ffmpeg writes live video to."""

    name: str
    """Name for messages, without secrets."""
    address: str
    """ffmpeg's name of it."""
    options: tuple[str, ...]
    """ffmpeg's options of the output."""
    secrets: tuple[str, ...] = ()
    """Parts of the address that must not be shown."""

    def cleaned(self, text: str) -> str:
        """Return `text`, a message of ffmpeg, without secrets."""
        text = text.replace(self.address, self.name)
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def streaming_server(url: str, encoding: Encoding) -> StreamTarget:
    """Return the target for the URL of a server: RTMP, RTSP, SRT, or WHIP over HTTP.

    Raises UsageError for another scheme, and for a codec that WHIP does not have; SinkError if the encoder
    does not work.
    """
    parts, name = urlsplit(url), redacted(url)
    scheme = parts.scheme.lower()
    if scheme not in FORMATS or "://" not in url:
        raise UsageError(f"Cannot stream to {name}: the scheme must be {', '.join(FORMATS)}. http is WHIP.")
    if FORMATS[scheme][1] == "whip" and encoding.codec != "h264":
        raise UsageError(f"WHIP carries h264 only. Got --codec {encoding.codec}.")
    secrets = [parts.password or "", parts.query]
    key = parts.path.rpartition("/")[2]
    if scheme.startswith("rtmp") and len(key) >= SHORTEST_SECRET:  # the key of a channel
        secrets.append(key)
    codec = encoding.chosen()
    tune: tuple[str, ...] = ("-tune", "zerolatency") if codec.name in ("x264", "x265") else ()
    if FORMATS[scheme][1] == "whip" and codec.name == "x264":  # other profiles are refused by some servers
        tune = (*tune, "-profile:v", "baseline")
    options = (*codec.options(encoding.crf), *tune, *LOW_DELAY, *KEYFRAMES, *FORMATS[scheme])
    return StreamTarget(name, url, options, tuple(filter(None, secrets)))


def virtual_camera(device: str) -> StreamTarget:
    """Return the target for a video device of v4l2loopback. Raises SinkError without one, UsageError."""
    if sys.platform != "linux":
        raise UsageError("Virtual cameras need Linux. Elsewhere, let OBS play a stream: see the docs.")
    if not re.fullmatch(r"/dev/video\d+", device):
        raise UsageError(f"A virtual camera is named like /dev/video10. Got {device}.")
    if not Path(device).exists():
        raise SinkError(
            f"There is no device {device}. Create it: sudo modprobe v4l2loopback "
            f"video_nr={device.removeprefix('/dev/video')} exclusive_caps=1"
        )
    return StreamTarget(device, device, ("-pix_fmt", "yuv420p", "-c:v", "rawvideo", "-f", "v4l2"))
