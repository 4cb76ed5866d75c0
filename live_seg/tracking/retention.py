"""Holding on to what was just seen: for privacy, a mask that is late beats a frame that shows all."""

import numpy as np

from live_seg.errors import UsageError
from live_seg.types import Instances

MOST = 300
"""Instances kept at most, newest first: three frames full of them, should every one get a new id."""


class Retention:
    """Add to each frame's instances those seen shortly before and missing now, where they were last.

    An id that is not seen any more is held for `hold` seconds of source time. Raises UsageError for a `hold`
    below 0.
    """

    def __init__(self, hold: float = 0.5) -> None:
        if not hold >= 0:
            raise UsageError(f"hold is {hold}: give seconds, 0 or more.")
        self._hold = hold
        self._last = Instances.empty()
        self._seen = np.zeros(0)

    def update(self, instances: Instances, seconds: float) -> Instances:
        """Return `instances`, which carry track ids, and behind them the missing ones.

        `seconds` is the frame's time in its source; it does not go back. Raises UsageError without ids.
        """
        if instances.track_ids is None and len(instances):
            raise UsageError("Instances can only be held by their track ids: let a Tracker give them some.")
        missing = seconds - self._seen <= self._hold
        if self._last.track_ids is not None and instances.track_ids is not None:
            missing &= ~np.isin(self._last.track_ids, instances.track_ids)
        everything = instances.joined(self._last[missing])
        self._last = everything[:MOST]
        self._seen = np.concatenate([np.full(len(instances), seconds), self._seen[missing]])[:MOST]
        return everything
