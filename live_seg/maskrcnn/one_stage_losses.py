"""Targets and losses of a one-stage Mask R-CNN.

The dense head learns from cells assigned by SimOTA, the mask head from jittered ground truth boxes.
"""

import keras
import numpy as np
from keras import ops

from live_seg.maskrcnn.boxes import Tensor, area, iou
from live_seg.maskrcnn.darknet import STRIDES
from live_seg.maskrcnn.one_stage import DenseOutputs, OneStageMaskRCNN
from live_seg.maskrcnn.training import Sampling, Truth, mask_loss, mask_targets, mean_where

LOSSES = ("class", "objectness", "box", "mask")
"""Names of what `losses` returns."""

CENTER_CELLS = 2.5
"""An object's cells are within this many cells of its center along each axis (YOLOX `get_in_boxes_info`)."""

MOST_CELLS = 10
"""Maximum number of cells assigned to one object (YOLOX `dynamic_k_matching`)."""

IOU_COST, OUTSIDE_COST = 3.0, 1e5
"""Weights in the cost of an assignment (YOLOX `get_assignments`)."""

BOX_WEIGHT = 5.0
"""Weight of the box loss (YOLOX `get_losses`)."""

JITTER = 0.1
"""Largest move of a ground truth box's edges for the mask head, as a fraction of its sides."""

LEAST = 1e-7
"""Smallest argument of a logarithm."""


def cell_centers(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return centers (A, 2) y x of all cells, and their strides (A,), in pixels, for a canvas of `size`."""
    centers, strides = [], []
    for stride in STRIDES:
        rows, columns = (side // stride for side in size)
        grid = (np.mgrid[0:rows, 0:columns] + 0.5) * stride
        centers.append(np.moveaxis(grid, 0, -1).reshape(-1, 2))
        strides.append(np.full(rows * columns, stride))
    return np.concatenate(centers).astype(np.float32), np.concatenate(strides).astype(np.float32)


def assign(
    outputs: DenseOutputs, truth: Truth, boxes: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Assign cells to objects by SimOTA (YOLOX, section 2.1).

    `boxes` (B, G, 4) are those of `truth` in pixels. Returns the object of each cell (B, A) int32, whether a
    cell is assigned (B, A) bool, and the IoU of its box with its object's (B, A).
    """
    centers, strides = cell_centers(size)
    valid = truth.class_ids[:, None] > 0  # (B, 1, G)
    y, x = centers[:, 0][None, :, None], centers[:, 1][None, :, None]
    top, left, bottom, right = (boxes[:, None, :, i] for i in range(4))
    inside = (y > top) & (y < bottom) & (x > left) & (x < right)
    radius = (CENTER_CELLS * strides)[None, :, None]
    central = (ops.abs(y - (top + bottom) / 2) < radius) & (ops.abs(x - (left + right) / 2) < radius)
    overlaps = ops.where(valid, iou(outputs.boxes, boxes), 0.0)  # (B, A, G)
    cost = _class_cost(outputs, truth) - IOU_COST * ops.log(overlaps + 1e-8)
    cost = cost + OUTSIDE_COST * ops.cast(~(inside & central), "float32")
    cost = ops.where(valid & (inside | central), cost, 1e9)
    best = ops.top_k(ops.transpose(ops.where(inside | central, overlaps, 0.0), (0, 2, 1)), MOST_CELLS)[0]
    wanted = ops.clip(ops.cast(ops.sum(best, axis=-1), "int32"), 1, MOST_CELLS)  # (B, G)
    cheapest = -ops.top_k(ops.transpose(-cost, (0, 2, 1)), MOST_CELLS)[0]
    limit = ops.take_along_axis(cheapest, wanted[..., None] - 1, axis=-1)[..., 0]
    matched = (cost <= limit[:, None]) & (cost < 1e8)
    cost = ops.where(matched, cost, 2e9)
    owner = ops.cast(ops.argmin(cost, axis=-1), "int32")
    own = ops.take_along_axis(overlaps, owner[..., None], axis=-1)[..., 0]
    return owner, ops.any(matched, axis=-1), own


def _class_cost(outputs: DenseOutputs, truth: Truth) -> Tensor:
    """Return the cross-entropy of the cells' class probabilities with the objects' classes (B, A, G)."""
    joint = ops.sqrt(ops.sigmoid(outputs.classes) * ops.sigmoid(outputs.objectness)[..., None])
    joint = ops.clip(joint, LEAST, 1 - 1e-6)
    absent = -ops.sum(ops.log(1 - joint), axis=-1, keepdims=True)
    columns = ops.maximum(truth.class_ids - 1, 0)
    known = ops.one_hot(columns, outputs.classes.shape[-1])  # (B, G, C)
    own = ops.matmul(joint, ops.transpose(known, (0, 2, 1)))
    return absent + ops.log(1 - own) - ops.log(own)


def detection_losses(outputs: DenseOutputs, truth: Truth, size: tuple[int, int]) -> dict[str, Tensor]:
    """Return the losses of the dense head, scalars, each divided by the number of assigned cells."""
    lengths = np.array([*size, *size], np.float32) - 1
    boxes = truth.boxes * lengths + np.array([0, 0, 1, 1], np.float32)
    fixed = DenseOutputs(*(ops.stop_gradient(part) for part in outputs))
    owner, chosen, overlap = (ops.stop_gradient(part) for part in assign(fixed, truth, boxes, size))
    count = ops.maximum(ops.sum(ops.cast(chosen, "float32")), 1.0)
    own_boxes = ops.take_along_axis(boxes, owner[..., None], axis=1)
    labels = ops.take_along_axis(ops.maximum(truth.class_ids - 1, 0), owner, axis=1)
    targets = ops.one_hot(labels, outputs.classes.shape[-1]) * overlap[..., None]
    of_classes = ops.sum(ops.binary_crossentropy(targets, outputs.classes, from_logits=True), axis=-1)
    counted = chosen | ~in_crowds(truth, boxes, size)
    of_objects = ops.binary_crossentropy(ops.cast(chosen, "float32"), outputs.objectness, from_logits=True)
    of_boxes = 1 - paired_iou(outputs.boxes, own_boxes) ** 2
    return {
        "class": ops.sum(ops.where(chosen, of_classes, 0.0)) / count,
        "objectness": ops.sum(ops.where(counted, of_objects, 0.0)) / count,
        "box": BOX_WEIGHT * ops.sum(ops.where(chosen, of_boxes, 0.0)) / count,
    }


def in_crowds(truth: Truth, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which cells have their centers in the box of a crowd (B, A) bool."""
    centers = cell_centers(size)[0]
    low, high = boxes[:, None, :, :2], boxes[:, None, :, 2:]
    inside = ops.all((centers[None, :, None] > low) & (centers[None, :, None] < high), axis=-1)
    return ops.any(inside & (truth.class_ids[:, None] < 0), axis=-1)


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the IoU of boxes (..., 4) and others (..., 4), element by element -> (...)."""
    low = ops.maximum(boxes[..., :2], others[..., :2])
    sides = ops.maximum(ops.minimum(boxes[..., 2:], others[..., 2:]) - low, 0.0)
    shared = sides[..., 0] * sides[..., 1]
    return shared / ops.maximum(area(boxes) + area(others) - shared, 1e-9)


def losses(
    model: OneStageMaskRCNN,
    images: Tensor,
    truth: Truth,
    sampling: Sampling,
    seeds: keras.random.SeedGenerator,
) -> dict[str, Tensor]:
    """Run the network on images (B, H, W, 3) and return its four losses, scalars."""
    fused, maps = model.features(images, training=True)
    found = detection_losses(model.dense_outputs(maps), truth, images.shape[1:3])
    boxes, rows, targets, known = mask_examples(truth, sampling.masks, seeds)
    logits = model.mask_logits(fused, boxes, rows, training=True)
    cells = mask_loss(targets[None], known[None], logits[None])
    return {**found, "mask": cells + dice_loss(targets, known, logits)}


def mask_examples(
    truth: Truth, most: int, seeds: keras.random.SeedGenerator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sample objects with masks, on average `most` per image, and jitter their boxes.

    If there are fewer, objects repeat with other boxes, so that batch norms see no empty rows. Returns boxes
    (K, 4), normalized; their images (K,) int32; masks in these boxes (K, 28, 28), 0 or 1; which rows hold an
    object (K,) bool: all, or none if no object of the batch has a mask.
    """
    images, objects = ops.shape(truth.boxes)[0], truth.boxes.shape[1]
    known = ops.reshape(truth.masked & (truth.class_ids > 0), (-1,))
    noise = keras.random.uniform(ops.shape(known), 0.1, 1.0, seed=seeds)
    order = ops.argsort(-ops.where(known, noise, 0.0))
    count = ops.sum(ops.cast(known, "int32"))
    chosen = ops.take(order, ops.arange(images * most) % ops.maximum(count, 1))
    owners = ops.take(ops.reshape(truth.boxes, (-1, 4)), chosen, axis=0)
    sides = ops.tile(owners[:, 2:] - owners[:, :2], (1, 2))
    moves = keras.random.uniform(ops.shape(owners), -JITTER, JITTER, seed=seeds)
    boxes = ops.clip(owners + moves * sides, 0.0, 1.0)
    valid = ops.take(known, chosen)
    masks = ops.reshape(truth.masks, (1, -1, *truth.masks.shape[2:]))
    targets = mask_targets(boxes[None], owners[None], masks, chosen[None], valid[None])[0]
    return boxes, ops.cast(chosen // objects, "int32"), targets, valid


def dice_loss(targets: Tensor, known: Tensor, logits: Tensor) -> Tensor:
    """Return the mean dice loss of masks (K, 28, 28) where `known` (K,) (V-Net, arXiv 1606.04797, section 3).

    1 is added above and below the fraction, so that empty masks are defined.
    """
    masks = ops.sigmoid(logits)
    shared = ops.sum(masks * targets, axis=(1, 2))
    total = ops.sum(masks**2 + targets**2, axis=(1, 2))
    return mean_where(1 - (2 * shared + 1) / (total + 1), known)
