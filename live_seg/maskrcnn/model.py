"""The two-stage network, from images to instances, in the order of the paper."""

import contextlib
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from live_seg.maskrcnn.backbone import build_backbone
from live_seg.maskrcnn.boxes import Tensor
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.maskrcnn.fpn import FeaturePyramid
from live_seg.maskrcnn.roi import (
    BoxHead,
    Detections,
    MaskHead,
    averaged_roi_align,
    refine,
    roi_align,
    select,
)
from live_seg.maskrcnn.rpn import WHOLE, RegionProposals, best_anchors, objectness, propose
from live_seg.maskrcnn.rules import BOX_POOL, MASK_POOL


class MaskRCNN(keras.Model):
    """Mask R-CNN with a feature pyramid. Images are (B, H, W, 3) RGB, 0..255."""

    def __init__(self, config: MaskRCNNConfig) -> None:
        super().__init__(name="mask_rcnn")
        self.config, rules = config, config.rules
        maps = config.finer_levels + len(config.anchor_scales) - 1
        self.backbone = build_backbone(config.backbone, rules)
        self.pyramid = FeaturePyramid(
            maps,
            config.pyramid_channels,
            plain=config.finer_levels,
            norm_epsilon=rules.norm_epsilon if config.pyramid_norm else None,
        )
        per_cell = len(config.anchor_ratios) * len(config.anchor_octaves)
        self.rpn = RegionProposals(
            config.rpn_channels, per_cell, convs=config.rpn_layers, logits=config.objectness_logits
        )
        self.box_head = BoxHead(
            config.box_units,
            config.num_classes,
            rules,
            convs=config.box_convs,
            channels=config.pyramid_channels,
            dense=config.box_layers,
        )
        self.mask_head = MaskHead(config.mask_channels, config.num_classes, rules)
        self._make_variables()
        self.built = True

    @property
    def _finest_level(self) -> int:
        """Return the level of the finest map that RoIAlign reads; its stride is 2 ** level pixels."""
        return self.config.first_level - self.config.finer_levels

    def _make_variables(self) -> None:
        """Call every layer on symbolic tensors, so that all variables exist before weights are loaded."""
        pyramid = self.features(keras.Input((64, 64, 3), batch_size=1))
        self.rpn_outputs(pyramid)
        channels = self.config.pyramid_channels
        self.box_head(keras.Input((BOX_POOL, BOX_POOL, channels), batch_size=1))
        region = keras.Input((MASK_POOL, MASK_POOL, channels), batch_size=1)
        self.mask_head(region, keras.Input((), batch_size=1, dtype="int32"))

    def normalized(self, images: Tensor) -> Tensor:
        """Normalize images 0..255 by the mean pixel and its deviation -> float32."""
        centered = ops.cast(images, "float32") - np.asarray(self.config.mean_pixel, np.float32)
        return centered / np.asarray(self.config.pixel_deviation, np.float32)

    def features(self, images: Tensor) -> list[Tensor]:
        """Compute pyramid maps (B, h, w, C), finest first, half-sized last included, of normalized images."""
        first = self._finest_level - 2
        pyramid: list[Tensor] = self.pyramid(self.backbone(images)[first:])
        return pyramid

    def trunk(self, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Run backbone, pyramid and RPN head on images (B, H, W, 3), 0..255.

        Returns the maps that RoIAlign reads, finest first; scores (B, A), see `objectness`, and deltas
        (B, A, 4) of all anchors.
        """
        pyramid = self.features(self.normalized(images))
        logits, deltas = self.rpn_outputs(pyramid)
        # The half-sized last level is for anchors alone.
        return pyramid[:-1], objectness(logits), deltas

    def detect(self, maps: list[Tensor], scores: Tensor, deltas: Tensor, window: Tensor) -> Detections:
        """Find instances from the outputs of `trunk`. window (B, 4): the image on its canvas, normalized."""
        config = self.config
        height, width = (side * 2**self._finest_level for side in maps[0].shape[1:3])
        proposals = self.propose(scores, deltas, (height, width), window)
        refined = refine(proposals, *self.heads(maps, proposals), window, most=config.most_pairs)
        return select(
            refined,
            keep=config.detections,
            min_score=config.min_score,
            max_iou=config.detection_iou,
            drop_empty=config.rules.drop_empty,
        )

    def propose(self, scores: Tensor, deltas: Tensor, size: tuple[int, int], window: Tensor) -> Tensor:
        """Choose proposals (B, R, 4) by the scores and deltas of all anchors for canvases of `size`."""
        config = self.config
        candidates = best_anchors(scores, deltas, config.anchors(size), config.candidates)
        return propose(
            candidates,
            window if config.rules.clip_to_window else WHOLE[None],
            keep=config.proposals,
            max_iou=config.proposal_iou,
            drop_empty=config.rules.drop_empty,
        )

    def heads(self, maps: list[Tensor], proposals: Tensor) -> tuple[Tensor, Tensor]:
        """Return class probabilities (B, R, classes) and deltas (B, R, classes, 4) of proposals (B, R, 4)."""
        logits, deltas = self.box_outputs(maps, proposals)
        return ops.softmax(logits), deltas

    def rpn_outputs(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits (B, A, 1 or 2), see `RegionProposals`, and deltas (B, A, 4) of all anchors."""
        outputs: tuple[Tensor, Tensor] = self.rpn(pyramid[self.config.finer_levels :])
        return outputs

    def box_outputs(self, maps: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Run the box head on boxes (B, R, 4) -> class logits (B, R, classes), deltas (B, R, classes, 4)."""
        count = boxes.shape[1]
        rows = ops.repeat(ops.arange(ops.shape(boxes)[0]), count)
        regions, order = self._pool(maps, ops.reshape(boxes, (-1, 4)), rows, BOX_POOL)
        logits, deltas = (_put_back(outputs, order) for outputs in self.box_head(regions))
        classes = self.config.num_classes
        return ops.reshape(logits, (-1, count, classes)), ops.reshape(deltas, (-1, count, classes, 4))

    def mask_logits(self, maps: list[Tensor], boxes: Tensor, rows: Tensor, class_ids: Tensor) -> Tensor:
        """Return mask logits (K, 28, 28) of boxes (K, 4) in images `rows` (K,) for `class_ids` (K,)."""
        regions, order = self._pool(maps, boxes, rows, MASK_POOL)
        return _put_back(self.mask_head(regions, ops.take(class_ids, order)), order)

    def masks(self, maps: list[Tensor], boxes: Tensor, rows: Tensor, class_ids: Tensor) -> Tensor:
        """Return masks (K, 28, 28) as probabilities, 0..1: see `mask_logits`."""
        return ops.sigmoid(self.mask_logits(maps, boxes, rows, class_ids))

    def _pool(self, maps: list[Tensor], boxes: Tensor, rows: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Apply `roi_align` to the maps."""
        _, height, width, _ = ops.shape(maps[0])
        area = ops.cast(height * width * 4**self._finest_level, "float32")
        align = roi_align if self.config.rules.samples == 1 else averaged_roi_align
        return align(maps, boxes, rows, side, self._finest_level, area)


@contextlib.contextmanager
def computing_in(policy: str) -> Iterator[None]:
    """Build the networks of the `with` block with the Keras dtype policy `policy`.

    With "mixed_float16" and "mixed_bfloat16", weights and outputs stay float32.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)  # layers read it when they are constructed
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _put_back(values: Tensor, order: Tensor) -> Tensor:
    """Move row i of `values` (K, ...) to position `order[i]` (K,)."""
    return ops.scatter(order[:, None], values, ops.shape(values))
