"""The exceptions a user of live_seg may want to catch, and help for their texts."""

import difflib
from collections.abc import Iterable


class LiveSegError(Exception):
    """Root of every error this package raises on purpose; its text is meant for the user."""


class UsageError(LiveSegError):
    """An argument has a value that cannot be used: an unknown class name, a size of zero."""


class SourceError(LiveSegError):
    """A camera, stream, video file or image cannot be opened or read."""


class SinkError(LiveSegError):
    """A video, image, JSON Lines file or window cannot be written or shown."""


class WeightsError(LiveSegError):
    """A model's weights are unknown, missing, damaged, or do not fit the network."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which of the `known` names `word` may have meant: "Did you mean a or b?", or list them all."""
    known = list(known)
    close = difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"Known: {', '.join(known)}."
