"""The window, tested on a fake desktop and on a virtual X server with real key events."""

import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from live_seg.errors import SinkError
from live_seg.types import Frame, Image, Instances
from live_seg.ui.controls import Controls
from live_seg.ui.metrics import Metrics
from live_seg.ui.window import Window

NOTHING = Instances.empty()


def frame(index: int, width: int = 40, height: int = 30) -> Frame:
    return Frame(index, index / 30, np.full((height, width, 3), index, np.uint8))


class Desktop:
    """Fake of OpenCV's windows: open windows, shown images, and the next user actions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open: set[str] = set()
        self.shown: list[Image] = []
        self.size: tuple[int, int] | None = None
        self.next_keys: list[int] = []
        self.waited: list[int] = []
        self.closes_window = False
        monkeypatch.setattr("live_seg.ui.window._check_display", lambda: None)
        monkeypatch.setattr(cv2, "namedWindow", lambda title, _flags: self.open.add(title))
        monkeypatch.setattr(cv2, "resizeWindow", self.resize)
        monkeypatch.setattr(cv2, "imshow", self.show)
        monkeypatch.setattr(cv2, "waitKeyEx", self.wait)
        monkeypatch.setattr(cv2, "waitKey", self.wait)
        monkeypatch.setattr(cv2, "destroyWindow", self.open.remove)
        monkeypatch.setattr(cv2, "getWindowProperty", self.visible)
        monkeypatch.setattr(cv2, "setMouseCallback", self.listen)

    def resize(self, _title: str, width: int, height: int) -> None:
        self.size = (width, height)

    def listen(self, _title: str, handle: Callable[..., None]) -> None:
        self.handle = handle

    def visible(self, title: str, _property: int) -> float:
        if not self.open:
            raise cv2.error("NULL guiReceiver (please create a window)")  # as Qt has it
        return float(title in self.open)

    def show(self, title: str, image: Image) -> None:
        self.open.add(title)  # as OpenCV does: a closed window comes back
        self.shown.append(image)

    def wait(self, milliseconds: int) -> int:
        self.waited.append(milliseconds)
        if self.closes_window:
            self.open.clear()
        return self.next_keys.pop(0) if self.next_keys else -1


@pytest.fixture
def desktop(monkeypatch: pytest.MonkeyPatch) -> Desktop:
    return Desktop(monkeypatch)


class TestOnAFakedDesktop:
    def test_shows_every_picture_and_goes_away(self, desktop: Desktop) -> None:
        with Window("seen") as sink:
            assert desktop.open == set()  # no grey window while a model loads
            for index in range(3):
                assert sink.write(frame(index), frame(index).image, NOTHING)
            assert desktop.open == {"seen"}
        assert desktop.open == set()
        assert [int(image[0, 0, 0]) for image in desktop.shown] == [0, 1, 2]

    # 0x100000 is GTK's Num Lock, 0xFF1B X11's Esc.
    @pytest.mark.parametrize("key", [ord("q"), ord("Q"), 27, 0xFF1B, ord("q") | 0x100000])
    def test_q_and_escape_quit(self, desktop: Desktop, key: int) -> None:
        with Window() as sink:
            desktop.next_keys = [ord("x")]
            assert sink.write(frame(0), frame(0).image, NOTHING)
            desktop.next_keys = [key]
            assert not sink.write(frame(1), frame(1).image, NOTHING)
            assert not sink.write(frame(2), frame(2).image, NOTHING)
        assert len(desktop.shown) == 2

    # Their low 8 bits are Q, R and S: the codes of X11, Windows and macOS.
    @pytest.mark.parametrize("key", [0xFF51, 0xFF52, 0xFF53, 0x250000, 0xF702])
    def test_arrow_keys_do_nothing(self, desktop: Desktop, key: int) -> None:
        controls = Controls()
        with Window(controls=controls) as sink:
            desktop.next_keys = [key]
            assert sink.write(frame(0), frame(0).image, NOTHING)
            assert controls == Controls()

    def test_all_pending_keys_reach_the_controls(self, desktop: Desktop) -> None:
        controls = Controls(0.5)
        with Window(controls=controls) as sink:
            desktop.next_keys = [ord("m"), ord("b"), 0xFFAB, 0xFFAB, 0xFFAD]
            assert sink.write(frame(0), frame(0).image, NOTHING)
        assert (controls.masks, controls.boxes, controls.labels) == (False, False, True)
        assert controls.threshold == 0.55

    def test_keys_are_handled_while_waiting(self, desktop: Desktop) -> None:
        controls = Controls()
        with Window(controls=controls) as sink:
            sink.write(frame(0), frame(0).image, NOTHING)
            desktop.next_keys, desktop.waited = [ord(" ")], []
            assert sink.wait(0.25)
            assert controls.paused
            assert desktop.waited == [250, 1]
            desktop.next_keys = [ord("q")]
            assert not sink.wait(0.25)
        assert len(desktop.shown) == 1

    def test_while_the_first_image_is_awaited_keys_are_handled(self, desktop: Desktop) -> None:
        with Window("seen") as sink:
            assert sink.wait(0)
            assert sink.wait(0)
            assert (desktop.open, desktop.waited) == ({"seen"}, [1, 1])
            (waiting,) = desktop.shown
            assert waiting.max() == 255
            assert desktop.size == waiting.shape[1::-1]
            assert sink.write(frame(0), frame(0).image, NOTHING)
            assert desktop.size == (40, 30)
            desktop.next_keys = [ord("q")]
            assert not sink.wait(0)
        assert not sink.wait(0)
        assert desktop.open == set()

    def test_a_key_ends_the_wait_for_the_first_image(self, desktop: Desktop) -> None:
        with Window() as sink:
            desktop.next_keys = [27]
            assert not sink.wait(0)

    def test_a_click_enlarges_a_source(self, desktop: Desktop) -> None:
        controls = Controls(sources=4)
        window = Window("seen", controls)
        window.write(frame(0), frame(0).image, Instances.empty())
        desktop.handle(cv2.EVENT_MOUSEMOVE, 30, 20, 0, None)
        assert controls.enlarged == 0
        desktop.handle(cv2.EVENT_LBUTTONUP, 30, 20, 0, None)
        assert controls.enlarged == 4
        window.close()

    @pytest.mark.parametrize("paused", [False, True])
    def test_a_closed_window_quits_and_is_not_opened_again(self, desktop: Desktop, paused: bool) -> None:
        controls = Controls()
        with Window(controls=controls) as sink:
            assert sink.write(frame(0), frame(0).image, NOTHING)
            desktop.closes_window = True
            assert not (sink.wait(0.1) if paused else sink.write(frame(1), frame(1).image, NOTHING))
            assert controls.ended
            shown = len(desktop.shown)
            assert not sink.write(frame(2), frame(2).image, NOTHING)
        assert desktop.open == set()
        assert len(desktop.shown) == shown

    def test_controls_that_have_ended_already(self, desktop: Desktop) -> None:
        controls = Controls()
        with Window(controls=controls) as sink:
            controls.press("q")
            assert not sink.write(frame(0), frame(0).image, NOTHING)
        assert desktop.shown == []

    @pytest.mark.parametrize(
        ("shape", "window"), [((40, 30), (40, 30)), ((3840, 2160), (1280, 720)), ((600, 7200), (60, 720))]
    )
    def test_a_large_image_gets_a_window_that_fits_and_keeps_its_aspect_ratio(
        self, desktop: Desktop, shape: tuple[int, int], window: tuple[int, int]
    ) -> None:
        with Window() as sink:
            sink.write(frame(0), frame(0, *shape).image, NOTHING)
        assert desktop.size == window

    def test_metrics_and_message_are_drawn_on_a_copy(self, desktop: Desktop) -> None:
        image = frame(9, 320, 240).image
        metrics = Metrics(30.0, 2.0, 0.1, instances=1, dropped=0)
        with Window() as sink:
            assert sink.write(frame(9), image, NOTHING)
            assert sink.write(frame(9), image, NOTHING, metrics)
            assert sink.write(frame(9), image, NOTHING, metrics, "saved a.png")
        changed = [int((image != 9).any(axis=2).sum()) for image in desktop.shown]
        assert 0 == changed[0] < changed[1] < changed[2]
        assert (image == 9).all()

    def test_never_shown_and_closed_twice(self, desktop: Desktop) -> None:
        sink = Window()
        sink.close()
        sink.close()
        assert desktop.shown == []

    def test_an_opencv_without_windows(self, desktop: Desktop, monkeypatch: pytest.MonkeyPatch) -> None:
        def not_built(*_: object) -> None:
            raise cv2.error("The function is not implemented. Rebuild the library with GTK+ 2.x support.")

        monkeypatch.setattr(cv2, "namedWindow", not_built)
        with pytest.raises(SinkError, match=r"opencv-python instead of opencv-python-headless.*-o"):
            Window()
        assert desktop.shown == []


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="X servers of this machine have socket files")
class TestWithoutADisplay:
    """OpenCV's Qt would abort the process, so the display is checked first."""

    @pytest.fixture(autouse=True)
    def _on_linux(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def abort(*_: object) -> None:
            os.abort()

        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(cv2, "namedWindow", abort)

    def test_no_display(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DISPLAY", raising=False)
        with pytest.raises(SinkError, match=r"there is no display.*-o"):
            Window()

    @pytest.mark.parametrize("display", [":4711", "unix:4711.0", "localhost:4711", "127.0.0.1:4711.0"])
    def test_a_display_that_does_not_respond(self, monkeypatch: pytest.MonkeyPatch, display: str) -> None:
        monkeypatch.setenv("DISPLAY", display)
        with pytest.raises(SinkError, match=rf"no X server responds on {display}.*-o"):
            Window()

    def test_a_display_that_responds_on_a_port(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
        monkeypatch.setattr(cv2, "destroyWindow", lambda *_: None)
        monkeypatch.setenv("QT_QPA_PLATFORM", "wayland")
        with socket.create_server(("127.0.0.1", 0)) as server:
            monkeypatch.setenv("DISPLAY", f"localhost:{server.getsockname()[1] - 6000}.0")
            Window().close()
        assert os.environ["QT_QPA_PLATFORM"] == "xcb"


PROGRAM = """
import dataclasses, itertools, json
import numpy as np
from live_seg.ui.controls import Controls
from live_seg.ui.hud import draw_hud
from live_seg.ui.metrics import Metrics
from live_seg.types import Frame, Instances
from live_seg.ui.window import Window

controls, printed, shown = Controls(threshold=0.5, minimum=0.3, sources=4), None, 0
y, x = np.mgrid[:360, :640].astype(np.uint8)
with Window("live-seg under test", controls) as window:
    for index in itertools.count():
        drawn = dataclasses.replace(controls)
        if not drawn.paused:
            shown = index
        image = np.stack([x, y, x + np.uint8(shown % 256)], axis=2)
        draw_hud(image, drawn, Metrics(30.0, 2.1, 0.085, 3, 12, 75.0 if drawn.recording else None))
        frame = Frame(index, index / 30, image)
        if not (window.write(frame, image, Instances.empty()) and window.wait(0.05)):
            break
        if drawn != printed:
            printed = drawn
            print(json.dumps(vars(printed)), flush=True)
print(json.dumps(vars(controls)), flush=True)
"""
"""Show moving colours with metrics, and print the controls once a change is visible."""


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    """Start an X server without a monitor and yield its DISPLAY."""
    for needed in ("Xvfb", "xdotool", "import"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed (Debian: xvfb, xdotool, imagemagick)")
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "1400x900x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            yield f":{server.stdout.readline().strip()}"
        finally:
            server.terminate()


class Shown:
    """The program with its window on `screen`, and its user."""

    def __init__(self, screen: str) -> None:
        self.environment = {**os.environ, "DISPLAY": screen}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.start = self.printed()
        self.window = self.xdotool("search", "--sync", "--onlyvisible", "--name", "under test").split()[-1]
        self.xdotool("windowfocus", "--sync", self.window)

    def printed(self) -> dict[str, Any]:
        """Wait for the next controls printed by the program."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return dict(json.loads(line))

    def xdotool(self, *arguments: str) -> str:
        done = subprocess.run(
            ["xdotool", *arguments], env=self.environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    def press(self, key: str) -> dict[str, Any]:
        """Press a key, given its X11 name, and return the controls that changed."""
        return self.changed_by("key", key)

    def click(self, x: int, y: int) -> dict[str, Any]:
        """Click at a place of the window and return the controls that changed."""
        return self.changed_by("mousemove", "--window", self.window, str(x), str(y), "click", "1")

    def changed_by(self, *arguments: str) -> dict[str, Any]:
        """Call xdotool and return the controls that changed."""
        before = self.start
        self.xdotool(*arguments)
        self.start = self.printed()
        return {name: value for name, value in self.start.items() if value != before[name]}

    def screenshot(self, path: Path) -> Image:
        """Save a screenshot at `path` and return it, (H, W, 3) uint8 BGR."""
        subprocess.run(["import", "-window", "root", str(path)], env=self.environment, check=True)
        taken = cv2.imread(str(path))
        assert taken is not None
        return np.asarray(taken, np.uint8)

    def close_button(self) -> None:
        """Ask the window to close as a window manager does (ICCCM 4.2.8: WM_DELETE_WINDOW)."""
        send_delete(self.environment["DISPLAY"], int(self.window))

    def end(self) -> tuple[dict[str, Any], int, str]:
        """Wait for the end. Return the last controls printed, the exit code and stderr."""
        out, err = self.process.communicate()
        return dict(json.loads(out.splitlines()[-1])), self.process.returncode, err


class ClientMessage(ctypes.Structure):
    """XClientMessageEvent with room for any XEvent (Xlib, section 10.13.1)."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("rest", ctypes.c_long * 12),
    )


def send_delete(display: str, window: int) -> None:
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
    x11.XInternAtom.restype = ctypes.c_ulong
    x11.XSendEvent.argtypes = (
        *(ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_long),
        ctypes.POINTER(ClientMessage),
    )
    x11.XCloseDisplay.argtypes = (ctypes.c_void_p,)
    server = x11.XOpenDisplay(display.encode())
    assert server
    protocols, delete = (x11.XInternAtom(server, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW"))
    event = ClientMessage(type=33, window=window, message_type=protocols, format=32)  # 33: ClientMessage
    event.data[0] = delete
    x11.XSendEvent(server, window, 0, 0, ctypes.byref(event))
    x11.XCloseDisplay(server)


@pytest.fixture
def shown(screen: str) -> Iterator[Shown]:
    program = Shown(screen)
    try:
        yield program
    finally:
        program.process.kill()
        program.process.communicate()


@pytest.mark.slow
class TestOnAScreen:
    def test_keys_reach_the_program(self, shown: Shown, tmp_path: Path) -> None:
        assert shown.press("m") == {"masks": False}
        assert shown.press("b") == {"boxes": False}
        assert shown.press("l") == {"labels": False}
        assert shown.press("plus") == {"threshold": 0.55}
        assert shown.press("KP_Subtract") == {"threshold": 0.5}
        assert shown.press("minus") == {"threshold": 0.45}
        assert shown.press("r") == {"recording": True}
        assert shown.press("s") == {"snapshot": True}
        shown.screenshot(tmp_path / "metrics.png")
        assert shown.press("question") == {"help": True}
        shown.screenshot(tmp_path / "help.png")
        assert shown.press("question") == {"help": False}
        assert shown.press("h") == {"hud": False}
        shown.xdotool("key", "Left", "F1", "Return", "x")  # the next line printed must be of the next key
        shown.xdotool("key", "q")
        last, code, errors = shown.end()
        assert last == {**shown.start, "ended": True}
        assert (code, errors) == (0, "")

    def test_while_paused_the_frame_stays_and_keys_work(self, shown: Shown, tmp_path: Path) -> None:
        assert shown.press("space") == {"paused": True}
        first = shown.screenshot(tmp_path / "paused.png")
        np.testing.assert_array_equal(shown.screenshot(tmp_path / "still.png"), first)
        assert (first == 255).all(axis=2).any()
        assert shown.press("h") == {"hud": False}
        assert shown.press("space") == {"paused": False}
        assert (shown.screenshot(tmp_path / "going.png") != first).any()
        shown.xdotool("key", "Escape")
        last, code, errors = shown.end()
        assert last["ended"]
        assert (code, errors) == (0, "")

    def test_a_click_enlarges_a_source(self, shown: Shown) -> None:
        assert shown.click(600, 340) == {"enlarged": 4}
        assert shown.click(10, 10) == {"enlarged": 0}
        shown.xdotool("windowmove", "--sync", shown.window, "0", "0")
        shown.xdotool("windowsize", "--sync", shown.window, "600", "800")
        assert shown.click(590, 300) == {"enlarged": 2}

    @pytest.mark.parametrize("paused", [False, True])
    def test_the_close_button_ends_the_program(self, shown: Shown, paused: bool) -> None:
        if paused:
            assert shown.press("space") == {"paused": True}
        shown.close_button()
        last, code, errors = shown.end()
        assert last == {**shown.start, "ended": True}
        assert (code, errors) == (0, "")

    def test_a_resized_window_keeps_the_aspect_ratio_of_frames(self, shown: Shown, tmp_path: Path) -> None:
        """At 600x800, it shows a 16:9 frame between two empty bars."""
        shown.press("h")
        shown.press("space")
        shown.xdotool("windowmove", "--sync", shown.window, "0", "0")
        shown.xdotool("windowsize", "--sync", shown.window, "600", "800")
        shown.press("m")  # reported once the window was redrawn
        taken = shown.screenshot(tmp_path / "shape.png")[:800, :600].astype(int)
        coloured = np.ptp(taken, axis=2).max(axis=1) > 20
        rows = np.flatnonzero(coloured)
        assert len(rows) == pytest.approx(600 * 9 / 16, abs=3)
        assert (rows[0] + rows[-1]) / 2 == pytest.approx(400, abs=3)
