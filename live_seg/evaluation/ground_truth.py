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

from live_seg.errors import SourceError
from live_seg.evaluation.coco import checking_entry, read_instances
from live_seg.files import read_image
from live_seg.types import Image

logger = logging.getLogger(__name__)


class GroundTruth:
    """Photos in the folder `images` with their objects from the COCO instances file `annotations`.

    Everything is checked in the constructor, before any long work. Objects of photos that the file does not
    list are skipped. Raises SourceError if the file is unreadable or in another format, or if photos are
    missing.
    """

    def __init__(self, images: Path, annotations: Path) -> None:
        data = read_instances(images, annotations)
        self.path = annotations
        self.folder = images
        # By shape, so that the photos of a batch fill network inputs of one size.
        self.photos = sorted(data["images"], key=lambda photo: math.atan2(photo["height"], photo["width"]))
        self.categories: dict[int, str] = {entry["id"]: entry["name"] for entry in data["categories"]}
        sizes = {photo["id"]: (photo["height"], photo["width"]) for photo in self.photos}
        self._objects = [self._checked(entry, sizes[entry["image_id"]]) for entry in data["annotations"]]
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

    def read(self, photo: dict[str, Any]) -> Image:
        """Read a photo, BGR. Raises SourceError if it is unreadable or has another size than annotated."""
        pixels = read_image(self.folder / photo["file_name"])
        height, width = pixels.shape[:2]
        if (height, width) != (photo["height"], photo["width"]):
            raise SourceError(
                f"{self.folder / photo['file_name']} has {width}x{height} pixels, upright, but {self.path} "
                f"says {photo['width']}x{photo['height']}. Give the photos that were annotated."
            )
        return pixels

    def _checked(self, entry: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
        """Return an object with all keys that pycocotools needs; `segmentation` is RLE or None."""
        with checking_entry(f"{self.path}: annotation {entry.get('id')} of image {entry['image_id']}"):
            box = [float(edge) for edge in entry["bbox"]]
            (region,) = coco_mask.frPyObjects(np.array([box]), *size)
            mask = _rle(entry.get("segmentation"), size)
            area = entry.get("area") or float(coco_mask.area(mask or region))
        crowd = int(entry.get("iscrowd", 0))
        own = {key: entry[key] for key in ("image_id", "category_id")}
        return {**own, "bbox": box, "area": area, "iscrowd": crowd, "segmentation": mask, "region": region}


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


def _rle(shape: Any, size: tuple[int, int]) -> Any:
    """Convert polygons or RLE to compressed RLE; None or [], which some tools write, to None."""
    if not shape:
        return None
    if isinstance(shape, list):
        return coco_mask.merge(coco_mask.frPyObjects(shape, *size))
    if list(shape["size"]) != list(size):
        raise ValueError(f"its mask is for {shape['size']} pixels, its photo has {list(size)}")
    return coco_mask.frPyObjects(shape, *size) if isinstance(shape["counts"], list) else shape
