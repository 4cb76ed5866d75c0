"""Every resampling of a mask: resizing by Matterport's rule, and arithmetic on many small square grids."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _edge_weights(length: int, target: int) -> NDArray[np.float64]:
    """How much of each resized position lies on the picture rather than on the black around it. (target,)"""
    centres = (np.arange(target) + 0.5) * (length / target) - 0.5
    weights: NDArray[np.float64] = np.minimum(1.0, np.minimum(1.0 + centres, length - centres))
    return weights


def resize_on_black(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resize a float `image` (H, W) or (H, W, C) to (height, width); everything outside it counts as zero.

    Half-pixel centres, no smoothing when shrinking: `skimage.transform.resize(order=1, mode="constant",
    anti_aliasing=False)`. OpenCV's bilinear rule is the same but repeats the border, and a bilinear filter
    is separable: weighting the border rows and columns gives the same numbers. Same dtype as `image`.
    """
    import cv2  # here, so that what only passes frames and instances on needs no OpenCV

    rows, columns = _edge_weights(image.shape[0], height), _edge_weights(image.shape[1], width)
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    resized = resized.reshape(height, width, *image.shape[2:])  # OpenCV drops a last axis of 1
    weights = np.outer(rows.astype(image.dtype), columns.astype(image.dtype))
    resized *= weights.reshape(height, width, *[1] * (image.ndim - 2))
    return resized


Floats = NDArray[np.float32]


def cell_centres(boxes: NDArray[Any], side: int) -> Floats:
    """Where the cells of each box (N, 4), x1 y1 x2 y2, have their centres: (N, side, side, 2), x y."""
    steps = (np.arange(side, dtype=np.float32) + 0.5) / side
    places = boxes[:, None, :2] + (boxes[:, None, 2:] - boxes[:, None, :2]) * steps[:, None]  # (N, side, 2)
    centres = np.empty((len(boxes), side, side, 2), np.float32)
    centres[..., 0] = places[:, None, :, 0]
    centres[..., 1] = places[:, :, None, 1]
    return centres


def in_picture(points: Floats, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether x y of points (..., 2) lie in a picture of `size` (h, w, ...)."""
    return np.asarray(np.all((points >= 0) & (points <= (size[1], size[0])), axis=-1))


def blurred(grids: Floats, deviation: float) -> Floats:
    """Filter grids (N, M, M, C) with a Gaussian of `deviation` cells; outside a grid counts as zero."""
    kernel = _kernel(grids.shape[1], deviation)
    return np.asarray(np.moveaxis(kernel @ np.moveaxis(grids, 3, 1) @ kernel, 1, 3), np.float32)


@lru_cache(maxsize=8)
def _kernel(side: int, deviation: float) -> Floats:
    """Share of each cell of a row in the filtered value of each other: (side, side), symmetric."""
    steps = np.arange(side)
    shares = np.exp(-0.5 * ((steps[:, None] - steps) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
    return np.asarray(shares, np.float32)


def from_grids(grids: Floats, cells: Floats, *, edge: bool) -> Floats:
    """Read each of the grids (N, M, M) or (N, M, M, C), C at most 4, bilinearly at its cells (N, K, K, 2).

    Cells are column and row, the first cell's centre at 0. Outside a grid its edge is repeated if `edge`,
    else it is zero. Returns (N, K, K[, C]).
    """
    import cv2

    n, side = grids.shape[:2]
    if not n:
        return np.zeros((*cells.shape[:3], *grids.shape[3:]), np.float32)
    # One tall picture of all the grids, each with a border of one cell, so that one call reads them all.
    padded = _bordered(grids, edge=edge)
    places = np.clip(cells, -1, side) + np.float32(1)
    columns = places[..., 0].reshape(-1, cells.shape[2])
    rows = places[..., 1] + (np.arange(n, dtype=np.float32) * (side + 2))[:, None, None]
    tall = padded.reshape(n * (side + 2), side + 2, *grids.shape[3:])
    read = cv2.remap(tall, columns, rows.reshape(columns.shape), cv2.INTER_LINEAR)
    return np.asarray(read.reshape(*cells.shape[:3], *grids.shape[3:]), np.float32)


def _bordered(grids: Floats, *, edge: bool) -> Floats:
    """Put a ring of cells around grids (N, M, M, ...), their edge again or zeros: np.pad in less time."""
    n, side = grids.shape[:2]
    padded = np.zeros((n, side + 2, side + 2, *grids.shape[3:]), np.float32)
    padded[:, 1:-1, 1:-1] = grids
    if edge:
        padded[:, [0, -1], 1:-1] = grids[:, [0, -1]]
        padded[:, :, [0, -1]] = padded[:, :, [1, -2]]
    return padded


def resampled(boxes: NDArray[Any], masks: NDArray[Any], onto: NDArray[Any], side: int) -> NDArray[np.float32]:
    """Read masks bilinearly at the centres of side x side cells of other boxes. (P, side, side) float32

    `boxes` (P, 4) and `masks` (P, M, M) belong to the boxes `onto` (P, 4) one by one, or one box and mask to
    all of them; none is empty. Outside its box a mask is zero.
    """
    cells = masks.shape[-1]
    steps = (np.arange(side, dtype=np.float32) + 0.5) / side
    points = onto[:, :2, None] + (onto[:, 2:] - onto[:, :2])[..., None] * steps  # (P, 2, side)
    start, size = boxes[..., :2, None], (boxes[..., 2:] - boxes[..., :2])[..., None]
    inside = (points - start) / size * cells - 0.5  # in cells of the mask
    weights = np.maximum(0, 1 - np.abs(inside[..., None] - np.arange(cells, dtype=np.float32)))
    columns, rows = weights[:, 0], weights[:, 1]  # (P, side, M): the bilinear filter's share of each cell
    return np.asarray(rows @ masks @ columns.swapaxes(1, 2), np.float32)
