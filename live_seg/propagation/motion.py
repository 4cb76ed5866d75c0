"""Instances moved along dense flow: their masks' points followed, a smooth motion fitted, masks redrawn."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_seg.masks import cell_centres, gaussian_blur, inside_image, sample_grids
from live_seg.propagation.appearance import Appearance
from live_seg.propagation.flow import Step, sample
from live_seg.types import Instances

Floats = NDArray[np.float32]

CHANGED = 30.0
"""Grey levels by which a point may differ from its first colour before it counts half; beyond, it is lost."""

MEMORY = 0.7
"""Share of a point's old trust that stays after a step."""

SMOOTH = 0.8
"""Standard deviation, in mask cells, of the filter that makes neighbouring points move together."""

FITS = 2
"""Rounds of reweighting in a robust fit (Cauchy weights, scaled by the weighted mean square)."""

CORE = 0.8
"""Share of a mask's surest cell above which a cell tells where the box lies: those at its edge stick to what
is behind them."""

INVERSIONS = 3
"""Fixed-point rounds that invert the motion."""


@dataclass(frozen=True, eq=False)
class Moving:
    """Instances of one frame, the key, and where the cells of their masks have moved since."""

    key: Instances
    """As found, in reduced pixels."""
    appearance: Appearance
    points: Floats
    """(N, M, M, 2): x y of each cell's centre now, in reduced pixels."""
    trust: Floats
    """(N, M, M): 0..1, how far each point can be relied on."""
    trusted: Floats
    """(N,): 0..1, the trusted share of each mask in the last step."""

    @classmethod
    def begin(cls, instances: Instances, step: Step) -> "Moving":
        """Start from `instances`, in reduced pixels, of the frame that `step` is the picture of."""
        points = cell_centres(instances.boxes, instances.masks.shape[1])
        appearance = Appearance.of(instances, points, step.picture)
        trust = np.ones(instances.masks.shape, np.float32)
        return cls(instances, appearance, points, trust, np.ones(len(instances), np.float32))

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "Moving":
        """Keep the chosen (N,) instances."""
        return Moving(*(part[chosen] for part in vars(self).values()))

    def along(self, step: Step) -> "Moving":
        """Follow the flow of the next frame; nothing moves where it has none."""
        if step.flow is None or not len(self.key):
            return self
        scale = np.divide(step.flow.shape[1::-1], step.picture.shape[1::-1], dtype=np.float32)
        followed = sample(step.flow, self.points * scale)
        motion, agreed = followed[..., :2], followed[..., 2]
        ends = self.points + motion
        change = self.appearance.change(sample(step.picture, ends))
        trust: Floats = agreed * inside_image(ends, step.picture.shape) / (1 + (change / CHANGED) ** 4)
        masks = self.key.masks
        area = np.maximum(masks.sum(axis=(1, 2)), 1e-3)
        return replace(
            self,
            points=self.points + smoothed(motion, masks * trust + 1e-4),
            trust=MEMORY * self.trust + (1 - MEMORY) * trust,
            trusted=np.sum(masks * trust, axis=(1, 2)) / area,
        )

    def now(self, step: Step) -> Instances:
        """The instances on the frame of `step`, the last one followed, in reduced pixels.

        Each mask is resampled once, from the key's, and moved where the picture says its edge lies now.
        """
        key, side = self.key, self.key.masks.shape[1]
        if not len(key) or side == 0:
            return key
        weights = key.masks * np.maximum(self.trust, 0.01)
        matrix, residual = motion_of(self.points, weights)
        boxes, masks = _boxes(key, _applied(matrix, side) + residual), key.masks
        for last in (False, True):
            targets = cell_centres(boxes, side)
            cells = _inverted(targets, matrix, residual)
            masks = sample_grids(key.masks, cells, edge=False)
            masks = self.appearance.refined(masks, cells, sample(step.picture, targets))
            if not last:
                boxes = _fitted(key, boxes, masks)
        return replace(key, boxes=boxes, masks=masks)


def smoothed(motion: Floats, weights: Floats) -> Floats:
    """Replace a motion (N, M, M, 2) by its robust affine fit and what is left, averaged among neighbours.

    Both are weighted by `weights` (N, M, M): cells without weight follow the others.
    """
    matrix, residual = motion_of(motion, weights)
    return _applied(matrix, motion.shape[1]) + residual


def motion_of(values: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Fit values (N, M, M, 2) over the cells of a grid: affine part (N, 3, 2), smooth residual (N, M, M, 2).

    Iteratively reweighted least squares; the residual is a normalized convolution (Knutsson & Westin 1993).
    """
    n, side = values.shape[:2]
    design = _design(side)  # (M * M, 3)
    targets = values.reshape(n, -1, 2).astype(np.float64)
    fixed = weights.reshape(n, -1).astype(np.float64) + 1e-6
    robust = fixed
    for _ in range(FITS):
        weighted = design.T * robust[:, None]  # (N, 3, M * M)
        matrix = np.linalg.solve(weighted @ design + 1e-6 * np.eye(3), weighted @ targets)
        off = targets - design @ matrix
        misses = off[..., 0] ** 2 + off[..., 1] ** 2
        spread = np.sum(fixed * misses, axis=1) / np.sum(fixed, axis=1) + 1e-6
        robust = fixed / (1 + misses / spread[:, None])
    left = np.asarray(values - _applied(matrix, side), np.float32)
    share = weights[..., None]
    residual = gaussian_blur(share * left, SMOOTH) / (gaussian_blur(share, SMOOTH) + 0.02)
    return np.asarray(matrix, np.float32), np.asarray(residual, np.float32)


@lru_cache(maxsize=8)
def _design(side: int) -> NDArray[np.float64]:
    """x, y in -1..1 and 1 for each cell of a grid, row by row: (side * side, 3)."""
    steps = (np.arange(side) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(steps, steps)
    return np.stack([x.ravel(), y.ravel(), np.ones(side * side)], axis=1)


def _applied(matrix: NDArray[Any], side: int) -> Floats:
    """Affine motions (N, 3, 2) at every cell of a grid: (N, side, side, 2)."""
    return np.asarray((_design(side) @ matrix).reshape(len(matrix), side, side, 2), np.float32)


def _boxes(key: Instances, points: Floats) -> Floats:
    """Boxes (N, 4) that lie about `points` (N, M, M, 2) of each mask as the key's boxes do about its own."""
    surest = key.masks.max(axis=(1, 2), keepdims=True)
    held = np.greater(key.masks, CORE * surest).reshape(*key.masks.shape, 1)
    before, after = (
        (np.where(held, at, np.inf).min((1, 2)), np.where(held, at, -np.inf).max((1, 2)))
        for at in (cell_centres(key.boxes, key.masks.shape[1]), points)
    )
    some = held.any(axis=(1, 2, 3))[:, None]
    with np.errstate(invalid="ignore"):
        growth = (after[1] - after[0] + 1e-3) / (before[1] - before[0] + 1e-3)
        start = after[0] - (before[0] - key.boxes[:, :2]) * growth
        stop = after[1] + (key.boxes[:, 2:] - before[1]) * growth
    return np.asarray(np.where(some, np.concatenate([start, stop], axis=1), key.boxes), np.float32)


def _fitted(key: Instances, boxes: Floats, masks: Floats) -> Floats:
    """Boxes (N, 4) that lie about `masks` drawn in `boxes` as the key's boxes do about the key's masks."""
    before, after = (_extent(grids) for grids in (key.masks, masks))
    some = np.isfinite(before + after).all(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        change = np.where(some, (after - before) * size, 0)
    return np.asarray(boxes + change, np.float32)


def _extent(masks: Floats) -> Floats:
    """First and last column and row of each mask (N, M, M) as shares of its box: (N, 4), x1 y1 x2 y2."""
    side = masks.shape[1]
    held = masks >= 0.5
    ranks = np.arange(side, dtype=np.float32)
    filled = np.stack([held.any(axis=1), held.any(axis=2)], axis=1)  # (N, 2, M): columns, rows
    first = np.where(filled, ranks, np.inf).min(axis=2)
    last = np.where(filled, ranks + 1, -np.inf).max(axis=2)
    return np.asarray(np.concatenate([first, last], axis=1) / side, np.float32)


def _inverted(targets: Floats, matrix: Floats, residual: Floats) -> Floats:
    """Which cells of the key's grids, column and row, end at `targets` (N, M, M, 2)."""
    side = residual.shape[1]
    # A mask pressed flat has no inverse; a millionth of a pixel of width gives it one.
    inverse = np.linalg.inv(matrix[:, :2].astype(np.float64) + 1e-6 * np.eye(2))[:, None]
    shift = np.zeros_like(residual)
    for _ in range(INVERSIONS):
        places = (targets - matrix[:, None, None, 2] - shift) @ inverse
        cells = np.asarray((places + 1) / 2 * side - 0.5, np.float32)
        shift = sample_grids(residual, cells, edge=True)
    return cells
