"""Colour models of instances in their keyframe, used to refine propagated masks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_seg.masks import gaussian_blur, sample_grids
from live_seg.propagation.flow import sample
from live_seg.types import Image, Instances

Floats = NDArray[np.float32]

BINS = 12
"""Histogram bins per colour channel."""

MARGIN = 0.25
"""Width of the background region around a box, as a fraction of its sides."""

MAX_LOG_ODDS = 2.0
"""Limit of the log odds that one colour contributes for or against an instance."""

DEAD_ZONE = 0.4
"""Change of log odds up to which a mask is not modified: noise and shading."""

EVIDENCE_WEIGHT = 2.0
"""Weight of the remaining evidence relative to the log odds of the mask."""

MAX_PROBABILITY = 0.98
"""Limit of mask probabilities (and of their complements) before they are combined with the evidence."""

EVIDENCE_BLUR = 0.8
"""Standard deviation of the filter on the evidence, in mask cells."""


@dataclass(frozen=True, eq=False)
class Appearance:
    """Colour models of N instances and their surroundings in the keyframe.

    Only changes of the evidence since the keyframe modify a mask: a cell whose colour is as likely as before
    keeps the probability that the network predicted.
    """

    colours: Floats
    """(N, M, M, 3): BGR at each mask cell in the keyframe."""
    tables: Floats
    """(N, BINS ** 3): log odds, instance against background, of each colour."""
    evidence: Floats
    """(N, M, M): log odds at each mask cell in the keyframe."""

    @classmethod
    def from_keyframe(cls, instances: Instances, points: Floats, image: Image) -> "Appearance":
        """Build the models of `instances`, in pixels of `image` (h, w, 3), with mask cells at `points`."""
        colours = sample(image, points)
        tables = _log_odds(instances, image)
        return cls(colours, tables, _look_up(tables, colours))

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "Appearance":
        """Return the models of the chosen (N,) instances."""
        return Appearance(self.colours[chosen], self.tables[chosen], self.evidence[chosen])

    def joined(self, other: "Appearance") -> "Appearance":
        """Return these models followed by `other`."""
        return Appearance(
            *(
                np.concatenate([column, theirs])
                for column, theirs in zip(vars(self).values(), vars(other).values(), strict=True)
            )
        )

    def distance(self, colours: Floats) -> Floats:
        """Return the distance of colours (N, M, M, 3) from those of the keyframe: (N, M, M), 0..255."""
        return np.asarray(np.abs(colours - self.colours).max(axis=3), np.float32)

    def refine(self, masks: Floats, cells: Floats, colours: Floats) -> Floats:
        """Refine `masks` (N, M, M), sampled at the keyframe's `cells` (N, M, M, 2), by current colours.

        `colours` are (N, M, M, 3). Colour evidence never creates a mask where the network saw none.
        """
        gain = _look_up(self.tables, colours) - sample_grids(self.evidence, cells, edge=True)
        gain = gaussian_blur(gain[..., None], EVIDENCE_BLUR)[..., 0]
        gain = np.sign(gain) * np.maximum(np.abs(gain) - DEAD_ZONE, 0)
        known = np.clip(masks, 1 - MAX_PROBABILITY, MAX_PROBABILITY)
        odds = known / (1 - known) * np.exp(EVIDENCE_WEIGHT * gain)
        changed = (gain != 0) & (masks > 1 - MAX_PROBABILITY)
        return np.asarray(np.where(changed, odds / (1 + odds), masks), np.float32)


def _bins(colours: NDArray[Any]) -> NDArray[np.intp]:
    """Return the histogram bin of each BGR colour (..., 3), 0..255."""
    steps = (colours.astype(np.float32) * (BINS / 256)).astype(np.intp)
    return np.asarray((steps[..., 0] * BINS + steps[..., 1]) * BINS + steps[..., 2])


def _look_up(tables: Floats, colours: Floats) -> Floats:
    """Return the log odds (N, M, M) of colours (N, M, M, 3), each from its own table (N, BINS ** 3)."""
    rows = _bins(colours).reshape(len(tables), colours.shape[1] * colours.shape[2])
    return np.take_along_axis(tables, rows, axis=1).reshape(colours.shape[:3])


def _log_odds(instances: Instances, image: Image) -> Floats:
    """Return the log odds of every colour for each instance against its surroundings: (N, BINS ** 3)."""
    height, width = image.shape[:2]
    labels = _bins(image)
    counts = np.zeros((2, len(instances), BINS**3), np.float32)
    regions = instances.soft_masks((height, width))
    for position, (box, (region, mask)) in enumerate(zip(instances.boxes, regions, strict=True)):
        margin = MARGIN * (box[2:] - box[:2])
        left, top = np.maximum(box[:2] - margin, 0).astype(int)
        right, bottom = np.maximum(np.ceil(box[2:] + margin), 0).astype(int)
        own = np.bincount(labels[region].ravel(), mask.ravel(), BINS**3)
        counts[0, position] = own
        counts[1, position] = np.bincount(labels[top:bottom, left:right].ravel(), minlength=BINS**3) - own
    spread = _smooth_histogram(counts) + 0.5
    shares = np.log(spread / (counts.sum(axis=2, keepdims=True) + 1))
    return np.asarray(np.clip(shares[0] - shares[1], -MAX_LOG_ODDS, MAX_LOG_ODDS), np.float32)


def _smooth_histogram(counts: Floats) -> Floats:
    """Smooth counts (..., BINS ** 3) with the kernel (1, 2, 1) / 4 along each colour channel."""
    cube: NDArray[Any] = counts.reshape(-1, BINS, BINS, BINS)
    for axis in (1, 2, 3):
        padded = np.pad(cube, [(1, 1) if axis == a else (0, 0) for a in range(4)])
        first, last = (np.take(padded, np.arange(BINS) + shift, axis) for shift in (0, 2))
        cube = (first + 2 * cube + last) / 4
    return np.asarray(cube.reshape(counts.shape), np.float32)
