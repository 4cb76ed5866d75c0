"""What a benchmark finds out about one engine."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]
"""(F,): one for each frame."""

Lap = dict[str, float]
"""Seconds that the stages of one frame took."""

BEFORE = ("decode", "prepare")
AFTER = ("to pixels", "track", "draw", "encode")
"""The stages around the network; what else an engine tells of, in its order, is the network's own."""


@dataclass(frozen=True, eq=False)
class Measured:
    """The figures of one engine."""

    engine: str
    """As it was asked for."""
    device: str
    """What it runs on, in words."""
    stages: dict[str, Seconds]
    """By stage, in the order of a frame's way. The frames of a batch share its time in the network evenly."""
    fps: float
    """Frames per second from the opening of a video until the drawn one is written."""
    start_up: float
    """Seconds from the call of `live-seg image` until it has ended, of one picture."""
    peak: int
    """Bytes of memory that `live-seg video` holds at most."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The stages of the network."""
        return tuple(stage for stage in self.stages if stage not in BEFORE + AFTER)

    @property
    def network(self) -> Seconds:
        """In all of its parts."""
        return self._sum(self.parts)

    @property
    def whole(self) -> Seconds:
        """In all stages, one after the other."""
        return self._sum(tuple(self.stages))

    @property
    def network_fps(self) -> float:
        """Frames per second that the network alone would do; 0 where it was not watched."""
        seconds = float(self.network.sum())
        return len(self.network) / seconds if seconds else 0.0

    def _sum(self, stages: Sequence[str]) -> Seconds:
        frames = len(next(iter(self.stages.values())))
        return sum((self.stages[stage] for stage in stages), start=np.zeros(frames))


def in_columns(laps: Sequence[Lap]) -> dict[str, Seconds]:
    """Turn the laps of all frames into a column for each stage that occurred; 0 where it was not needed."""
    met = dict.fromkeys(stage for lap in laps for stage in lap)
    parts = [stage for stage in met if stage not in BEFORE + AFTER]
    order = [stage for stage in (*BEFORE, *parts, *AFTER) if stage in met]
    return {stage: np.array([lap.get(stage, 0.0) for lap in laps]) for stage in order}
