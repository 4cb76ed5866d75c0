"""Picture where a model fails, without the photos: outlines of persons there, found, missed and imagined.

python weights/failures.py DATA OUT.png    (DATA as in train_person.py)
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
FOUND, MISSED, IMAGINED = (190, 190, 190), (70, 70, 220), (200, 110, 0)  # BGR
"""Grey: a person who was found; red: one who was missed; blue outline: a detection where nobody is."""


def matches(found: list[dict[str, Any]], persons: list[dict[str, Any]]) -> tuple[list[bool], list[bool]]:
    """Pair masks greedily, best first, at an IoU of at least 0.5 -> which detections, which persons match."""
    overlaps = np.array(rle.iou(found, persons, [0] * len(persons))).reshape(len(found), len(persons))
    right, seen = [False] * len(found), [False] * len(persons)
    for position, row in enumerate(overlaps):
        open_rows = np.where(seen, 0, row)
        if len(persons) and open_rows.max() >= 0.5:
            right[position] = seen[int(open_rows.argmax())] = True
    return right, seen


def panel(size: tuple[int, int], persons: list[Any], seen: list[bool], imagined: list[Any]) -> Image:
    """Draw one photo's persons and mistakes on white -> (PANEL, PANEL, 3)."""
    canvas = np.full((*size, 3), 255, np.uint8)
    for person, was_seen in zip(persons, seen, strict=True):
        canvas[rle.decode(person) > 0] = FOUND if was_seen else MISSED
    for detection in imagined:
        outline, _ = cv2.findContours(rle.decode(detection), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outline, -1, IMAGINED, 3)
    scale = (PANEL - 8) / max(size)
    small = cv2.resize(canvas, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = small.shape[:2]
    framed = np.full((PANEL, PANEL, 3), 235, np.uint8)
    framed[4 : 4 + height, 4 : 4 + width] = small
    return framed


def main(data: Path, goal: Path) -> None:
    """Draw the photos with most mistakes at the model's own threshold."""
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
        imagined = [detection for detection, was_right in zip(found, right, strict=True) if not was_right]
        panels.append((seen.count(False) + len(imagined), panel(size, persons, seen, imagined)))
    panels.sort(key=lambda one: -one[0])
    chosen = [picture for _, picture in panels[: COLUMNS * ROWS]]
    rows = [np.hstack(chosen[i : i + COLUMNS]) for i in range(0, len(chosen), COLUMNS)]
    cv2.imwrite(str(goal), np.vstack(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
