"""The spine: from pictures to instances, in the order of the paper."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from live_seg.maskrcnn.backbone import BackboneName, build_backbone
from live_seg.maskrcnn.boxes import Tensor, pyramid_anchors
from live_seg.maskrcnn.fpn import FeaturePyramid
from live_seg.maskrcnn.roi import BOX_POOL, MASK_POOL, BoxHead, Detections, MaskHead, roi_align, select
from live_seg.maskrcnn.rpn import RegionProposals, propose


@dataclass(frozen=True)
class MaskRCNNConfig:
    """What a Mask R-CNN is made of. The defaults are Matterport's for COCO (`Config`, `InferenceConfig`)."""

    num_classes: int = 81  # background included
    backbone: BackboneName = "resnet101"
    size: int = 1024  # longest side of the input, pixels
    min_side: int = 800  # the square layout enlarges the shorter side to this
    mean_pixel: tuple[float, float, float] = (123.7, 116.8, 103.9)  # RGB
    first_level: int = 2  # finest pyramid level with anchors: P2 has stride 4, P3 stride 8
    finer_levels: int = 0  # levels below it that only regions are read from
    anchor_scales: tuple[float, ...] = (32, 64, 128, 256, 512)  # one a level, the half-sized last included
    anchor_octaves: tuple[float, ...] = (1,)  # each scale also comes times these (RetinaNet, section 4)
    anchor_ratios: tuple[float, ...] = (0.5, 1, 2)  # width / height
    pyramid_channels: int = 256
    rpn_channels: int = 512
    box_units: int = 1024
    mask_channels: int = 256
    candidates: int = 6000  # anchors that enter the first NMS
    proposals: int = 1000  # boxes the first stage hands to the second
    proposal_iou: float = 0.7
    detections: int = 100  # most instances a picture
    detection_iou: float = 0.3
    min_score: float = 0.7
    every_class: bool = False  # a region may be found as several classes, not as its likeliest alone

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels from cell to cell on each pyramid level, the half-sized last included."""
        return tuple(2 ** (self.first_level + i) for i in range(len(self.anchor_scales)))

    def anchors(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """All anchors for an input of `size` (height, width), pixels -> (A, 4) normalised y1 x1 y2 x2."""
        scales = tuple(tuple(s * octave for octave in self.anchor_octaves) for s in self.anchor_scales)
        return pyramid_anchors(size, self.strides, scales, self.anchor_ratios)


MOBILE = MaskRCNNConfig(
    num_classes=2,
    backbone="mobilenetv2",
    size=448,
    min_side=448,
    mean_pixel=(127.5, 127.5, 127.5),
    first_level=3,
    finer_levels=1,
    anchor_scales=(14, 40, 104, 240),
    anchor_octaves=(1, 1.6),
    anchor_ratios=(0.35, 0.65, 1.2),
    pyramid_channels=96,
    rpn_channels=96,
    box_units=256,
    mask_channels=64,
    candidates=400,
    proposals=100,
    detections=50,
    detection_iou=0.5,
    every_class=True,
)
"""The small, fast member of the family: anchors from P3 on, slim heads, few proposals."""


class MaskRCNN(keras.Model):
    """Mask R-CNN with a feature pyramid. Pictures are (B, H, W, 3) float32, RGB less the mean pixel."""

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

    def _make_variables(self) -> None:
        """Send symbols through every layer once, so that all variables exist before weights are loaded."""
        pyramid = self.features(keras.Input((64, 64, 3), batch_size=1))
        self.judge_anchors(pyramid)
        channels = self.config.pyramid_channels
        self.box_head(keras.Input((BOX_POOL, BOX_POOL, channels), batch_size=1))
        region = keras.Input((MASK_POOL, MASK_POOL, channels), batch_size=1)
        self.mask_head(region, keras.Input((), batch_size=1, dtype="int32"))

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Pictures -> pyramid maps (B, h, w, C), finest first, the half-sized last included."""
        first = self.config.first_level - self.config.finer_levels - 2
        pyramid: list[Tensor] = self.pyramid(self.backbone(pictures)[first:])
        return pyramid

    def detect(self, pictures: Tensor, window: Tensor) -> tuple[list[Tensor], Detections]:
        """Find instances. window (B, 4): where on the canvas the picture lies -> (pyramid, Detections)."""
        size = pictures.shape[1:3]
        pyramid = self.features(pictures)
        logits, deltas = self.judge_anchors(pyramid)
        proposals = self.propose(logits, deltas, size)
        class_logits, class_deltas = self.judge(pyramid, proposals)
        detections = select(
            proposals,
            ops.softmax(class_logits),
            class_deltas,
            window,
            keep=self.config.detections,
            min_score=self.config.min_score,
            max_iou=self.config.detection_iou,
            every_class=self.config.every_class,
        )
        return pyramid, detections

    def judge_anchors(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor]:
        """First stage: logits (B, A, 2) and deltas (B, A, 4) of all anchors."""
        judged: tuple[Tensor, Tensor] = self.rpn(pyramid[self.config.finer_levels :])
        return judged

    def propose(self, logits: Tensor, deltas: Tensor, size: tuple[int, int]) -> Tensor:
        """What the RPN said of pictures of `size` (height, width) -> proposals (B, R, 4)."""
        config = self.config
        return propose(
            logits,
            deltas,
            config.anchors(size),
            candidates=config.candidates,
            keep=config.proposals,
            max_iou=config.proposal_iou,
        )

    def judge(self, pyramid: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Second stage. boxes (B, R, 4) -> class logits (B, R, classes), deltas (B, R, classes, 4)."""
        count = boxes.shape[1]
        rows = ops.repeat(ops.arange(ops.shape(boxes)[0]), count)
        logits, deltas = self.box_head(self._pool(pyramid, ops.reshape(boxes, (-1, 4)), rows, BOX_POOL))
        classes = self.config.num_classes
        return ops.reshape(logits, (-1, count, classes)), ops.reshape(deltas, (-1, count, classes, 4))

    def mask_logits(self, pyramid: list[Tensor], boxes: Tensor, rows: Tensor, class_ids: Tensor) -> Tensor:
        """Masks of boxes (K, 4) in pictures `rows` (K,), of classes `class_ids` (K,) -> (K, 28, 28)."""
        return self.mask_head(self._pool(pyramid, boxes, rows, MASK_POOL), class_ids)

    def masks(self, pyramid: list[Tensor], boxes: Tensor, rows: Tensor, class_ids: Tensor) -> Tensor:
        """The same as chances, 0..1."""
        return ops.sigmoid(self.mask_logits(pyramid, boxes, rows, class_ids))

    def _pool(self, pyramid: list[Tensor], boxes: Tensor, rows: Tensor, side: int) -> Tensor:
        """RoIAlign on all levels but the half-sized last, which serves anchors only."""
        _, height, width, _ = pyramid[0].shape
        finest = self.config.first_level - self.config.finer_levels
        return roi_align(pyramid[:-1], boxes, rows, side, finest, float(height * width * 4**finest))
