"""A visitor's choices on the page: effect, classes and threshold."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from live_seg.drawing.annotate import draw
from live_seg.drawing.effects import EFFECTS, MASK
from live_seg.errors import UsageError
from live_seg.types import Frame, Image, Instances
from live_seg.ui.controls import Controls

OFFERED = (MASK, *EFFECTS)
"""The effects of the page. Those that read a file of this machine are not among them."""

SWITCHES = ("masks", "boxes", "labels")


@dataclass
class Choices:
    """The choices of one visitor: written by the page, read by drawing. `controls` has the threshold."""

    class_names: Sequence[str]
    controls: Controls
    effect: str = MASK
    class_ids: frozenset[int] = field(default_factory=frozenset)
    """The classes to show; empty for all."""

    def update(self, text: str) -> None:
        """Apply a message of the page: a JSON object with any of effect, classes, threshold and switches.

        Raises UsageError for anything else, and then changes nothing.
        """
        try:
            values = json.loads(text)
            effect = values.get("effect", self.effect)
            threshold = float(values.get("threshold", self.controls.threshold))
            ids = self._ids(values["classes"]) if "classes" in values else self.class_ids
            switches = {name: bool(values.get(name, getattr(self.controls, name))) for name in SWITCHES}
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise UsageError(f"Expected a JSON object of choices: {error}") from error
        if effect not in OFFERED or not self.controls.minimum <= threshold <= 1:
            raise UsageError("Expected an effect of the page and a threshold that it offers.")
        self.effect, self.class_ids, self.controls.threshold = effect, ids, threshold
        for name, value in switches.items():
            setattr(self.controls, name, value)

    def _ids(self, names: list[str]) -> frozenset[int]:
        """Return the ids of class names. Raises ValueError for an unknown one."""
        return frozenset(list(self.class_names).index(name, 1) for name in names)

    def select(self, found: Instances) -> Instances:
        """Return the instances of the chosen classes."""
        return found[np.isin(found.class_ids, list(self.class_ids))] if self.class_ids else found

    def draw(self, frame: Frame, instances: Instances, **switches: bool) -> Image:
        """Draw instances with the chosen effect."""
        if self.effect == MASK:
            return draw(frame.image, instances, self.class_names, **switches)
        return EFFECTS[self.effect](frame.image, instances)
