"""Choice of the video encoder: software, or hardware that a probe has found to work."""

import functools
import logging
import subprocess
from dataclasses import dataclass

from live_seg.choices import EncoderName, VideoCodec
from live_seg.errors import SinkError, UsageError
from live_seg.ffmpeg import command, first_error
from live_seg.processes import OWN_GROUP, shielded
from live_seg.sinks.codecs import HARDWARE, MAX_CRF, SOFTWARE, Codec, hardware

logger = logging.getLogger(__name__)

PROBE_TIMEOUT = 20.0
"""Seconds: a driver that has not encoded one frame by then is not used."""

PROBE_IMAGE = "color=size=320x240:rate=30"
"""Larger than the smallest frame that any hardware encoder accepts."""


@dataclass(frozen=True)
class Encoding:
    """How opaque videos are encoded. Raises UsageError for invalid or contradictory values."""

    crf: int = 23
    """Quality on x264's scale, 0 (best) to 51; it is rescaled for other encoders."""
    codec: VideoCodec = "h264"
    encoder: EncoderName | None = None
    """None for the software encoder of the codec; "auto" for hardware where it works, else software."""

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= MAX_CRF:
            raise UsageError(
                f"The quality crf must be 0 (best) to {MAX_CRF} (smallest file). Got {self.crf}."
            )
        if self.encoder == "x264" and self.codec != "h264":
            raise UsageError(
                f"x264 encodes h264 only, not {self.codec}. Leave the encoder out: the codec's software "
                "encoder is the default."
            )

    def chosen(self) -> Codec:
        """Return the encoder to use. Raises SinkError, with ffmpeg's reason, if the named one does not work.

        With "auto", the first of HARDWARE that encodes a frame is used, else software.
        """
        if self.encoder == "auto":
            return _automatic(self.codec)
        software = self.encoder in (None, "x264")
        chosen = SOFTWARE[self.codec] if software else hardware(self.encoder or "auto", self.codec)
        # x264 is part of every ffmpeg that is bundled; a probe would delay the start.
        if chosen != SOFTWARE["h264"] and (reason := failure_of(chosen)):
            other = "--codec h264" if software else "--encoder auto"
            raise SinkError(f"Cannot encode with {chosen.name}: {reason}. Use {other}.")
        return chosen


@functools.cache
def _automatic(codec: VideoCodec) -> Codec:
    tried = (hardware(name, codec) for name in HARDWARE)
    found = next((one for one in tried if failure_of(one) is None), None)
    chosen = found or Encoding(codec=codec).chosen()
    logger.info("Videos are encoded with %s.", chosen.name)
    return chosen


@functools.cache
def failure_of(tried: Codec) -> str | None:
    """Encode one frame. Return the reason of a failure, or None if it worked.

    The answer is kept for the process, because a probe takes about 0.1 s. Raises SinkError without ffmpeg.
    """
    words = ("-f", "lavfi", "-i", PROBE_IMAGE, "-frames:v", "1", *tried.options(MAX_CRF // 2))
    with shielded():
        process = subprocess.Popen(
            command(*words, "-f", "null", "-"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **OWN_GROUP,
        )
    with process:
        try:
            _, stderr = process.communicate(timeout=PROBE_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            return f"no answer within {PROBE_TIMEOUT:g} s"
        except BaseException:
            process.kill()
            raise
    return first_error(stderr).removesuffix(".") if process.returncode else None
