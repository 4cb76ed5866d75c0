"""Gather the training annotations of the bundled model into two COCO files.

python weights/gather.py DATA OUT

DATA is the folder of photos and annotations. `coco80/boxes.json` has boxes of all 80 classes. Masks come from
`coco80/instances_train.json`, `coco80/instances_person_more.json` and `person/instances_train.json`; persons
without one take theirs from `coco80/pseudo_person_masks.json`. Each mask is attached to the box of the same
photo and class that it overlaps most. OUT receives `train.json` and `val.json`, whose file names are relative
to DATA. Photos of `coco80/instances_val.json` are left out of `train.json`.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

PERSON = 1
"""COCO's category id."""

SAME_OBJECT = 0.7
"""Smallest IoU of two boxes of one class that are the same object. Members of a crowd overlap less."""

MIN_GRADE = 1
"""Pseudo masks of lower grades are left out: their mean IoU with true masks is 0.81."""

Entry = dict[str, Any]


def gather(data: Path) -> Entry:
    """Return the training set in COCO's format: boxes of 80 classes, masks where there are any."""
    boxes = _read(data / "coco80/boxes.json")
    held_out = {photo["id"] for photo in _read(data / "coco80/instances_val.json")["images"]}
    photos = [photo for photo in boxes["images"] if photo["id"] not in held_out]
    objects = defaultdict(list)
    for entry in boxes["annotations"]:
        objects[entry["image_id"]].append(entry)
    sizes = {photo["id"]: (photo["width"], photo["height"]) for photo in photos}
    for name in ("coco80/instances_train", "coco80/instances_person_more", "person/instances_train"):
        source = _read(data / f"{name}.json")
        _attach(objects, [entry for entry in source["annotations"] if not entry["iscrowd"]], sizes, source)
    _attach_pseudo(objects, data, sizes)
    kept = [{**photo, "file_name": f"{photo['folder']}/{photo['file_name']}"} for photo in photos]
    annotations = [entry for photo in photos for entry in objects[photo["id"]]]
    return {"images": kept, "annotations": annotations, "categories": boxes["categories"]}


def complete_masks(data: Path, training: Entry) -> Entry:
    """Return the part of `training` whose photos have masks of all their objects."""
    complete = {photo["id"] for photo in _read(data / "coco80/instances_train.json")["images"]}
    photos = [photo for photo in training["images"] if photo["id"] in complete]
    annotations = [entry for entry in training["annotations"] if entry["image_id"] in complete]
    return {**training, "images": photos, "annotations": annotations}


def gather_val(data: Path) -> Entry:
    """Return the 80-class validation set with file names relative to `data`."""
    val = _read(data / "coco80/instances_val.json")
    photos = [{**photo, "file_name": f"{photo['folder']}/{photo['file_name']}"} for photo in val["images"]]
    return {**val, "images": photos}


def _attach(
    objects: dict[int, list[Entry]], masks: list[Entry], sizes: dict[int, Any], source: Entry
) -> None:
    """Give each mask to the box that it overlaps most, scaled where the photo was stored at another size."""
    stored = {photo["id"]: (photo["width"], photo["height"]) for photo in source["images"]}
    for entry in masks:
        photo = entry["image_id"]
        if photo not in sizes:
            continue
        if stored[photo] != sizes[photo]:
            raise ValueError(f"photo {photo} is stored at {stored[photo]} and at {sizes[photo]} pixels")
        target = _same(objects[photo], entry)
        if target is not None and "segmentation" not in target:
            target["segmentation"] = entry["segmentation"]


def _attach_pseudo(objects: dict[int, list[Entry]], data: Path, sizes: dict[int, Any]) -> None:
    """Attach pseudo masks to persons without a mask, and mark boxes that hold a crowd."""
    pseudo, source = _read(data / "coco80/pseudo_person_masks.json"), _read(data / "person/boxes.json")
    originals = {entry["id"]: entry for entry in source["annotations"]}
    for key in pseudo["true_crowd_annotation_ids"]:
        target = _same(objects[originals[key]["image_id"]], originals[key])
        if target is not None:
            target["iscrowd"] = 1
    graded = [mask for mask in pseudo["masks"] if mask["grade"] >= MIN_GRADE]
    masks = [{**originals[mask["annotation_id"]], "segmentation": mask["segmentation"]} for mask in graded]
    _attach(objects, masks, sizes, source)


def _same(candidates: list[Entry], entry: Entry) -> Entry | None:
    """Return the candidate of the same class that overlaps `entry` most, None if below SAME_OBJECT."""
    own = [one for one in candidates if one["category_id"] == entry["category_id"]]
    if not own:
        return None
    overlaps: NDArray[np.float64] = rle.iou(
        np.array([entry["bbox"]]), np.array([one["bbox"] for one in own]), [0] * len(own)
    )[0]
    best = int(overlaps.argmax())
    return own[best] if overlaps[best] >= SAME_OBJECT else None


def _read(path: Path) -> Entry:
    content: Entry = json.loads(path.read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    data, out = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    for name, content in (("train", gather(data)), ("val", gather_val(data))):
        (out / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        masks = sum("segmentation" in entry for entry in content["annotations"])
        print(
            f"{name}: {len(content['images'])} photos, {len(content['annotations'])} objects, {masks} masks"
        )
