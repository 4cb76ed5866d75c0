"""Microphones of this machine, read by the bundled ffmpeg."""

import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from typing import Self

from live_seg.errors import SinkError, SourceError, UsageError
from live_seg.ffmpeg import command, first_error
from live_seg.processes import OWN_GROUP, shielded
from live_seg.sound import CHANNELS, RATE, SAMPLE_BYTES, Sound, position

logger = logging.getLogger(__name__)

STARTS_WITHIN = 5.0
"""Seconds in which a microphone must deliver its first sound."""

RETRY_SECONDS = 5.0
"""Seconds after which a microphone that was lost is opened again."""

PATIENCE = 1.5
"""Seconds after which sound that has not arrived is taken for silence."""

UNKNOWN_INPUT = "Unknown input format"

WINDOW = 10
"""Seconds of which the shortest delay is taken for that of the microphone: the others are due to load."""

TOLERANCE = 0.005
"""Seconds by which sound may be early or late before it is moved."""

STEP = 24
"""Samples, half a millisecond, by which sound is moved each second, as the clock of a sound card drifts."""

JUMP = 0.1
"""Seconds from which on it is moved at once."""


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
        self._kept = position(keep) * SAMPLE_BYTES
        self._samples = bytearray()
        self._begin = 0  # number of the first sample kept
        self._clock = _Clock()
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._reason = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="live_seg microphone")
        self._thread.start()
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._samples or self._reason, STARTS_WITHIN)
            if not self._samples:
                raise self._error()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def between(self, begin: float, end: float) -> bytes:
        """Return the samples from `begin` to `end`: see Sound. Waits until `end` is PATIENCE ago for them."""
        length = position(end) - position(begin)
        wait = min(max(end + PATIENCE - time.monotonic(), 0.0), PATIENCE)
        with self._changed:
            self._changed.wait_for(lambda: self._end >= self._clock.sample(end), wait)
            first = self._clock.sample(begin)
            last = first + length
            start = max(first, self._begin)
            stop = max(start, min(last, self._end))
            found = self._samples[(start - self._begin) * SAMPLE_BYTES : (stop - self._begin) * SAMPLE_BYTES]
        before = bytes((min(start, last) - first) * SAMPLE_BYTES)
        return (before + bytes(found)).ljust(length * SAMPLE_BYTES, b"\0")

    def close(self) -> None:
        """Stop reading. May be called again."""
        self._ending.set()
        if self._process is not None:
            self._process.kill()
        self._thread.join()

    @property
    def _end(self) -> int:
        """Number of the sample after the last one."""
        return self._begin + len(self._samples) // SAMPLE_BYTES

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
            with self._changed:
                self._reason = reason.removesuffix(".")
                self._changed.notify_all()
            if self._samples and not warned and not self._ending.is_set():
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
        with self._changed:
            self._samples.clear()
            self._begin, self._clock = 0, _Clock()
        while chunk := process.stdout.read(SAMPLE_BYTES * RATE // 100):  # 10 ms
            with self._changed:
                self._samples += chunk
                self._clock.received(self._end, time.monotonic())
                surplus = max(len(self._samples) - self._kept, 0) // SAMPLE_BYTES
                del self._samples[: surplus * SAMPLE_BYTES]
                self._begin += surplus
                self._changed.notify_all()


class _Clock:
    """When a sample was heard, by the times at which samples arrive."""

    def __init__(self) -> None:
        self._origin: float | None = None  # time of sample 0
        self._shortest: deque[float] = deque(maxlen=WINDOW)
        self._second = -1

    def received(self, end: int, now: float) -> None:
        """Note that the samples before the number `end` have arrived at `now`."""
        origin = now - end / RATE
        if self._second != (second := end // RATE):
            self._second = second
            self._shortest.append(origin)
            self._move(STEP / RATE)
        self._shortest[-1] = min(self._shortest[-1], origin)
        if self._origin is None or len(self._shortest) == 1:
            self._origin = self._shortest[-1]

    def _move(self, most: float) -> None:
        if self._origin is None:
            return
        late = min(self._shortest) - self._origin
        if abs(late) > JUMP:
            self._origin += late
        elif abs(late) > TOLERANCE:
            self._origin += max(-most, min(late, most))

    def sample(self, seconds: float) -> int:
        """Return the number of the sample at `seconds`."""
        return 0 if self._origin is None else round((seconds - self._origin) * RATE)
