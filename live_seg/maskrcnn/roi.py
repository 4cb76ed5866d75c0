"""The second stage: RoIAlign, box head, final detections, mask head."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
from keras import layers, ops

from live_seg.maskrcnn.backbone import frozen_norm
from live_seg.maskrcnn.boxes import Tensor, apply_deltas, clip, has_area
from live_seg.maskrcnn.ops import LOWEST, crop, nms_within_class
from live_seg.maskrcnn.rules import CANONICAL_LEVEL, CANONICAL_SIDE, LEVEL_MARGIN, MASK_POOL, Rules


class Detections(NamedTuple):
    """Detections in B images, D rows each."""

    boxes: Tensor  # (B, D, 4) normalized y1 x1 y2 x2
    class_ids: Tensor  # (B, D) int32, 0 for an empty row
    scores: Tensor  # (B, D) 0..1


def roi_align(
    pyramid: Sequence[Tensor], boxes: Tensor, rows: Tensor, side: int, first_level: int, image_area: Tensor
) -> tuple[Tensor, Tensor]:
    """Sample each box from the pyramid level that suits its size (FPN, equation 1).

    boxes (K, 4) normalized; `rows` (K,) int32: the image of each box; `pyramid[0]` is level `first_level`;
    `image_area` () float32 in pixels. Returns regions (K, side, side, C), ordered by level, and the box of
    each region (K,) int32. One bilinear sample per cell (Matterport `PyramidROIAlign`).
    """
    level = _level_of(boxes, image_area, ops.round)
    last_level = first_level + len(pyramid) - 1
    level = ops.clip(level, first_level, last_level) - first_level
    return crop(_in_float32(pyramid), level, boxes, rows, side)


def averaged_roi_align(
    pyramid: Sequence[Tensor], boxes: Tensor, rows: Tensor, side: int, first_level: int, image_area: Tensor
) -> tuple[Tensor, Tensor]:
    """Apply `roi_align` with the mean of 2 x 2 bilinear samples per cell.

    Regions have at least the side of one cell of the map, which spans from edge to edge of the image; beyond
    the last row and column it continues (torchvision `MultiScaleRoIAlign`, sampling ratio 2).
    """
    level = _level_of(boxes, image_area, lambda steps: ops.floor(steps + LEVEL_MARGIN))
    level = ops.clip(level, first_level, first_level + len(pyramid) - 1) - first_level
    sizes = [ops.shape(feature_map)[1:3] for feature_map in pyramid]
    shapes = ops.cast(ops.stack([ops.stack([height, width]) for height, width in sizes]), "float32")
    cells = ops.take(shapes, level, axis=0)  # (K, 2)
    start = boxes[:, :2] * cells
    sides = ops.maximum(boxes[:, 2:] * cells - start, 1.0)
    half_step = sides / (4 * side)
    points = ops.concatenate([(start + half_step) / cells, (start + sides - half_step) / cells], axis=1)
    samples, order = crop(_in_float32(pyramid), level, points, rows, 2 * side, repeated=1)
    # Keras 3.15 needs the strides on JAX, although they are those by default.
    return ops.average_pool(samples, 2, strides=2, data_format="channels_last"), order


def _level_of(boxes: Tensor, image_area: Tensor, whole: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the pyramid level (K,) int32 of boxes (K, 4), made `whole`, before it is clipped."""
    sides = ops.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    root = ops.sqrt(sides[:, 0] * sides[:, 1])
    scaled = root / (CANONICAL_SIDE / ops.sqrt(image_area))
    steps = whole(ops.log(ops.maximum(scaled, 1e-12)) / math.log(2.0))
    return CANONICAL_LEVEL + ops.cast(steps, "int32")


def _in_float32(pyramid: Sequence[Tensor]) -> list[Tensor]:
    """Cast the maps: TensorFlow's kernel has a gradient for float32 alone."""
    return [ops.cast(feature_map, "float32") for feature_map in pyramid]


class BoxHead(keras.Layer):
    """Classify regions and refine their boxes: convolutions, if any, and fully connected layers."""

    def __init__(
        self,
        units: int,
        num_classes: int,
        rules: Rules,
        *,
        convs: int = 0,
        dense: int = 2,
        channels: int = 256,
    ) -> None:
        super().__init__(name="box_head")
        self.num_classes = num_classes
        self.convs, self.conv_norms = _normed_convs(convs, channels, rules)
        self.hidden = [layers.Dense(units, name=f"hidden{i}") for i in range(dense)]
        norms = dense if rules.norm_after_dense else 0
        self.norms = [frozen_norm(f"norm{i}", rules.norm_epsilon) for i in range(norms)]
        self.logits = layers.Dense(num_classes, dtype="float32", name="logits")
        self.deltas = layers.Dense(4 * num_classes, dtype="float32", name="deltas")

    def call(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits (K, classes) and deltas per class (K, classes, 4) of regions (K, 7, 7, C)."""
        x = regions
        for conv, norm in zip(self.convs, self.conv_norms, strict=True):
            x = ops.relu(norm(conv(x)))
        x = ops.reshape(x, (-1, math.prod(x.shape[1:])))
        for i, dense in enumerate(self.hidden):
            x = dense(x)
            x = ops.relu(self.norms[i](x) if self.norms else x)
        return self.logits(x), ops.reshape(self.deltas(x), (-1, self.num_classes, 4))


def _normed_convs(
    count: int, channels: int, rules: Rules
) -> tuple[list[layers.Conv2D], list[layers.BatchNormalization]]:
    """Return `count` 3x3 convolutions and the batch norms after them."""
    convs = [
        layers.Conv2D(channels, 3, padding="same", use_bias=rules.bias_before_norm, name=f"conv{i}")
        for i in range(count)
    ]
    return convs, [frozen_norm(f"norm{i}", rules.norm_epsilon) for i in range(count)]


class MaskHead(keras.Layer):
    """Predict one mask per class and region, so that classes do not compete."""

    def __init__(self, channels: int, num_classes: int, rules: Rules) -> None:
        super().__init__(name="mask_head")
        self.convs, self.norms = _normed_convs(4, channels, rules)
        self.upsample = layers.Conv2DTranspose(channels, 2, strides=2, name="upsample")
        self.logits = layers.Conv2D(num_classes, 1, dtype="float32", name="logits")
        for layer in (self.upsample, self.logits):
            layer.build((None, None, None, channels))

    def call(self, regions: Tensor, class_ids: Tensor) -> Tensor:
        """Return mask logits (K, 28, 28) of regions (K, 14, 14, C) for their `class_ids` (K,)."""
        x = regions
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = ops.relu(norm(conv(x)))
        x = ops.reshape(x, (-1, MASK_POOL**2, x.shape[-1]))
        kernel, bias = (ops.cast(part, "float32") for part in (self.logits.kernel[0, 0], self.logits.bias))
        own = ops.transpose(ops.take(kernel, class_ids, axis=1))[..., None]
        cells = [ops.matmul(ops.cast(self._upsampled(x, i), "float32"), own) for i in range(4)]
        masks = ops.concatenate(cells, axis=-1) + ops.take(bias, class_ids)[:, None, None]
        masks = ops.transpose(ops.reshape(masks, (-1, MASK_POOL, MASK_POOL, 2, 2)), (0, 1, 3, 2, 4))
        return ops.reshape(masks, (-1, 2 * MASK_POOL, 2 * MASK_POOL))

    def _upsampled(self, x: Tensor, corner: int) -> Tensor:
        """Compute one `corner` of the 2 x 2 cells that each cell becomes. x (K, 196, C) -> (K, 196, C).

        Windows of a 2x2 transposed convolution with stride 2 do not overlap: each corner is a matrix product.
        """
        kernel = ops.transpose(self.upsample.kernel[corner // 2, corner % 2])
        return ops.relu(ops.matmul(x, ops.cast(kernel, x.dtype)) + ops.cast(self.upsample.bias, x.dtype))


def refine(
    proposals: Tensor, probabilities: Tensor, deltas: Tensor, window: Tensor, *, most: int | None = None
) -> Detections:
    """Apply the deltas of each proposal's most probable class -> candidates for detections.

    proposals (B, R, 4), probabilities (B, R, classes), deltas (B, R, classes, 4). Boxes are clipped to
    window (B, 4), the image on its canvas. With `most`, each class of a proposal is a candidate of its own,
    and those with the `most` highest scores are returned (detectron2 `fast_rcnn_inference`).
    """
    count, classes = probabilities.shape[1:]
    owner, class_ids, scores = (
        _most_probable_class(probabilities) if most is None else _all_classes(probabilities, most)
    )
    pairs = ops.reshape(deltas, (-1, count * classes, 4))
    own = ops.take_along_axis(pairs, (owner * classes + class_ids)[..., None], axis=1)
    boxes = ops.take_along_axis(proposals, owner[..., None], axis=1)
    return Detections(clip(apply_deltas(boxes, own), window[:, None]), class_ids, scores)


def select(
    refined: Detections, *, keep: int, min_score: float, max_iou: float, drop_empty: bool = False
) -> Detections:
    """Apply NMS within each class and keep at most `keep` detections, best first, padded with zeros.

    Background and scores below `min_score` are ignored (Matterport `refine_detections_graph`), and with
    `drop_empty` boxes without area.
    """
    boxes, class_ids, scores = refined
    taking_part = (class_ids > 0) & (scores >= min_score)
    if drop_empty:
        taking_part = taking_part & has_area(boxes)
    kept, valid = nms_within_class(
        boxes, class_ids, ops.where(taking_part, scores, 2 * LOWEST), keep, max_iou
    )
    return Detections(
        ops.where(valid[..., None], ops.take_along_axis(boxes, kept[..., None], axis=1), 0.0),
        ops.where(valid, ops.take_along_axis(class_ids, kept, axis=1), 0),
        ops.where(valid, ops.take_along_axis(scores, kept, axis=1), 0.0),
    )


def _most_probable_class(probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return proposal, class and score of each candidate, (B, R) each. probabilities (B, R, classes)."""
    scores, class_ids = ops.top_k(probabilities, 1)  # OpenVINO cannot convert argmax
    owner = ops.broadcast_to(ops.arange(probabilities.shape[1])[None], ops.shape(scores)[:2])
    return owner, class_ids[..., 0], scores[..., 0]


def _all_classes(probabilities: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best `most` pairs of proposal and class, background excluded: see above."""
    classes = probabilities.shape[2] - 1
    flat = ops.reshape(probabilities[..., 1:], (-1, probabilities.shape[1] * classes))
    scores, order = ops.top_k(flat, min(most, flat.shape[1]))
    return order // classes, ops.cast(order % classes, "int32") + 1, scores
