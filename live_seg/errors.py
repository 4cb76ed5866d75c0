"""The exceptions a user of live_seg may want to catch."""


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
