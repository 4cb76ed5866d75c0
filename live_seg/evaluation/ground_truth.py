"""Annotated photos in the form that pycocotools evaluates against."""

import contextlib
import io
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from live_seg.evaluation.coco import CocoObject, Photo, read_instances, read_photo
from live_seg.types import Image

logger = logging.getLogger(__name__)


class GroundTruth:
    """Photos in the folder `images` with their objects from the COCO instances file `annotations`.

    Everything is checked in the constructor, before any long work, and repaired or refused with SourceError:
    see `read_instances`.
    """

    def __init__(self, images: Path, annotations: Path) -> None:
        data = read_instances(images, annotations)
        self.path = annotations
        self.folder = images
        # By shape, so that the photos of a batch fill network inputs of one size.
        self.photos = sorted(data.photos, key=lambda photo: math.atan2(photo["height"], photo["width"]))
        self.categories = data.categories
        sizes = {photo["id"]: (photo["height"], photo["width"]) for photo in self.photos}
        self._objects = [_completed(entry, sizes[entry["image_id"]]) for entry in data.objects]
        without = sum(entry["segmentation"] is None for entry in self._objects)
        if without:
            every = len(self._objects)
            logger.warning(
                "%d of %d objects in %s have no mask. Mask metrics ignore them.", without, every, self.path
            )

    def boxes(self) -> COCO:
        """Return the ground truth of boxes."""
        return self._coco(self._objects)

    def masks(self) -> COCO:
        """Return the ground truth of masks.

        An object without a mask counts as a crowd that fills its box: it is not expected to be detected, and
        a detection in it is not a false positive.
        """
        return self._coco(
            entry
            if entry["segmentation"] is not None
            else entry | {"iscrowd": 1, "segmentation": entry["region"]}
            for entry in self._objects
        )

    def results(self, detections: Iterable[dict[str, Any]], *, boxes: bool) -> COCO:
        """Return detections to evaluate, with the area of the box or else of the mask (`COCO.loadRes`)."""
        areas = _box_area if boxes else _mask_area
        return self._coco(row | {"area": areas(row), "iscrowd": 0} for row in detections)

    def _coco(self, objects: Iterable[dict[str, Any]]) -> COCO:
        """Join the photos and classes with `objects`, annotations or detections."""
        coco = COCO()
        # Ids start at 1, as pycocotools takes a match with object 0 for none.
        numbered = [entry | {"id": i} for i, entry in enumerate(objects, start=1)]
        categories = [{"id": key, "name": name} for key, name in self.categories.items()]
        coco.dataset = {"images": self.photos, "categories": categories, "annotations": numbered}
        with silenced():
            coco.createIndex()
        return coco

    def counts(self) -> Counter[int]:
        """Count the objects of each category, without crowds."""
        return Counter(entry["category_id"] for entry in self._objects if not entry["iscrowd"])

    def read(self, photo: Photo) -> Image:
        """Read a photo, BGR. Raises SourceError if it is unreadable or has another size than annotated."""
        return read_photo(self.folder / photo["file_name"], (photo["height"], photo["width"]))


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Discard what pycocotools prints to stdout."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _box_area(row: dict[str, Any]) -> float:
    width, height = row["bbox"][2:]
    return float(width * height)


def _mask_area(row: dict[str, Any]) -> float:
    return float(coco_mask.area(row["segmentation"]))


def _completed(entry: CocoObject, size: tuple[int, int]) -> dict[str, Any]:
    """Return an object with all keys that pycocotools needs; `segmentation` is compressed RLE or None."""
    (region,) = coco_mask.frPyObjects(np.array([entry["bbox"]]), *size)
    mask: Any = entry["segmentation"]
    if isinstance(mask, list):
        mask = coco_mask.merge(coco_mask.frPyObjects(mask, *size))
    area = entry["area"] or float(coco_mask.area(mask or region))
    own = {"segmentation": mask, "region": region, "area": area, "iscrowd": int(entry["iscrowd"])}
    return {**entry, **own}
