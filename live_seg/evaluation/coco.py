"""COCO instances files: read, and checked for what training and measuring both rely on."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from live_seg.errors import SourceError
from live_seg.files import reading

LISTS = {
    "images": ("id", "file_name", "height", "width"),
    "categories": ("id", "name"),
    "annotations": ("image_id", "category_id", "bbox"),
}
"""The lists of a COCO instances file, and what each of their entries must have."""


def read_instances(images: Path, annotations: Path) -> dict[str, Any]:
    """Read the COCO instances file `annotations` about the photos in the folder `images` -> all of LISTS.

    Objects of photos that the file does not list are left out. Raises SourceError when the file cannot be
    read or is no instances file, or when photos are missing.
    """
    data = _read(annotations)
    _check_photos(images, annotations, [photo["file_name"] for photo in data["images"]])
    known = {photo["id"] for photo in data["images"]}
    return data | {"annotations": [entry for entry in data["annotations"] if entry["image_id"] in known]}


@contextlib.contextmanager
def as_cocos(where: str) -> Iterator[None]:
    """Turn what an annotation of another form brings about into a SourceError that names `where` it is."""
    try:
        yield
    except Exception as error:  # pycocotools raises just that
        reason = f"{type(error).__name__}: {error}"
        raise SourceError(f"{where} is not as COCO's are: {reason}. Correct or remove it.") from error


def _read(path: Path) -> dict[str, Any]:
    """The content of an instances file, with all of LISTS."""
    wanted = f"Expected a COCO instances file, with {', '.join(LISTS)}."
    with reading(path):
        text = path.read_bytes()
    try:
        data: Any = json.loads(text)
    except ValueError as error:
        raise SourceError(f"Cannot read the annotations {path} as JSON: {error}. {wanted}") from error
    if isinstance(data, list):
        raise SourceError(f"{path} is a list, like COCO's results: detections, not annotations. {wanted}")
    for name, keys in LISTS.items():
        entries = data.get(name) if isinstance(data, dict) else None
        if not isinstance(entries, list) or (not entries and name != "annotations"):
            raise SourceError(f"{path} has no {name}. {wanted}")
        for entry in entries:
            lacking = [key for key in keys if not isinstance(entry, dict) or entry.get(key) is None]
            if lacking:
                raise SourceError(f"{path}: one of the {name} has no {lacking[0]!r}. {wanted}")
    return dict(data)


def _check_photos(folder: Path, annotations: Path, names: list[str]) -> None:
    if not folder.is_dir():
        raise SourceError(f"There is no folder {folder}. Give the one that holds the photos.")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise SourceError(
            f"{folder} lacks {len(missing)} of the {len(names)} photos in {annotations}, such as "
            f"{missing[0]}. Give the folder that holds them."
        )
