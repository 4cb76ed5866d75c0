"""Report instances that come into view and leave it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from live_seg.events.notifier import Notifier
from live_seg.events.zone import Region
from live_seg.types import Frame, Image, Instances, Sink

GONE_SECONDS = 2.0
"""Seconds without a detection after which a track is gone; by then the tracker has forgotten it, too."""


@dataclass
class _Track:
    """A track in view."""

    details: dict[str, Any]
    first: float
    last: float


class Watcher(Sink):
    """Send `seen` when a confirmed track comes into view, and `gone` GONE_SECONDS after its last frame.

    With `zone`, only instances inside it count. Events have the class, the track id, and the seconds of the
    frame; `seen` also has score and box, x1 y1 x2 y2 in pixels, and `gone` the duration in seconds. The
    tracks in view are gone when the session ends. `class_names` is indexed by class id.
    `source` are details that all events have.
    """

    def __init__(
        self,
        notifier: Notifier,
        class_names: Sequence[str],
        zone: Region | None = None,
        source: dict[str, str] | None = None,
    ) -> None:
        self._notifier, self._class_names, self._zone = notifier, class_names, zone
        self._source = source or {}
        self._tracks: dict[int, _Track] = {}

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
        """Compare the instances of `frame` with those in view. Returns True."""
        counting = instances
        if self._zone is not None and len(instances):
            counting = instances[self._zone.contains(instances, frame.image.shape[:2])]
        for position in range(len(counting)):
            track_id = counting.confirmed_id(position)
            if track_id is not None:
                self._see(track_id, frame.seconds, counting, position)
        for track_id, track in list(self._tracks.items()):
            if frame.seconds - track.last > GONE_SECONDS:
                self._leave(track_id)
        return True

    def close(self, complete: bool = True) -> None:  # noqa: ARG002
        """Report all tracks in view as gone."""
        for track_id in list(self._tracks):
            self._leave(track_id)

    def _see(self, track_id: int, seconds: float, instances: Instances, position: int) -> None:
        if (track := self._tracks.get(track_id)) is not None:
            track.last = seconds
            return
        details = {
            **self._source,
            "class": self._class_names[instances.class_ids[position]],
            "track_id": track_id,
        }
        self._tracks[track_id] = _Track(details, seconds, seconds)
        score = round(float(instances.scores[position]), 4)
        box = [round(edge, 2) for edge in instances.boxes[position].tolist()]
        self._notifier.send("seen", **details, seconds=round(seconds, 3), score=score, box=box)

    def _leave(self, track_id: int) -> None:
        track = self._tracks.pop(track_id)
        duration = round(track.last - track.first, 3)
        self._notifier.send("gone", **track.details, seconds=round(track.last, 3), duration=duration)
