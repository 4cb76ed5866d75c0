"""The sound of a video while it is written."""

from live_seg.sinks.encoder import Encoder
from live_seg.sinks.timeline import Timeline
from live_seg.sound import RATE, SAMPLE_BYTES, Sound

BEHIND = 1.0
"""Seconds by which sound is written later than images: by then it has arrived."""

LONGEST = 10.0
"""Seconds of sound written at once at most."""


class Soundtrack:
    """Write the part of `sound` that belongs to the images of a video. Sound and images have one clock."""

    def __init__(self, sound: Sound, timeline: Timeline) -> None:
        self._sound, self._timeline = sound, timeline
        self._written = 0.0

    def write(self, encoder: Encoder, until: float) -> None:
        """Write what is missing until the time `until` of the video, in seconds. Raises SinkError."""
        while until > self._written:
            end = min(until, self._written + LONGEST)
            parts = self._timeline.played(self._written, end)
            samples = b"".join(self._sound.between(*part) for part in parts)
            if samples:
                encoder.play(self._written, samples)
            self._written += len(samples) / SAMPLE_BYTES / RATE
            if end == until:
                return


class ShiftedSound(Sound):
    """A sound on the clock of a recorder, which stops while it is paused."""

    def __init__(self, sound: Sound) -> None:
        self._sound = sound
        self._pieces: list[tuple[float, float]] = []

    def shift(self, begin: float, offset: float) -> None:
        """From `begin` on, seconds of the recorder are those of the sound minus `offset`."""
        self._pieces.append((begin, offset))

    def between(self, begin: float, end: float) -> bytes:
        """Return the samples from `begin` to `end` of the recorder: see Sound."""
        parts = list[bytes]()
        bounds = [*(start for start, _ in self._pieces[1:]), end]
        for (_, offset), bound in zip(self._pieces, bounds, strict=True):
            if begin < min(bound, end):
                parts.append(self._sound.between(begin + offset, min(bound, end) + offset))
                begin = min(bound, end)
        return b"".join(parts)
