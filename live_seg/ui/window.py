"""Desktop window: shows drawn frames and receives keys."""

import os
import re
import socket
import sys

import cv2

from live_seg.errors import SinkError
from live_seg.types import Frame, Image, Instances, Sink
from live_seg.ui.controls import ESCAPE, Controls
from live_seg.ui.hud import draw_hud, waiting_image
from live_seg.ui.metrics import Metrics

WINDOW_FLAGS = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
"""Resizable, without the tool bar: OpenCV's Qt has no fonts for its text and prints warnings to stderr."""

MAX_INITIAL_SIZE = (1280, 720)
"""Largest initial (width, height) of a window, so that it fits a laptop screen together with its frame."""

ALTERNATIVES = (
    "Write to a file instead (live-seg video -o OUT.mp4), or watch in a browser (live-seg webcam --show web)."
)
"""Advice of the errors raised when no window can be shown."""

X11_KEYS = {0xFF1B: ESCAPE, 0xFFAB: "+", 0xFFAD: "-"}
"""X11 key codes of Esc, and of + and - on the numeric keypad (`keysymdef.h`)."""

CONNECT_TIMEOUT = 5.0
"""Seconds that a display, possibly on another machine, may take to accept a connection."""


class Window(Sink):
    """Window that shows drawn frames and passes keys and clicks to `controls`. Its close button ends them.

    Create and use it on the main thread only; macOS does not allow windows elsewhere. The window system keeps
    only the last key pressed between two calls of `write` or `wait`: call one of them at least 20 times a
    second. On Linux this sets the environment variable QT_QPA_PLATFORM (see `_check_display`).

    The constructor raises SinkError when there is no display or OpenCV was built without window support.
    """

    def __init__(self, title: str = "live-seg", controls: Controls | None = None) -> None:
        self._title = title
        self._controls = controls or Controls()
        self._open = self._waiting = False
        self._size = (1, 1)  # width and height of the image shown
        if sys.platform == "linux":
            _check_display()
        try:
            cv2.namedWindow(title, WINDOW_FLAGS)
            cv2.destroyWindow(title)
        except cv2.error as error:
            raise SinkError(
                "This OpenCV cannot show windows. Install opencv-python instead of opencv-python-headless. "
                f"{ALTERNATIVES}"
            ) from error

    def write(
        self,
        frame: Frame,  # noqa: ARG002
        image: Image,
        instances: Instances,  # noqa: ARG002
        metrics: Metrics | None = None,
        message: str = "",
    ) -> bool:
        """Show one image, with the overlay if `metrics` are given. Handle pressed keys.

        Returns False once the controls have ended, by a key or by the close button.
        """
        if self._controls.ended:
            return False
        if metrics is not None:
            image = image.copy()
            draw_hud(image, self._controls, metrics, message)
        if not self._open or self._waiting:
            self._open_window(image)
            self._waiting = False
        self._size = image.shape[1], image.shape[0]
        cv2.imshow(self._title, image)
        return self._handle_events(milliseconds=1)

    def wait(self, seconds: float) -> bool:
        """Handle window events for `seconds`, or until a key was pressed.

        Returns False once the controls have ended. Before the first image, the window says that it waits.
        """
        if not self._open:
            if self._controls.ended:
                return False
            card = waiting_image()
            self._open_window(card)
            cv2.imshow(self._title, card)
            self._waiting = True
        return self._handle_events(milliseconds=max(1, round(seconds * 1000)))

    def close(self, complete: bool = True) -> None:  # noqa: ARG002
        """Close the window."""
        self._controls.ended = True
        if self._open and self._visible():
            cv2.destroyWindow(self._title)
            cv2.waitKey(1)  # handles the window events
        self._open = False

    def _open_window(self, image: Image) -> None:
        height, width = image.shape[:2]
        shrink = min(1.0, MAX_INITIAL_SIZE[0] / width, MAX_INITIAL_SIZE[1] / height)
        cv2.namedWindow(self._title, WINDOW_FLAGS)
        cv2.resizeWindow(self._title, max(round(width * shrink), 1), max(round(height * shrink), 1))
        cv2.setMouseCallback(self._title, self._handle_mouse)
        self._open = True

    def _handle_events(self, milliseconds: int) -> bool:
        """Handle window events until the time is over or a key arrives; apply all waiting keys."""
        while (code := cv2.waitKeyEx(milliseconds)) != -1:
            self._controls.press(_character(code))
            milliseconds = 1
        if not self._visible():
            self._controls.ended = True
        return not self._controls.ended

    def _handle_mouse(self, event: int, x: int, y: int, *_: object) -> None:
        """Handle a click at (x, y) in pixels of the image."""
        if event == cv2.EVENT_LBUTTONUP and not self._waiting:
            self._controls.click(x / self._size[0], y / self._size[1])

    def _visible(self) -> bool:
        try:
            return cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # Qt: the last window of the program was closed
            return False


def _character(code: int) -> str:
    """Return the character for a key code of `cv2.waitKeyEx`; empty for arrow and function keys.

    GTK stores modifiers such as Shift and Num Lock above the low 16 bits. `cv2.waitKey` keeps only 8 bits,
    which turns the left, up and right arrow into Q, R and S.
    """
    code &= 0xFFFF
    return X11_KEYS.get(code) or (chr(code) if code < 256 else "")


def _check_display() -> None:
    """Raise SinkError unless an X server (XWayland included) is reachable, and make Qt use X11.

    Without a server, or with another platform in QT_QPA_PLATFORM, the Qt of OpenCV's wheels would abort the
    process; it supports X11 only.
    """
    display = os.environ.get("DISPLAY", "")
    found = re.fullmatch(r"(?:unix)?([^:]*|\[.*\]):(\d+)(?:\.\d+)?", display)
    if not display or (found and not _responds(found[1], int(found[2]))):
        reason = f"no X server responds on {display}" if display else "there is no display"
        raise SinkError(f"Cannot show a window: {reason}. {ALTERNATIVES}")
    os.environ["QT_QPA_PLATFORM"] = "xcb"


def _responds(host: str, number: int) -> bool:
    """Return whether X server `number` accepts connections; an empty `host` is this machine (see `X(7)`)."""
    path = f"/tmp/.X11-unix/X{number}"
    places = [host] if host else [path, f"\0{path}"]
    return any(_accepts(place, 6000 + number) for place in places)


def _accepts(place: str, port: int) -> bool:
    """Return whether a socket file, or a host at `port`, accepts a connection."""
    if sys.platform == "win32":
        return False
    try:
        if "/" not in place:
            socket.create_connection((place, port), timeout=CONNECT_TIMEOUT).close()
        else:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(CONNECT_TIMEOUT)
                client.connect(place)
    except OSError:
        return False
    return True
