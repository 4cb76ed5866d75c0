"""What the user switched while watching, and the keys that switch it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from live_seg.types import Instances

STEP = 0.05
"""How far one press moves the threshold."""

ESCAPE = "\x1b"


@dataclass
class Controls:
    """The switches of one session: set by keys, read by what draws, shows and records.

    `threshold` is the least score, 0..1, that is shown; keys move it between `least`, which is all that the
    network delivers, and 1. Two Controls are equal when every switch is: a copy tells whether a key did
    something.
    """

    threshold: float = 0.0
    least: float = 0.0
    masks: bool = True
    boxes: bool = True
    labels: bool = True
    hud: bool = True
    help: bool = False
    paused: bool = False
    recording: bool = False
    """Whether a recording is wanted; whoever records switches it off when the recording ends by itself."""
    snapshot: bool = False
    """Whether a snapshot is wanted and not yet taken."""
    ended: bool = False

    def press(self, key: str) -> None:
        """Do what `key`, one character, stands for in KEYS, in upper or lower case; others do nothing."""
        if meant := _BY_CHARACTER.get(key.lower()):
            meant.act(self)

    def take_snapshot(self) -> bool:
        """Whether a snapshot has been asked for since the last call."""
        wanted, self.snapshot = self.snapshot, False
        return wanted

    def chosen(self, instances: "Instances") -> "Instances":
        """Those of `instances` whose score reaches the threshold, in their order."""
        return instances[instances.scores >= self.threshold]


@dataclass(frozen=True)
class Key:
    """One entry of the table of keys."""

    characters: str
    """Each of them, lower case, does the same."""
    name: str
    """As users read it on their keyboard."""
    meaning: str
    act: Callable[[Controls], None]


def _toggle(switch: str) -> Callable[[Controls], None]:
    return lambda controls: setattr(controls, switch, not getattr(controls, switch))


def _set(switch: str) -> Callable[[Controls], None]:
    return lambda controls: setattr(controls, switch, True)


def _move_threshold(step: float) -> Callable[[Controls], None]:
    def act(controls: Controls) -> None:
        moved = round(controls.threshold + step, 6)  # sums of 0.05 drift from what is shown
        controls.threshold = min(max(moved, controls.least), 1.0)

    return act


KEYS = (
    Key("q" + ESCAPE, "q, Esc", "quit", _set("ended")),
    Key(" ", "Space", "pause, go on", _toggle("paused")),
    Key("r", "r", "start, stop recording", _toggle("recording")),
    Key("s", "s", "save a snapshot, with and without masks", _set("snapshot")),
    Key("m", "m", "masks on, off", _toggle("masks")),
    Key("b", "b", "boxes on, off", _toggle("boxes")),
    Key("l", "l", "labels on, off", _toggle("labels")),
    Key("+=", "+", "show only surer ones", _move_threshold(STEP)),
    Key("-_", "-", "show less sure ones, too", _move_threshold(-STEP)),
    Key("h", "h", "figures on, off", _toggle("hud")),
    Key("?", "?", "this help on, off", _toggle("help")),
)
"""All keys, in the order of their explanation. On US keyboards `=` and `_` are on the keys of `+` and `-`."""

_BY_CHARACTER = {character: key for key in KEYS for character in key.characters}
