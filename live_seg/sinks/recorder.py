"""Recordings of a live session, started by key or by a detected class, and split into segments."""

import logging
import math
import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from live_seg.errors import SinkError, TakenError, UsageError
from live_seg.events.trigger import Trigger
from live_seg.sinks.encoding import Encoding
from live_seg.sinks.file_names import FileNames
from live_seg.sinks.recording_file import RecordingFile
from live_seg.sinks.soundtrack import ShiftedSound
from live_seg.sinks.video_writer import VideoWriter
from live_seg.sound import Sound
from live_seg.types import Frame, Image, Instances, Sink

logger = logging.getLogger(__name__)

OnFile = Callable[[Literal["recording-started", "recording-finished"], Path, str | None], None]
"""Called with what happened to a file, its name, and the error if it is not complete."""

JPEG_QUALITY = 95
"""JPEG quality of images buffered in memory. On four clips, 3 s of 720p at 30 fps take 11 to 48 MB instead of
249 MB, at 2 to 4 ms per image and a PSNR of 37 to 49 dB. The loss is smaller than that of H.264 at crf 23."""

CATCH_UP = 2
"""Buffered images written per new image once a recording has started; all at once would stall the session."""

RETRY_SECONDS = 60.0
"""Seconds after the failure of a recording until it is tried again, at the next segment at the latest."""


def parse_duration(text: str) -> float:
    """Parse "90s", "10m", "1h30m" or plain seconds ("90"). Returns seconds above 0. Raises UsageError."""
    number = r"(\d+(?:\.\d+)?)"
    found = re.fullmatch(f"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", text.strip().lower())
    hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0.0, 0.0, 0.0)
    total = hours * 3600 + minutes * 60 + seconds
    if not 0 < total < math.inf:
        raise UsageError(f"{text!r} is not a duration. Use 90s, 10m, 1h30m or plain seconds.")
    return total


@dataclass(frozen=True)
class RecorderStatus:
    """State of a recorder, for a display."""

    state: Literal["idle", "recording", "failed"]
    text: str = ""
    """Name of the file being written, or the error of the last recording."""


class Recorder(Sink):
    """Record a live session to files named by `template` (see `FileNames`).

    Nothing is recorded until `start` is called or `trigger` matches. A recording started by the trigger
    includes the `pre` seconds before and stops by itself; no frame is part of two recordings. Every file
    starts at 0 s and plays at the original speed: every image is shown once, at its `Frame.seconds`. `fps` is
    the nominal frame rate. A new file is started after `segment` seconds, when the image size changes, and
    after a gap of MAX_GAP. Writing blocks while the encoder is behind; use a `ThreadedSink` if the session
    must not wait.

    `on_file` is called for each file, in the thread that writes or completes it.

    The failure of a recording (full disk, broken encoder) is logged and shown by `status`. The session
    continues. The recording is tried again with the next segment, after RETRY_SECONDS, or with the next start
    or trigger. A file gets its final name once it is complete, and replaces an existing file only with
    `overwrite`, but none of those given to `keep`. Folders whose names come from fields of the template are
    created.

    Raises UsageError and SinkError at once if nothing could be written.
    """

    def __init__(
        self,
        template: str | Path,
        fps: float,
        *,
        trigger: Trigger | None = None,
        segment: float = math.inf,
        encoding: Encoding | None = None,
        overwrite: bool = False,
        on_file: OnFile | None = None,
    ) -> None:
        if not segment >= 1:
            raise UsageError(f"A segment must be at least 1 second long. Got {segment:g}.")
        several = trigger is not None or segment < math.inf
        self._names = FileNames(template, several=several, overwrite=overwrite)
        # Raises now what it would raise later.
        VideoWriter(self._names.example(), fps, encoding=encoding, overwrite=True)
        self._fps, self._step, self._encoding, self._overwrite = fps, 1 / fps, encoding, overwrite
        self._segment, self._on_file = segment, on_file or _ignore
        self._trigger, self._pre = trigger, trigger.pre if trigger else 0.0
        self.written: list[Path] = []
        """Files completed so far."""
        self.failures: list[str] = []
        """Errors of the recordings that failed so far."""
        self._paused = self._recording = self._by_trigger = self._event = False
        self._error = ""
        self._retry_at = math.inf  # on the recorder's clock
        self._clock_offset: float | None = None  # seconds from the recorder's clock to that of the frames
        self._now = -self._step
        self._last_match = -math.inf
        self._buffer: deque[tuple[float, NDArray[np.uint8]]] = deque()
        self._sound: ShiftedSound | None = None
        self._clip: RecordingFile | None = None
        self._finishing: Thread | None = None

    @property
    def status(self) -> RecorderStatus:
        """Return the current state. Cheap enough to call for every frame."""
        if self._recording:
            return RecorderStatus("recording", str(self._clip.path) if self._clip else "")
        return RecorderStatus("failed", self._error) if self._error else RecorderStatus("idle")

    def keep(self, inputs: Iterable[Path]) -> None:
        """Never replace one of the files `inputs`, not even with `overwrite`."""
        self._names.keep(inputs)

    def listen(self, sound: Sound) -> None:
        """Record `sound`, on the clock of the frames, too. Call it before the first frame."""
        self._sound = ShiftedSound(sound)

    def start(self) -> None:
        """Start with the buffered images or the next frame, and record until `stop`, whatever the trigger."""
        if not self._recording:
            self._recording, self._error, self._retry_at = True, "", math.inf
        self._by_trigger = False

    def stop(self) -> None:
        """Stop the recording, if there is one. Its file is completed in a thread."""
        self._end()

    def pause(self) -> None:
        """Stop the clock: frames until `resume` are skipped and take no time in the file."""
        self._paused, self._clock_offset = True, None

    def resume(self) -> None:
        """Restart the clock: the next frame follows the last one before the pause."""
        self._paused = False

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:
        """Process one frame, recording it or not. Returns True, even if the recording fails."""
        if self._paused:
            return True
        if self._clock_offset is None:
            self._clock_offset = frame.seconds - self._now - self._step
            if self._sound is not None:
                self._sound.shift(self._now + self._step, self._clock_offset)
        self._now = frame.seconds - self._clock_offset
        self._drop_old()
        self._check_trigger(instances, image.shape[:2])
        self._retry()
        if self._recording and not self._buffer:
            self._record(self._now, image)
        elif self._recording or self._pre:
            self._append(image)
        self._record_buffer(CATCH_UP)
        return True

    def close(self, complete: bool = True) -> None:
        """Stop the recording and wait until its file is complete."""
        self._end(complete=complete)
        self._join()

    def _check_trigger(self, instances: Instances, size: tuple[int, int]) -> None:
        """Start a recording when the trigger matches, and stop it `post` seconds after the last match."""
        if self._trigger is None:
            return
        if self._trigger.matches(instances, size):
            self._last_match = self._now
        event = self._now - self._last_match <= self._trigger.post
        wanted = self._recording or self._retry_at < math.inf
        if event and not self._event and not wanted:
            self.start()
            self._by_trigger = True
        elif not event and self._by_trigger:
            self._end(until=self._now)
        self._event = event

    def _retry(self) -> None:
        """Start a failed recording again once it is time."""
        if self._now >= self._retry_at:
            self._recording, self._retry_at = True, math.inf
            logger.info("Trying to record again.")

    def _append(self, image: Image) -> None:
        """Add an image to the buffer, for a recording that may start or one that is catching up."""
        packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        self._buffer.append((self._now, np.asarray(packed, np.uint8)))

    def _drop_old(self) -> None:
        """Drop buffered images that are too old for a recording that would start now."""
        oldest = self._now - self._pre - self._step / 2
        while not self._recording and self._buffer and self._buffer[0][0] < oldest:
            self._buffer.popleft()

    def _record_buffer(self, limit: float = math.inf) -> None:
        """Record up to `limit` of the oldest buffered images, if a recording is in progress."""
        while self._recording and self._buffer and limit > 0:
            seconds, packed = self._buffer.popleft()
            self._record(seconds, np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8))
            limit -= 1

    def _record(self, seconds: float, image: Image) -> None:
        """Write one image, to a new file if it does not belong to the current one."""
        try:
            if self._clip and not self._clip.accepts(seconds, image, self._segment - self._step / 2):
                self._finish(seconds)
            if self._clip is None:
                path = self._names.next()
                self._names.make_folder(path)
                writer = VideoWriter(
                    path, self._fps, audio=self._sound, encoding=self._encoding, overwrite=self._overwrite
                )
                self._clip = RecordingFile(path, writer, seconds)
                self._on_file("recording-started", path, None)
            self._clip.write(seconds, image)
        except TakenError:  # another program has just taken the same name
            self._clip = None
            self._record(seconds, image)
        except (SinkError, OSError) as error:
            self._fail(error)

    def _end(self, *, until: float | None = None, complete: bool = True) -> None:
        """Stop the recording; its last image is shown until `until` (None: for one frame)."""
        self._record_buffer()
        try:
            self._finish(until, complete=complete)
        except (SinkError, OSError) as error:
            self._fail(error)
        self._recording = self._by_trigger = False
        self._retry_at = math.inf

    def _finish(self, until: float | None = None, *, complete: bool = True) -> None:
        """Complete the current file in a thread, because ffmpeg takes a while and the session continues."""
        clip = self._clip
        if clip is None:
            return
        if until is not None:
            clip.extend(until)
        self._join()
        self._finishing = Thread(target=self._complete, args=(clip, complete), name="complete recording")
        self._finishing.start()
        self._clip = None

    def _complete(self, clip: RecordingFile, complete: bool) -> None:
        """Close `clip`; runs in the thread, which is now its only user."""
        try:
            clip.close(complete)
            if complete:
                self.written.append(clip.path)
            self._on_file("recording-finished", clip.path, None if complete else self._error)
        except (SinkError, OSError) as error:
            self._report(error)
            self._on_file("recording-finished", clip.path, str(error))

    def _join(self) -> None:
        if self._finishing is not None:
            self._finishing.join()
            self._finishing = None

    def _fail(self, error: Exception) -> None:
        """Interrupt the recording because of `error`."""
        self._recording = False
        begin = self._clip.begin if self._clip else self._now
        next_segment = max(begin + self._segment, self._now + 1)
        self._retry_at = min(next_segment, self._now + RETRY_SECONDS)
        self._report(error)
        self._finish(complete=False)

    def _report(self, error: Exception) -> None:
        self._error = str(error)
        self.failures.append(self._error)
        logger.error("A recording failed. The session continues. %s", error)


def _ignore(*_: object) -> None: ...
