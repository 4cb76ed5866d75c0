"""Retention of missed instances: for anonymization, an outdated mask is better than none."""

import numpy as np

from live_seg.errors import UsageError
from live_seg.tracking.tracker import MAX_TRACKS
from live_seg.types import Instances


class Retention:
    """Add tracks that were detected shortly before and are missing now, at their last position.

    A track without detections is held for `hold` seconds of source time. Raises UsageError for a `hold`
    below 0.
    """

    def __init__(self, hold: float = 0.5) -> None:
        if not hold >= 0:
            raise UsageError(f"hold is {hold}: expected seconds, 0 or more.")
        self._hold = hold
        self._last = Instances.empty()
        self._seen = np.zeros(0)

    def update(self, instances: Instances, seconds: float) -> Instances:
        """Return the tracked `instances`, followed by the missing ones.

        `seconds` is the frame's time in its source and must not decrease. Raises UsageError without ids.
        """
        if instances.track_ids is None and len(instances):
            raise UsageError("Retention needs track ids: pass the instances through a Tracker first.")
        missing = seconds - self._seen <= self._hold
        if self._last.track_ids is not None and instances.track_ids is not None:
            missing &= ~np.isin(self._last.track_ids, instances.track_ids)
        everything = instances.joined(self._last[missing])
        self._last = everything[:MAX_TRACKS]
        self._seen = np.concatenate([np.full(len(instances), seconds), self._seen[missing]])[:MAX_TRACKS]
        return everything
