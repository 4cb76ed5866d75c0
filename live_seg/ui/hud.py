"""Overlay drawn on frames in a window: metrics, status indicators, messages and the key help."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from live_seg.types import Image
from live_seg.ui.controls import KEYS, Controls
from live_seg.ui.metrics import Metrics

FONT = cv2.FONT_HERSHEY_SIMPLEX

SCALE = 0.00075
"""Font scale per pixel of image height."""

MIN_SCALE = 0.4
"""Smallest readable font scale. Text is smaller only where it would not fit otherwise."""

PANEL_BRIGHTNESS = 0.3
"""Brightness of the image behind a panel. On white, white text then has a contrast of 8.7 to 1; WCAG 2.2 asks
for 7."""

WHITE = (255, 255, 255)
RED = (48, 48, 255)

WIDEST_VALUE = "0000.0 fps"
"""Widest value expected. Keeps the width of the panel constant while values change."""

ICON_SPACE = "   "
"""Placeholder for the icon beside an indicator's text."""

MESSAGE_SECONDS = 2.0
"""Time for which a message is shown."""

LEFT, CENTER, RIGHT = 0.0, 0.5, 1.0
TOP, BOTTOM = 0.0, 1.0

_Icon = Callable[[Image, int, int, int], None]
"""Draw an icon on an image, given left, top and size in pixels."""


class Message:
    """Text that disappears after MESSAGE_SECONDS. A new text replaces the current one."""

    def __init__(self) -> None:
        self._text = ""
        self._until = 0.0

    def show(self, text: str, now: float) -> None:
        """Show `text` from `now` on, in seconds of a monotonic clock."""
        self._text = text
        self._until = now + MESSAGE_SECONDS

    def at(self, now: float) -> str:
        """Return the text to show at `now`, or an empty string."""
        return self._text if now < self._until else ""


def draw_hud(canvas: Image, controls: Controls, metrics: Metrics, message: str = "") -> None:
    """Draw the overlay onto `canvas`, (H, W, 3) uint8 BGR, in place.

    With `controls.hud`: the metrics and the indicators of recording and pause. With `controls.help`: the key
    help instead of the metrics. Then `message`, unless empty. The font grows with the image height, and
    shrinks where text would not fit.
    """
    if controls.help:
        _panel(canvas, [(key.name, key.meaning) for key in KEYS], (CENTER, CENTER))
    elif controls.hud:
        _panel(canvas, rows(controls, metrics), (LEFT, TOP), reserve=WIDEST_VALUE)
    if controls.hud:
        _draw_indicators(canvas, controls.paused, metrics.recorded)
    if message:
        _panel(canvas, [(message, "")], (CENTER, BOTTOM))


def waiting_image() -> Image:
    """Return the image that a window shows before the first frame, (H, W, 3) uint8 BGR."""
    canvas = np.zeros((360, 640, 3), np.uint8)
    _panel(canvas, [("waiting for the first frame", ""), ("q, Esc: quit", "")], (CENTER, CENTER))
    return canvas


def rows(controls: Controls, metrics: Metrics) -> list[tuple[str, str]]:
    """Return metrics and score threshold as (name, value) rows, in display order."""
    return [
        ("camera", f"{metrics.camera_fps:.1f} fps"),
        ("network", f"{metrics.network_fps:.1f} fps"),
        ("latency", "-" if metrics.latency is None else f"{metrics.latency * 1000:.0f} ms"),
        ("dropped", f"{metrics.dropped}"),
        ("instances", f"{metrics.instances}"),
        ("score", f">= {controls.threshold:.2f}"),
    ]


def _draw_indicators(canvas: Image, paused: bool, recorded: float | None) -> None:
    """Draw, in the upper right corner, a red dot with the recording time, and two bars while paused."""
    indicators: list[tuple[_Icon, str]] = []
    if recorded is not None:
        indicators.append((_dot, clock(recorded)))
    if paused:
        indicators.append((_bars, "paused"))
    if not indicators:
        return
    places = _panel(canvas, [(ICON_SPACE, text) for _, text in indicators], (RIGHT, TOP))
    for (icon, _), (x, y, size) in zip(indicators, places, strict=True):
        icon(canvas, x, y, size)


def clock(seconds: float) -> str:
    """Format a duration, 0 seconds or more, as 01:15, or as 2:03:04 from one hour on."""
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes:02d}:{left:02d}"


def _dot(canvas: Image, x: int, y: int, size: int) -> None:
    cv2.circle(canvas, (x + size // 2, y + size // 2), size // 2, RED, cv2.FILLED, cv2.LINE_AA)


def _bars(canvas: Image, x: int, y: int, size: int) -> None:
    for left in (x, x + round(size * 0.6)):
        cv2.rectangle(canvas, (left, y), (left + round(size * 0.3), y + size), WHITE, cv2.FILLED)


@dataclass(frozen=True)
class _Layout:
    """Dimensions in pixels of a panel's text at one font scale."""

    scale: float
    cap_height: int
    """Height of a capital letter; also the space around the text and between columns."""
    columns: tuple[int, int]
    """Width of each column."""
    lines: int

    @property
    def line_height(self) -> int:
        """Distance from one line to the next."""
        return round(self.cap_height * 1.8)

    @property
    def width(self) -> int:
        return sum(self.columns) + self.cap_height * (3 if self.columns[1] else 2)

    @property
    def height(self) -> int:
        return self.lines * self.line_height + self.cap_height


def _measure(rows: Sequence[tuple[str, str]], reserve: str, scale: float) -> _Layout:
    first = max(_text_width(name, scale) for name, _ in rows)
    second = max(_text_width(value, scale) for _, value in [*rows, ("", reserve)])
    cap_height = cv2.getTextSize("H", FONT, scale, 1)[0][1]
    return _Layout(scale, cap_height, (first, second), len(rows))


def _text_width(text: str, scale: float) -> int:
    return cv2.getTextSize(text, FONT, scale, 1)[0][0] if text else 0


def _panel(
    canvas: Image, rows: Sequence[tuple[str, str]], anchor: tuple[float, float], reserve: str = ""
) -> list[tuple[int, int, int]]:
    """Draw two columns of text on a darkened panel; the second is at least as wide as the text `reserve`.

    `anchor` is the relative position (x, y) of the panel, 0 to 1. Returns (x, top of the capitals, height of
    the capitals) for each row.
    """
    height, width = canvas.shape[:2]
    layout = _measure(rows, reserve, max(MIN_SCALE, SCALE * height))
    fit = min(1.0, width / layout.width, height / layout.height)
    if fit < 1:
        layout = _measure(rows, reserve, layout.scale * fit)
    cap, pitch = layout.cap_height, layout.line_height
    left = _place(width, layout.width, anchor[0], cap)
    top = _place(height, layout.height, anchor[1], cap)
    panel = canvas[top : top + layout.height, left : left + layout.width]
    cv2.convertScaleAbs(panel, dst=panel, alpha=PANEL_BRIGHTNESS)
    places = []
    x = left + cap
    for line, (name, value) in enumerate(rows):
        y = top + cap // 2 + line * pitch + (pitch - cap) // 2
        for text, start in ((name, x), (value, x + layout.columns[0] + cap)):
            if text.strip():
                baseline = (start, y + cap)
                cv2.putText(canvas, text, baseline, FONT, layout.scale, WHITE, 1, cv2.LINE_AA)
        places.append((x, y + cap // 6, cap - cap // 6))  # OpenCV overestimates the height
    return places


def _place(available: int, size: int, share: float, margin: int) -> int:
    """Return the start of an interval of `size` within `available` minus margins; `share` 0 is the start."""
    return max(0, round(margin + (available - 2 * margin - size) * share))
