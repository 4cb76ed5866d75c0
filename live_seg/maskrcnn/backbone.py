"""Backbones: ResNet-50 and ResNet-101, and MobileNetV2 for small, fast networks."""

import keras
from keras import layers

from live_seg.maskrcnn.boxes import Tensor
from live_seg.maskrcnn.config import RESNET_BLOCKS, BackboneName
from live_seg.maskrcnn.rules import RULES, Rules

MOBILENET_MAPS = ("block_3_expand_relu", "block_6_expand_relu", "block_13_expand_relu", "block_16_project_BN")
"""Layers that give C2 to C5: the widest map before each stride, and the last map before the classifier."""


def frozen_norm(name: str, epsilon: float) -> layers.BatchNormalization:
    """Return a batch norm that uses its stored statistics in training, too: batches are too small."""
    return layers.BatchNormalization(epsilon=epsilon, trainable=False, name=name)


def build_backbone(name: BackboneName, rules: Rules = RULES["matterport"]) -> keras.Model:
    """Build the backbone called `name`: images (B, H, W, 3) -> [C2, C3, C4, C5].

    H and W are multiples of 32. The maps have strides 4, 8, 16 and 32. `rules` apply to ResNets.
    """
    if name == "mobilenetv2":
        return _mobilenet()
    return _resnet(name, rules)


def _mobilenet() -> keras.Model:
    """Build MobileNetV2 (arXiv 1801.04381). It expects -1..1; the input is -127.5..127.5."""
    base = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(None, None, 3))
    trunk = keras.Model(base.input, [base.get_layer(layer).output for layer in MOBILENET_MAPS])
    for layer in trunk.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    images = keras.Input((None, None, 3))
    return keras.Model(images, trunk(layers.Rescaling(1 / 127.5)(images)), name="mobilenetv2")


def _resnet(name: str, rules: Rules) -> keras.Model:
    images = keras.Input((None, None, 3))
    x = layers.ZeroPadding2D(3)(images)
    x = layers.Conv2D(64, 7, strides=2, use_bias=rules.bias_before_norm, name="stem_conv")(x)
    x = layers.ReLU()(frozen_norm("stem_norm", rules.norm_epsilon)(x))
    if rules.pad_both_sides:  # zeros do not win: the map has no negative values
        x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    else:
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    maps = []
    for stage, blocks in enumerate(RESNET_BLOCKS[name], start=2):
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 2 else 1
            part = f"stage{stage}_block{block}"
            x = _bottleneck(x, part, 32 * 2 ** (stage - 1), stride, block == 0, rules)
        maps.append(x)
    return keras.Model(images, maps, name=name)


def _bottleneck(x: Tensor, name: str, filters: int, stride: int, project: bool, rules: Rules) -> Tensor:
    """Apply 1x1, 3x3 and 1x1 convolutions with a shortcut (ResNet v1). `rules` say which has the stride."""

    def normed(x: Tensor, width: int, kernel: int, step: int, part: str) -> Tensor:
        padding = "same"
        if step > 1 and kernel > 1 and rules.pad_both_sides:
            x, padding = layers.ZeroPadding2D(1)(x), "valid"
        conv = layers.Conv2D(
            width,
            kernel,
            strides=step,
            padding=padding,
            use_bias=rules.bias_before_norm,
            name=f"{name}_{part.format('conv')}",
        )
        return frozen_norm(f"{name}_{part.format('norm')}", rules.norm_epsilon)(conv(x))

    shortcut = x
    for number, (width, kernel) in enumerate(((filters, 1), (filters, 3), (4 * filters, 1)), start=1):
        x = normed(x, width, kernel, stride if number == rules.strided_conv else 1, f"{{}}{number}")
        if number < 3:
            x = layers.ReLU()(x)
    if project:
        shortcut = normed(shortcut, 4 * filters, 1, stride, "project_{}")
    return layers.ReLU()(layers.Add()([x, shortcut]))
