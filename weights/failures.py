"""Draw the failures of a model without the photos: detected persons, missed persons, false positives.

python weights/failures.py DATA OUT.png

DATA holds the photos in `val/` and their annotations in `instances_val.json`.
"""

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle

import live_seg
from live_seg.evaluation.ground_truth import GroundTruth
from live_seg.types import Image

PANEL, COLUMNS, ROWS = 240, 5, 3
FOUND, MISSED, FALSE_POSITIVE = (190, 190, 190), (70, 70, 220), (200, 110, 0)  # BGR
"""Grey: detected person; red: missed person; blue outline: false positive."""


def matches(found: list[dict[str, Any]], persons: list[dict[str, Any]]) -> tuple[list[bool], list[bool]]:
    """Match masks greedily by score at an IoU of at least 0.5 -> matched detections, matched persons."""
    overlaps = np.array(rle.iou(found, persons, [0] * len(persons))).reshape(len(found), len(persons))
    right, seen = [False] * len(found), [False] * len(persons)
    for position, row in enumerate(overlaps):
        open_rows = np.where(seen, 0, row)
        if len(persons) and open_rows.max() >= 0.5:
            right[position] = seen[int(open_rows.argmax())] = True
    return right, seen


def panel(size: tuple[int, int], persons: list[Any], seen: list[bool], false: list[Any]) -> Image:
    """Draw the persons and errors of one photo on white -> (PANEL, PANEL, 3) uint8 BGR."""
    canvas = np.full((*size, 3), 255, np.uint8)
    for person, was_seen in zip(persons, seen, strict=True):
        canvas[rle.decode(person) > 0] = FOUND if was_seen else MISSED
    for detection in false:
        outline, _ = cv2.findContours(rle.decode(detection), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outline, -1, FALSE_POSITIVE, 3)
    scale = (PANEL - 8) / max(size)
    small = cv2.resize(canvas, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = small.shape[:2]
    framed = np.full((PANEL, PANEL, 3), 235, np.uint8)
    framed[4 : 4 + height, 4 : 4 + width] = small
    return framed


def main(data: Path, output: Path) -> None:
    """Draw the photos with most errors at the model's score threshold and write them to `output`."""
    segment = live_seg.load("person")
    truth = GroundTruth(data / "val", data / "instances_val.json")
    annotations = truth.masks().imgToAnns
    panels = []
    for photo in truth.photos:
        pixels = truth.read(photo)
        size = (photo["height"], photo["width"])
        found = list(segment([pixels])[0].rles(size))
        persons = [entry["segmentation"] for entry in annotations[photo["id"]] if not entry["iscrowd"]]
        right, seen = matches(found, persons)
        false = [detection for detection, is_right in zip(found, right, strict=True) if not is_right]
        panels.append((seen.count(False) + len(false), panel(size, persons, seen, false)))
    panels.sort(key=lambda one: -one[0])
    chosen = [image for _, image in panels[: COLUMNS * ROWS]]
    rows = [np.hstack(chosen[i : i + COLUMNS]) for i in range(0, len(chosen), COLUMNS)]
    cv2.imwrite(str(output), np.vstack(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
