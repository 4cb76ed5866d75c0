"""The score threshold with the best F1, compared with values calculated by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from pycocotools import mask as coco_mask

from live_seg.evaluation.evaluate import ClassMetrics, Evaluation
from live_seg.evaluation.ground_truth import GroundTruth
from live_seg.evaluation.threshold import best_threshold

SIDE = 50
BOXES = ([0, 0, 10, 10], [20, 0, 10, 10], [0, 20, 10, 10], [20, 20, 10, 10])
NOWHERE = [35, 35, 10, 10]


def rectangle(x: float, y: float, w: float, h: float) -> list[float]:
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def truth(folder: Path, *, without_mask: int = 0, crowd: bool = False) -> GroundTruth:
    """One photo with four things; the first few known by their box alone, the last perhaps a crowd."""
    (folder / "a.png").touch()
    objects = [
        {
            "id": i,
            "image_id": 1,
            "category_id": 4,
            "bbox": box,
            "iscrowd": int(crowd and i == 3),
            **({} if i < without_mask else {"segmentation": [rectangle(*box)]}),
        }
        for i, box in enumerate(BOXES)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": SIDE, "width": SIDE}],
        "categories": [{"id": 4, "name": "thing"}, {"id": 5, "name": "other"}],
        "annotations": objects,
    }
    (folder / "a.json").write_text(json.dumps(content))
    return GroundTruth(folder, folder / "a.json")


def found(*detections: tuple[float, Any]) -> Evaluation:
    rows = []
    for score, box in detections:
        (shape,) = coco_mask.frPyObjects([rectangle(*box)], SIDE, SIDE)
        rows.append({"image_id": 1, "category_id": 4, "score": score, "bbox": box, "segmentation": shape})
    return Evaluation({}, {}, {"thing": ClassMetrics(4, 0, 0)}, (), 1, 0.0, rows)


def test_a_false_positive_below_is_excluded(tmp_path: Path) -> None:
    # F1 by score: 2/5, 4/6, 6/7, 6/8.
    seen = found((0.9, BOXES[0]), (0.8, BOXES[1]), (0.6125, BOXES[2]), (0.3, NOWHERE))
    assert best_threshold(truth(tmp_path), seen) == pytest.approx((0.612, 6 / 7))


def test_a_false_positive_above_is_kept(tmp_path: Path) -> None:
    # F1: 0, 2/6, 4/7, 6/8, 8/9.
    seen = found((0.95, NOWHERE), *((0.5 - i / 10, box) for i, box in enumerate(BOXES)))
    assert best_threshold(truth(tmp_path), seen) == pytest.approx((0.2, 8 / 9))


def test_equal_scores_are_kept_or_excluded_together(tmp_path: Path) -> None:
    # The first of the two at 0.5 alone would give 4/6; with the false alarm it is 4/7, less than 6/9 at 0.25.
    seen = found((0.75, BOXES[0]), (0.5, BOXES[1]), (0.5, NOWHERE), (0.25, BOXES[2]), (0.25, [0, 35, 9, 9]))
    assert best_threshold(truth(tmp_path), seen) == pytest.approx((0.25, 6 / 9))


@pytest.mark.filterwarnings("error")
def test_crowds_and_objects_without_a_mask_neither_help_nor_harm(tmp_path: Path) -> None:
    seen = found(*((0.5, box) for box in BOXES))
    assert best_threshold(truth(tmp_path, without_mask=1, crowd=True), seen) == pytest.approx((0.5, 1.0))


def test_nothing_right(tmp_path: Path) -> None:
    assert best_threshold(truth(tmp_path), found()) is None
    assert best_threshold(truth(tmp_path), found((0.9, NOWHERE))) is None
