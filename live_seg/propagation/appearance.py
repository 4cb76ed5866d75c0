"""What instances look like where they were found, and what that says of their masks in later pictures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_seg.masks import gaussian_blur, sample_grids
from live_seg.propagation.flow import sample
from live_seg.types import Image, Instances

Floats = NDArray[np.float32]

BINS = 12
"""Steps of each colour channel in a table of colours."""

AROUND = 0.25
"""Share of a box's sides by which the background it is told from reaches beyond it."""

MOST = 2.0
"""Limit of what one colour says for or against an instance, as a logarithm of odds."""

UNMOVED = 0.4
"""Change of evidence, as a logarithm of odds, that leaves a mask as it is: noise and shading."""

PULL = 2.0
"""Weight of the evidence that is left against the mask's own odds."""

SURE = 0.98
"""The surest that a mask is taken to be, for or against, before evidence is weighed with it."""

EVIDENCE_SMOOTH = 0.8
"""Standard deviation, in mask cells, of the filter on the evidence."""


@dataclass(frozen=True, eq=False)
class Appearance:
    """Colours of N instances in their key frame, against those around them.

    Evidence is used as its change: a cell whose colour speaks as it did in the key frame keeps what the
    network said of it, whatever that was.
    """

    colours: Floats
    """(N, M, M, 3): BGR at each cell of the mask."""
    tables: Floats
    """(N, BINS ** 3): logarithm of odds, instance against background, of each colour."""
    evidence: Floats
    """(N, M, M): the tables read at `colours`."""

    @classmethod
    def of(cls, instances: Instances, points: Floats, picture: Image) -> "Appearance":
        """Learn from `instances` in pixels of `picture` (h, w, 3), with their cells at `points`."""
        colours = sample(picture, points)
        tables = _tables(instances, picture)
        return cls(colours, tables, _read(tables, colours))

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "Appearance":
        """Keep the chosen (N,) instances."""
        return Appearance(self.colours[chosen], self.tables[chosen], self.evidence[chosen])

    def change(self, colours: Floats) -> Floats:
        """How far colours (N, M, M, 3) are from the key's: (N, M, M), the most of three channels, 0..255."""
        return np.asarray(np.abs(colours - self.colours).max(axis=3), np.float32)

    def refined(self, masks: Floats, cells: Floats, colours: Floats) -> Floats:
        """Correct `masks` (N, M, M), of the key's `cells` (N, M, M, 2), by the `colours` (N, M, M, 3) now."""
        gain = _read(self.tables, colours) - sample_grids(self.evidence, cells, edge=True)
        gain = gaussian_blur(gain[..., None], EVIDENCE_SMOOTH)[..., 0]
        gain = np.sign(gain) * np.maximum(np.abs(gain) - UNMOVED, 0)
        known = np.clip(masks, 1 - SURE, SURE)
        odds = known / (1 - known) * np.exp(PULL * gain)
        # Where the mask says nothing at all, colour alone makes nobody.
        return np.asarray(np.where((gain != 0) & (masks > 1 - SURE), odds / (1 + odds), masks), np.float32)


def _bins(colours: NDArray[Any]) -> NDArray[np.intp]:
    """The row in a table for each BGR colour (..., 3), 0..255."""
    steps = (colours.astype(np.float32) * (BINS / 256)).astype(np.intp)
    return np.asarray((steps[..., 0] * BINS + steps[..., 1]) * BINS + steps[..., 2])


def _read(tables: Floats, colours: Floats) -> Floats:
    """Look up colours (N, M, M, 3) each in its own table (N, BINS ** 3): (N, M, M)."""
    rows = _bins(colours).reshape(len(tables), colours.shape[1] * colours.shape[2])
    return np.take_along_axis(tables, rows, axis=1).reshape(colours.shape[:3])


def _tables(instances: Instances, picture: Image) -> Floats:
    """Logarithm of odds of every colour for each instance against its surroundings: (N, BINS ** 3)."""
    height, width = picture.shape[:2]
    labels = _bins(picture)
    counts = np.zeros((2, len(instances), BINS**3), np.float32)
    regions = instances.soft_masks((height, width))
    for position, (box, (region, mask)) in enumerate(zip(instances.boxes, regions, strict=True)):
        reach = AROUND * (box[2:] - box[:2])
        left, top = np.maximum(box[:2] - reach, 0).astype(int)
        right, bottom = np.maximum(np.ceil(box[2:] + reach), 0).astype(int)
        own = np.bincount(labels[region].ravel(), mask.ravel(), BINS**3)
        counts[0, position] = own
        counts[1, position] = np.bincount(labels[top:bottom, left:right].ravel(), minlength=BINS**3) - own
    spread = _spread(counts) + 0.5
    shares = np.log(spread / (counts.sum(axis=2, keepdims=True) + 1))
    return np.asarray(np.clip(shares[0] - shares[1], -MOST, MOST), np.float32)


def _spread(counts: Floats) -> Floats:
    """Share counts (..., BINS ** 3) with the neighbouring colours, by 1 2 1 along each channel."""
    cube: NDArray[Any] = counts.reshape(-1, BINS, BINS, BINS)
    for axis in (1, 2, 3):
        padded = np.pad(cube, [(1, 1) if axis == a else (0, 0) for a in range(4)])
        first, last = (np.take(padded, np.arange(BINS) + shift, axis) for shift in (0, 2))
        cube = (first + 2 * cube + last) / 4
    return np.asarray(cube.reshape(counts.shape), np.float32)
