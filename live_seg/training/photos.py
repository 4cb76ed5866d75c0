"""Annotated photos to learn from, in COCO's format."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from live_seg.errors import SourceError
from live_seg.evaluation.coco import as_cocos, read_instances
from live_seg.models.classes import BACKGROUND

Ring = NDArray[np.float32]
"""The outline of a part of an object: (P, 2), x y in pixels."""


@dataclass(frozen=True)
class Annotated:
    """A photo and its objects: boxes x1 y1 x2 y2 in pixels, outlines where they are known."""

    path: Path
    boxes: NDArray[np.float32]  # (N, 4)
    class_ids: NDArray[np.int32]  # (N,), negative for a crowd
    outlines: list[list[Ring]]  # of each object; empty: only its box is known


def read_coco(images: Path, annotations: Path) -> tuple[list[Annotated], list[str]]:
    """Read COCO instances: photos in the folder `images`, their objects from the file `annotations`.

    Returns the photos and the names of the classes, background first; class ids are 1.. in the order of the
    file's categories. Crowds keep their box alone; objects may come without `segmentation`.

    Raises SourceError for a file that is not of this kind, or photos that are missing.
    """
    data = read_instances(images, annotations)
    ids = {category["id"]: i for i, category in enumerate(data["categories"], start=1)}
    objects: dict[int, list[dict[str, Any]]] = {photo["id"]: [] for photo in data["images"]}
    for annotation in data["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    photos = []
    for photo in data["images"]:
        with as_cocos(f"{annotations}: an annotation of image {photo['id']}"):
            photos.append(_annotated(images / photo["file_name"], objects[photo["id"]], ids))
    return photos, [BACKGROUND, *(str(category["name"]) for category in data["categories"])]


def read_all(data: Sequence[tuple[Path, Path]]) -> tuple[list[Annotated], list[str]]:
    """Read several folders of photos, each with its annotations, as `read_coco` does.

    All name the same classes; their order may differ: class ids are those of the first file. Raises
    SourceError, also when there is nothing to learn from.
    """
    photos: list[Annotated] = []
    names: list[str] = []
    for images, annotations in data:
        more, own = read_coco(images, annotations)
        names = names or own
        if sorted(own) != sorted(names):
            raise SourceError(
                f"{annotations} has the classes {', '.join(own[1:])}, but {data[0][1]} "
                f"{', '.join(names[1:])}. Give both files the same categories."
            )
        ids = np.array([names.index(name) for name in own], np.int32)
        photos += [replace(one, class_ids=np.sign(one.class_ids) * ids[abs(one.class_ids)]) for one in more]
    if not any((photo.class_ids > 0).any() for photo in photos):
        listed = ", ".join(str(annotations) for _, annotations in data)
        raise SourceError(f"There is no object to learn in {listed}. Give files with annotations.")
    return photos, names


def _annotated(path: Path, objects: list[dict[str, Any]], ids: dict[int, int]) -> Annotated:
    boxes = np.array([o["bbox"] for o in objects], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    signs = [-1 if o.get("iscrowd") else 1 for o in objects]
    class_ids = np.array([s * ids[o["category_id"]] for s, o in zip(signs, objects, strict=True)], np.int32)
    return Annotated(path, boxes, class_ids, [_outline(o) for o in objects])


def _outline(annotation: dict[str, Any]) -> list[Ring]:
    """The rings of one object: COCO gives polygons, or run lengths, whose outline is followed."""
    shape = annotation.get("segmentation")
    if annotation.get("iscrowd") or not shape:
        return []
    if isinstance(shape, list):
        return [np.array(ring, np.float32).reshape(-1, 2) for ring in shape if len(ring) >= 6]
    coded = shape if isinstance(shape["counts"], str) else rle.frPyObjects(shape, *shape["size"])
    bitmap = np.asarray(rle.decode(coded), np.uint8)
    # Doubled, an outline runs along the edges of the pixels' halves instead of through their middles.
    doubled = bitmap.repeat(2, axis=0).repeat(2, axis=1)
    found, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    half = np.float32(0.5)
    return [half * (ring.reshape(-1, 2).astype(np.float32) + half) for ring in found if len(ring) >= 3]
