"""Matterport's Mask R-CNN inference in plain NumPy, from the definitions of its `model.py` and `utils.py`.

Slow and obvious: the yardstick of the real network. It shares no code with the package and reads the
weights straight from the file by Matterport's names. Maps are (h, w, channels), regions (n, h, w, channels).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
MEAN_PIXEL = np.array([123.7, 116.8, 103.9])
BBOX_STD_DEV = np.array([0.1, 0.1, 0.2, 0.2], np.float32)


@dataclass(frozen=True)
class Settings:
    """Matterport's `Config`, as far as inference looks at it."""

    backbone: str = "resnet101"
    image_max_dim: int = 1024
    image_min_dim: int = 800
    pre_nms_limit: int = 6000
    post_nms_rois_inference: int = 1000
    rpn_nms_threshold: float = 0.7
    detection_max_instances: int = 100
    detection_min_confidence: float = 0.7
    detection_nms_threshold: float = 0.3


@dataclass(frozen=True)
class Result:
    """What `MaskRCNN.detect` returns, and the maps on the way."""

    molded: Array  # (size, size, 3)
    pyramid: list[Array]  # P2 to P6
    boxes: Array  # (N, 4) whole pixels, y1 x1 y2 x2
    class_ids: Array  # (N,)
    scores: Array  # (N,)
    masks: Array  # (N, 28, 28) probabilities
    bitmaps: Array  # (N, height, width) bool


class Reference:
    """The network of one weights file."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.settings = settings
        self.weights: dict[str, Array] = {}
        with h5py.File(path) as file:
            file.visititems(self._keep)

    def _keep(self, name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            self.weights["/".join(name.split("/")[-2:]).removesuffix(":0")] = np.asarray(item)

    def detect(self, rgb: Array) -> Result:
        """Find instances in one picture (h, w, 3) uint8, RGB."""
        s = self.settings
        resized, window = resize_image(rgb, s.image_min_dim, s.image_max_dim)
        molded = (resized.astype(np.float32) - MEAN_PIXEL).astype(np.float32)
        pyramid = self.pyramid(self.resnet(molded))
        rois = self.proposals(pyramid, molded.shape[:2])
        boxes, class_ids, scores = self.detections(pyramid, rois, norm_boxes(window, molded.shape[:2]))
        masks = self.masks(pyramid, boxes, class_ids)
        return unmold(rgb.shape[:2], window, molded, pyramid, (boxes, class_ids, scores, masks))

    def conv(self, x: Array, name: str, stride: int = 1, padding: str = "same") -> Array:
        """A convolution as one matrix product for each cell of its kernel."""
        kernel, bias = self.weights[f"{name}/kernel"], self.weights[f"{name}/bias"]
        side = kernel.shape[0]
        if padding == "same" and side > 1:
            edge = [(side // 2, side // 2)] * 2
            x = np.pad(x, [(0, 0)] * (x.ndim - 3) + edge + [(0, 0)])
        rows, columns = ((length - side) // stride + 1 for length in x.shape[-3:-1])
        out = np.zeros((*x.shape[:-3], rows, columns, kernel.shape[-1]), np.float32) + bias
        for i in range(side):
            for j in range(side):
                seen = x[..., i : i + stride * rows : stride, j : j + stride * columns : stride, :]
                out += (seen.reshape(-1, x.shape[-1]) @ kernel[i, j]).reshape(out.shape)
        return out

    def norm(self, x: Array, name: str) -> Array:
        gamma, beta, mean, variance = (
            self.weights[f"{name}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) / np.sqrt(variance + np.float32(1e-3)) * gamma + beta

    def resnet(self, x: Array) -> list[Array]:
        """`resnet_graph`: C2 to C5."""
        x = np.pad(x, [(3, 3), (3, 3), (0, 0)])
        x = relu(self.norm(self.conv(x, "conv1", 2, "valid"), "bn_conv1"))
        x = max_pool_3x3_stride_2(x)
        maps = []
        for stage, blocks in enumerate(BLOCKS[self.settings.backbone], start=2):
            for block in range(blocks):
                x = self.block(x, f"{stage}{'abcdefghijklmnopqrstuvw'[block]}_branch", stage, block == 0)
            maps.append(x)
        return maps

    def block(self, x: Array, tag: str, stage: int, first: bool) -> Array:
        """`conv_block` when it is the first of its stage, else `identity_block`."""
        stride = 2 if first and stage > 2 else 1
        y = relu(self.norm(self.conv(x, f"res{tag}2a", stride), f"bn{tag}2a"))
        y = relu(self.norm(self.conv(y, f"res{tag}2b"), f"bn{tag}2b"))
        y = self.norm(self.conv(y, f"res{tag}2c"), f"bn{tag}2c")
        shortcut = self.norm(self.conv(x, f"res{tag}1", stride), f"bn{tag}1") if first else x
        return relu(y + shortcut)

    def pyramid(self, maps: list[Array]) -> list[Array]:
        """C2 to C5 -> P2 to P6."""
        merged = [self.conv(maps[3], "fpn_c5p5")]
        for level in (4, 3, 2):
            upsampled = merged[0].repeat(2, axis=0).repeat(2, axis=1)
            merged.insert(0, upsampled + self.conv(maps[level - 2], f"fpn_c{level}p{level}"))
        outputs = [self.conv(x, f"fpn_p{level}") for level, x in enumerate(merged, start=2)]
        return [*outputs, outputs[-1][::2, ::2]]

    def proposals(self, pyramid: list[Array], size: tuple[int, int]) -> Array:
        """RPN and `ProposalLayer` -> (proposals, 4), normalized."""
        s = self.settings
        shared = [relu(self.conv(x, "rpn_conv_shared")) for x in pyramid]
        logits = np.concatenate([self.conv(x, "rpn_class_raw").reshape(-1, 2) for x in shared])
        deltas = np.concatenate([self.conv(x, "rpn_bbox_pred").reshape(-1, 4) for x in shared])
        scores = softmax(logits)[:, 1]
        best = np.argsort(-scores, kind="stable")[: s.pre_nms_limit]
        boxes = apply_box_deltas(pyramid_anchors(size)[best], deltas[best] * BBOX_STD_DEV)
        boxes = clip(boxes, np.array([0, 0, 1, 1], np.float32))
        kept = nms(boxes, scores[best], s.rpn_nms_threshold, s.post_nms_rois_inference)
        rois = np.zeros((s.post_nms_rois_inference, 4), np.float32)
        rois[: len(kept)] = boxes[kept]
        return rois

    def detections(self, pyramid: list[Array], rois: Array, window: Array) -> tuple[Array, Array, Array]:
        """`fpn_classifier_graph` and `refine_detections_graph` -> boxes (normalized), class ids, scores."""
        s = self.settings
        x = self.conv(pyramid_roi_align(pyramid, rois, 7), "mrcnn_class_conv1", padding="valid")
        x = relu(self.norm(x, "mrcnn_class_bn1"))
        x = relu(self.norm(self.conv(x, "mrcnn_class_conv2"), "mrcnn_class_bn2"))[:, 0, 0]
        probabilities = softmax(self.dense(x, "mrcnn_class_logits"))
        deltas = self.dense(x, "mrcnn_bbox_fc").reshape(len(rois), -1, 4)
        class_ids = probabilities.argmax(axis=1)
        scores = probabilities[np.arange(len(rois)), class_ids]
        own = deltas[np.arange(len(rois)), class_ids]
        boxes = clip(apply_box_deltas(rois, own * BBOX_STD_DEV), window)
        keep: list[int] = []
        confident = (class_ids > 0) & (scores >= s.detection_min_confidence)
        for class_id in np.unique(class_ids[confident]):
            of_class = np.flatnonzero(confident & (class_ids == class_id))
            mine = boxes[of_class], scores[of_class]
            keep.extend(of_class[nms(*mine, s.detection_nms_threshold, s.detection_max_instances)])
        top = np.array(sorted(keep, key=lambda i: -scores[i])[: s.detection_max_instances], int)
        return boxes[top], class_ids[top], scores[top]

    def dense(self, x: Array, name: str) -> Array:
        return np.asarray(x @ self.weights[f"{name}/kernel"] + self.weights[f"{name}/bias"])

    def masks(self, pyramid: list[Array], boxes: Array, class_ids: Array) -> Array:
        """`build_fpn_mask_graph` -> the mask of each box's class (N, 28, 28), probabilities."""
        x = pyramid_roi_align(pyramid, boxes, 14)
        for i in (1, 2, 3, 4):
            x = relu(self.norm(self.conv(x, f"mrcnn_mask_conv{i}"), f"mrcnn_mask_bn{i}"))
        kernel, bias = self.weights["mrcnn_mask_deconv/kernel"], self.weights["mrcnn_mask_deconv/bias"]
        up = np.zeros((len(x), 28, 28, kernel.shape[2]), np.float32)
        for i in range(2):
            for j in range(2):
                # The kernel of a transposed convolution is (rows, columns, outputs, inputs).
                up[:, i::2, j::2] = x @ kernel[i, j].T + bias
        logits = self.conv(relu(up), "mrcnn_mask")
        return 1 / (1 + np.exp(-logits[np.arange(len(x)), :, :, class_ids]))


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def max_pool_3x3_stride_2(x: Array) -> Array:
    """TensorFlow's "same" for even sides: one row and column of padding, after the last."""
    x = np.pad(x, [(0, 1), (0, 1), (0, 0)], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(0, 1))[::2, ::2]
    return np.asarray(windows.max(axis=(-2, -1)))


def norm_boxes(boxes: Array, size: tuple[int, int]) -> Array:
    last = np.array([*size, *size]) - 1
    return np.asarray((boxes - np.array([0, 0, 1, 1])) / last, np.float32)


def denorm_boxes(boxes: Array, size: tuple[int, int]) -> Array:
    last = np.array([*size, *size]) - 1
    return np.asarray(np.around(boxes * last + np.array([0, 0, 1, 1])), np.int32)


def pyramid_anchors(size: tuple[int, int]) -> Array:
    """`generate_pyramid_anchors`: one at a time. (A, 4), normalized."""
    anchors = []
    for stride, side in zip((4, 8, 16, 32, 64), (32, 64, 128, 256, 512), strict=True):
        for y in range(0, size[0], stride):
            for x in range(0, size[1], stride):
                for ratio in (0.5, 1, 2):
                    half_height, half_width = side / ratio**0.5 / 2, side * ratio**0.5 / 2
                    anchors.append((y - half_height, x - half_width, y + half_height, x + half_width))
    return norm_boxes(np.array(anchors), size)


def apply_box_deltas(boxes: Array, deltas: Array) -> Array:
    height, width = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    centre_y = boxes[:, 0] + 0.5 * height + deltas[:, 0] * height
    centre_x = boxes[:, 1] + 0.5 * width + deltas[:, 1] * width
    height, width = height * np.exp(deltas[:, 2]), width * np.exp(deltas[:, 3])
    y1, x1 = centre_y - 0.5 * height, centre_x - 0.5 * width
    return np.stack([y1, x1, y1 + height, x1 + width], axis=1)


def clip(boxes: Array, window: Array) -> Array:
    return np.clip(boxes, window[[0, 1, 0, 1]], window[[2, 3, 2, 3]])


def nms(boxes: Array, scores: Array, threshold: float, limit: int) -> list[int]:
    """Keep the best box, drop all that overlap it by more than `threshold`, and so on."""
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(left) and len(kept) < limit:
        best, left = left[0], left[1:]
        kept.append(int(best))
        corners = np.maximum(boxes[best, :2], boxes[left, :2]), np.minimum(boxes[best, 2:], boxes[left, 2:])
        shared = np.maximum(corners[1] - corners[0], 0).prod(axis=1)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        union = areas[best] + areas[left] - shared
        left = left[shared <= threshold * union]
    return kept


def pyramid_roi_align(pyramid: list[Array], boxes: Array, side: int) -> Array:
    """`PyramidROIAlign`: each box is read from P2 to P5 by its size. (N, side, side, channels)."""
    height, width = 4 * pyramid[0].shape[0], 4 * pyramid[0].shape[1]
    regions = np.zeros((len(boxes), side, side, pyramid[0].shape[-1]), np.float32)
    for region, box in zip(regions, boxes, strict=True):
        root = max(np.sqrt((box[2] - box[0]) * (box[3] - box[1])), 1e-9)
        level = 4 + round(np.log2(root / (224 / np.sqrt(height * width))))
        region[:] = crop_and_resize(pyramid[min(5, max(2, level)) - 2], box, side)
    return regions


def crop_and_resize(x: Array, box: Array, side: int) -> Array:
    """`tf.image.crop_and_resize`: points from edge to edge of the box, zero outside the map."""
    points, inside = [], []
    for start, end, length in ((box[0], box[2], x.shape[0]), (box[1], box[3], x.shape[1])):
        last = np.float32(length - 1)
        step = (end - start) * last / np.float32(side - 1)
        along = start * last + np.arange(side, dtype=np.float32) * step
        points.append(along.clip(0, last))
        inside.append((along >= 0) & (along <= last))
    return np.where((inside[0][:, None] & inside[1])[..., None], bilinear(x, points[0], points[1]), 0)


def bilinear(x: Array, rows: Array, columns: Array) -> Array:
    """Values of a map (h, w, ...) at every crossing of `rows` and `columns`, all of them on the map."""
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    bottom, right = np.ceil(rows).astype(int), np.ceil(columns).astype(int)
    down = (rows - top).reshape(-1, 1, *[1] * (x.ndim - 2))
    across = (columns - left).reshape(1, -1, *[1] * (x.ndim - 2))
    upper = x[top][:, left] * (1 - across) + x[top][:, right] * across
    lower = x[bottom][:, left] * (1 - across) + x[bottom][:, right] * across
    return np.asarray(upper * (1 - down) + lower * down)


def resize(image: Array, height: int, width: int) -> Array:
    """`skimage.transform.resize` of order 1, mode "constant": black lies around the picture."""
    framed = np.pad(image, [(1, 1), (1, 1)] + [(0, 0)] * (image.ndim - 2))
    rows = (np.arange(height) + 0.5) * image.shape[0] / height - 0.5
    columns = (np.arange(width) + 0.5) * image.shape[1] / width - 0.5
    return bilinear(framed, rows + 1, columns + 1)


def resize_image(image: Array, min_dim: int, max_dim: int) -> tuple[Array, Array]:
    """`utils.resize_image`, mode "square" -> the square picture and y1 x1 y2 x2 of what is not padding."""
    height, width = image.shape[:2]
    scale = max(1, min_dim / min(height, width))
    if round(max(height, width) * scale) > max_dim:
        scale = max_dim / max(height, width)
    if scale != 1:
        height, width = round(height * scale), round(width * scale)
        image = resize(image.astype(np.float64), height, width).astype(np.uint8)
    top, left = (max_dim - height) // 2, (max_dim - width) // 2
    square = np.zeros((max_dim, max_dim, 3), np.uint8)
    square[top : top + height, left : left + width] = image
    return square, np.array([top, left, top + height, left + width])


def unmold(
    size: tuple[int, int], window: Array, molded: Array, pyramid: list[Array], found: tuple[Array, ...]
) -> Result:
    """`unmold_detections`: back to pixels of the picture; boxes without a pixel go."""
    boxes, class_ids, scores, masks = found
    y1, x1, y2, x2 = norm_boxes(window, molded.shape[:2])
    shift, scale = np.array([y1, x1, y1, x1]), np.array([y2 - y1, x2 - x1, y2 - y1, x2 - x1])
    pixels = denorm_boxes((boxes - shift) / scale, size)
    kept = (pixels[:, 2:] - pixels[:, :2]).prod(axis=1) > 0
    bitmaps = np.zeros((kept.sum(), *size), bool)
    for bitmap, (top, left, bottom, right), mask in zip(bitmaps, pixels[kept], masks[kept], strict=True):
        bitmap[top:bottom, left:right] = resize(mask, bottom - top, right - left) >= 0.5
    return Result(molded, pyramid, pixels[kept], class_ids[kept], scores[kept], masks[kept], bitmaps)
