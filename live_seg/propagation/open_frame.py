"""Frames in which missed tracks are filled in: what was found, and what was propagated to them."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from live_seg.masks import resample
from live_seg.propagation.flow import Step, reduced_size
from live_seg.propagation.motion import MovingInstances
from live_seg.types import Instances

Floats = NDArray[np.float32]

MIN_VISIBLE = 0.3
"""Fraction of a mask that must be followed with confidence. Below it, the instance stays where it was."""

SURE_SCORE = 0.5
"""Score that a track must have reached once to count as lost: false positives rarely do."""

EDGE = 1 / 8
"""Share of the frame along its edges. A track that ends with its centre there may have left the picture."""

COVERED = 0.5
"""Share of a lost track's box inside another one from which it counts as found under another id."""


@dataclass(frozen=True, eq=False)
class Filled:
    """The instances of a frame, and the tracks that were missed in it."""

    found: Instances
    """As they were given."""
    missed: Instances
    """Propagated to this frame; each track once."""
    uncertain: Instances
    """Tracks that may be in the picture, but were neither found nor propagated with confidence, at their
    supposed positions. Some of them are also in `missed`."""

    @classmethod
    def empty(cls) -> "Filled":
        """Return a frame without instances."""
        return cls(*[Instances.empty()] * 3)

    @property
    def all(self) -> Instances:
        """The instances found, followed by those propagated."""
        return self.found.joined(self.missed)


@dataclass(frozen=True, eq=False)
class Guess:
    """Propagated instances in frame pixels."""

    instances: Instances
    certainty: Floats
    """(N,): 0..1, fraction of each mask that was followed with confidence."""
    shown: NDArray[np.bool_]
    """(N,): False for a lost track that is not propagated any more."""

    def __getitem__(self, place: int) -> "Guess":
        one = slice(place, place + 1)
        return Guess(self.instances[one], self.certainty[one], self.shown[one])


@dataclass(frozen=True, eq=False)
class OpenFrame:
    """A frame to which later ones may still add instances."""

    seconds: float
    size: tuple[int, ...]
    """(height, width)"""
    step: Step
    found: Instances
    guesses: list[Guess] = field(default_factory=list)

    @property
    def ids(self) -> set[int]:
        """The track ids of the instances found."""
        return set(ids_of(self.found))

    @property
    def confirmed_ids(self) -> set[int]:
        """The track ids of the confirmed ones."""
        return {track for track, _, confirmed in self.tracks() if confirmed}

    def tracks(self) -> list[tuple[int, float, bool]]:
        """Return id, score and whether it is confirmed of each instance found."""
        if self.found.confirmed is None:
            return []
        return list(
            zip(ids_of(self.found), self.found.scores.tolist(), self.found.confirmed.tolist(), strict=True)
        )

    def rows(self, tracks: Collection[int]) -> Instances:
        """Return the instances found whose id is in `tracks`."""
        return self.found[np.isin(ids_of(self.found), list(tracks)).astype(bool)]

    def moving(self, rows: Instances) -> MovingInstances:
        """Return instances of this frame, ready to be propagated."""
        return MovingInstances.begin(replace(rows, boxes=rows.boxes * self._to_reduced()), self.step)

    def guess(self, moving: MovingInstances, certainty: Floats, shown: NDArray[np.bool_]) -> None:
        """Add instances that were propagated to this frame.

        Their masks are not refined by colour, which would shrink them in the dark or behind something.
        """
        if len(moving.key):
            instances = moving.instances_at(self.step, refine=False)
            instances = replace(instances, boxes=instances.boxes / self._to_reduced())
            self.guesses.append(Guess(instances, certainty, shown))

    def _to_reduced(self) -> Floats:
        width, height = reduced_size(self.size)
        return np.array([width / self.size[1], height / self.size[0]] * 2, np.float32)

    def filled(self, best: dict[int, float]) -> Filled:
        """Return this frame, given the highest score of each track."""
        own = self.ids
        guesses: dict[int, list[Guess]] = {}
        for guess in self.guesses:
            for place, track in enumerate(ids_of(guess.instances)):
                if track not in own:
                    guesses.setdefault(track, []).append(guess[place])
        missed = uncertain = Instances.empty()
        for track, ways in guesses.items():
            if shown := [way.instances for way in ways if way.shown[0]]:
                missed = missed.joined(_union(shown))
            certainty = max(float(way.certainty[0]) for way in ways)
            supposed = _union([way.instances for way in ways])
            sure = best.get(track, 0.0) >= SURE_SCORE
            if sure and certainty < MIN_VISIBLE and not self._left(supposed.boxes[0]):
                uncertain = uncertain.joined(supposed)
        return Filled(self.found, missed, uncertain)

    def _left(self, box: Floats) -> bool:
        """Return whether a lost track with this box may have left the picture, or has got another id."""
        middle = (box[:2] + box[2:]) / 2 / (self.size[1], self.size[0])
        if np.any(middle < EDGE) or np.any(middle > 1 - EDGE):
            return True
        sides = np.minimum(box[2:], self.found.boxes[:, 2:]) - np.maximum(box[:2], self.found.boxes[:, :2])
        shared = np.prod(np.maximum(sides, 0), axis=1)
        return bool(np.any(shared >= COVERED * np.prod(box[2:] - box[:2])))


def _union(guesses: list[Instances]) -> Instances:
    """Return one instance that covers several ones of the same track."""
    first = guesses[0]
    if len(guesses) == 1:
        return first
    boxes = np.concatenate([one.boxes for one in guesses])
    masks = np.concatenate([one.masks for one in guesses])
    onto = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])[None].astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1e-3)
    onto[:, 2:] = np.maximum(onto[:, 2:], onto[:, :2] + 1e-3)
    onto_all = np.repeat(onto, len(boxes), axis=0)
    united = resample(boxes, masks, onto_all, masks.shape[1]).max(axis=0, keepdims=True)
    return replace(first, boxes=onto, masks=united)


def ids_of(instances: Instances) -> list[int]:
    """Return the track ids; none if the instances are untracked."""
    return [] if instances.track_ids is None else [int(track) for track in instances.track_ids]
