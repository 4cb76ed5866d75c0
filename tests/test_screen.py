"""The screen as a source, under a virtual X server."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from mss.exception import ScreenShotError

import live_seg
from live_seg.errors import SourceError
from live_seg.sources import screen
from live_seg.sources.screen import Screen, screen_number
from live_seg.types import Frame

WIDTH, HEIGHT = 320, 200


def test_names() -> None:
    assert (screen_number("screen"), screen_number("screen:2")) == (1, 2)
    assert {screen_number(spec) for spec in ("screens", "./screen", 0, "screen:")} == {None}


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An X server with a screen of its own."""
    if sys.platform != "linux" or not shutil.which("Xvfb"):
        pytest.skip("needs Xvfb: apt-get install xvfb")
    read, write = os.pipe()
    words = (
        "Xvfb",
        "-displayfd",
        str(write),
        "-screen",
        "0",
        f"{WIDTH}x{HEIGHT}x24",
        "-noreset",
        "-nolisten",
        "tcp",
    )
    with subprocess.Popen(words, pass_fds=(write,), stderr=subprocess.DEVNULL) as server:
        os.close(write)
        with os.fdopen(read) as pipe:
            name = f":{pipe.readline().strip()}"
        monkeypatch.setenv("DISPLAY", name)
        yield name
        server.terminate()


def test_frames_of_the_screen(display: str) -> None:
    del display
    frames = list[Frame]()
    with live_seg.open_source("screen") as source:
        assert source.live
        assert (source.size, source.fps) == ((WIDTH, HEIGHT), screen.SCREEN_FPS)
        for frame in source:
            frames.append(frame)
            if len(frames) == 6:
                break
    assert [frame.index for frame in frames] == list(range(6))
    assert frames[0].seconds == 0
    assert 0.1 < frames[-1].seconds < 5
    assert frames[-1].image.shape == (HEIGHT, WIDTH, 3)
    assert frames[-1].image.max() == 0  # an empty screen is black


def test_a_colour_is_that_of_the_screen(display: str) -> None:
    if not shutil.which("xsetroot"):
        pytest.skip("needs xsetroot: apt-get install x11-xserver-utils")
    subprocess.run(("xsetroot", "-display", display, "-solid", "#ff8000"), check=True)
    with Screen() as source:
        image = next(iter(source)).image
    assert image[5, 5].tolist() == [0, 128, 255]


@pytest.mark.usefixtures("display")
def test_a_screen_that_does_not_exist() -> None:
    with pytest.raises(SourceError, match=r"no screen 3. Use one from 1 to 1"):
        Screen(3)


@pytest.mark.skipif(sys.platform != "linux", reason="X11")
def test_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":4711")
    with pytest.raises(SourceError, match=r"Cannot read screen 1: .*DISPLAY"):
        live_seg.open_source("screen")


def test_a_screen_that_ends(display: str, monkeypatch: pytest.MonkeyPatch) -> None:
    del display
    seen = list[Frame]()
    with Screen() as source:
        grab = screen._ScreenCapture._grab

        def ends(capture: screen._ScreenCapture) -> object:
            if len(seen) >= 2:
                raise ScreenShotError("gone")
            return grab(capture)

        monkeypatch.setattr(screen._ScreenCapture, "_grab", ends)
        with pytest.raises(SourceError, match="cannot be read any more"):
            seen.extend(source)
