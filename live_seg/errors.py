"""Exceptions that live_seg raises, and a helper for their messages."""

import difflib
from collections.abc import Iterable


class LiveSegError(Exception):
    """Base class of the errors that live_seg raises. The message is written for the user."""


class UsageError(LiveSegError, ValueError):
    """An argument has an invalid value, such as an unknown class name or a size of zero."""


class SourceError(LiveSegError):
    """A camera, stream, video file, image or annotation file cannot be opened or read."""


class SinkError(LiveSegError):
    """A video, image, JSON Lines file or window cannot be written or shown."""


class TakenError(SinkError):
    """An output file is being written by another run."""


class WeightsError(LiveSegError):
    """The weights of a model are unknown, missing, damaged or do not match the network."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint for the unknown name `word`: "Did you mean a or b?", or a list of all `known` names."""
    known = list(known)
    close = difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"Known: {', '.join(known)}."
