"""The convolutional layers of YOLOX-Nano: backbone, neck and dense head (Ge et al., arXiv 2107.08430).

Batch norms are folded into the convolutions, whose names `yolox.layer_names` lists in the exporter's order.
"""

import keras
from keras import layers

from live_seg.maskrcnn.boxes import Tensor
from live_seg.maskrcnn.ops import doubled

HEAD_CHANNELS = 64
STRIDES = (8, 16, 32)
"""Strides of the maps that the dense head reads, in pixels."""


class Doubled(keras.Layer):
    """Repeat each row and each column of a map: (B, h, w, C) -> (B, 2h, 2w, C)."""

    def call(self, feature_map: Tensor) -> Tensor:
        """Return the enlarged map."""
        return doubled(feature_map)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the enlarged map."""
        batch, height, width, channels = shape
        return batch, height and 2 * height, width and 2 * width, channels


def build_backbone() -> keras.Model:
    """Build CSPDarknet: images (B, H, W, 3) RGB 0..255, sides multiples of 32 -> [C2, C3, C4, C5].

    The maps have strides 4, 8, 16, 32 and 32, 64, 128, 256 channels.
    """
    images = keras.Input((None, None, 3))
    # YOLOX's Focus layer and its 3x3 convolution, written as one convolution of 6x6 with stride 2.
    x = layers.ZeroPadding2D(2)(images)
    x = _activated(layers.Conv2D(16, 6, strides=2, name="stem")(x))
    maps = []
    for stage, (channels, blocks) in enumerate(((32, 1), (64, 3), (128, 3), (256, 1)), start=2):
        x = _separable(x, channels, f"stage{stage}_down", stride=2)
        if stage == 5:
            x = _pyramid_pooling(x, channels)
        x = _csp(x, channels, f"stage{stage}", blocks, shortcuts=stage < 5)
        maps.append(x)
    return keras.Model(images, maps, name="csp_darknet_nano")


def build_neck() -> keras.Model:
    """Build the path aggregation network: [C3, C4, C5] -> [N3, N4, N5] of 64, 128 and 256 channels."""
    c3, c4, c5 = inputs = [keras.Input((None, None, channels)) for channels in (64, 128, 256)]
    lateral5 = _conv(c5, 128, 1, "neck_lateral5")
    x = _csp(layers.Concatenate()([Doubled()(lateral5), c4]), 128, "neck_up4", 1, shortcuts=False)
    lateral4 = _conv(x, 64, 1, "neck_lateral4")
    n3 = _csp(layers.Concatenate()([Doubled()(lateral4), c3]), 64, "neck_up3", 1, shortcuts=False)
    x = _separable(n3, 64, "neck_down4", stride=2)
    n4 = _csp(layers.Concatenate()([x, lateral4]), 128, "neck_out4", 1, shortcuts=False)
    x = _separable(n4, 128, "neck_down5", stride=2)
    n5 = _csp(layers.Concatenate()([x, lateral5]), 256, "neck_out5", 1, shortcuts=False)
    return keras.Model(inputs, [n3, n4, n5], name="neck")


def build_dense_head(num_classes: int) -> keras.Model:
    """Build the dense head for the maps [N3, N4, N5].

    For each map it returns class logits (B, h, w, num_classes), box outputs (B, h, w, 4): x y w h for
    `one_stage.decode`, and objectness logits (B, h, w, 1), all float32.
    """
    inputs = [keras.Input((None, None, channels)) for channels in (64, 128, 256)]
    outputs = []
    for level, feature_map in enumerate(inputs, start=3):
        name = f"head{level}"
        x = _conv(feature_map, HEAD_CHANNELS, 1, f"{name}_stem")
        branches = []
        for branch in ("class", "box"):
            y = x
            for i in range(2):
                y = _separable(y, HEAD_CHANNELS, f"{name}_{branch}{i}")
            branches.append(y)
        kinds = (
            (branches[0], num_classes, "classes"),
            (branches[1], 4, "boxes"),
            (branches[1], 1, "objectness"),
        )
        outputs.append(
            [layers.Conv2D(count, 1, dtype="float32", name=f"{name}_{kind}")(y) for y, count, kind in kinds]
        )
    return keras.Model(inputs, outputs, name="dense_head")


def _activated(x: Tensor) -> Tensor:
    return layers.Activation("silu")(x)


def _conv(x: Tensor, channels: int, side: int, name: str) -> Tensor:
    return _activated(layers.Conv2D(channels, side, padding="same", name=name)(x))


def _separable(x: Tensor, channels: int, name: str, stride: int = 1) -> Tensor:
    """Apply a depthwise 3x3 and a 1x1 convolution, each activated."""
    # Zeros on both sides, also at stride 2, where Keras' "same" would add them on one side alone.
    padding = "same"
    if stride == 2:
        x, padding = layers.ZeroPadding2D(1)(x), "valid"
    x = layers.DepthwiseConv2D(3, strides=stride, padding=padding, name=f"{name}_depthwise")(x)
    return _conv(_activated(x), channels, 1, f"{name}_pointwise")


def _csp(x: Tensor, channels: int, name: str, blocks: int, *, shortcuts: bool) -> Tensor:
    """Apply a cross stage partial layer (Wang et al., arXiv 1911.11929) with `blocks` bottlenecks."""
    main = _conv(x, channels // 2, 1, f"{name}_main")
    side = _conv(x, channels // 2, 1, f"{name}_side")
    for i in range(blocks):
        y = _conv(main, channels // 2, 1, f"{name}_block{i}_reduce")
        y = _separable(y, channels // 2, f"{name}_block{i}")
        main = layers.Add()([y, main]) if shortcuts else y
    return _conv(layers.Concatenate()([main, side]), channels, 1, f"{name}_merge")


def _pyramid_pooling(x: Tensor, channels: int) -> Tensor:
    """Concatenate max pools over 5, 9 and 13 cells (SPP: He et al., arXiv 1406.4729).

    The larger pools are computed from the smaller.
    """
    pooled = [_conv(x, channels // 2, 1, "stage5_pool_reduce")]
    for _ in range(3):
        pooled.append(layers.MaxPooling2D(5, strides=1, padding="same")(pooled[-1]))
    return _conv(layers.Concatenate()(pooled), channels, 1, "stage5_pool_merge")
