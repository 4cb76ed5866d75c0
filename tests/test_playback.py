"""The pace of a video in a window, with a clock of its own."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from live_seg.types import Frame, Image, Instances
from live_seg.ui import playback
from live_seg.ui.playback import Playback
from live_seg.ui.window import Window

IMAGE = np.zeros((4, 4, 3), np.uint8)


class Screen:
    """Window whose `wait` advances the clock by at most 0.03 s, as after a key."""

    def __init__(self) -> None:
        self.now, self.ended = 50.0, False
        self.shown: list[float] = []

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
        self.shown.append(round(self.now - 50, 6))
        return True

    def wait(self, seconds: float) -> bool:
        self.now += min(seconds, 0.03)
        return not self.ended


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    shown = Screen()
    monkeypatch.setattr(playback, "time", SimpleNamespace(monotonic=lambda: shown.now))
    return shown


def test_frames_are_shown_at_their_own_intervals(screen: Screen) -> None:
    player = Playback(cast(Window, cast(Any, screen)))
    for seconds in (0.0, 0.1, 0.15, 1.15):
        assert player.write(Frame(0, seconds, IMAGE), IMAGE, Instances.empty())
    assert screen.shown == pytest.approx([0.0, 0.1, 0.15, 1.15])


def test_a_late_frame_delays_those_after_it(screen: Screen) -> None:
    player = Playback(cast(Window, cast(Any, screen)))
    for seconds in (0.0, 0.1, 0.2, 0.3):
        screen.now += 0.5 if seconds == 0.1 else 0
        player.write(Frame(0, seconds, IMAGE), IMAGE, Instances.empty())
    assert screen.shown == pytest.approx([0.0, 0.5, 0.6, 0.7])


def test_a_key_ends_the_wait(screen: Screen) -> None:
    player = Playback(cast(Window, cast(Any, screen)))
    player.write(Frame(0, 0.0, IMAGE), IMAGE, Instances.empty())
    screen.ended = True
    assert not player.write(Frame(1, 60.0, IMAGE), IMAGE, Instances.empty())
    assert screen.shown == [0.0]
