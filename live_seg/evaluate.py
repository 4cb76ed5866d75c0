"""Average precision on annotated photos, by COCO's own rules (pycocotools)."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from live_seg.classes import nearest
from live_seg.errors import SourceError, UsageError
from live_seg.segmenter import Segmenter
from live_seg.stills import read_image

FIGURES = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
)
"""COCO's twelve figures, in the order of `COCOeval.stats`."""


def evaluate(segment: Segmenter, images: Path, annotations: Path) -> dict[str, dict[str, float]]:
    """Segment the photos in the folder `images` one by one and score them against a COCO instances file.

    Returns FIGURES for "box" and for "mask", each 0..1 or -1 where there is nothing to measure. Classes are
    matched by name; those that only the model or only the file has are left out. The least score is the
    segmenter's own: COCO's figures are meant for a low one, such as 0.05.

    Raises UsageError when the model knows none of the file's classes, SourceError for an unreadable photo or
    file.
    """
    truth = _read(annotations)
    categories = _categories(segment, truth)
    detections = list(_detections(segment, images, truth, categories))
    kinds = {"box": "bbox", "mask": "segm"}
    return {name: _score(truth, detections, kind, categories) for name, kind in kinds.items()}


def _read(annotations: Path) -> Any:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            return COCO(str(annotations))
    except (OSError, ValueError) as error:
        raise SourceError(f"Cannot read the annotations {annotations}: {error}.") from error


def _categories(segment: Segmenter, truth: Any) -> dict[int, int]:
    """The file's category of each of the model's class ids."""
    by_name = {category["name"].lower(): category["id"] for category in truth.dataset["categories"]}
    known = {
        class_id: by_name[name.lower()]
        for class_id, name in enumerate(segment.class_names)
        if class_id > 0 and name.lower() in by_name
    }
    if not known:
        name = next(iter(by_name), "none")
        raise UsageError(f"The model knows no class of the file. {nearest(name, segment.class_names[1:])}")
    return known


def _detections(
    segment: Segmenter, images: Path, truth: Any, categories: dict[int, int]
) -> Iterator[dict[str, Any]]:
    """Every detection in COCO's results format."""
    for photo in tqdm(truth.dataset["images"], unit=" photos", disable=None):
        pixels = read_image(images / photo["file_name"])
        found = segment([pixels])[0]
        for i, rle in enumerate(found.rles(pixels.shape[:2])):
            category = categories.get(int(found.class_ids[i]))
            if category is not None:
                x1, y1, x2, y2 = found.boxes[i].tolist()
                yield {
                    "image_id": photo["id"],
                    "category_id": category,
                    "score": float(found.scores[i]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "segmentation": rle,
                }


def _score(
    truth: Any, detections: list[dict[str, Any]], kind: str, categories: dict[int, int]
) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        # Without boxes, or loadRes would sort masks into small, medium and large by the area of their boxes.
        left_out = {"bbox"} if kind == "segm" else set()
        rows = [{k: v for k, v in d.items() if k not in left_out} for d in detections]
        judge = COCOeval(truth, truth.loadRes(rows) if rows else _without_objects(truth), kind)
        judge.params.catIds = sorted(set(categories.values()))
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return dict(zip(FIGURES, (float(figure) for figure in judge.stats), strict=True))


def _without_objects(truth: Any) -> Any:
    """The same photos with no detection at all, which `loadRes` cannot express."""
    results = COCO()
    results.dataset = {**truth.dataset, "annotations": []}
    results.createIndex()
    return results
