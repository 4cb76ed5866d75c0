"""Resampling and pasting of masks: square grids (M, M) of probabilities, each spanning its own box."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

Region = tuple[slice, slice]
"""Rows and columns of an image: `image[region]`."""


def paste(
    box: NDArray[Any], mask: Floats, size: tuple[int, int], *, padded: bool = False
) -> tuple[Region, Floats]:
    """Resize `mask` (M, M) to `box` (x1 y1 x2 y2) and clip it to a frame of `size` (height, width).

    Returns the region of the frame and the float32 probabilities in it; both are empty for a box that is
    empty or outside. The box is rounded to whole pixels first, and cells outside the mask count as zero
    (Matterport's `utils.unmold_mask`). With `padded`, mask and box get a border of one cell before, corners
    are truncated, and the last pixel belongs to the box (torchvision's `paste_masks_in_image`).
    """
    height, width = size
    if padded:
        box, mask = _with_border(np.asarray(box, np.float32), mask)
    x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if right <= left or bottom <= top:
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.float32)
    resized = resize_zero_padded(mask, y2 - y1, x2 - x1)
    region = (slice(top, bottom), slice(left, right))
    return region, resized[top - y1 : bottom - y1, left - x1 : right - x1]


def _with_border(box: Floats, mask: Floats) -> tuple[Floats, Floats]:
    """Add a border of one cell of zeros; return the box (4,) in whole pixels and the mask (M + 2, M + 2)."""
    cells = len(mask)
    half = (box[2:] - box[:2]) * np.float32(0.5) * np.float32((cells + 2) / cells)
    center = (box[2:] + box[:2]) * np.float32(0.5)
    corners = np.trunc(np.concatenate([center - half, center + half]))
    corners[2:] = np.maximum(corners[2:] + 1, corners[:2] + 1)
    return corners, np.pad(mask, 1)


def resize_zero_padded(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resize a float `image` (H, W[, C]) to (height, width) bilinearly, with zeros outside of it.

    Half-pixel centres, no antialiasing: equal to `skimage.transform.resize(order=1, mode="constant",
    anti_aliasing=False)`. OpenCV's bilinear resize only differs in replicating the border; the filter is
    separable, so weighting the border rows and columns gives the same values. Returns the dtype of `image`.
    """
    import cv2  # here, so that passing on frames and instances does not need OpenCV

    rows, columns = _edge_weights(image.shape[0], height), _edge_weights(image.shape[1], width)
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    resized = resized.reshape(height, width, *image.shape[2:])  # OpenCV drops a last axis of 1
    weights = np.outer(rows.astype(image.dtype), columns.astype(image.dtype))
    resized *= weights.reshape(height, width, *[1] * (image.ndim - 2))
    return resized


def _edge_weights(length: int, target: int) -> NDArray[np.float64]:
    """Return the bilinear weight (target,) of the image against its zero border at each resized position."""
    centres = (np.arange(target) + 0.5) * (length / target) - 0.5
    weights: NDArray[np.float64] = np.minimum(1.0, np.minimum(1.0 + centres, length - centres))
    return weights


def cell_centres(boxes: NDArray[Any], side: int) -> Floats:
    """Return the centres of side x side cells of each box (N, 4), x1 y1 x2 y2, as x y: (N, side, side, 2)."""
    places = _axis_centres(boxes, side)
    centres = np.empty((len(boxes), side, side, 2), np.float32)
    centres[..., 0] = places[:, 0, None, :]
    centres[..., 1] = places[:, 1, :, None]
    return centres


def _axis_centres(boxes: NDArray[Any], side: int) -> NDArray[Any]:
    """Return x and y of the centres of `side` columns and rows of each box (N, 4): (N, 2, side)."""
    steps = (np.arange(side, dtype=np.float32) + 0.5) / side
    return np.asarray(boxes[:, :2, None] + (boxes[:, 2:] - boxes[:, :2])[..., None] * steps)


def inside_image(points: Floats, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return True for x y `points` (..., 2) within an image of `size` (h, w, ...)."""
    return np.asarray(np.all((points >= 0) & (points <= (size[1], size[0])), axis=-1))


def gaussian_blur(grids: Floats, deviation: float) -> Floats:
    """Filter grids (N, M, M, C) with a Gaussian of `deviation` cells; outside a grid counts as zero."""
    kernel = _kernel(grids.shape[1], deviation)
    return np.asarray(np.moveaxis(kernel @ np.moveaxis(grids, 3, 1) @ kernel, 1, 3), np.float32)


@lru_cache(maxsize=8)
def _kernel(side: int, deviation: float) -> Floats:
    """Return the Gaussian weight of every cell of a row for every other one: (side, side), symmetric."""
    steps = np.arange(side)
    weights = np.exp(-0.5 * ((steps[:, None] - steps) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
    return np.asarray(weights, np.float32)


def sample_grids(grids: Floats, cells: Floats, *, edge: bool) -> Floats:
    """Sample each of the grids (N, M, M[, C]), C at most 4, bilinearly at its cells (N, K, K, 2).

    Cells are (column, row) with the centre of the first cell at 0. Outside, a grid continues with its edge
    values if `edge`, else with zeros. Returns (N, K, K[, C]).
    """
    import cv2

    n, side = grids.shape[:2]
    if not n:
        return np.zeros((*cells.shape[:3], *grids.shape[3:]), np.float32)
    # All grids, each with a border of one cell, are stacked into one image: a single call samples them all.
    padded = _pad(grids, edge=edge)
    places = np.clip(cells, -1, side) + np.float32(1)
    columns = places[..., 0].reshape(-1, cells.shape[2])
    rows = places[..., 1] + (np.arange(n, dtype=np.float32) * (side + 2))[:, None, None]
    stacked = padded.reshape(n * (side + 2), side + 2, *grids.shape[3:])
    samples = cv2.remap(stacked, columns, rows.reshape(columns.shape), cv2.INTER_LINEAR)
    return np.asarray(samples.reshape(*cells.shape[:3], *grids.shape[3:]), np.float32)


def _pad(grids: Floats, *, edge: bool) -> Floats:
    """Pad grids (N, M, M, ...) by one cell of edge values or zeros; faster than `np.pad`."""
    n, side = grids.shape[:2]
    padded = np.zeros((n, side + 2, side + 2, *grids.shape[3:]), np.float32)
    padded[:, 1:-1, 1:-1] = grids
    if edge:
        padded[:, [0, -1], 1:-1] = grids[:, [0, -1]]
        padded[:, :, [0, -1]] = padded[:, :, [1, -2]]
    return padded


def resample(boxes: NDArray[Any], masks: NDArray[Any], onto: NDArray[Any], side: int) -> Floats:
    """Sample masks bilinearly at the centres of side x side cells of other boxes: (P, side, side) float32.

    `boxes` (P, 4) and `masks` (P, M, M) correspond to the boxes `onto` (P, 4), or one box (4,) and mask
    (M, M) to all of them. No box is empty. Outside its box a mask is zero.
    """
    cells = masks.shape[-1]
    points = _axis_centres(onto, side)
    start, size = boxes[..., :2, None], (boxes[..., 2:] - boxes[..., :2])[..., None]
    positions = (points - start) / size * cells - 0.5  # in cells of the mask
    weights = np.maximum(0, 1 - np.abs(positions[..., None] - np.arange(cells, dtype=np.float32)))
    columns, rows = weights[:, 0], weights[:, 1]  # (P, side, M): bilinear weight of each cell
    return np.asarray(rows @ masks @ columns.swapaxes(1, 2), np.float32)


def silhouettes(boxes: NDArray[Any], masks: Floats) -> NDArray[np.uint8]:
    """Draw masks (N, M, M) in their boxes (N, 4), later ones on top, each in its own grey on black: (h, w).

    The canvas begins at 0 and ends with the last box; without boxes it is one pixel.
    """
    ends = np.ceil(boxes[:, :1:-1].max(axis=0, initial=1)).astype(int).tolist()
    canvas = np.zeros((ends[0], ends[1]), np.uint8)
    for position, (box, mask) in enumerate(zip(boxes, masks, strict=True)):
        region, probability = paste(box, mask, (ends[0], ends[1]))
        canvas[region][probability >= 0.5] = 255 - position % 6 * 30
    return canvas


def png(image: NDArray[np.uint8]) -> bytes:
    """Encode an image, (H, W) grey or (H, W, 3) BGR, as PNG."""
    import cv2

    return bytes(cv2.imencode(".png", image)[1].tobytes())
