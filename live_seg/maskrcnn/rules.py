"""Constants of Mask R-CNN, and details in which its implementations differ. Needs no Keras.

Weights depend on the details they were trained with.
"""

import math
from dataclasses import dataclass
from typing import Literal

MOVE_UNIT, STRETCH_UNIT = 0.1, 0.2
"""Units of dy dx and of dh dw: about their standard deviations (Matterport `BBOX_STD_DEV`)."""

LARGEST_STRETCH = math.log(1000 / 16)
"""Largest logarithm of a change in size (torchvision `BoxCoder`): the exponential stays finite."""

SMALLEST_SIDE = 1e-6
"""About a thousandth of a pixel, torchvision's smallest side of a proposal (`rpn_min_size`)."""

BOX_POOL, MASK_POOL = 7, 14
"""Cells along a region's side for the box head and for the mask head (Mask R-CNN, figure 4)."""

CANONICAL_LEVEL, CANONICAL_SIDE = 4, 224.0
"""A region of 224 x 224 pixels is read from P4 (FPN, equation 1)."""

LEVEL_MARGIN = 1e-6
"""Added to a level before it is rounded down (torchvision `LevelMapper`)."""

Origin = Literal["matterport", "torchvision"]
"""The implementation that a network follows in all details."""


@dataclass(frozen=True)
class Rules:
    """The details, one by one. The defaults are Matterport's."""

    norm_epsilon: float = 1e-3  # of batch norms; the default of Keras
    bias_before_norm: bool = True  # convolutions before a batch norm have a bias
    norm_after_dense: bool = True  # fully connected layers of the box head have batch norms
    strided_conv: int = 1  # which convolution of a bottleneck has the stride
    pad_both_sides: bool = False  # zeros of strided 3x3 windows: on both sides, or at the end alone
    last_pixel: int = 1  # 1: the last pixel is at the normalized coordinate 1; 0: its far edge is
    anchors_from_cells: bool = False  # anchors have whole pixels; their distance is size // cells
    by_level: bool = False  # each pyramid level has its own candidates, which compete among themselves
    clip_to_window: bool = False  # proposals are clipped to the image, not to the canvas
    drop_empty: bool = False  # boxes without area are ignored
    samples: int = 1  # of RoIAlign, along each side of a cell; 1: cells span from edge to edge
    pad_with_mean: bool = False  # the canvas around the image has the mean colour instead of black
    padded_masks: bool = False  # masks get a border of one cell when they are pasted


RULES: dict[Origin, Rules] = {
    "matterport": Rules(),
    "torchvision": Rules(
        norm_epsilon=1e-5,
        bias_before_norm=False,
        norm_after_dense=False,
        strided_conv=2,
        pad_both_sides=True,
        last_pixel=0,
        anchors_from_cells=True,
        by_level=True,
        clip_to_window=True,
        drop_empty=True,
        samples=2,
        pad_with_mean=True,
        padded_masks=True,
    ),
}
"""The rules of each origin, read in Matterport's Mask_RCNN 2.1 and in torchvision 0.29.1."""
