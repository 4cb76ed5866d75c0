"""Recordings of a live session: by key, while a class is in view, cut into files of a given length."""

import logging
import math
import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from live_seg.errors import SinkError, UsageError
from live_seg.sinks.file_names import FileNames
from live_seg.sinks.video_writer import VideoWriter
from live_seg.types import Frame, Image, Instances, Sink

logger = logging.getLogger(__name__)

NOTHING = Instances.empty()

JPEG_QUALITY = 95
"""Of pictures that wait in memory. 3 s of 720p at 30 fps take 11 to 48 MB (four clips, PSNR 37 to 49 dB) for
2 to 4 ms a picture, instead of 249 MB raw: less is lost than H.264 loses afterwards at crf 23."""

CATCH_UP = 2
"""Waiting pictures written for each new one, once a recording began: all at once would stall the session."""

MAX_GAP = 10.0
"""Seconds without a picture after which a new file begins. Shorter gaps show the last picture on; an hour of
it, after a lost connection, would keep the encoder busy for minutes."""


def parse_duration(text: str) -> float:
    """Read "90s", "10m", "1h30m" or plain seconds, "90", as seconds, more than 0. Raises UsageError."""
    number = r"(\d+(?:\.\d+)?)"
    found = re.fullmatch(f"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", text.strip().lower())
    hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0.0, 0.0, 0.0)
    total = hours * 3600 + minutes * 60 + seconds
    if not 0 < total < math.inf:
        raise UsageError(f"{text!r} is no duration; give one as in 90s, 10m, 1h30m, or plain seconds.")
    return total


@dataclass(frozen=True)
class Trigger:
    """What starts a recording by itself: an instance of one of `class_ids`. Raises UsageError."""

    class_ids: frozenset[int]
    pre: float = 3.0
    """Seconds of what came before that are recorded, too."""
    post: float = 5.0
    """Seconds for which the recording goes on after an instance was last seen."""

    def __post_init__(self) -> None:
        if not (0 <= self.pre < math.inf and 0 <= self.post < math.inf):
            raise UsageError(f"Seconds before and after must be 0 or more. Got {self.pre} and {self.post}.")

    def sees(self, instances: Instances) -> bool:
        """Whether one of them is of a class that starts a recording."""
        return not self.class_ids.isdisjoint(instances.class_ids.tolist())


@dataclass(frozen=True)
class RecorderStatus:
    """What a recorder does, for a display."""

    state: Literal["idle", "recording", "failed"]
    text: str = ""
    """The file being written, or why the last recording failed."""


class _Clip:
    """One file being written, and its last picture."""

    def __init__(self, path: Path, writer: VideoWriter, begin: float) -> None:
        self.path = path
        self.begin = self.last = begin
        """Seconds of the first and the last picture, on the recorder's clock."""
        self._writer = writer
        self._picture: Image = np.zeros((0, 0, 3), np.uint8)

    def follows(self, seconds: float, image: Image, segment: float) -> bool:
        """Whether a picture still belongs into this file of `segment` seconds."""
        same_size = self._picture.size == 0 or self._picture.shape == image.shape
        return same_size and seconds < self.begin + segment and seconds - self.last <= MAX_GAP

    def show(self, seconds: float, image: Image) -> None:
        """Show `image` from `seconds` on. Raises SinkError and OSError."""
        self._writer.write(Frame(0, seconds, image), image, NOTHING)
        self.last, self._picture = seconds, image.copy()

    def hold(self, until: float) -> None:
        """Show the last picture on, unless `until` is too far away. Raises SinkError and OSError."""
        if until - self.last <= MAX_GAP:
            self._writer.write(Frame(0, until, self._picture), self._picture, NOTHING)

    def close(self, complete: bool) -> None:
        """Complete the file. Raises SinkError and OSError."""
        self._writer.close(complete)


class Recorder(Sink):
    """Writes recordings of a session as H.264 to files named by `template` (see `FileNames`).

    Nothing is recorded until `start`, or until the `trigger` sees its class: then the `pre` seconds before
    are recorded, too, and the recording ends by itself. No picture is in two recordings. Every file begins at
    0 s and plays at true speed: pictures are shown at their own `Frame.seconds`, `fps` a second at most,
    repeated where fewer came. A new file begins after `segment` seconds, with a picture of another size, and
    after a gap of MAX_GAP. `crf` is x264's quality, 0 (best) to 51. Writing waits for an encoder that is
    behind: a session that must not, puts the recorder into a `ThreadedSink`.

    A recording that fails (full disk, broken encoder) is told in the log and in `status`; the session goes
    on, and the next start or event tries again. A file has its final name only once complete, and replaces
    another one only with `overwrite`. Raises UsageError and SinkError at once when nothing could be written.
    """

    def __init__(
        self,
        template: str | Path,
        fps: float,
        *,
        trigger: Trigger | None = None,
        segment: float = math.inf,
        crf: int = 23,
        overwrite: bool = False,
    ) -> None:
        if not segment >= 1:
            raise UsageError(f"A recording is cut into files of 1 second or more. Got {segment:g}.")
        several = trigger is not None or segment < math.inf
        first = FileNames(template, several=several, overwrite=overwrite).next()
        VideoWriter(first, fps, crf=crf, overwrite=overwrite)  # what it refuses is told before the session
        self._names = FileNames(template, several=several, overwrite=overwrite)
        self._fps, self._step, self._crf, self._overwrite = fps, 1 / fps, crf, overwrite
        self._segment = segment
        self._trigger, self._pre = trigger, trigger.pre if trigger else 0.0
        self.written: list[Path] = []
        """The files completed so far."""
        self.failures: list[str] = []
        """Why recordings failed so far."""
        self._paused = self._recording = self._by_trigger = self._event = False
        self._trouble = ""
        self._behind: float | None = None  # seconds that the recorder's clock is behind that of the frames
        self._now = -self._step
        self._last_seen = -math.inf
        self._waiting: deque[tuple[float, NDArray[np.uint8]]] = deque()
        self._clip: _Clip | None = None
        self._finishing: Thread | None = None

    @property
    def status(self) -> RecorderStatus:
        """What is going on now. Cheap: ask for every frame shown."""
        if self._recording:
            return RecorderStatus("recording", str(self._clip.path) if self._clip else "")
        return RecorderStatus("failed", self._trouble) if self._trouble else RecorderStatus("idle")

    def start(self) -> None:
        """Begin with the next frame, or with what the trigger kept. Only `stop` ends it, or one under way."""
        if not self._recording:
            self._recording, self._trouble = True, ""
        self._by_trigger = False

    def stop(self) -> None:
        """End the recording, if there is one. Its file is completed in the background."""
        self._end()

    def pause(self) -> None:
        """Stop the clock: frames until `resume` are left out, and take no time in the file."""
        self._paused, self._behind = True, None

    def resume(self) -> None:
        """Let the clock go on: the next frame follows the last one before the pause."""
        self._paused = False

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:
        """Take one frame, to record it or not. Always True, also when the recording fails."""
        if self._paused:
            return True
        if self._behind is None:
            self._behind = frame.seconds - self._now - self._step
        self._now = frame.seconds - self._behind
        self._forget()
        self._watch(instances)
        if self._recording and not self._waiting:
            self._record(self._now, image)
        elif self._recording or self._pre:
            self._keep(image)
        self._record_waiting(CATCH_UP)
        return True

    def close(self, complete: bool = True) -> None:
        """End the recording and wait until its file is complete."""
        self._end(complete=complete)
        self._join()

    def _watch(self, instances: Instances) -> None:
        """Start with the event that the trigger waits for, and stop when it is over."""
        if self._trigger is None:
            return
        if self._trigger.sees(instances):
            self._last_seen = self._now
        event = self._now - self._last_seen <= self._trigger.post
        if event and not self._event and not self._recording:
            self.start()
            self._by_trigger = True
        elif not event and self._by_trigger:
            self._end(until=self._now)
        self._event = event

    def _keep(self, image: Image) -> None:
        """Let a picture wait, for a recording that may begin or for its turn in one that has begun."""
        packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        self._waiting.append((self._now, np.asarray(packed, np.uint8)))

    def _forget(self) -> None:
        """Drop the waiting pictures that came too long ago for a recording that begins now."""
        oldest = self._now - self._pre - self._step / 2
        while not self._recording and self._waiting and self._waiting[0][0] < oldest:
            self._waiting.popleft()

    def _record_waiting(self, most: float = math.inf) -> None:
        """Record the oldest waiting pictures, if anything is recorded at all."""
        while self._recording and self._waiting and most > 0:
            seconds, packed = self._waiting.popleft()
            self._record(seconds, np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8))
            most -= 1

    def _record(self, seconds: float, image: Image) -> None:
        """Write one picture, into the next file where it is time for that."""
        try:
            if self._clip and not self._clip.follows(seconds, image, self._segment - self._step / 2):
                self._finish(seconds)
            if self._clip is None:
                path = self._names.next()
                writer = VideoWriter(path, self._fps, crf=self._crf, overwrite=self._overwrite)
                self._clip = _Clip(path, writer, seconds)
            self._clip.show(seconds, image)
        except (SinkError, OSError) as error:
            self._fail(error)

    def _end(self, *, until: float | None = None, complete: bool = True) -> None:
        """End the recording, whose last picture is shown `until` then (None: for one frame)."""
        self._record_waiting()
        try:
            self._finish(until, complete=complete)
        except (SinkError, OSError) as error:
            self._fail(error)
        self._recording = self._by_trigger = False

    def _finish(self, until: float | None = None, *, complete: bool = True) -> None:
        """Complete the file in a thread of its own: ffmpeg needs a while, and the session goes on."""
        clip = self._clip
        if clip is None:
            return
        if until is not None:
            clip.hold(until - self._step)
        self._join()
        self._finishing = Thread(target=self._complete, args=(clip, complete), name="complete recording")
        self._finishing.start()
        self._clip = None

    def _complete(self, clip: _Clip, complete: bool) -> None:
        """Runs in the thread; nobody but it has the clip now."""
        try:
            clip.close(complete)
            if complete:
                self.written.append(clip.path)
        except (SinkError, OSError) as error:
            self._tell(error)

    def _join(self) -> None:
        if self._finishing is not None:
            self._finishing.join()
            self._finishing = None

    def _fail(self, error: Exception) -> None:
        """End the recording because of `error`; nothing is tried again before the next start or event."""
        self._recording = self._by_trigger = False
        self._tell(error)
        self._finish(complete=False)

    def _tell(self, error: Exception) -> None:
        self._trouble = str(error)
        self.failures.append(self._trouble)
        logger.error("A recording failed, the session goes on: %s", error)
