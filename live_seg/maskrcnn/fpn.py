"""The feature pyramid network (FPN: Lin et al., arXiv 1612.03144)."""

from collections.abc import Sequence

import keras
from keras import layers

from live_seg.maskrcnn.backbone import frozen_norm
from live_seg.maskrcnn.boxes import Tensor
from live_seg.maskrcnn.ops import doubled


class FeaturePyramid(keras.Layer):
    """Merge feature maps into a pyramid of maps with `channels` channels each.

    [(B, h, w, c), (B, h/2, w/2, c'), ...] -> [(B, h, w, channels), (B, h/2, w/2, channels), ...], plus one
    map of half the size of the last. The `plain` finest maps get no 3x3 convolution, which would cost more
    than those of all other maps together.
    """

    def __init__(self, maps: int, channels: int, plain: int = 0, norm_epsilon: float | None = None) -> None:
        """With `norm_epsilon`, a batch norm takes the place of each convolution's bias."""
        super().__init__(name="pyramid")
        bias = norm_epsilon is None
        self.plain = plain
        self.lateral = [layers.Conv2D(channels, 1, use_bias=bias, name=f"lateral{i}") for i in range(maps)]
        self.output_convs = [
            layers.Conv2D(channels, 3, padding="same", use_bias=bias, name=f"output{i}")
            for i in range(plain, maps)
        ]
        convs = [*self.lateral, *self.output_convs]
        self.norms = [] if norm_epsilon is None else [_norm_of(conv, norm_epsilon) for conv in convs]

    def call(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Merge from the coarsest map down, then apply the 3x3 convolutions."""
        count = len(self.lateral)
        lateral = [
            self._normed(i, conv(x)) for i, (conv, x) in enumerate(zip(self.lateral, maps, strict=True))
        ]
        merged = [lateral[-1]]
        for finer in lateral[-2::-1]:
            merged.append(doubled(merged[-1]) + finer)
        merged.reverse()
        smoothed = [
            self._normed(i, conv(x))
            for i, (conv, x) in enumerate(zip(self.output_convs, merged[self.plain :], strict=True), count)
        ]
        outputs = [*merged[: self.plain], *smoothed]
        # A 1x1 max pool with stride 2, for the anchors of the largest scale.
        return [*outputs, outputs[-1][:, ::2, ::2, :]]

    def _normed(self, number: int, x: Tensor) -> Tensor:
        return self.norms[number](x) if self.norms else x


def _norm_of(conv: layers.Conv2D, epsilon: float) -> layers.BatchNormalization:
    return frozen_norm(f"{conv.name}_norm", epsilon)
