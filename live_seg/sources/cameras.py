"""Cameras of this machine and their settings."""

import logging
from dataclasses import dataclass

import cv2

from live_seg.channel import Idle
from live_seg.errors import SourceError, UsageError
from live_seg.sources.captures import MAX_FPS, Capture, CaptureInfo, open_capture
from live_seg.sources.live import DEFAULT_TIMEOUT, LiveSource

logger = logging.getLogger(__name__)

BACKENDS = {
    "any": cv2.CAP_ANY,
    "v4l2": cv2.CAP_V4L2,
    "avfoundation": cv2.CAP_AVFOUNDATION,
    "gstreamer": cv2.CAP_GSTREAMER,
}
"""OpenCV's camera backends by name; `any` tries those that this OpenCV was built with."""

RATE_TOLERANCE = 0.5
"""Frames per second by which a camera may differ from the requested rate without a warning: 29.97 for 30."""


LAST_CAMERA = 99
"""OpenCV takes hundreds of a camera's number for a backend."""

LARGEST_SIDE = 32_768
"""Pixels."""

LONGEST_NUMBER = 20
"""Characters of a size."""


@dataclass(frozen=True)
class CameraSettings:
    """Settings to request from a camera; None keeps the camera's own. Raises UsageError if one is invalid."""

    size: tuple[int, int] | None = None
    """(width, height) in pixels."""
    fps: float | None = None
    """Frames per second."""
    backend: str = "any"
    """A key of BACKENDS."""
    reconnect: bool = False
    """True to wait for a camera that is lost, and to open it again."""

    def __post_init__(self) -> None:
        if self.size is not None and not 1 <= min(self.size) <= max(self.size) <= LARGEST_SIDE:
            raise UsageError(
                f"A camera size must be 1x1 to {LARGEST_SIDE}x{LARGEST_SIDE}. "
                f"Got {self.size[0]}x{self.size[1]}."
            )
        if self.fps is not None and not 0 < self.fps <= MAX_FPS:
            raise UsageError(
                f"A camera rate must be above 0 and at most {MAX_FPS:g} frames per second. Got {self.fps:g}."
            )
        if self.backend not in BACKENDS:
            raise UsageError(f"Unknown camera backend {self.backend!r}. Use one of {', '.join(BACKENDS)}.")


def parse_size(text: str) -> tuple[int, int]:
    """Parse "1280x720" as (width, height). Raises UsageError."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()) or len(text) > LONGEST_NUMBER:
        raise UsageError(f"A size is written as WIDTHxHEIGHT in pixels, such as 1280x720. Got {text[:80]!r}.")
    return int(width), int(height)


class Camera(LiveSource):
    """Read a camera of this machine, selected by its number.

    The camera may not support all of `settings`; a warning is logged if it delivers something else. Raises
    SourceError if it cannot be opened, or, without `settings.reconnect`, if it stops or sends no frame for
    `timeout` seconds.

    On Linux, OpenCV ends a read after 10 s without a frame. For a longer `timeout`, set the environment
    variable OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT (whole seconds) before the first camera is opened.
    """

    def __init__(
        self,
        number: int,
        settings: CameraSettings | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        idle: Idle | None = None,
    ) -> None:
        if not 0 <= number <= LAST_CAMERA:
            raise SourceError(f"Cameras are numbered from 0 to {LAST_CAMERA}. Got {number}.")
        self._number = number
        self._settings = settings or CameraSettings()
        reconnect = self._settings.reconnect
        super().__init__(f"camera {number}", timeout, reconnect=reconnect, wait=False, idle=idle)
        self.frames = None

    def _open(self) -> Capture:
        backend = self._settings.backend
        capture = open_capture(self._number, BACKENDS[backend])
        if not capture.isOpened():
            through = "" if backend == "any" else f" with {backend}, which this OpenCV may not support"
            raise SourceError(
                f"Cannot open {self.name}{through}. Check that it is plugged in, that no other program uses "
                "it, and that you have the permission to use it. Your camera may have another number: try "
                f"{0 if self._number else 1}."
            )
        self._request_settings(capture)
        return capture

    def _request_settings(self, capture: Capture) -> None:
        """Request the settings one by one; a camera ignores those it does not support."""
        size, fps = self._settings.size, self._settings.fps
        if size is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
        if fps is not None:
            capture.set(cv2.CAP_PROP_FPS, fps)
        delivered, rate = CaptureInfo.of(capture).size, capture.get(cv2.CAP_PROP_FPS)
        known = 0 < rate <= MAX_FPS
        if size not in (None, delivered) or (fps and known and abs(fps - rate) > RATE_TOLERANCE):
            message = "%s delivers %dx%d pixels%s instead of the requested settings. Try other ones."
            logger.warning(message, self.name, *delivered, f" at {rate:g} fps" if known else "")

    def _check_end(self, count: int, seconds: float) -> None:
        if not self._stalled:
            raise SourceError(
                f"{self.name} stopped delivering after {count} frames ({seconds:.1f} s). "
                "It may have been unplugged, or another program may use it."
            )
        super()._check_end(count, seconds)
