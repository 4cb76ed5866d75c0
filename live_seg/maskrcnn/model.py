"""The spine: from pictures to instances, in the order of the paper."""

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
    BOX_POOL,
    MASK_POOL,
    BoxHead,
    Detections,
    MaskHead,
    refine,
    roi_align,
    select,
)
from live_seg.maskrcnn.rpn import RegionProposals, best_anchors, propose


class MaskRCNN(keras.Model):
    """Mask R-CNN with a feature pyramid. Pictures are (B, H, W, 3) RGB, normalized or 0..255."""

    def __init__(self, config: MaskRCNNConfig) -> None:
        super().__init__(name="mask_rcnn")
        self.config = config
        maps = config.finer_levels + len(config.anchor_scales) - 1
        self.backbone = build_backbone(config.backbone)
        self.pyramid = FeaturePyramid(maps, config.pyramid_channels, plain=config.finer_levels)
        per_cell = len(config.anchor_ratios) * len(config.anchor_octaves)
        self.rpn = RegionProposals(config.rpn_channels, per_cell)
        self.box_head = BoxHead(config.box_units, config.num_classes)
        self.mask_head = MaskHead(config.mask_channels, config.num_classes)
        self._make_variables()
        self.built = True

    @property
    def _finest_level(self) -> int:
        """Of the finest map that regions are read from: its cells are 2 ** level pixels wide."""
        return self.config.first_level - self.config.finer_levels

    def _make_variables(self) -> None:
        """Send symbols through every layer once, so that all variables exist before weights are loaded."""
        pyramid = self.features(keras.Input((64, 64, 3), batch_size=1))
        self.rpn_outputs(pyramid)
        channels = self.config.pyramid_channels
        self.box_head(keras.Input((BOX_POOL, BOX_POOL, channels), batch_size=1))
        region = keras.Input((MASK_POOL, MASK_POOL, channels), batch_size=1)
        self.mask_head(region, keras.Input((), batch_size=1, dtype="int32"))

    def normalized(self, pictures: Tensor) -> Tensor:
        """Pictures 0..255 -> float32 less the mean pixel (Matterport `mold_image`)."""
        return ops.cast(pictures, "float32") - np.asarray(self.config.mean_pixel, np.float32)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Normalized pictures -> pyramid maps (B, h, w, C), finest first, the half-sized last included."""
        first = self._finest_level - 2
        pyramid: list[Tensor] = self.pyramid(self.backbone(pictures)[first:])
        return pyramid

    def trunk(self, pictures: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """First stage, for pictures 0..255: what the second needs of it, and what was thought of each anchor.

        Returns the maps that regions are read from, finest first; probabilities of an object (B, A) and
        deltas (B, A, 4) of all anchors.
        """
        pyramid = self.features(self.normalized(pictures))
        logits, deltas = self.rpn_outputs(pyramid)
        # The half-sized last level serves anchors alone.
        return pyramid[:-1], ops.softmax(logits)[..., 1], deltas

    def detect(self, maps: list[Tensor], scores: Tensor, deltas: Tensor, window: Tensor) -> Detections:
        """Find instances with what `trunk` returned. window (B, 4): where on its canvas each picture lies."""
        config = self.config
        height, width = (side * 2**self._finest_level for side in maps[0].shape[1:3])
        chosen = best_anchors(scores, deltas, config.anchors((height, width)), config.candidates)
        refined = self.heads(maps, *chosen, window)
        return select(
            refined, keep=config.detections, min_score=config.min_score, max_iou=config.detection_iou
        )

    def heads(
        self, maps: list[Tensor], scores: Tensor, deltas: Tensor, anchors: Tensor, window: Tensor
    ) -> Detections:
        """Second stage, for the best anchors: (B, N), (B, N, 4), (B, N, 4) -> what may be a detection."""
        config = self.config
        proposals = propose(scores, deltas, anchors, keep=config.proposals, max_iou=config.proposal_iou)
        class_logits, class_deltas = self.box_outputs(maps, proposals)
        probabilities = ops.softmax(class_logits)
        return refine(proposals, probabilities, class_deltas, window, every_class=config.every_class)

    def rpn_outputs(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor]:
        """All anchors -> logits (B, A, 2) and deltas (B, A, 4)."""
        outputs: tuple[Tensor, Tensor] = self.rpn(pyramid[self.config.finer_levels :])
        return outputs

    def propose(self, logits: Tensor, deltas: Tensor, size: tuple[int, int]) -> Tensor:
        """What the RPN said of pictures of `size` (height, width) -> proposals (B, R, 4)."""
        config = self.config
        probabilities = ops.softmax(logits)[..., 1]
        chosen = best_anchors(probabilities, deltas, config.anchors(size), config.candidates)
        return propose(*chosen, keep=config.proposals, max_iou=config.proposal_iou)

    def box_outputs(self, maps: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, R, 4) -> class logits (B, R, classes), deltas (B, R, classes, 4)."""
        count = boxes.shape[1]
        rows = ops.repeat(ops.arange(ops.shape(boxes)[0]), count)
        regions, order = self._pool(maps, ops.reshape(boxes, (-1, 4)), rows, BOX_POOL)
        logits, deltas = (_put_back(outputs, order) for outputs in self.box_head(regions))
        classes = self.config.num_classes
        return ops.reshape(logits, (-1, count, classes)), ops.reshape(deltas, (-1, count, classes, 4))

    def mask_logits(self, maps: list[Tensor], boxes: Tensor, rows: Tensor, class_ids: Tensor) -> Tensor:
        """Masks of boxes (K, 4) in pictures `rows` (K,), of classes `class_ids` (K,) -> (K, 28, 28)."""
        regions, order = self._pool(maps, boxes, rows, MASK_POOL)
        return _put_back(self.mask_head(regions, ops.take(class_ids, order)), order)

    def masks(self, maps: list[Tensor], boxes: Tensor, rows: Tensor, class_ids: Tensor) -> Tensor:
        """The same as probabilities, 0..1."""
        return ops.sigmoid(self.mask_logits(maps, boxes, rows, class_ids))

    def _pool(self, maps: list[Tensor], boxes: Tensor, rows: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """RoIAlign on all levels that regions are read from: see `roi_align`."""
        _, height, width, _ = ops.shape(maps[0])
        area = ops.cast(height * width * 4**self._finest_level, "float32")
        return roi_align(maps, boxes, rows, side, self._finest_level, area)


@contextlib.contextmanager
def computing_in(policy: str) -> Iterator[None]:
    """Have networks made meanwhile compute by Keras' `policy`.

    With "mixed_float16" and "mixed_bfloat16" weights and results stay float32.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)  # layers ask for it when they are made
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _put_back(values: Tensor, order: Tensor) -> Tensor:
    """Row i of `values` (K, ...) to place `order[i]` (K,)."""
    return ops.scatter(order[:, None], values, ops.shape(values))
