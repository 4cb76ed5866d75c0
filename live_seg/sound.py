"""Live sound beside the frames of a source: its format, and how it is asked for."""

from typing import Protocol, runtime_checkable

RATE = 48_000
"""Samples per second."""

CHANNELS = 2

SAMPLE_BYTES = 2 * CHANNELS
"""Bytes of a sample of all channels: 16 bits each, signed, little-endian."""


@runtime_checkable
class Sound(Protocol):
    """Sound that is kept for a while."""

    def between(self, begin: float, end: float) -> bytes:
        """Return the samples from `begin` to `end`, in seconds, with silence where there are none.

        They are those with the numbers `position(begin)` to `position(end)`, SAMPLE_BYTES each.
        """


def position(seconds: float) -> int:
    """Return the number of the sample at `seconds`."""
    return round(seconds * RATE)
