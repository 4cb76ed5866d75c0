"""An ffmpeg process that encodes raw images to a video file."""

import subprocess
import tempfile
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np

from live_seg.errors import SinkError
from live_seg.ffmpeg import command, failure
from live_seg.processes import OWN_GROUP, shielded
from live_seg.sinks.matroska import block, header, sound_block
from live_seg.types import Image

STOP_SECONDS = 2.0
"""Seconds that ffmpeg may take to finish its file after an interruption, before it is killed."""


class Encoder:
    """Encode images of `shape`, (H, W, 3) BGR or (H, W, 4) BGRA, to the file `path`, or to a URL.

    One image is held back, because its duration is not known before the next one arrives. `rate` is the
    nominal frame rate; `options` are ffmpeg's options of the output. With `sound`, samples are encoded, too.
    Raises SinkError if ffmpeg fails.
    """

    def __init__(
        self,
        path: Path | str,
        shape: tuple[int, ...],
        rate: Fraction,
        options: list[str],
        *,
        sound: bool = False,
    ) -> None:
        self.path = path
        self.shape = shape
        self.end = 0.0
        """End of the last image written, in seconds."""
        self.interrupted = False
        """True once Ctrl-C has interrupted the writing of an image. ffmpeg drops an incomplete last image."""
        height, width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
        self._image = np.zeros((height, width, shape[2]), np.uint8)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed with the process
        times = ("-fps_mode", "passthrough", "-enc_time_base:v", "demux")
        with shielded():
            self._process = subprocess.Popen(
                command("-y", "-f", "matroska", "-i", "-", *times, *options, path),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                **OWN_GROUP,
            )
        self._unwritten = header(width, height, shape[2], rate, sound=sound)

    def set_image(self, image: Image) -> None:
        """Copy `image` as the current image; pad odd sizes with their last row and column."""
        height, width = self.shape[:2]
        self._image[:height, :width] = image
        self._image[height:] = self._image[height - 1 : height]
        self._image[:, width:] = self._image[:, width - 1 : width]

    def show(self, begin: float, seconds: float) -> None:
        """Write the current image, shown from `begin` for `seconds`."""
        self._write(block(begin, seconds, self._image.nbytes), self._image.data)
        self.end = begin + seconds

    def play(self, begin: float, samples: bytes) -> None:
        """Write samples (see `live_seg.sound`) that are heard from `begin` on."""
        self._write(sound_block(begin, samples), b"")

    def _write(self, lead: bytes, content: bytes | memoryview) -> None:
        assert self._process.stdin is not None
        self.interrupted = True
        try:
            self._process.stdin.write(self._unwritten + lead)
            self._process.stdin.write(content)
            self._process.stdin.flush()
        except OSError as error:
            self._process.wait()
            raise self._failure() from error
        self._unwritten = b""
        self.interrupted = False

    def finish(self) -> None:
        """Wait until the file is complete."""
        self._close_input()
        if self._process.wait() != 0:
            raise self._failure()
        self._errors.close()

    def stop(self) -> None:
        """End ffmpeg within STOP_SECONDS, whatever state it is in. May be called again."""
        try:
            self._close_input()
            self._process.wait(STOP_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            pass
        finally:
            self._process.kill()
            self._process.wait()
            self._errors.close()

    def kill(self) -> None:
        """End ffmpeg at once, so that a call of `show` in another thread fails."""
        self._process.kill()

    def _close_input(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # the exit code says whether ffmpeg failed
            self._process.stdin.close()

    def _failure(self) -> SinkError:
        self._errors.seek(0)
        return failure(self.path, self._errors.read())
