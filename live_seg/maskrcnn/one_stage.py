"""Mask R-CNN with a one-stage detector that proposes boxes and classifies them.

After RetinaMask (Fu et al., arXiv 1901.03353) and CenterMask (Lee and Park, arXiv 1911.06667).
"""

from typing import NamedTuple

import keras
import numpy as np
from keras import layers, ops

from live_seg.maskrcnn.boxes import Tensor, clip
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.maskrcnn.darknet import STRIDES, Doubled, build_backbone, build_dense_head, build_neck
from live_seg.maskrcnn.ops import crop_from
from live_seg.maskrcnn.roi import Detections, select

MASK_SIDE = 28
"""Cells along the side of a mask (Mask R-CNN, figure 4) and of its region."""

MASK_STRIDE = 4
"""Stride in pixels of the map that RoIAlign reads."""

FINE_CHANNELS = 32
"""Channels of the mask head at its full resolution."""

NORM_MOMENTUM = 0.98
"""Momentum of the batch norms' moving statistics."""


class DenseOutputs(NamedTuple):
    """Predictions of the dense head for the A cells of B images."""

    classes: Tensor  # (B, A, classes) logits, background left out
    objectness: Tensor  # (B, A) logits
    boxes: Tensor  # (B, A, 4) y1 x1 y2 x2 in pixels of the canvas


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


class OneStageMaskRCNN(keras.Model):
    """A dense detector, RoIAlign and a mask head. Images are (B, H, W, 3) RGB, 0..255."""

    def __init__(self, config: MaskRCNNConfig) -> None:
        super().__init__(name="one_stage_mask_rcnn")
        self.config = config
        self.backbone = build_backbone()
        self.neck = build_neck()
        self.dense_head = build_dense_head(config.num_classes - 1)
        self.mask_fusion = MaskFusion(config.mask_channels)
        self.mask_head = FineMaskHead(config.mask_channels)
        fused = self.features(keras.Input((64, 64, 3), batch_size=1))[0]
        self.mask_head(keras.Input((MASK_SIDE, MASK_SIDE, fused.shape[-1]), batch_size=1))
        self.built = True

    def features(self, images: Tensor, *, training: bool = False) -> tuple[Tensor, list[Tensor]]:
        """Return the map for masks (B, H / 4, W / 4, C) and the maps [N3, N4, N5] for the dense head."""
        c2, *coarse = self.backbone(images)
        maps = self.neck(coarse)
        return self.mask_fusion([c2, *maps[:2]], training=training), maps

    def dense_outputs(self, maps: list[Tensor]) -> DenseOutputs:
        """Predict for every cell of [N3, N4, N5], finest first, row by row."""
        columns: list[list[Tensor]] = [[], [], []]
        for (classes, boxes, objectness), stride in zip(self.dense_head(maps), STRIDES, strict=True):
            parts = classes, objectness, decode(boxes, stride)
            for column, values in zip(columns, parts, strict=True):
                batch, height, width, last = values.shape
                # While a graph is traced, either the number of images or their size may be unknown.
                cells = -1 if height is None else height * width
                column.append(ops.reshape(values, (-1 if batch is None else batch, cells, last)))
        classes, objectness, boxes = (ops.concatenate(column, axis=1) for column in columns)
        return DenseOutputs(classes, objectness[..., 0], boxes)

    def trunk(self, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return the map for masks, class probabilities (B, A, classes) and boxes (B, A, 4), normalized.

        A probability is that of an object in the cell times that of its class (YOLOX, section 2.1).
        """
        images = ops.cast(images, "float32")
        fused, maps = self.features(images)
        outputs = self.dense_outputs(maps)
        scores = ops.sigmoid(outputs.classes) * ops.sigmoid(outputs.objectness)[..., None]
        return [fused], scores, normalized(outputs.boxes, ops.shape(images)[1:3])

    def detect(
        self,
        maps: list[Tensor],  # noqa: ARG002 - the signature of `MaskRCNN.detect`
        scores: Tensor,
        boxes: Tensor,
        window: Tensor,
    ) -> Detections:
        """Choose detections from the outputs of `trunk`. window (B, 4): the image on its canvas."""
        config = self.config
        classes = scores.shape[-1]
        flat = ops.reshape(scores, (-1, scores.shape[1] * classes))
        best, order = ops.top_k(flat, min(config.candidates, flat.shape[1]))
        own = ops.take_along_axis(boxes, (order // classes)[..., None], axis=1)
        found = Detections(clip(own, window[:, None]), ops.cast(order % classes, "int32") + 1, best)
        return select(found, keep=config.detections, min_score=config.min_score, max_iou=config.detection_iou)

    def mask_logits(self, fused: Tensor, boxes: Tensor, rows: Tensor, *, training: bool = False) -> Tensor:
        """Return mask logits (K, 28, 28) of boxes (K, 4), normalized, in images `rows` (K,)."""
        boxes = cell_centers(boxes, ops.shape(fused)[1:3])
        return self.mask_head(crop_from(fused, boxes, rows, MASK_SIDE), training=training)

    def masks(
        self,
        maps: list[Tensor],
        boxes: Tensor,
        rows: Tensor,
        class_ids: Tensor,  # noqa: ARG002 - the mask is class-agnostic
    ) -> Tensor:
        """Return masks as probabilities, 0..1 (K, 28, 28)."""
        return ops.sigmoid(self.mask_logits(maps[0], boxes, rows))


def decode(boxes: Tensor, stride: int) -> Tensor:
    """Turn box outputs (B, h, w, 4) of one map into y1 x1 y2 x2 in pixels of the canvas.

    Outputs are x y w h: the center as an offset from the cell's corner, and the logarithm of the sides, in
    cells of `stride` pixels (YOLOX, section 2.1).
    """
    height, width = ops.shape(boxes)[1:3]
    x, y, across, down = (boxes[..., i] for i in range(4))
    x = (x + ops.cast(ops.arange(width), "float32")[None, None, :]) * stride
    y = (y + ops.cast(ops.arange(height), "float32")[None, :, None]) * stride
    half_width, half_height = (ops.exp(side) * (stride / 2) for side in (across, down))
    return ops.stack([y - half_height, x - half_width, y + half_height, x + half_width], axis=-1)


def normalized(boxes: Tensor, size: tuple[Tensor, Tensor]) -> Tensor:
    """Normalize boxes (..., 4) in pixels of a canvas of `size` (height, width): see `anchors`."""
    lengths = ops.cast(ops.stack([size[0], size[1], size[0], size[1]]), "float32") - 1.0
    return (boxes - np.array([0, 0, 1, 1], np.float32)) / lengths


def cell_centers(boxes: Tensor, cells: tuple[Tensor, Tensor]) -> Tensor:
    """Shrink normalized boxes (K, 4) to the centers of their outer cells, the edges that `crop` samples.

    A box spans 28 cells. `crop` samples 28 points from edge to edge; for it 0 and 1 are the centers of the
    first and the last of the map's `cells` (rows, columns).
    """
    shape = ops.cast(ops.stack([cells[0], cells[1], cells[0], cells[1]]), "float32")
    pixels = boxes * (shape * MASK_STRIDE - 1.0) + np.array([0, 0, 1, 1], np.float32)
    sides = pixels[:, 2:] - pixels[:, :2]
    inset = sides / (2 * MASK_SIDE)
    inner = ops.concatenate([pixels[:, :2] + inset, pixels[:, 2:] - inset], axis=1)
    return (inner / MASK_STRIDE - 0.5) / (shape - 1.0)
