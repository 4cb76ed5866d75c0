"""Targets of both stages and the five losses."""

from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from live_seg.maskrcnn.boxes import Tensor, deltas_between, iou
from live_seg.maskrcnn.model import MaskRCNN
from live_seg.maskrcnn.ops import crop
from live_seg.maskrcnn.rpn import WHOLE, objectness
from live_seg.maskrcnn.rules import MASK_POOL

POSITIVE_ANCHOR_IOU, NEGATIVE_ANCHOR_IOU = 0.7, 0.3
"""Faster R-CNN, section 3.1.2."""

POSITIVE_PROPOSAL_IOU = 0.5
"""Mask R-CNN, section 3.1."""

CROWD_IOU = 0.001
"""Boxes that overlap a crowd more than this are not used as background (Matterport `build_rpn_targets`)."""


LOSSES = ("anchor_class", "anchor_box", "class", "box", "mask")
"""Names of what `losses` returns."""


class Truth(NamedTuple):
    """The ground truth objects of B images, at most G each, padded with zeros."""

    class_ids: Tensor  # (B, G) int32; 0: empty row; negative: a crowd
    boxes: Tensor  # (B, G, 4) normalized y1 x1 y2 x2
    masks: Tensor  # (B, G, m, m) 0..1, each within its box
    masked: Tensor  # (B, G) bool; False: only the box is known, the mask loss skips it


@dataclass(frozen=True)
class Sampling:
    """Number of examples per image for each loss. The defaults are Matterport's `Config` for COCO."""

    anchors: int = 256
    positive_anchors: int = 128
    proposals: int = 200
    positive_proposals: int = 66
    masks: int = 66
    """At most this many of the positive proposals; those with a known mask come first."""


def sample(members: Tensor, noise: Tensor, limit: Tensor, most: int) -> Tensor:
    """Sample at most `limit` (B, 1) members, `limit` <= `most`, by `noise`.

    members (B, N) bool, noise (B, N) 0..1 -> (B, N) bool.
    """
    ranked = ops.where(members, noise, -1.0)
    best = ops.top_k(ranked, min(most, members.shape[1]))[0]
    last = ops.clip(limit - 1, 0, best.shape[1] - 1)
    return members & (ranked >= ops.take_along_axis(best, last, axis=1)) & (limit > 0)


def _overlaps(boxes: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
    """Return the IoU of boxes (A, 4) or (B, A, 4) with each object, and which boxes avoid crowds.

    (B, A, G), -1 for empty rows and crowds; (B, A) bool.
    """
    overlaps = iou(boxes, truth.boxes)
    away = ops.max(ops.where(truth.class_ids[:, None] < 0, overlaps, 0.0), axis=2) < CROWD_IOU
    return ops.where(truth.class_ids[:, None] > 0, overlaps, -1.0), away


def anchor_targets(anchors: Tensor, truth: Truth, noise: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Match anchors (A, 4) with objects -> match (B, A) int32, deltas (B, A, 4).

    A match is 1 for object, -1 for background, 0 for neither. An anchor is positive with
    IoU >= 0.7 to an object or the best IoU of all anchors with it, negative with IoU < 0.3 to all objects and
    away from crowds. Both are subsampled by `noise` (B, A), 0..1.
    """
    with_objects, away = _overlaps(ops.convert_to_tensor(anchors), truth)
    best = ops.max(with_objects, axis=2)
    best_of_object = ops.max(with_objects, axis=1, keepdims=True)
    is_best = ops.any((with_objects == best_of_object) & (with_objects > 0), axis=2)
    positive = (best >= POSITIVE_ANCHOR_IOU) | is_best
    negative = (best < NEGATIVE_ANCHOR_IOU) & away & ~positive
    most = ops.full_like(truth.class_ids[:, :1], sampling.positive_anchors)
    positive = sample(positive, noise, most, sampling.positive_anchors)
    left = sampling.anchors - ops.sum(ops.cast(positive, "int32"), axis=1, keepdims=True)
    negative = sample(negative, noise, left, sampling.anchors)
    nearest = ops.take_along_axis(truth.boxes, ops.argmax(with_objects, axis=2)[..., None], axis=1)
    deltas = _safe_deltas(ops.broadcast_to(anchors, ops.shape(nearest)), nearest, positive)
    return ops.cast(positive, "int32") - ops.cast(negative, "int32"), deltas


def _safe_deltas(boxes: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Return the deltas where `valid`, else zero: boxes without area would give infinite logarithms."""
    return deltas_between(_whole_unless(valid, boxes), _whole_unless(valid, targets))


def _whole_unless(valid: Tensor, boxes: Tensor) -> Tensor:
    """Replace boxes (..., 4) that are not `valid` (...) by the box of the whole image."""
    return ops.where(valid[..., None], boxes, WHOLE)


class ProposalTargets(NamedTuple):
    """T sampled proposals per image; the first P rows are for positives."""

    boxes: Tensor  # (B, T, 4)
    class_ids: Tensor  # (B, T) int32: 0 background, -1 an empty row
    deltas: Tensor  # (B, T, 4), zero except for positives
    mask_places: Tensor  # (B, M) int32: the proposals that have a mask loss
    masks: Tensor  # (B, M, 28, 28) 0 or 1
    masked: Tensor  # (B, M) bool: a positive with a known mask


def proposal_targets(proposals: Tensor, truth: Truth, noise: Tensor, sampling: Sampling) -> ProposalTargets:
    """Sample proposals (B, R, 4) by `noise` (B, R), 0..1, and compute their targets.

    A proposal is positive with IoU >= 0.5 to an object; the other rows are filled with background away from
    crowds (Fast R-CNN, arXiv 1504.08083, section 2.3). Unlike Matterport's `DetectionTargetLayer`, images
    without objects give background examples, and empty rows are marked instead of counted as background.
    """
    real = ops.any(proposals != 0, axis=2)
    with_objects, away = _overlaps(proposals, truth)
    best, owner = ops.max(with_objects, axis=2), ops.argmax(with_objects, axis=2)
    positive = best >= POSITIVE_PROPOSAL_IOU
    negative = real & (best < POSITIVE_PROPOSAL_IOU) & away
    places, valid = _places(positive, negative, noise, sampling)
    boxes = ops.take_along_axis(proposals, places[..., None], axis=1)
    owner = ops.take_along_axis(owner, places, axis=1)
    is_positive = valid & (ops.arange(places.shape[1]) < sampling.positive_proposals)[None]
    class_ids = ops.where(is_positive, ops.take_along_axis(truth.class_ids, owner, axis=1), 0)
    targets = ops.take_along_axis(truth.boxes, owner[..., None], axis=1)
    known = is_positive & ops.take_along_axis(truth.masked, owner, axis=1)
    masked, mask_places = ops.top_k(
        ops.cast(known, "float32"), min(sampling.masks, sampling.positive_proposals)
    )
    masked = masked > 0
    mask_boxes, mask_owners = (
        ops.take_along_axis(values, mask_places[..., None], axis=1) for values in (boxes, targets)
    )
    owner = ops.take_along_axis(owner, mask_places, axis=1)
    return ProposalTargets(
        boxes,
        ops.where(valid, class_ids, -1),
        _safe_deltas(boxes, targets, is_positive),
        mask_places,
        mask_targets(mask_boxes, mask_owners, truth.masks, owner, masked),
        masked,
    )


def _places(positive: Tensor, negative: Tensor, noise: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Return the proposal of each row (B, T), and which rows are filled (B, T) bool."""
    picked, filled = [], []
    counts = (sampling.positive_proposals, sampling.proposals - sampling.positive_proposals)
    for members, count in zip((positive, negative), counts, strict=True):
        available = members.shape[1]
        ranked = ops.where(members, noise, -1.0)
        ranked = ops.pad(ranked, [(0, 0), (0, max(0, count - available))], constant_values=-1.0)
        ranks, indices = ops.top_k(ranked, count)
        indices = ops.minimum(indices, available - 1)
        picked.append(indices)
        filled.append(ranks >= 0)
    return ops.concatenate(picked, axis=1), ops.concatenate(filled, axis=1)


def mask_targets(boxes: Tensor, owners: Tensor, masks: Tensor, owner: Tensor, valid: Tensor) -> Tensor:
    """Crop the masks (B, G, m, m) of the owners to boxes (B, P, 4) -> (B, P, 28, 28), 0 or 1.

    Cell centers are sampled, as in pasting. Matterport's `DetectionTargetLayer` samples from edge to edge,
    which shrinks each mask by 2 %.
    """
    boxes, owners = _whole_unless(valid, boxes), _whole_unless(valid, owners)
    corner = ops.concatenate([owners[..., :2], owners[..., :2]], axis=-1)
    sides = owners[..., 2:] - owners[..., :2]
    within = (boxes - corner) / ops.concatenate([sides, sides], axis=-1)
    images, objects = ops.shape(masks)[0], masks.shape[1]
    flat = ops.reshape(masks, (-1, *masks.shape[2:], 1))
    rows = ops.reshape(ops.arange(images)[:, None] * objects + ops.cast(owner, "int32"), (-1,))
    side, cells = 2 * MASK_POOL, masks.shape[2]
    # `crop` samples a box from edge to edge; for it 0 and 1 are the centers of the outermost cells.
    inset = (within[..., 2:] - within[..., :2]) / (2 * side)
    middles = ops.concatenate([within[..., :2] + inset, within[..., 2:] - inset], axis=-1)
    middles = (middles * cells - 0.5) / (cells - 1)
    cut, _ = crop([flat], ops.zeros_like(rows), ops.reshape(middles, (-1, 4)), rows, side)
    return ops.round(ops.reshape(cut, (-1, owner.shape[1], side, side)))


def mean_where(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of `values` (...) where `valid` (...), 0 if nothing is."""
    weights = ops.cast(valid, "float32")
    return ops.sum(ops.where(valid, values, 0.0)) / ops.maximum(ops.sum(weights), 1.0)


def smooth_l1(difference: Tensor) -> Tensor:
    """Return d² / 2 where |d| < 1, else |d| - 1/2, element by element (Fast R-CNN, equation 3)."""
    size = ops.abs(difference)
    return ops.where(size < 1.0, 0.5 * size * size, size - 0.5)


def anchor_class_loss(match: Tensor, logits: Tensor) -> Tensor:
    """Return the cross-entropy over matched anchors. match (B, A), logits (B, A, 1 or 2) -> scalar."""
    if logits.shape[-1] == 1:  # that of the background is 0
        logits = ops.concatenate([ops.zeros_like(logits), logits], axis=-1)
    labels = ops.cast(match == 1, "int32")
    return mean_where(ops.sparse_categorical_crossentropy(labels, logits, from_logits=True), match != 0)


def anchor_box_loss(match: Tensor, targets: Tensor, deltas: Tensor) -> Tensor:
    """Return smooth L1 over positive anchors. match (B, A), targets and deltas (B, A, 4) -> scalar."""
    return mean_where(ops.mean(smooth_l1(targets - deltas), axis=-1), match == 1)


def class_loss(class_ids: Tensor, logits: Tensor) -> Tensor:
    """Return the cross-entropy over proposals. class_ids (B, T), logits (B, T, classes) -> scalar."""
    labels = ops.maximum(class_ids, 0)
    return mean_where(ops.sparse_categorical_crossentropy(labels, logits, from_logits=True), class_ids >= 0)


def box_loss(class_ids: Tensor, targets: Tensor, deltas: Tensor) -> Tensor:
    """Return smooth L1 over positives, for their class. (B, T), (B, T, 4), (B, T, classes, 4) -> scalar."""
    own = ops.take_along_axis(deltas, ops.maximum(class_ids, 0)[..., None, None], axis=2)[:, :, 0]
    return mean_where(ops.mean(smooth_l1(targets - own), axis=-1), class_ids > 0)


def mask_loss(targets: Tensor, masked: Tensor, logits: Tensor) -> Tensor:
    """Return the mean cross-entropy. targets and logits (B, P, 28, 28), masked (B, P) bool -> scalar."""
    cells = ops.binary_crossentropy(targets, logits, from_logits=True)
    return mean_where(ops.mean(cells, axis=(2, 3)), masked)


def losses(
    model: MaskRCNN, images: Tensor, truth: Truth, sampling: Sampling, seeds: keras.random.SeedGenerator
) -> dict[str, Tensor]:
    """Run both stages on images (B, H, W, 3), 0..255, and return the five losses, scalars.

    Ground truth boxes are added to the proposals, so that the second stage learns before the first proposes
    well (detectron2 `add_proposal_append_gt`).
    """
    size = images.shape[1:3]
    pyramid = model.features(model.normalized(images))
    logits, deltas = model.rpn_outputs(pyramid)
    anchors = np.concatenate(model.config.anchors(size))
    noise = keras.random.uniform(ops.shape(logits)[:2], seed=seeds)
    match, anchor_deltas = anchor_targets(anchors, truth, noise, sampling)
    # Crops of boxes with NaN would fail before the loss shows the divergence.
    proposals = ops.nan_to_num(
        ops.stop_gradient(model.propose(objectness(logits), deltas, size, WHOLE[None]))
    )
    own_boxes = ops.where(truth.class_ids[..., None] > 0, truth.boxes, 0.0)
    proposals = ops.concatenate([proposals, own_boxes], axis=1)
    noise = keras.random.uniform(ops.shape(proposals)[:2], seed=seeds)
    chosen = ProposalTargets(
        *(ops.stop_gradient(part) for part in proposal_targets(proposals, truth, noise, sampling))
    )
    class_logits, class_deltas = model.box_outputs(pyramid[:-1], chosen.boxes)
    masks = _masks_of(model, pyramid[:-1], chosen)
    return {
        "anchor_class": anchor_class_loss(match, logits),
        "anchor_box": anchor_box_loss(match, anchor_deltas, deltas),
        "class": class_loss(chosen.class_ids, class_logits),
        "box": box_loss(chosen.class_ids, chosen.deltas, class_deltas),
        "mask": mask_loss(chosen.masks, chosen.masked, masks),
    }


def _masks_of(model: MaskRCNN, maps: list[Tensor], chosen: ProposalTargets) -> Tensor:
    """Return mask logits (B, M, 28, 28) of the proposals that have a mask loss."""
    boxes = ops.take_along_axis(chosen.boxes, chosen.mask_places[..., None], axis=1)
    class_ids = ops.take_along_axis(ops.maximum(chosen.class_ids, 0), chosen.mask_places, axis=1)
    images, count = ops.shape(boxes)[0], boxes.shape[1]
    rows = ops.repeat(ops.arange(images), count)
    flat = model.mask_logits(maps, ops.reshape(boxes, (-1, 4)), rows, ops.reshape(class_ids, (-1,)))
    return ops.reshape(flat, ops.shape(chosen.masks))
