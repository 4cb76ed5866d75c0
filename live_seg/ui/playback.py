"""A window for videos: shows frames at their own speed, or slower where the network is."""

import time

from live_seg.types import Frame, Image, Instances, Sink
from live_seg.ui.window import Window


class Playback(Sink):
    """Show frames in `window` at least as far apart in time as in the source.

    A frame that is late delays the following ones; they are not shown faster to catch up.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._last: tuple[float, float] | None = None  # source time and clock of the last frame

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:
        """Wait until the frame is due, handling keys, and show it. Returns False once the user quit."""
        if self._last is not None:
            seconds, shown_at = self._last
            due = shown_at + frame.seconds - seconds
            while (left := due - time.monotonic()) > 0:
                if not self._window.wait(left):
                    return False
        self._last = frame.seconds, time.monotonic()
        return self._window.write(frame, image, instances)

    def wait(self, seconds: float) -> bool:
        """Handle window events for `seconds`. Returns False once the user quit."""
        return self._window.wait(seconds)

    def close(self, complete: bool = True) -> None:
        """Close the window."""
        self._window.close(complete)
