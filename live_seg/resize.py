"""Bilinear resizing by scikit-image's rule, which Matterport's images and masks went through."""

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
