"""Annotated photos for training, read from COCO instances files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from live_seg.errors import SourceError
from live_seg.evaluation.coco import CocoObject, Photo, read_instances, read_photo
from live_seg.files import read_image
from live_seg.models.classes import BACKGROUND
from live_seg.types import Image

Ring = NDArray[np.float32]
"""Outline of a part of an object: (P, 2), x y in pixels."""


@dataclass(frozen=True)
class AnnotatedPhoto:
    """A photo and its N objects. Boxes are x1 y1 x2 y2 in pixels."""

    path: Path
    boxes: NDArray[np.float32]  # (N, 4)
    class_ids: NDArray[np.int32]  # (N,), negative for a crowd
    outlines: list[list[Ring]]  # the rings of each object; empty if only its box is known
    size: tuple[int, int] | None = None  # (height, width) that were annotated; None if unknown

    def read(self) -> Image:
        """Read the pixels, BGR. Raises SourceError if the file is unreadable or has another size."""
        return read_image(self.path) if self.size is None else read_photo(self.path, self.size)


def read_coco(images: Path, annotations: Path) -> tuple[list[AnnotatedPhoto], list[str]]:
    """Read the COCO instances file `annotations` for the photos in the folder `images`.

    Returns the photos, and the class names with the background first; class ids count from 1 in the order of
    the file's categories. Crowds have a box but no outline; objects may lack `segmentation`. The file is
    checked as by `read_instances`, which raises SourceError.
    """
    data = read_instances(images, annotations)
    ids = {category: i for i, category in enumerate(data.categories, start=1)}
    objects: dict[int, list[CocoObject]] = {photo["id"]: [] for photo in data.photos}
    for entry in data.objects:
        objects[entry["image_id"]].append(entry)
    photos = [
        _annotated(images / photo["file_name"], photo, objects[photo["id"]], ids) for photo in data.photos
    ]
    return photos, [BACKGROUND, *data.categories.values()]


def read_all(data: Sequence[tuple[Path, Path]]) -> tuple[list[AnnotatedPhoto], list[str]]:
    """Read several pairs of a photo folder and its annotations with `read_coco`.

    All files must name the same classes, in any order; class ids are those of the first file. Raises
    SourceError if they do not, or if there are no objects at all.
    """
    photos: list[AnnotatedPhoto] = []
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
        raise SourceError(f"There are no objects to train on in {listed}. Give files with annotations.")
    return photos, names


def _annotated(path: Path, photo: Photo, objects: list[CocoObject], ids: dict[int, int]) -> AnnotatedPhoto:
    boxes = np.array([one["bbox"] for one in objects], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    class_ids = np.array([(-1 if o["iscrowd"] else 1) * ids[o["category_id"]] for o in objects], np.int32)
    outlines = [_outline(one) for one in objects]
    return AnnotatedPhoto(path, boxes, class_ids, outlines, (photo["height"], photo["width"]))


def _outline(annotation: CocoObject) -> list[Ring]:
    """Return the rings of an object from polygons or run lengths; none for a crowd."""
    shape = annotation["segmentation"]
    if annotation["iscrowd"] or shape is None:
        return []
    if isinstance(shape, list):
        return [np.array(ring, np.float32).reshape(-1, 2) for ring in shape]
    bitmap = np.asarray(rle.decode(shape), np.uint8)
    # OpenCV's contours pass through pixel centers. At twice the size these are close to the pixels' edges.
    doubled = bitmap.repeat(2, axis=0).repeat(2, axis=1)
    found, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    half = np.float32(0.5)
    return [half * (ring.reshape(-1, 2).astype(np.float32) + half) for ring in found if len(ring) >= 3]
