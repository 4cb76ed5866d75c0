"""Drawn over the picture in a window: figures, lights, messages, and what the keys do."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2

from live_seg.types import Image
from live_seg.ui.controls import KEYS, Controls

FONT = cv2.FONT_HERSHEY_SIMPLEX

SCALE = 0.00075
"""Size of the letters per pixel of the picture's height."""

LEAST_SCALE = 0.4
"""Letters smaller than this cannot be read; they are only drawn smaller where they would not fit."""

SHADE = 0.3
"""Share of the picture's light that a plate lets through: on white, white letters contrast by 8.7 to 1, where
WCAG 2.2 asks for 7."""

WHITE = (255, 255, 255)
RED = (48, 48, 255)

USUAL_VALUE = "0000.0 fps"
"""No value is usually longer: keeps the plate from changing its width as figures change."""

ROOM_FOR_SIGN = "   "
"""Takes the place of the sign beside a light's text."""

MESSAGE_SECONDS = 2.0
"""How long a message stays."""

LEFT, CENTRE, RIGHT = 0.0, 0.5, 1.0
TOP, BOTTOM = 0.0, 1.0

_Sign = Callable[[Image, int, int, int], None]
"""Draws a sign onto a picture: left, top and size in pixels."""


class Rate:
    """How often something happens, over the last `over` seconds, of which the latest `most` events are kept.

    For one thread.
    """

    def __init__(self, over: float = 2.0, most: int = 1000) -> None:
        self._over = over
        self._times: deque[float] = deque(maxlen=most)

    def add(self, now: float) -> None:
        """It happened at `now`, seconds of a clock that does not go back."""
        self._times.append(now)

    def per_second(self, now: float) -> float:
        """Events per second, at least 0; 0 until there are two. Falls towards 0 when none comes any more."""
        while len(self._times) > 2 and self._times[0] < now - self._over:
            self._times.popleft()
        if len(self._times) < 2:
            return 0.0
        steps = len(self._times) - 1
        first, last = self._times[0], self._times[-1]
        # What is late counts as if it came now: a source that stalls does not keep its rate.
        seconds = max(last - first, (now - first) * steps / (steps + 1))
        return steps / seconds if seconds > 0 else 0.0


class Message:
    """A line for the user that goes by itself after MESSAGE_SECONDS; a new one takes its place."""

    def __init__(self) -> None:
        self._text = ""
        self._until = 0.0

    def say(self, text: str, now: float) -> None:
        """Show `text` from `now` on, seconds of a clock."""
        self._text = text
        self._until = now + MESSAGE_SECONDS

    def at(self, now: float) -> str:
        """What is to be shown at `now`; empty when nothing is."""
        return self._text if now < self._until else ""


@dataclass(frozen=True)
class Figures:
    """What is measured while a source is shown."""

    camera_fps: float
    """Pictures the source delivers per second."""
    network_fps: float
    """Pictures segmented per second."""
    latency: float | None
    """Seconds from a picture's capture to its display; None when unknown."""
    instances: int
    """Found in this picture and shown."""
    dropped: int
    """Pictures passed over since the beginning because newer ones came."""
    recorded: float | None = None
    """Seconds in the recording that runs; None when none does."""


def draw_hud(canvas: Image, controls: Controls, figures: Figures, message: str = "") -> None:
    """Draw onto `canvas` (H, W, 3) uint8 BGR, in place, what `controls` want to be seen.

    Figures and the lights of recording and pause with `controls.hud`; all keys, in place of the figures, with
    `controls.help`; and a message, if any. Letters grow with the picture's height and shrink where they would
    not fit.
    """
    if controls.help:
        _panel(canvas, [(key.name, key.meaning) for key in KEYS], (CENTRE, CENTRE))
    elif controls.hud:
        _panel(canvas, rows(controls, figures), (LEFT, TOP), least=USUAL_VALUE)
    if controls.hud:
        _draw_lights(canvas, controls.paused, figures.recorded)
    if message:
        _panel(canvas, [(message, "")], (CENTRE, BOTTOM))


def rows(controls: Controls, figures: Figures) -> list[tuple[str, str]]:
    """Write the figures, and the least score shown, as names and values, in the order they are shown in."""
    return [
        ("camera", f"{figures.camera_fps:.1f} fps"),
        ("network", f"{figures.network_fps:.1f} fps"),
        ("latency", "-" if figures.latency is None else f"{figures.latency * 1000:.0f} ms"),
        ("dropped", f"{figures.dropped}"),
        ("found", f"{figures.instances}"),
        ("score", f">= {controls.threshold:.2f}"),
    ]


def _draw_lights(canvas: Image, paused: bool, recorded: float | None) -> None:
    """In the upper right corner: a red dot with the recording's time, two bars while paused."""
    lights: list[tuple[_Sign, str]] = []
    if recorded is not None:
        lights.append((_dot, clock(recorded)))
    if paused:
        lights.append((_bars, "paused"))
    if not lights:
        return
    places = _panel(canvas, [(ROOM_FOR_SIGN, text) for _, text in lights], (RIGHT, TOP))
    for (sign, _), (x, y, size) in zip(lights, places, strict=True):
        sign(canvas, x, y, size)


def clock(seconds: float) -> str:
    """Write a time, 0 seconds or more, as 01:15, or 2:03:04 from an hour on."""
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes:02d}:{left:02d}"


def _dot(canvas: Image, x: int, y: int, size: int) -> None:
    cv2.circle(canvas, (x + size // 2, y + size // 2), size // 2, RED, cv2.FILLED, cv2.LINE_AA)


def _bars(canvas: Image, x: int, y: int, size: int) -> None:
    for left in (x, x + round(size * 0.6)):
        cv2.rectangle(canvas, (left, y), (left + round(size * 0.3), y + size), WHITE, cv2.FILLED)


@dataclass(frozen=True)
class _Type:
    """How large the text of a panel is at one size of letters, in pixels."""

    scale: float
    rise: int
    """Height of a capital; space around the text and between columns."""
    columns: tuple[int, int]
    lines: int

    @property
    def pitch(self) -> int:
        """From one line to the next."""
        return round(self.rise * 1.8)

    @property
    def width(self) -> int:
        return sum(self.columns) + self.rise * (3 if self.columns[1] else 2)

    @property
    def height(self) -> int:
        return self.lines * self.pitch + self.rise


def _set_type(rows: Sequence[tuple[str, str]], least: str, scale: float) -> _Type:
    first = max(_length(name, scale) for name, _ in rows)
    second = max(_length(value, scale) for _, value in [*rows, ("", least)])
    rise = cv2.getTextSize("H", FONT, scale, 1)[0][1]
    return _Type(scale, rise, (first, second), len(rows))


def _length(text: str, scale: float) -> int:
    return cv2.getTextSize(text, FONT, scale, 1)[0][0] if text else 0


def _panel(
    canvas: Image, rows: Sequence[tuple[str, str]], anchor: tuple[float, float], least: str = ""
) -> list[tuple[int, int, int]]:
    """Write two columns on a darkened plate, the second at least as wide as the text `least`.

    `anchor` says how far to the right and down the plate lies, 0..1. Returns for each row its left end, the
    top of its capitals, and their height.
    """
    height, width = canvas.shape[:2]
    kind = _set_type(rows, least, max(LEAST_SCALE, SCALE * height))
    fit = min(1.0, width / kind.width, height / kind.height)
    if fit < 1:
        kind = _set_type(rows, least, kind.scale * fit)
    left = _begin(width, kind.width, anchor[0], kind.rise)
    top = _begin(height, kind.height, anchor[1], kind.rise)
    plate = canvas[top : top + kind.height, left : left + kind.width]
    cv2.convertScaleAbs(plate, dst=plate, alpha=SHADE)
    places = []
    x = left + kind.rise
    for line, (name, value) in enumerate(rows):
        y = top + kind.rise // 2 + line * kind.pitch + (kind.pitch - kind.rise) // 2
        for text, start in ((name, x), (value, x + kind.columns[0] + kind.rise)):
            if text.strip():
                base = (start, y + kind.rise)
                cv2.putText(canvas, text, base, FONT, kind.scale, WHITE, 1, cv2.LINE_AA)
        places.append((x, y + kind.rise // 6, kind.rise - kind.rise // 6))  # OpenCV measures generously
    return places


def _begin(room: int, size: int, share: float, margin: int) -> int:
    """Where something of `size` begins in a `room` with a margin, so far, 0..1, from its beginning."""
    return max(0, round(margin + (room - 2 * margin - size) * share))
