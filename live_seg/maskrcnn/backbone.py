"""Backbones: Matterport's ResNet-50 and ResNet-101, and MobileNetV2 for small, fast networks."""

import keras
from keras import layers

from live_seg.maskrcnn.boxes import Tensor
from live_seg.maskrcnn.config import RESNET_BLOCKS, BackboneName

NORM_EPSILON = 1e-3
"""The default of Keras, used to train Matterport's weights."""

MOBILENET_MAPS = ("block_3_expand_relu", "block_6_expand_relu", "block_13_expand_relu", "block_16_project_BN")
"""Layers that give C2 to C5: the widest map before each stride, and the last map before the classifier."""


def frozen_norm(name: str) -> layers.BatchNormalization:
    """Return a batch norm that uses its stored statistics in training, too: batches are too small."""
    return layers.BatchNormalization(epsilon=NORM_EPSILON, trainable=False, name=name)


def build_backbone(name: BackboneName) -> keras.Model:
    """Build the backbone called `name`: images (B, H, W, 3) -> [C2, C3, C4, C5].

    H and W are multiples of 32. The maps have strides 4, 8, 16 and 32.
    """
    if name == "mobilenetv2":
        return _mobilenet()
    return _resnet(name)


def _mobilenet() -> keras.Model:
    """Build MobileNetV2 (arXiv 1801.04381). It expects -1..1; the input is -127.5..127.5."""
    base = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(None, None, 3))
    trunk = keras.Model(base.input, [base.get_layer(layer).output for layer in MOBILENET_MAPS])
    for layer in trunk.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    images = keras.Input((None, None, 3))
    return keras.Model(images, trunk(layers.Rescaling(1 / 127.5)(images)), name="mobilenetv2")


def _resnet(name: str) -> keras.Model:
    images = keras.Input((None, None, 3))
    x = layers.ZeroPadding2D(3)(images)
    x = layers.Conv2D(64, 7, strides=2, name="stem_conv")(x)
    x = layers.ReLU()(frozen_norm("stem_norm")(x))
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    maps = []
    for stage, blocks in enumerate(RESNET_BLOCKS[name], start=2):
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 2 else 1
            x = _bottleneck(x, f"stage{stage}_block{block}", 32 * 2 ** (stage - 1), stride, block == 0)
        maps.append(x)
    return keras.Model(images, maps, name=name)


def _bottleneck(x: Tensor, name: str, filters: int, stride: int, project: bool) -> Tensor:
    """Apply 1x1, 3x3 and 1x1 convolutions with a shortcut. The first has the stride (ResNet v1)."""
    shortcut = x
    for part, (width, kernel) in enumerate(((filters, 1), (filters, 3), (4 * filters, 1)), start=1):
        step = stride if part == 1 else 1
        x = layers.Conv2D(width, kernel, strides=step, padding="same", name=f"{name}_conv{part}")(x)
        x = frozen_norm(f"{name}_norm{part}")(x)
        if part < 3:
            x = layers.ReLU()(x)
    if project:
        shortcut = layers.Conv2D(4 * filters, 1, strides=stride, name=f"{name}_project_conv")(shortcut)
        shortcut = frozen_norm(f"{name}_project_norm")(shortcut)
    return layers.ReLU()(layers.Add()([x, shortcut]))
