"""The measurements of one engine."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from live_seg.timing import AFTER, BEFORE

Seconds = NDArray[np.float64]
"""(F,): one duration per frame, in seconds."""

Lap = dict[str, float]
"""Seconds per stage, of one frame."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """The measurements of one engine."""

    engine: str
    """The name of the engine as it was requested, with its model where models are compared."""
    device: str
    """A description of the device that it runs on."""
    stages: dict[str, Seconds]
    """Seconds by stage, in the order in which a frame passes them. The network's time of a batch is divided
    evenly among its frames."""
    fps: float
    """Frames per second from opening a video until the annotated one is complete."""
    start_up: float
    """Seconds that `live-seg image` takes for one image."""
    peak_memory: int | None
    """Largest resident memory of `live-seg video`, bytes; None on Windows, where it is not measured."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The stages inside the network."""
        return tuple(stage for stage in self.stages if stage not in BEFORE + AFTER)

    @property
    def network(self) -> Seconds:
        """Seconds in the network, all parts added."""
        return self._sum(self.parts)

    @property
    def total(self) -> Seconds:
        """Seconds in all stages added."""
        return self._sum(tuple(self.stages))

    @property
    def network_fps(self) -> float:
        """Frames per second of the network alone; 0 if the engine times no stage."""
        seconds = float(self.network.sum())
        return len(self.network) / seconds if seconds else 0.0

    def _sum(self, stages: Sequence[str]) -> Seconds:
        frames = len(next(iter(self.stages.values())))
        return sum((self.stages[stage] for stage in stages), start=np.zeros(frames))


def in_columns(laps: Sequence[Lap]) -> dict[str, Seconds]:
    """Convert one lap per frame to one column per stage, 0 where a frame did not have the stage."""
    occurred = dict.fromkeys(stage for lap in laps for stage in lap)
    parts = [stage for stage in occurred if stage not in BEFORE + AFTER]
    order = [stage for stage in (*BEFORE, *parts, *AFTER) if stage in occurred]
    return {stage: np.array([lap.get(stage, 0.0) for lap in laps]) for stage in order}
