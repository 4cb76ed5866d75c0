"""The last seconds of a live sound, and the relation of its clock to that of its listeners."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from live_seg.sound import RATE, SAMPLE_BYTES, Sound, position

PATIENCE = 1.5
"""Seconds after which sound that has not arrived is taken for silence."""

WINDOW = 10
"""Seconds of which one delay is taken for that of the sound."""

TOLERANCE = 0.005
"""Seconds by which sound may be early or late before it is moved."""

STEP = 24
"""Samples, half a millisecond, by which sound is moved each second, as the clock of a sound card drifts."""

JUMP = 0.1
"""Seconds from which on it is moved at once."""

Choose = Callable[[Sequence[float]], float]
"""Chooses one of several delays: `min` where the shortest is right, as the others are due to load."""


class KeptSound(Sound):
    """Keep the last `keep` seconds of a sound. One thread adds samples, others read them.

    Samples have times of their own, in seconds, which `align` relates to the clock of `between`: the delays
    of the last seconds vary, and `choose` returns the one that counts. `now` returns the current time on that
    clock; infinity means that everything has arrived.
    """

    def __init__(self, keep: float, now: Callable[[], float] = time.monotonic, choose: Choose = min) -> None:
        self._keep, self._now, self._choose = position(keep), now, choose
        self._piece = _Piece(self._keep, SoundClock(choose))
        self._past = self._piece
        self._restarted = -math.inf  # time on the clock of `between` at which the past ends
        self._changed = threading.Condition()

    def restart(self) -> None:
        """Begin again: the next samples have another clock. Those so far remain for the time until now."""
        with self._changed:
            if self._piece.samples:
                self._past, self._restarted = self._piece, self._now()
            self._piece = _Piece(self._keep, SoundClock(self._choose))

    def add(self, samples: bytes, own: float | None = None) -> None:
        """Add `samples`, the first of which has the time `own`; None: they follow the last ones.

        Missing samples become silence, and those that are there already are left out.
        """
        with self._changed:
            self._piece.add(samples, None if own is None else position(own))
            self._changed.notify_all()

    def align(self, own: float, seconds: float) -> None:
        """Note that what has the own time `own` arrived at `seconds` on the clock of `between`."""
        with self._changed:
            self._piece.clock.received(own, seconds)

    def between(self, begin: float, end: float) -> bytes:
        """Return the samples from `begin` to `end`: see Sound. Waits until `end` is PATIENCE ago for them."""
        wait = min(max(end + PATIENCE - self._now(), 0.0), PATIENCE)
        with self._changed:
            self._changed.wait_for(lambda: self._piece.end >= self._piece.clock.sample(end), wait)
            middle = min(max(begin, self._restarted), end)
            return self._past.read(begin, middle) + self._piece.read(middle, end)


class _Piece:
    """The last samples, `keep` at most, of a sound without a restart."""

    def __init__(self, keep: int, clock: "SoundClock") -> None:
        self.samples, self.clock = bytearray(), clock
        self._keep = keep
        self._begin = 0  # number of the first sample kept, by its own time

    @property
    def end(self) -> int:
        """Number of the sample after the last one."""
        return self._begin + len(self.samples) // SAMPLE_BYTES

    def add(self, samples: bytes, begin: int | None) -> None:
        """Add `samples` from the number `begin` on, by default after the last one."""
        self.samples += samples if begin is None else self._placed(samples, begin)
        surplus = max(len(self.samples) // SAMPLE_BYTES - self._keep, 0)
        del self.samples[: surplus * SAMPLE_BYTES]
        self._begin += surplus

    def read(self, begin: float, end: float) -> bytes:
        """Return the samples from `begin` to `end` on the other clock, with silence where there are none."""
        length = position(end) - position(begin)
        first = self.clock.sample(begin)
        last = first + length
        start = max(first, self._begin)
        stop = max(start, min(last, self.end))
        found = self.samples[(start - self._begin) * SAMPLE_BYTES : (stop - self._begin) * SAMPLE_BYTES]
        before = bytes((min(start, last) - first) * SAMPLE_BYTES)
        return (before + bytes(found)).ljust(length * SAMPLE_BYTES, b"\0")

    def _placed(self, samples: bytes, begin: int) -> bytes:
        """Return what to add for `samples` to begin at the number `begin`. Drops what is far from it."""
        gap = begin - self.end
        if not self.samples or not -len(samples) // SAMPLE_BYTES <= gap <= self._keep:
            self.samples.clear()
            self._begin = begin
            return samples
        if abs(gap) <= TOLERANCE * RATE:  # timestamps are rounded
            return samples
        return bytes(gap * SAMPLE_BYTES) + samples if gap > 0 else samples[-gap * SAMPLE_BYTES :]


class SoundClock:
    """When a sample was heard, by the times at which samples arrive.

    Each time implies when sample 0 was heard. `choose` returns the one that counts of a second, and of the
    last WINDOW seconds.
    """

    def __init__(self, choose: Choose = min) -> None:
        self._choose = choose
        self._origin: float | None = None  # time of sample 0
        self._seconds: deque[float] = deque(maxlen=WINDOW)
        self._second: int | None = None
        self._origins: list[float] = []  # of the current second

    def received(self, own: float, now: float) -> None:
        """Note that the samples before the time `own` of their clock, in seconds, have arrived at `now`."""
        if self._second != (second := int(own)) and self._origins:
            self._seconds.append(self._choose(self._origins))
            self._origins.clear()
            self._move(STEP / RATE)
        self._second = second
        self._origins.append(now - own)
        if not self._seconds:
            self._origin = self._choose(self._origins)

    def _move(self, most: float) -> None:
        """Move towards the delay of the last seconds, by up to `most` seconds unless it has jumped."""
        assert self._origin is not None
        late = self._choose(self._seconds) - self._origin
        settling = len(self._seconds) < WINDOW
        if abs(late) > (TOLERANCE if settling else JUMP):
            self._origin += late
        elif abs(late) > TOLERANCE:
            self._origin += max(-most, min(late, most))

    def sample(self, seconds: float) -> int:
        """Return the number of the sample at `seconds`; 0 before anything was received."""
        return 0 if self._origin is None else round((seconds - self._origin) * RATE)
