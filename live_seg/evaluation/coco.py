"""Reading and validation of COCO instances files, for training and evaluation."""

import json
import math
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any, NamedTuple, NotRequired, TypedDict, TypeVar

import msgspec
from msgspec import Meta

from live_seg.errors import SourceError
from live_seg.evaluation.faults import Faults
from live_seg.evaluation.outlines import Mask, Outline, checked_mask
from live_seg.files import LARGEST_IMAGE, read_image, reading
from live_seg.models.classes import BACKGROUND, check_names
from live_seg.types import Image

T = TypeVar("T")

Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Side = Annotated[int, Meta(ge=1, le=2**20)]


class Photo(TypedDict):
    """A photo of the list `images`."""

    id: Id
    file_name: Annotated[str, Meta(min_length=1)]
    height: Side
    width: Side


class Category(TypedDict):
    """A class of the list `categories`."""

    id: Id
    name: str


class Annotation(TypedDict):
    """An object of the list `annotations`, as it stands in the file."""

    id: NotRequired[Id | None]
    image_id: Id
    category_id: Id
    bbox: Annotated[list[float], Meta(min_length=4, max_length=4)]
    segmentation: NotRequired[Outline]
    iscrowd: NotRequired[bool | int | None]
    area: NotRequired[float | None]


class CocoObject(TypedDict):
    """A valid object."""

    image_id: int
    category_id: int
    bbox: list[float]  # x y w h in pixels, within the photo
    segmentation: Mask  # None without a mask
    iscrowd: bool
    area: float | None  # None if unknown


class InstancesFile(NamedTuple):
    """The content of an instances file."""

    photos: list[Photo]
    categories: dict[int, str]
    objects: list[CocoObject]


LISTS: dict[str, Any] = {"images": Photo, "categories": Category, "annotations": Annotation}
"""Lists of a COCO instances file, and the type of their entries."""

EXPECTED = f"Expected a COCO instances file, with {', '.join(LISTS)}."


def read_instances(images: Path, annotations: Path) -> InstancesFile:
    """Read and check the COCO instances file `annotations` for the photos in the folder `images`.

    Objects of photos that the file does not list, and objects without a usable box, are skipped; boxes are
    clipped to their photo, and unusable masks dropped. A warning counts each kind of repair and names an
    example. Raises SourceError if the file is unreadable or in another format, has wrong types, ids that are
    unknown or not unique, names that are unusable, or boxes given by corners, or if photos are missing.
    """
    data = _read(annotations)
    photos, categories, entries = (_converted(annotations, data, name, kind) for name, kind in LISTS.items())
    _check_photos(images, annotations, photos)
    _check_categories(annotations, categories)
    names = {category["id"]: category["name"] for category in categories}
    return InstancesFile(photos, names, _objects(annotations, photos, names, entries))


def read_photo(path: Path, size: tuple[int, int]) -> Image:
    """Read a photo, BGR. Raises SourceError if it is unreadable, or not of `size` (height, width)."""
    pixels = read_image(path)
    height, width = pixels.shape[:2]
    if (height, width) != size:
        raise SourceError(
            f"{path} has {width}x{height} pixels, upright, but its annotations say {size[1]}x{size[0]}. "
            "Give the photos that were annotated."
        )
    return pixels


def _read(path: Path) -> dict[str, Any]:
    """Return the content of an instances file, a JSON object."""
    with reading(path):
        text = path.read_bytes()
    try:
        data: Any = json.loads(text)  # unlike msgspec, accepts the NaN that Python writes
    except (ValueError, RecursionError) as error:
        raise SourceError(f"Cannot read the annotations {path} as JSON: {error}. {EXPECTED}") from error
    if isinstance(data, list):
        raise SourceError(f"{path} is a list, like COCO's results: detections, not annotations. {EXPECTED}")
    return data if isinstance(data, dict) else {}


def _converted(path: Path, data: dict[str, Any], name: str, kind: type[T]) -> list[T]:
    """Return the entries of the list `name` with the types of `kind`. Raises SourceError."""
    entries = data.get(name)
    if not isinstance(entries, list) or (not entries and name != "annotations"):
        raise SourceError(f"{path} has no {name}. {EXPECTED}")
    converted, faults = [], Faults()
    for place, entry in enumerate(entries):
        try:
            converted.append(msgspec.convert(entry, kind))
        except (ValueError, OverflowError, RecursionError) as error:
            faults.add(str(error), f"{name}[{place}]")
    faults.refuse(path, EXPECTED)
    return converted


def _check_photos(folder: Path, path: Path, photos: list[Photo]) -> None:
    """Raise SourceError for ids that are not unique, unusable names and sizes, and missing photos."""
    if not folder.is_dir():
        raise SourceError(f"There is no folder {folder}. Give the one that holds the photos.")
    faults, seen, missing = Faults(), set[int](), []
    for photo in photos:
        name = photo["file_name"]
        if photo["id"] in seen:
            faults.add("image id that occurs twice", str(photo["id"]))
        seen.add(photo["id"])
        if photo["height"] * photo["width"] > LARGEST_IMAGE:
            faults.add(f"photo with more than {LARGEST_IMAGE:,} pixels", repr(name))
        if not _is_inside(name):
            faults.add("file_name that leads out of the folder of photos", repr(name))
        elif not _is_file(folder / name):
            missing.append(name)
    faults.refuse(path, "Correct the file.")
    if missing:
        raise SourceError(
            f"{folder} lacks {len(missing)} of the {len(photos)} photos in {path}, such as "
            f"{missing[0]}. Give the folder that holds them."
        )


def _is_inside(name: str) -> bool:
    """Return whether a file name is relative and does not climb, by the rules of every system."""
    windows = PureWindowsPath(name)
    return not (Path(name).anchor or windows.root or ".." in windows.parts)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a null character
        return False


def _check_categories(path: Path, categories: list[Category]) -> None:
    """Raise SourceError for ids that are not unique, and for unusable names."""
    faults, seen = Faults(), set[int]()
    for category in categories:
        if category["id"] in seen:
            faults.add("category id that occurs twice", str(category["id"]))
        seen.add(category["id"])
        if category["name"].lower() == BACKGROUND:
            faults.add(f"category called {BACKGROUND}, which every network has already", str(category["id"]))
    faults.refuse(path, "Correct the categories.")
    try:
        check_names([category["name"] for category in categories])
    except ValueError as error:
        raise SourceError(f"{path}: {error}. Correct the categories.") from error


def _objects(
    path: Path, photos: list[Photo], names: dict[int, str], entries: list[Annotation]
) -> list[CocoObject]:
    """Return the valid objects, and warn of all others and of repairs. Raises SourceError."""
    sizes = {photo["id"]: (photo["height"], photo["width"]) for photo in photos}
    listed = [entry for entry in entries if entry["image_id"] in sizes]
    refused, repaired = Faults(), Faults()
    for place, entry in enumerate(entries):
        if entry["category_id"] not in names:
            refused.add(f"unknown category_id {entry['category_id']}", f"annotations[{place}]")
        if entry["image_id"] not in sizes:
            repaired.add("object of a photo that is not listed, skipped", f"annotations[{place}]")
    refused.refuse(path, "Correct the annotations.")
    if _are_corners(listed, sizes):
        raise SourceError(f"{path} has boxes x1 y1 x2 y2. COCO's are x y width height: convert them.")
    objects = []
    for entry in listed:
        where = f"annotation {entry.get('id')} of image {entry['image_id']}"
        box = _usable_box(entry["bbox"], sizes[entry["image_id"]], repaired, where)
        if box is not None:
            mask = checked_mask(entry.get("segmentation"), sizes[entry["image_id"]], repaired, where)
            objects.append(_valid(entry, box, mask))
    repaired.warn(path)
    return objects


def _valid(entry: Annotation, box: list[float], mask: Mask) -> CocoObject:
    area = entry.get("area")
    return {
        "image_id": entry["image_id"],
        "category_id": entry["category_id"],
        "bbox": box,
        "segmentation": mask,
        "iscrowd": bool(entry.get("iscrowd")),
        "area": area if area is not None and 0 < area < math.inf else None,
    }


def _usable_box(box: list[float], size: tuple[int, int], faults: Faults, where: str) -> list[float] | None:
    """Return `box` clipped to a photo of `size`; None if nothing is left. Note what was done in `faults`."""
    height, width = size
    x, y, across, down = box
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + across, width), min(y + down, height)
    if not all(map(math.isfinite, box)):
        faults.add("box with NaN or infinity, object skipped", where)
    elif across <= 0 or down <= 0:
        faults.add("box without positive sides, object skipped", where)
    elif right <= left or bottom <= top:
        faults.add("box outside of its photo, object skipped", where)
    elif max(-x, -y, x + across - width, y + down - height) > 1:
        faults.add("box that leaves its photo, clipped", where)
        return [left, top, right - left, bottom - top]
    else:
        return box  # COCO's own boxes leave their photos by fractions of a pixel
    return None


def _are_corners(entries: list[Annotation], sizes: dict[int, tuple[int, int]]) -> bool:
    """Return whether boxes are x1 y1 x2 y2: all fit as such, while most leave their photo as x y w h."""
    beyond = 0
    for entry in entries:
        (height, width), (x, y, right, bottom) = sizes[entry["image_id"]], entry["bbox"]
        if not (x < right <= width + 1 and y < bottom <= height + 1):
            return False
        beyond += x + right > 1.1 * width or y + bottom > 1.1 * height
    return beyond > len(entries) / 2
