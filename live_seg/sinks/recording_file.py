"""One file of a recording while it is written."""

from pathlib import Path

from live_seg.sinks.video_writer import VideoWriter
from live_seg.types import Frame, Image, Instances

MAX_GAP = 10.0
"""Seconds without an image after which a new file is started."""

NOTHING = Instances.empty()


class RecordingFile:
    """The video at `path` while `writer` writes it. It begins at `begin` seconds on the recorder's clock."""

    def __init__(self, path: Path, writer: VideoWriter, begin: float) -> None:
        self.path = path
        self.begin = self.last = begin
        """Seconds of the first and the last image."""
        self._writer = writer
        self._shape: tuple[int, ...] | None = None

    def accepts(self, seconds: float, image: Image, segment: float) -> bool:
        """Return whether `image` belongs to this file, which is at most `segment` seconds long."""
        same_size = self._shape in (None, image.shape)
        return same_size and seconds < self.begin + segment and seconds - self.last <= MAX_GAP

    def write(self, seconds: float, image: Image) -> None:
        """Show `image` from `seconds` on. Raises SinkError and OSError."""
        self._writer.write(Frame(0, seconds, image), image, NOTHING)
        self.last, self._shape = seconds, image.shape

    def extend(self, until: float) -> None:
        """Show the last image until `until`, unless that exceeds MAX_GAP."""
        if until - self.last <= MAX_GAP:
            self._writer.extend(until)

    def close(self, complete: bool) -> None:
        """Complete the file. Raises SinkError and OSError."""
        self._writer.close(complete)
