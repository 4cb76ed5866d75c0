"""Reading and validation of COCO instances files."""

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
"""Lists of a COCO instances file, and the keys that their entries must have."""


def read_instances(images: Path, annotations: Path) -> dict[str, Any]:
    """Read the COCO instances file `annotations` for the photos in the folder `images` -> all of LISTS.

    Objects of photos that the file does not list are skipped. Raises SourceError if the file is unreadable or
    in another format, or if photos are missing.
    """
    data = _read(annotations)
    _check_photos(images, annotations, [photo["file_name"] for photo in data["images"]])
    known = {photo["id"] for photo in data["images"]}
    return data | {"annotations": [entry for entry in data["annotations"] if entry["image_id"] in known]}


@contextlib.contextmanager
def checking_entry(where: str) -> Iterator[None]:
    """Turn any error about an annotation into a SourceError that names its place `where`."""
    try:
        yield
    except Exception as error:  # pycocotools raises bare Exception
        reason = f"{type(error).__name__}: {error}"
        raise SourceError(f"{where} is not in COCO's format: {reason}. Correct or remove it.") from error


def _read(path: Path) -> dict[str, Any]:
    """Return the content of an instances file, with all of LISTS."""
    expected = f"Expected a COCO instances file, with {', '.join(LISTS)}."
    with reading(path):
        text = path.read_bytes()
    try:
        data: Any = json.loads(text)
    except ValueError as error:
        raise SourceError(f"Cannot read the annotations {path} as JSON: {error}. {expected}") from error
    if isinstance(data, list):
        raise SourceError(f"{path} is a list, like COCO's results: detections, not annotations. {expected}")
    for name, keys in LISTS.items():
        entries = data.get(name) if isinstance(data, dict) else None
        if not isinstance(entries, list) or (not entries and name != "annotations"):
            raise SourceError(f"{path} has no {name}. {expected}")
        for entry in entries:
            missing = [key for key in keys if not isinstance(entry, dict) or entry.get(key) is None]
            if missing:
                raise SourceError(f"{path}: one of the {name} has no {missing[0]!r}. {expected}")
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
