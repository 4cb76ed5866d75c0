"""Removal of second instances of one object: a car that is also detected as a truck."""

import numpy as np
from pycocotools import mask as rle

from live_seg.types import Instances

MIN_IOU = 0.85
"""Minimum IoU of two boxes of one object. A detector's suppression compares boxes of the same class only."""


def without_duplicates(instances: Instances) -> Instances:
    """Return `instances` without those whose box is also the box of a preferred instance of another class.

    Of two instances with a box IoU of at least MIN_IOU, the one with the older track is preferred, so that
    the class of an object does not change from frame to frame. Without track ids, or between tracks of the
    same frame, it is the one with the higher score.
    """
    if len(instances) < 2:
        return instances
    corners = np.asarray(instances.boxes, np.float64)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    overlaps = np.asarray(rle.iou(boxes, boxes, [0] * len(boxes)))
    same = (overlaps >= MIN_IOU) & (instances.class_ids[:, None] != instances.class_ids)
    ages = np.zeros(len(boxes)) if instances.track_ids is None else instances.track_ids
    kept = np.ones(len(boxes), bool)
    for position in np.lexsort([-instances.scores, ages]):
        if kept[position]:
            kept &= ~same[position]
    return instances if kept.all() else instances[kept]
