"""The screen of this machine."""

import re
import time

import cv2
import mss
import numpy as np
from mss.exception import ScreenShotError

from live_seg.channel import Idle
from live_seg.errors import SourceError
from live_seg.sources.captures import Capture
from live_seg.sources.live import DEFAULT_TIMEOUT, LiveSource
from live_seg.types import Image

SCREEN_FPS = 30.0

NAME = re.compile(r"screen(?::(\d{1,2}))?")
"""The screen as a source: `screen`, or one of several monitors, from 1 on: `screen:2`."""


def screen_number(spec: object) -> int | None:
    """Return the number of the monitor that `spec` names, from 1 on; None if it is no screen."""
    found = NAME.fullmatch(spec) if isinstance(spec, str) else None
    return int(found[1] or 1) if found else None


class Screen(LiveSource):
    """Read the monitor `number`, from 1 on, SCREEN_FPS times a second, as far as the machine can.

    Raises SourceError if it cannot be read: without an X server on Linux, or without the permission to record
    the screen on macOS.
    """

    def __init__(
        self, number: int = 1, timeout: float = DEFAULT_TIMEOUT, *, idle: Idle | None = None
    ) -> None:
        self._number = number
        super().__init__(f"screen {number}", timeout, idle=idle)
        self.frames = None

    def _open(self) -> Capture:
        try:
            return _ScreenCapture(self._number)
        except ScreenShotError as error:
            raise SourceError(
                f"Cannot read {self.name}: {str(error).removesuffix('.')}. On Linux it must be a screen of "
                "X11, not Wayland, and DISPLAY must name it; on macOS allow this program to record it."
            ) from error

    def _check_end(self, count: int, seconds: float) -> None:
        if not self._stalled:
            raise SourceError(f"{self.name} cannot be read any more after {count} frames ({seconds:.1f} s).")
        super()._check_end(count, seconds)


class _ScreenCapture(Capture):
    """A monitor as a capture. Used in one thread. Raises ScreenShotError and SourceError."""

    def __init__(self, number: int) -> None:
        self._shots = mss.MSS(with_cursor=False)
        monitors = self._shots.monitors[1:]  # the first one is all of them together
        if not 1 <= number <= len(monitors):
            self._shots.close()
            raise SourceError(f"There is no screen {number}. Use one from 1 to {len(monitors)}.")
        self._monitor = monitors[number - 1]
        height, width = self._grab().shape[:2]
        self._properties = {
            cv2.CAP_PROP_FRAME_WIDTH: float(width),
            cv2.CAP_PROP_FRAME_HEIGHT: float(height),
            cv2.CAP_PROP_FPS: SCREEN_FPS,
        }
        self._due = time.monotonic()

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, prop: int, /) -> float:
        return self._properties.get(prop, 0.0)

    def set(self, prop: int, value: float, /) -> bool:  # noqa: ARG002
        return False

    def read(self) -> tuple[bool, Image | None]:
        """Wait until the next frame is due, and take it."""
        now = time.monotonic()
        self._due = max(self._due + 1 / SCREEN_FPS, now)
        time.sleep(self._due - now)
        try:
            return True, self._grab()
        except ScreenShotError:
            return False, None

    def release(self) -> None:
        self._shots.close()

    def _grab(self) -> Image:
        shot = self._shots.grab(self._monitor)
        return np.frombuffer(shot.raw, np.uint8).reshape(shot.height, shot.width, 4)[..., :3].copy()
