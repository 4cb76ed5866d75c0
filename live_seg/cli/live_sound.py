"""The sound in recordings of `live-seg webcam`: a microphone, or that of a network stream."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from live_seg.errors import UsageError
from live_seg.sound import Sound

if TYPE_CHECKING:
    from live_seg.cli.live_options import LiveOptions
    from live_seg.sinks.recorder import Recorder
    from live_seg.sources.lane import SourceLane
    from live_seg.types import Source

SPARE_SECONDS = 10.0
"""Seconds of sound kept for recordings that lag behind."""


class SourceSound(Sound):
    """A sound on the clock of a source, which begins at `started_at` on that of the sound."""

    def __init__(self, sound: Sound, started_at: Callable[[], float | None]) -> None:
        self._sound, self._started_at = sound, started_at

    def between(self, begin: float, end: float) -> bytes:
        """Return the samples from `begin` to `end` of the source: see Sound."""
        origin = self._started_at() or 0.0
        return self._sound.between(origin + begin, origin + end)


def kept_seconds(options: "LiveOptions") -> float:
    """Return the number of seconds of sound that recordings need."""
    return options.pre + options.delay + SPARE_SECONDS


def stream_sound(options: "LiveOptions", *, records: bool) -> float:
    """Return the number of seconds of sound that a network stream keeps for recordings; 0.0 for none."""
    return kept_seconds(options) if records and options.sound and options.microphone is None else 0.0


@contextlib.contextmanager
def microphone_of(options: "LiveOptions", source: "Source | None" = None) -> Iterator[Sound | None]:
    """Yield the sound of the microphone that `options` name, if any.

    Raises SourceError, and UsageError for a `source` that is not read in real time.
    """
    if options.microphone is None:
        yield None
        return
    if source is not None and not source.live:
        raise UsageError(f"--microphone needs a camera or a live stream. {source.name} is a file.")
    from live_seg.sources.microphone import Microphone

    with Microphone(options.microphone, keep=kept_seconds(options)) as microphone:
        yield microphone


def record_sound(recorder: "Recorder", microphone: Sound | None, source: "Source | SourceLane") -> None:
    """Let `recorder` record `microphone`, or else the sound of `source`, beside the frames of `source`."""
    if microphone is not None:
        recorder.listen(SourceSound(microphone, lambda: source.started_at))
    elif source.sound is not None:
        recorder.listen(source.sound)
