"""The feature pyramid network (FPN: Lin et al., arXiv 1612.03144)."""

from collections.abc import Sequence

import keras
from keras import layers

from live_seg.maskrcnn.boxes import Tensor
from live_seg.maskrcnn.ops import doubled


class FeaturePyramid(keras.Layer):
    """Merge feature maps into a pyramid of maps with `channels` channels each.

    [(B, h, w, c), (B, h/2, w/2, c'), ...] -> [(B, h, w, channels), (B, h/2, w/2, channels), ...], plus one
    map of half the size of the last. The `plain` finest maps get no 3x3 convolution, which would cost more
    than those of all other maps together.
    """

    def __init__(self, maps: int, channels: int, plain: int = 0) -> None:
        super().__init__(name="pyramid")
        self.lateral = [layers.Conv2D(channels, 1, name=f"lateral{i}") for i in range(maps)]
        self.plain = plain
        self.output_convs = [
            layers.Conv2D(channels, 3, padding="same", name=f"output{i}") for i in range(plain, maps)
        ]

    def call(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Merge from the coarsest map down, then apply the 3x3 convolutions."""
        merged = [self.lateral[-1](maps[-1])]
        for lateral, finer in zip(self.lateral[-2::-1], maps[-2::-1], strict=True):
            merged.append(doubled(merged[-1]) + lateral(finer))
        merged.reverse()
        smoothed = [conv(x) for conv, x in zip(self.output_convs, merged[self.plain :], strict=True)]
        outputs = [*merged[: self.plain], *smoothed]
        # A 1x1 max pool with stride 2, for the anchors of the largest scale.
        return [*outputs, outputs[-1][:, ::2, ::2, :]]
