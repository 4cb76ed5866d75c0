"""The map for masks of a one-stage Mask R-CNN, and the heads that read regions of it."""

import keras
from keras import layers, ops

from live_seg.maskrcnn.boxes import Tensor
from live_seg.maskrcnn.darknet import Doubled

MASK_SIDE = 28
"""Cells along the side of a mask (Mask R-CNN, figure 4) and of its region."""

FINE_CHANNELS = 32
"""Channels of the mask head at its full resolution."""

NORM_MOMENTUM = 0.98
"""Momentum of the batch norms' moving statistics."""


class ConvNorm(keras.Layer):
    """Convolution, batch norm and ReLU. `transposed` doubles the sides with a 2x2 transposed convolution."""

    def __init__(
        self, channels: int, side: int = 3, *, name: str, strides: int = 1, transposed: bool = False
    ) -> None:
        super().__init__(name=name)
        if transposed:
            self.conv = layers.Conv2DTranspose(channels, 2, strides=2, use_bias=False, name="conv")
        else:
            self.conv = layers.Conv2D(
                channels, side, strides=strides, padding="same", use_bias=False, name="conv"
            )
        self.norm = layers.BatchNormalization(momentum=NORM_MOMENTUM, epsilon=1e-3, name="norm")

    def call(self, x: Tensor, added: Tensor | None = None, *, training: bool = False) -> Tensor:
        """Return relu(norm(conv(x)) + added), where `added` has the shape of the result."""
        x = self.norm(self.conv(x), training=training)
        return ops.relu(x if added is None else x + added)


class MaskFusion(keras.Layer):
    """Join maps of strides 4, 8 and 16 into one of stride 4 for the mask head."""

    def __init__(self, channels: int) -> None:
        super().__init__(name="mask_fusion")
        self.laterals = [layers.Conv2D(channels, 1, name=f"lateral{level}") for level in (2, 3, 4)]
        self.double = Doubled()
        self.join = ConvNorm(channels, name="join")

    def call(self, maps: list[Tensor], *, training: bool = False) -> Tensor:
        """Fuse maps [C2, N3, N4] -> (B, H / 4, W / 4, channels)."""
        fine, middle, coarse = (conv(x) for conv, x in zip(self.laterals, maps, strict=True))
        middle = self.join(ops.relu(middle + self.double(coarse)), training=training)
        return ops.relu(fine + self.double(middle))


class FineMaskHead(keras.Layer):
    """Predict one class-agnostic mask per region.

    A small U-Net (Ronneberger et al., arXiv 1505.04597): context is computed on 7 x 7 cells, and the last
    layers read the region at 28 x 28 cells, for detail at the outline.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(name="mask_head")
        wide = channels * 3 // 2
        self.shrink14 = ConvNorm(channels, strides=2, name="shrink14")
        self.shrink7 = ConvNorm(wide, strides=2, name="shrink7")
        self.context = [ConvNorm(wide, name=f"context{i}") for i in range(2)]
        self.enlarge14 = ConvNorm(channels, transposed=True, name="enlarge14")
        self.middle = ConvNorm(channels, name="middle")
        self.skip = layers.Conv2D(FINE_CHANNELS, 1, name="skip")
        self.enlarge28 = ConvNorm(FINE_CHANNELS, transposed=True, name="enlarge28")
        self.fine = ConvNorm(FINE_CHANNELS, name="fine")
        self.logits = layers.Conv2D(1, 1, dtype="float32", name="logits")

    def call(self, regions: Tensor, *, training: bool = False) -> Tensor:
        """Return mask logits (K, 28, 28) of regions (K, 28, 28, C)."""
        middle = self.shrink14(regions, training=training)
        x = self.shrink7(middle, training=training)
        for conv in self.context:
            x = conv(x, training=training)
        x = self.middle(self.enlarge14(x, middle, training=training), training=training)
        x = self.fine(self.enlarge28(x, self.skip(regions), training=training), training=training)
        return ops.reshape(self.logits(x), (-1, MASK_SIDE, MASK_SIDE))
