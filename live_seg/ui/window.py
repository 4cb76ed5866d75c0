"""The window on the screen: shows the drawn pictures, hands on the keys."""

import os
import re
import socket
import sys
import time

import cv2

from live_seg.errors import SinkError
from live_seg.types import Frame, Image, Instances, Sink
from live_seg.ui.controls import ESCAPE, Controls
from live_seg.ui.hud import Figures, draw_hud

KIND = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
"""Resizable, and without the tool bar, whose text OpenCV's Qt lacks fonts for and complains on stderr."""

LARGEST_WINDOW = (1280, 720)
"""Width and height a new window is shrunk to fit, so that it and its frame fit a laptop's screen."""

WITHOUT_WINDOW = (
    "Write to a file instead (video -o without --show), or watch in a browser (webcam --show web)."
)
"""The way out where no window can be shown."""

NAMED_KEYS = {0xFF1B: ESCAPE, 0xFFAB: "+", 0xFFAD: "-"}
"""X11's codes of Esc, and of + and - on the number pad (`keysymdef.h`)."""

SERVER_SECONDS = 5.0
"""How long a display, maybe on another machine, may take to answer."""


class Window(Sink):
    """A window that shows the drawn pictures and hands its keys to `controls`.

    Its close button ends them, as the keys for it do. Make and use it on the main thread only: macOS allows
    windows nowhere else. Of the keys pressed between two calls of `write` or `wait` the window system keeps
    the last alone: call one of them at least 20 times a second.
    Raises SinkError at once when there is no display or OpenCV was built without windows.
    """

    def __init__(self, title: str = "live-seg", controls: Controls | None = None) -> None:
        self._title = title
        self._controls = controls or Controls()
        self._open = False
        if sys.platform == "linux":
            _check_display()
        try:
            cv2.namedWindow(title, KIND)
            cv2.destroyWindow(title)
        except cv2.error as error:
            raise SinkError(
                "This OpenCV cannot show windows. Install opencv-python instead of opencv-python-headless. "
                f"{WITHOUT_WINDOW}"
            ) from error

    def write(
        self,
        frame: Frame,  # noqa: ARG002
        image: Image,
        instances: Instances,  # noqa: ARG002
        figures: Figures | None = None,
        message: str = "",
    ) -> bool:
        """Show one picture, with what the controls want over it where there are `figures`.

        False once the controls have ended, by a key or by the close button.
        """
        if self._controls.ended:
            return False
        if figures is not None:
            image = image.copy()
            draw_hud(image, self._controls, figures, message)
        if not self._open:
            self._show(image)
        cv2.imshow(self._title, image)
        return self._serve(milliseconds=1)

    def wait(self, seconds: float) -> bool:
        """Let the window live for `seconds` without a new picture, or until a key came.

        Returns as `write` does. Sleeps in the window system; a window not yet shown only lets time pass.
        """
        if not self._open:
            time.sleep(seconds)
            return not self._controls.ended
        return self._serve(milliseconds=max(1, round(seconds * 1000)))

    def close(self, complete: bool = True) -> None:  # noqa: ARG002
        """Take the window off the screen."""
        self._controls.ended = True
        if self._open and self._visible():
            cv2.destroyWindow(self._title)
            cv2.waitKey(1)  # the window system is only served in here
        self._open = False

    def _show(self, image: Image) -> None:
        height, width = image.shape[:2]
        shrink = min(1.0, LARGEST_WINDOW[0] / width, LARGEST_WINDOW[1] / height)
        cv2.namedWindow(self._title, KIND)
        cv2.resizeWindow(self._title, max(round(width * shrink), 1), max(round(height * shrink), 1))
        self._open = True

    def _serve(self, milliseconds: int) -> bool:
        """Let the window system work so long, or until a key comes; hand on that key and those behind it."""
        while (code := cv2.waitKeyEx(milliseconds)) != -1:
            self._controls.press(_character(code))
            milliseconds = 1
        if not self._visible():
            self._controls.ended = True
        return not self._controls.ended

    def _visible(self) -> bool:
        try:
            return cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # Qt: the last window of the program was closed
            return False


def _character(code: int) -> str:
    """The character of a key, as `cv2.waitKeyEx` tells it; empty for arrows and the like.

    GTK adds Shift, Num Lock and their like above the low 16 bits. `cv2.waitKey` cuts to 8, which makes Q, R
    and S of the left, up and right arrow.
    """
    code &= 0xFFFF
    return NAMED_KEYS.get(code) or (chr(code) if code < 256 else "")


def _check_display() -> None:
    """Ask for an X server (XWayland is one) before OpenCV's Qt does, which ends the whole process without.

    Qt is told to use X, too: it has nothing else in OpenCV's wheels, and ends the process when asked for it.
    """
    display = os.environ.get("DISPLAY", "")
    found = re.fullmatch(r"(?:unix)?([^:]*|\[.*\]):(\d+)(?:\.\d+)?", display)
    if not display or (found and not _answers(found[1], int(found[2]))):
        unreachable = f"on {display}: no X server answers" if display else "to show a window on"
        raise SinkError(f"There is no display {unreachable}. {WITHOUT_WINDOW}")
    os.environ["QT_QPA_PLATFORM"] = "xcb"


def _answers(host: str, number: int) -> bool:
    """Whether something listens where X server `number` does; an empty `host` is this machine (`X(7)`)."""
    path = f"/tmp/.X11-unix/X{number}"
    places = [host] if host else [path, f"\0{path}"]
    return any(_listens(place, 6000 + number) for place in places)


def _listens(place: str, port: int) -> bool:
    """Whether a socket file, or a host at `port`, accepts a connection."""
    try:
        if "/" not in place:
            socket.create_connection((place, port), timeout=SERVER_SECONDS).close()
        else:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(SERVER_SECONDS)
                client.connect(place)
    except OSError:
        return False
    return True
