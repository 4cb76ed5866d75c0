"""State that the user changes during a session, and the keys that change it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from live_seg.types import Instances

STEP = 0.05
"""Change of the score threshold per key press."""

ESCAPE = "\x1b"

DIGITS = tuple("123456789")

Corners = tuple[tuple[float, float], ...]
"""Corners (x, y) of a polygon in shares of the picture's width and height, 0 to 1."""


def grid(count: int) -> tuple[int, int]:
    """Return the numbers (columns, rows) of tiles in the picture of `count` sources."""
    columns = math.ceil(math.sqrt(count))
    return columns, math.ceil(count / columns)


@dataclass
class Controls:
    """Switches of one session: set by keys, read by drawing, display and recording.

    `threshold` is the score threshold for display, 0 to 1. Keys move it between `minimum`, which is the score
    threshold of the network, and 1. Controls are equal if all fields are, so comparing with an earlier copy
    shows whether a key had an effect.
    """

    threshold: float = 0.0
    minimum: float = 0.0
    masks: bool = True
    boxes: bool = True
    labels: bool = True
    hud: bool = True
    help: bool = False
    paused: bool = False
    recording: bool = False
    """True to record. Reset by the recorder when a recording ends by itself."""
    snapshot: bool = False
    """True while a requested snapshot has not been taken yet."""
    ended: bool = False
    enlarged: int = 0
    """Number of the only source to show, from 1; 0 shows all."""
    sources: int = 1
    """Number of sources in the picture."""
    zone: Corners | None = None
    """Zone in which instances count, empty for the whole picture. None: users cannot choose one."""

    def press(self, key: str) -> None:
        """Apply the action of `key`, one character of KEYS in either case. Ignore other keys."""
        if key in DIGITS:
            self.enlarged = 0 if self.enlarged == int(key) else int(key)
        if binding := _BY_CHARACTER.get(key.lower()):
            binding.apply(self)

    def click(self, x: float, y: float) -> None:
        """Show only the source at (x, y), in shares of the picture, or all again. Ignore other places."""
        if self.sources == 1:
            return
        columns, rows = grid(self.sources)
        tile = int(y * rows) * columns + int(x * columns) + 1
        inside = 0 <= x < 1 and 0 <= y < 1 and tile <= self.sources
        self.enlarged = tile if inside and not self.enlarged else 0

    def take_snapshot(self) -> bool:
        """Return whether a snapshot was requested since the last call."""
        requested, self.snapshot = self.snapshot, False
        return requested

    def select(self, instances: "Instances") -> "Instances":
        """Return the instances whose score is at least the threshold, in the same order."""
        return instances[instances.scores >= self.threshold]


@dataclass(frozen=True)
class Key:
    """One entry of the key table."""

    characters: str
    """Lower-case characters, each with the same effect."""
    name: str
    """Name on the keyboard."""
    meaning: str
    """Description in the help."""
    apply: Callable[[Controls], None]


def _toggle(switch: str) -> Callable[[Controls], None]:
    return lambda controls: setattr(controls, switch, not getattr(controls, switch))


def _set(switch: str) -> Callable[[Controls], None]:
    return lambda controls: setattr(controls, switch, True)


def _move_threshold(step: float) -> Callable[[Controls], None]:
    def apply(controls: Controls) -> None:
        moved = round(controls.threshold + step, 6)  # sums of 0.05 drift from the displayed value
        controls.threshold = min(max(moved, controls.minimum), 1.0)

    return apply


KEYS = (
    Key("q" + ESCAPE, "q, Esc", "quit", _set("ended")),
    Key(" ", "Space", "pause, resume", _toggle("paused")),
    Key("r", "r", "start, stop recording", _toggle("recording")),
    Key("s", "s", "save a snapshot, with and without masks", _set("snapshot")),
    Key("m", "m", "masks on, off", _toggle("masks")),
    Key("b", "b", "boxes on, off", _toggle("boxes")),
    Key("l", "l", "labels on, off", _toggle("labels")),
    Key("+=", "+", "raise the score threshold", _move_threshold(STEP)),
    Key("-_", "-", "lower the score threshold", _move_threshold(-STEP)),
    Key("".join(DIGITS), "1 to 9", "show one of several sources, or all", lambda _: None),
    Key("h", "h", "metrics on, off", _toggle("hud")),
    Key("?", "?", "help on, off", _toggle("help")),
)
"""All keys, in the order of the help. On US keyboards `=` and `_` share the keys of `+` and `-`."""

_BY_CHARACTER = {character: key for key in KEYS for character in key.characters}
