"""The condition that starts a recording."""

import math
from dataclasses import dataclass

from live_seg.errors import UsageError
from live_seg.events.zone import Region
from live_seg.types import Instances

LONGEST_PRE = 60.0
"""Seconds before a detection that are kept in memory: at 720p and 30 fps, up to 1 GB."""


@dataclass(frozen=True)
class Trigger:
    """Condition that starts a recording: an instance of `class_ids` is detected. Raises UsageError."""

    class_ids: frozenset[int]
    pre: float = 3.0
    """Seconds recorded from before the detection, at most LONGEST_PRE."""
    post: float = 5.0
    """Seconds recorded after the last detection."""
    zone: Region | None = None
    """Where an instance counts; None for the whole picture."""

    def __post_init__(self) -> None:
        if not (0 <= self.pre <= LONGEST_PRE and 0 <= self.post < math.inf):
            raise UsageError(
                f"The seconds pre and post must be 0 or more, and pre at most {LONGEST_PRE:g}. "
                f"Got {self.pre} and {self.post}."
            )

    def matches(self, instances: Instances, size: tuple[int, int]) -> bool:
        """Return whether any of `instances`, of a frame of `size` (height, width), fulfills the condition."""
        chosen = [i for i, class_id in enumerate(instances.class_ids.tolist()) if class_id in self.class_ids]
        if not chosen or self.zone is None:
            return bool(chosen)
        return bool(self.zone.contains(instances[chosen], size).any())
