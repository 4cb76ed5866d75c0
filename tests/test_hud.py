"""Metrics, indicators, messages and help drawn over a frame."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live_seg.types import Image
from live_seg.ui import hud
from live_seg.ui.controls import KEYS, Controls
from live_seg.ui.hud import MESSAGE_SECONDS, PANEL_BRIGHTNESS, Message, draw_hud
from live_seg.ui.metrics import Metrics, Rate

QUIET = Metrics(camera_fps=30.0, network_fps=2.1, latency=0.085, instances=3, dropped=12)
RECORDING = Metrics(camera_fps=0.0, network_fps=0.0, latency=None, instances=0, dropped=0, recorded=75.9)


def drawn(
    controls: Controls, metrics: Metrics = QUIET, message: str = "", size: tuple[int, int] = (720, 1280)
) -> Image:
    canvas = np.full((*size, 3), 200, np.uint8)
    draw_hud(canvas, controls, metrics, message)
    return canvas


def touched(canvas: Image) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of what was drawn, right and bottom exclusive."""
    changed = canvas[:, :, 0] != 200
    xs, ys = np.flatnonzero(changed.any(axis=0)), np.flatnonzero(changed.any(axis=1))
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of all texts drawn."""
    written: list[str] = []
    put = cv2.putText

    def note(canvas: Image, text: str, *how: object) -> object:
        written.append(text)
        return put(canvas, text, *how)  # type: ignore[call-overload]

    monkeypatch.setattr(cv2, "putText", note)
    return written


class TestRate:
    def test_it_is_zero_for_fewer_than_two_events(self) -> None:
        rate = Rate()
        assert rate.per_second(5.0) == 0
        rate.add(5.0)
        assert rate.per_second(5.0) == rate.per_second(7.0) == 0

    @given(st.floats(0.2, 240), st.integers(3, 900), st.floats(0, 1))
    def test_a_constant_rate_is_exact_between_events_too(self, fps: float, count: int, part: float) -> None:
        rate = Rate()
        for index in range(count):
            rate.add(100 + index / fps)
        assert rate.per_second(100 + (count - 1 + part) / fps) == pytest.approx(fps, rel=1e-6)

    def test_it_follows_a_change_within_its_window(self) -> None:
        rate = Rate(window=2.0)
        for index in range(90):
            rate.add(index / 30)
        for index in range(30):
            rate.add(3.0 + index / 10)
        assert rate.per_second(5.9) == pytest.approx(10)

    def test_it_declines_when_events_stop(self) -> None:
        rate = Rate()
        for index in range(61):
            rate.add(index / 30)
        seen = [rate.per_second(2.0 + late) for late in (0, 0.5, 1.0, 1.9, 3.0, 100.0)]
        assert seen == sorted(seen, reverse=True)
        assert seen[0] == pytest.approx(30)
        assert seen[-2] < 1
        assert seen[-1] < 0.05

    def test_its_memory_is_bounded(self) -> None:
        rate = Rate(limit=100)
        for index in range(100_000):
            rate.add(index / 1000)
        assert len(rate._times) == 100
        assert rate.per_second(99.999) == pytest.approx(1000)

    def test_events_at_one_instant(self) -> None:
        rate = Rate()
        rate.add(1.0)
        rate.add(1.0)
        assert rate.per_second(1.0) == 0


def test_a_message_disappears_and_a_new_one_replaces_it() -> None:
    message = Message()
    assert message.at(0.0) == ""
    message.show("saved a.png", 10.0)
    message.show("saved b.png", 11.0)
    assert message.at(11.0) == message.at(10.9 + MESSAGE_SECONDS) == "saved b.png"
    assert message.at(11.0 + MESSAGE_SECONDS) == ""


def test_nothing_is_drawn_when_switched_off() -> None:
    controls = Controls(hud=False)
    controls.paused = True
    assert (drawn(controls, RECORDING) == 200).all()


def test_every_metric_is_drawn(texts: list[str]) -> None:
    left, top, right, bottom = touched(drawn(Controls(0.55)))
    assert {"30.0 fps", "2.1 fps", "85 ms", "3", "12", ">= 0.55"} <= set(texts)
    assert right < 1280 / 4
    assert bottom < 720 / 3
    assert (left, top) > (0, 0)


def test_changing_values_do_not_resize_the_panel() -> None:
    many = Metrics(camera_fps=239.9, network_fps=100.0, latency=1.234, instances=100, dropped=123456)
    none = Metrics(camera_fps=0.0, network_fps=0.0, latency=None, instances=0, dropped=0)
    assert touched(drawn(Controls())) == touched(drawn(Controls(), many)) == touched(drawn(Controls(), none))


def test_the_recording_indicator_is_red_with_its_time(texts: list[str]) -> None:
    lit = drawn(Controls(), RECORDING)
    assert "01:15" in texts
    red = (lit == hud.RED).all(axis=2)
    assert red[:360, 640:].any()
    assert not (drawn(Controls()) == hud.RED).all(axis=2).any()


def test_hours_of_recording(texts: list[str]) -> None:
    drawn(Controls(), Metrics(30, 2, None, 0, 0, recorded=7384.0))
    assert "2:03:04" in texts


def test_paused(texts: list[str]) -> None:
    controls = Controls()
    before = drawn(controls)
    controls.paused = True
    after = drawn(controls)
    assert "paused" in texts
    assert (before[:, 640:] != after[:, 640:]).any()
    np.testing.assert_array_equal(before[:, :640], after[:, :640])


def test_help_explains_every_key(texts: list[str]) -> None:
    controls = Controls(hud=False)
    controls.help = True
    left, top, right, bottom = touched(drawn(controls))
    assert texts == [text for key in KEYS for text in (key.name, key.meaning)]
    assert abs(left - (1280 - right)) <= 1
    assert abs(top - (720 - bottom)) <= 1


def test_a_message_is_shown_without_the_metrics_too(texts: list[str]) -> None:
    left, top, right, bottom = touched(drawn(Controls(hud=False), message="saved a.png"))
    assert texts == ["saved a.png"]
    assert top > 720 * 0.8
    assert bottom <= 720
    assert abs(left - (1280 - right)) <= 1


@pytest.mark.parametrize("background", [0, 128, 255])
def test_text_contrasts_with_any_background(background: int) -> None:
    """Checks WCAG 2.2 level AAA: a contrast of 7 to 1 between text and panel."""
    canvas = np.full((720, 1280, 3), background, np.uint8)
    draw_hud(canvas, Controls(), QUIET)
    left, top, right, bottom = touched(drawn(Controls()))
    panel = canvas[top:bottom, left:right]
    ground, ink = int(panel[2, 2, 0]), int(panel.max())
    assert ground == pytest.approx(background * PANEL_BRIGHTNESS, abs=1)
    light, dark = (((value / 255 + 0.055) / 1.055) ** 2.4 for value in (ink, max(ground, 11)))
    assert (light + 0.05) / (dark + 0.05) >= 7


def test_text_grows_with_the_image() -> None:
    small, large = touched(drawn(Controls(), size=(720, 1280))), touched(drawn(Controls(), size=(1440, 1280)))
    assert 1.8 < (large[2] - large[0]) / (small[2] - small[0]) < 2.2


@given(st.integers(1, 300), st.integers(1, 300), st.text(max_size=300), st.booleans())
def test_any_image_and_any_message(height: int, width: int, message: str, helped: bool) -> None:
    controls = Controls()
    controls.help, controls.paused = helped, True
    canvas = drawn(controls, RECORDING, message, (height, width))
    assert canvas.shape == (height, width, 3)
    assert (canvas != 200).any()


@pytest.mark.parametrize("size", [(360, 640), (480, 640), (720, 1280)])
def test_help_is_written_as_large_as_the_metrics(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shrinks only in images that are smaller than a camera's."""
    scales: list[float] = []
    monkeypatch.setattr(cv2, "putText", lambda *call: scales.append(call[4]))
    controls = Controls()
    drawn(controls, size=size)
    [scale] = set(scales)
    controls.help = True
    drawn(controls, size=size)
    assert set(scales) == {scale}
    assert len(scales) > 2 * len(KEYS)
    assert cv2.getTextSize("H", hud.FONT, scale, 1)[0][1] >= 10


@pytest.mark.parametrize("size", [(240, 320), (180, 640), (960, 200)])
def test_help_fits_small_images(size: tuple[int, int]) -> None:
    controls = Controls(hud=False)
    controls.help = True
    canvas = drawn(controls, size=size)
    ink = canvas.max(axis=2) > 200
    assert ink.any()
    edges = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
    assert not edges.any()
