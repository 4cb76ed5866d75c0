"""Microphones of this machine, read by the bundled ffmpeg."""

import logging
import subprocess
import sys
import tempfile
import threading
import time
from typing import Self

from live_seg.errors import SinkError, SourceError, UsageError
from live_seg.ffmpeg import command, first_error
from live_seg.processes import OWN_GROUP, shielded
from live_seg.sound import CHANNELS, RATE, SAMPLE_BYTES, Sound
from live_seg.sources.kept_sound import KeptSound

logger = logging.getLogger(__name__)

STARTS_WITHIN = 5.0
"""Seconds in which a microphone must deliver its first sound."""

RETRY_SECONDS = 5.0
"""Seconds after which a microphone that was lost is opened again."""

UNKNOWN_INPUT = "Unknown input format"


def input_options(device: str) -> list[str]:
    """Return ffmpeg's input options for the microphone `device`, "default" for the one of the system.

    Raises UsageError on Windows for "default", which DirectShow does not have.
    """
    if sys.platform == "win32":
        if device == "default":
            raise UsageError(
                "Give the name of the microphone: --microphone NAME. The Windows settings list them under "
                "Sound, Input."
            )
        return ["-f", "dshow", "-audio_buffer_size", "50", "-i", f"audio={device}"]
    if sys.platform == "darwin":
        return ["-f", "avfoundation", "-i", f":{device}"]
    # Fragments of 50 ms: PulseAudio would deliver up to 2 s at once.
    return ["-f", "pulse", "-fragment_size", str(RATE * SAMPLE_BYTES // 20), "-i", device]


class Microphone(Sound):
    """Keep the last `keep` seconds of a microphone, on the clock of `time.monotonic()`.

    `device` is a name of PulseAudio or PipeWire (`pactl list short sources`) on Linux, of AVFoundation on
    macOS, of DirectShow on Windows; "default" is that of the system. A microphone that is lost later is
    opened again every RETRY_SECONDS, with a warning.

    Raises SourceError if there is no sound within STARTS_WITHIN, UsageError as `input_options`.
    """

    def __init__(self, device: str = "default", *, keep: float = 10.0) -> None:
        self._device, self._options = device, input_options(device)
        self._kept = KeptSound(keep)
        self._heard = False
        self._answered, self._ending = threading.Event(), threading.Event()
        self._reason = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="live_seg microphone")
        self._thread.start()
        try:
            self._answered.wait(STARTS_WITHIN)
            if not self._heard:
                raise self._error()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def between(self, begin: float, end: float) -> bytes:
        """Return the samples from `begin` to `end`: see Sound. Waits for those that are to come."""
        return self._kept.between(begin, end)

    def close(self) -> None:
        """Stop reading. May be called again."""
        self._ending.set()
        if self._process is not None:
            self._process.kill()
        self._thread.join()

    def _error(self) -> SourceError:
        reason = self._reason or f"no sound within {STARTS_WITHIN:g} s"
        advice = "Check that it is plugged in and not muted, and its name."
        if UNKNOWN_INPUT in reason:
            advice = "The bundled ffmpeg cannot record sound here: pip install -U imageio-ffmpeg."
        return SourceError(f"Cannot record from the microphone {self._device!r}: {reason}. {advice}")

    def _run(self) -> None:
        """Read until closed; open the microphone again when it is lost. Runs in the thread."""
        warned = False
        while not self._ending.is_set():
            try:
                reason = self._read()
            except (SinkError, OSError) as error:
                reason = str(error)
            self._reason = reason.removesuffix(".")
            self._answered.set()
            if self._heard and not warned and not self._ending.is_set():
                logger.warning("The microphone is silent: %s. Recordings continue without sound.", reason)
                warned = True
            self._ending.wait(RETRY_SECONDS)

    def _read(self) -> str:
        """Read until ffmpeg ends. Return its error."""
        sound = ("-ac", str(CHANNELS), "-ar", str(RATE), "-f", "s16le", "-")
        quick = ("-probesize", "32", "-analyzeduration", "0")
        with tempfile.TemporaryFile() as errors:
            with shielded():
                process = self._process = subprocess.Popen(
                    command(*quick, *self._options, "-flush_packets", "1", *sound),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    **OWN_GROUP,
                )
            with process:
                if self._ending.is_set():
                    process.kill()
                self._receive(process)
            errors.seek(0)
            return first_error(errors.read())

    def _receive(self, process: "subprocess.Popen[bytes]") -> None:
        """Keep the samples that ffmpeg writes."""
        assert process.stdout is not None
        self._kept.restart()
        received = 0
        while chunk := process.stdout.read(SAMPLE_BYTES * RATE // 100):  # 10 ms
            received += len(chunk) // SAMPLE_BYTES
            self._kept.align(received / RATE, time.monotonic())
            self._kept.add(chunk)
            self._heard = True
            self._answered.set()
