"""The zone that the user of a session has chosen."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from live_seg.events.zone import Zone
from live_seg.types import Instances
from live_seg.ui.controls import Controls


@dataclass(frozen=True)
class ChosenZone:
    """The zone that `controls` hold at the time of a call. May be used in any thread."""

    controls: Controls
    share: float
    """Share of an instance's visible mask that must be inside, above 0 and up to 1."""

    def contains(self, instances: Instances, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return, as bool (N,), which instances of a frame of `size` (height, width) are inside."""
        corners = self.controls.zone
        if not corners:
            return np.ones(len(instances), np.bool_)
        return Zone(corners, self.share).contains(instances, size)
