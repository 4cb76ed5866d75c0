"""The configuration of a network, as stored in model cards. Needs no Keras."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta
from numpy import float32
from numpy.typing import NDArray

from live_seg.errors import nearest
from live_seg.maskrcnn.anchors import pyramid_anchors
from live_seg.maskrcnn.rules import RULES, Origin, Rules

USUAL_THRESHOLD = 0.7
"""Score threshold where a model card gives none (Matterport `DETECTION_MIN_CONFIDENCE`)."""

SMALLEST_SCORE = 0.05
"""Lower score thresholds do not let more pairs of proposal and class into the last NMS."""

USUAL_PROPOSALS = 300
"""Proposals of torchvision's network; 1,000 in the exact layout, whose box head takes half of the time."""

BackboneName = Literal["resnet50", "resnet101", "mobilenetv2", "csp-darknet-nano"]
FirstStage = Literal["rpn", "yolox"]
BACKBONES: tuple[str, ...] = get_args(BackboneName)

Side = Annotated[int, Meta(ge=1, le=16384)]
Channels = Annotated[int, Meta(ge=1, le=1024)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Layers = Annotated[int, Meta(ge=1, le=16)]
Deviation = Annotated[float, Meta(gt=0, le=255)]
Intensity = Annotated[float, Meta(ge=0, le=255)]
Factors = Annotated[tuple[Annotated[float, Meta(gt=0, le=16384)], ...], Meta(min_length=1, max_length=8)]

RESNET_BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
"""Bottleneck blocks in stages 2 to 5 (He et al., arXiv 1512.03385, table 1)."""


@dataclass(frozen=True)
class MaskRCNNConfig:
    """Configuration of a network. The defaults are Matterport's for COCO (`Config`, `InferenceConfig`).

    `from_json` enforces the ranges of the types.
    """

    num_classes: Annotated[int, Meta(ge=2, le=10_000)] = 81  # background included
    backbone: BackboneName = "resnet101"
    first_stage: FirstStage = "rpn"  # the detector that proposes boxes; "yolox" also classifies them
    origin: Origin = "matterport"  # the implementation whose rules a two-stage network follows
    size: Annotated[int, Meta(ge=64, le=16384)] = 1024  # longest side of the input, pixels
    min_side: Side = 800  # the exact layout enlarges the shorter side to this
    mean_pixel: tuple[Intensity, Intensity, Intensity] = (123.7, 116.8, 103.9)  # RGB
    pixel_deviation: tuple[Deviation, Deviation, Deviation] = (1, 1, 1)  # RGB; images are divided by it
    # The finest pyramid level with anchors: P2 has stride 4, P3 stride 8.
    first_level: Annotated[int, Meta(ge=2, le=5)] = 2
    finer_levels: Annotated[int, Meta(ge=0, le=3)] = 0  # levels below it, used by RoIAlign alone
    anchor_scales: Factors = (32, 64, 128, 256, 512)  # one per level, the half-sized last included
    anchor_octaves: Factors = (1,)  # factors of each scale (RetinaNet, section 4)
    anchor_ratios: Factors = (0.5, 1, 2)  # width / height
    pyramid_channels: Channels = 256
    pyramid_norm: bool = False  # batch norms after the convolutions of the pyramid
    rpn_channels: Channels = 512
    rpn_layers: Layers = 1  # 3x3 convolutions of the RPN head
    objectness_logits: Literal[1, 2] = 2  # of an anchor: object alone, or background and object
    box_convs: Annotated[int, Meta(ge=0, le=16)] = 0  # of the box head, before its fully connected layers
    box_layers: Layers = 2  # fully connected layers of the box head
    box_units: Annotated[int, Meta(ge=1, le=4096)] = 1024
    mask_channels: Channels = 256
    candidates: Count = 6000  # anchors that enter the first NMS; of each level where `rules` say so
    proposals: Count = 1000  # boxes passed from the first stage to the second
    proposal_iou: Share = 0.7
    detections: Count = 100  # at most this many instances per image
    detection_iou: Share = 0.3
    min_score: Share = USUAL_THRESHOLD
    mask_scoring: bool = False  # scores are multiplied by the confidence of the masks
    every_class: bool = False  # a region may give several classes, not only its most probable

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "MaskRCNNConfig":
        """Read the JSON form of `dataclasses.asdict`.

        Raises ValueError for an unknown field, a wrong type or a value out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in fields.keys() - set(known):
            raise ValueError(f"Unknown field {name!r}. {nearest(name, known)}")
        config = msgspec.convert(fields, cls)
        if (config.first_stage == "yolox") != (config.backbone == "csp-darknet-nano"):
            raise ValueError(f"The first stage {config.first_stage} does not fit a {config.backbone}.")
        return config

    @property
    def strides(self) -> tuple[int, ...]:
        """Return the stride of each pyramid level in pixels, the half-sized last included."""
        return tuple(2 ** (self.first_level + i) for i in range(len(self.anchor_scales)))

    @property
    def rules(self) -> Rules:
        """Return the details in which the network follows its origin."""
        return RULES[self.origin]

    @property
    def most_pairs(self) -> int | None:
        """Return how many pairs of proposal and class enter the last NMS; None: one of each proposal.

        The probabilities of a proposal sum to 1, so at most 1 / `min_score` of its classes reach the
        threshold: no pair that does is left out.
        """
        if not self.every_class:
            return None
        return self.proposals * min(self.num_classes - 1, int(1 / max(self.min_score, SMALLEST_SCORE)))

    def anchors(self, size: tuple[int, int]) -> tuple[NDArray[float32], ...]:
        """Return the anchors of each group (A, 4), normalized, for an input of `size` (height, width).

        The anchors of a group compete with each other: those of one level, or all of them. Groups are in the
        order of the RPN's outputs.
        """
        scales = tuple(tuple(s * octave for octave in self.anchor_octaves) for s in self.anchor_scales)
        rules = self.rules
        return pyramid_anchors(
            size,
            self.strides,
            scales,
            self.anchor_ratios,
            from_cells=rules.anchors_from_cells,
            last_pixel=rules.last_pixel,
            by_level=rules.by_level,
        )


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
"""A small, fast two-stage network: anchors from P3 on, narrow heads, few proposals."""

SMALL = MaskRCNNConfig(
    num_classes=81,
    backbone="csp-darknet-nano",
    first_stage="yolox",
    size=512,
    min_side=512,
    mean_pixel=(0.0, 0.0, 0.0),
    mask_channels=64,
    candidates=1000,
    detections=100,
    detection_iou=0.6,
    mask_scoring=True,
)
"""The bundled model: a one-stage detector and a mask head."""

TORCHVISION = MaskRCNNConfig(
    num_classes=91,
    backbone="resnet50",
    origin="torchvision",
    mean_pixel=(0.485 * 255, 0.456 * 255, 0.406 * 255),
    pixel_deviation=(0.229 * 255, 0.224 * 255, 0.225 * 255),
    anchor_ratios=(2, 1, 0.5),
    pyramid_norm=True,
    rpn_channels=256,
    rpn_layers=2,
    objectness_logits=1,
    box_convs=4,
    box_layers=1,
    candidates=1000,
    proposals=USUAL_PROPOSALS,
    detection_iou=0.5,
    every_class=True,
)
"""torchvision's `maskrcnn_resnet50_fpn_v2`: Li et al., arXiv 2111.11429, without their longer training."""
