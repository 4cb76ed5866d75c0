"""Choice of the score threshold of a model."""

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from live_seg.evaluation.evaluate import Evaluation
from live_seg.evaluation.ground_truth import GroundTruth, silenced

MATCH_IOU = 0.5
"""Smallest IoU of masks at which a detection is a true positive."""


def best_threshold(truth: GroundTruth, found: Evaluation) -> tuple[float, float] | None:
    """Return the score threshold with the best F1 of masks at MATCH_IOU, over all classes, and that F1.

    Detections are matched by COCO's rules: crowds and objects without a mask are ignored. Both values are
    0..1; the threshold is rounded down to a thousandth. Returns None if there is no true positive.
    """
    right, scores, objects = _matches(truth, found)
    order = np.argsort(-scores, kind="stable")
    right, scores = right[order], scores[order]
    if not right.any():
        return None
    f1 = 2 * np.cumsum(right) / (np.arange(1, len(right) + 1) + objects)
    last_of_equals = np.append(scores[1:] < scores[:-1], True)
    best = int(np.argmax(np.where(last_of_equals, f1, -1.0)))
    return float(np.floor(scores[best] * 1000) / 1000), float(f1[best])


def _matches(truth: GroundTruth, found: Evaluation) -> tuple[NDArray[np.bool_], NDArray[np.float64], int]:
    """Return which detections are true positives, their scores, and the number of objects."""
    with silenced():
        coco_eval = COCOeval(truth.masks(), truth.results(found.detections, boxes=False), "segm")
        coco_eval.params.catIds = sorted(
            key for key, name in truth.categories.items() if name in found.classes
        )
        coco_eval.params.iouThrs = np.array([MATCH_IOU])
        coco_eval.params.areaRng, coco_eval.params.areaRngLbl = [[0, 1e10]], ["all"]
        coco_eval.evaluate()
    evaluated = [one for one in coco_eval.evalImgs if one is not None]
    counts = [~np.asarray(one["dtIgnore"][0], bool) for one in evaluated]
    right = [np.asarray(one["dtMatches"][0])[kept] > 0 for one, kept in zip(evaluated, counts, strict=True)]
    scores = [np.asarray(one["dtScores"])[kept] for one, kept in zip(evaluated, counts, strict=True)]
    objects = sum(int((np.asarray(one["gtIgnore"]) == 0).sum()) for one in evaluated)
    return np.concatenate([*right, np.zeros(0, bool)]), np.concatenate([*scores, np.zeros(0)]), objects
