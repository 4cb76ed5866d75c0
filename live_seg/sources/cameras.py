"""Cameras of this machine, and what to ask of them."""

import logging
import math
import os
import re
from dataclasses import dataclass

import cv2

from live_seg.errors import SourceError, UsageError
from live_seg.sources.captures import MAX_FPS, Capture, CaptureInfo, open_capture
from live_seg.sources.live import TIMEOUT, Live

logger = logging.getLogger(__name__)

BACKENDS = {
    "any": cv2.CAP_ANY,
    "v4l2": cv2.CAP_V4L2,
    "dshow": cv2.CAP_DSHOW,
    "msmf": cv2.CAP_MSMF,
    "avfoundation": cv2.CAP_AVFOUNDATION,
    "gstreamer": cv2.CAP_GSTREAMER,
}
"""Ways to reach cameras, by name; `any` tries those this OpenCV was built with."""

RATE_TOLERANCE = 0.5
"""Frames per second by which a camera may miss the rate asked for without a word: 29.97 for 30 is usual."""


@dataclass(frozen=True)
class CameraSettings:
    """What to ask of a camera; None leaves it to the camera. Raises UsageError for what no camera can do."""

    size: tuple[int, int] | None = None
    """(width, height) in pixels."""
    fps: float | None = None
    backend: str = "any"
    """One of BACKENDS."""

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise UsageError(f"A picture has at least 1x1 pixels. Got {self.size[0]}x{self.size[1]}.")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise UsageError(f"A camera's rate is above 0 frames per second. Got {self.fps:g}.")
        if self.backend not in BACKENDS:
            raise UsageError(f"No camera backend is called {self.backend}; use {', '.join(BACKENDS)}.")


def parse_size(text: str) -> tuple[int, int]:
    """Read "1280x720" as (width, height). Raises UsageError."""
    if (sides := re.fullmatch(r"([0-9]+)[xX]([0-9]+)", text)) is None:
        raise UsageError(f"A size is written as 1280x720, width by height in pixels. Got {text}.")
    return int(sides[1]), int(sides[2])


class Camera(Live):
    """A camera of this machine, by number.

    Of `settings` it gets as near as it can, and a warning is logged where it delivers something else. Raises
    SourceError when it cannot be opened, stops, or sends nothing for `timeout` seconds.
    """

    def __init__(self, number: int, settings: CameraSettings | None = None, timeout: float = TIMEOUT) -> None:
        if number < 0:
            raise SourceError(f"Cameras are numbered from 0. Got {number}.")
        self._number = number
        self._settings = settings or CameraSettings()
        super().__init__(f"camera {number}", timeout)
        self.frames = None

    def _open(self) -> Capture:
        # So V4L2 ends a silent read by itself. Whole seconds; OpenCV looks once, at the first camera.
        os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(math.ceil(self._timeout)))
        backend = self._settings.backend
        capture = open_capture(self._number, BACKENDS[backend])
        if not capture.isOpened():
            through = "" if backend == "any" else f" through {backend}, which OpenCV may not have here"
            raise SourceError(
                f"Cannot open {self.name}{through}. Is it plugged in, may this program use it, and does no "
                f"other program hold it? Your camera may have another number: try {0 if self._number else 1}."
            )
        self._adjust(capture)
        return capture

    def _adjust(self, capture: Capture) -> None:
        """Ask for the settings one by one: what a camera does not know it leaves as it is."""
        size, fps = self._settings.size, self._settings.fps
        if size is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
        if fps is not None:
            capture.set(cv2.CAP_PROP_FPS, fps)
        delivered, rate = CaptureInfo.of(capture).size, capture.get(cv2.CAP_PROP_FPS)
        known = 0 < rate <= MAX_FPS
        if size not in (None, delivered) or (fps and known and abs(fps - rate) > RATE_TOLERANCE):
            message = "%s delivers %dx%d pixels%s, other than asked for. Try another size, rate or backend."
            logger.warning(message, self.name, *delivered, f" at {rate:g} fps" if known else "")

    def _check_end(self, count: int, seconds: float) -> None:
        if not self._stalled:
            raise SourceError(
                f"{self.name} stopped delivering after {count} pictures ({seconds:.1f} s). "
                "Was it unplugged, or taken by another program?"
            )
        super()._check_end(count, seconds)
