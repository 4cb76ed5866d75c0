"""A zone of the picture in which instances count."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from live_seg.errors import UsageError
from live_seg.types import Instances

MASK_THRESHOLD = 0.5
"""Probability from which a cell of a mask belongs to the instance."""


class Region(Protocol):
    """A part of the picture in which instances count. It may change while it is used."""

    def contains(self, instances: Instances, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return, as bool (N,), which instances of a frame of `size` (height, width) are inside."""
        ...


@dataclass(frozen=True)
class Zone:
    """A polygon with corners (x, y) in shares of the picture's width and height, 0 to 1.

    An instance is inside if at least `share` of its visible mask is. Edges may cross: a point is inside if a
    ray from it crosses an odd number of edges. Raises UsageError for less than 3 corners and for values out
    of range.
    """

    corners: tuple[tuple[float, float], ...]
    share: float = 0.5

    def __post_init__(self) -> None:
        if len(self.corners) < 3 or not all(0 <= value <= 1 for corner in self.corners for value in corner):
            raise UsageError(
                "A zone is written as x1,y1,x2,y2,x3,y3,... with at least 3 corners, each a share of the "
                "picture from 0 to 1, such as 0,0.5,1,0.5,1,1,0,1 for the lower half."
            )
        if not 0 < self.share <= 1:
            raise UsageError(
                f"The share of a mask inside a zone must be above 0 and up to 1. Got {self.share}."
            )

    @classmethod
    def parse(cls, text: str, share: float = 0.5) -> "Zone":
        """Parse "x1,y1,x2,y2,...". Raises UsageError."""
        try:
            values = [float(word) for word in text.split(",")]
        except ValueError:
            values = []
        even = len(values) % 2 == 0
        return cls(tuple(zip(values[::2], values[1::2], strict=True)) if even else (), share)

    def contains(self, instances: Instances, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return, as bool (N,), which instances of a frame of `size` (height, width) are inside."""
        x, y = _cell_centers(instances, size)
        cells = (instances.masks >= MASK_THRESHOLD) & (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
        inside = self._covers(x, y) & cells
        counts = np.maximum(cells.sum(axis=(1, 2)), 1)
        return np.asarray(inside.sum(axis=(1, 2)) / counts >= self.share)

    def _covers(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return for each point, given in shares of the picture, whether it is in the polygon."""
        odd = np.zeros(x.shape, bool)
        for (x1, y1), (x2, y2) in zip(self.corners, self.corners[1:] + self.corners[:1], strict=True):
            if y1 != y2:
                odd ^= ((y1 > y) != (y2 > y)) & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
        return odd


def _cell_centers(
    instances: Instances, size: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y of the centers of all mask cells, (N, M, M) each, in shares of the picture."""
    count, rows = len(instances), instances.masks.shape[1]
    steps = (np.arange(rows) + 0.5) / rows
    x1, y1, x2, y2 = instances.boxes.astype(np.float64).T[..., None]
    height, width = size
    x, y = (x1 + (x2 - x1) * steps) / width, (y1 + (y2 - y1) * steps) / height
    shape = (count, rows, rows)
    return np.broadcast_to(x[:, None, :], shape), np.broadcast_to(y[:, :, None], shape)
