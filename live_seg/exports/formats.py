"""The formats that JSON Lines are converted to, each as the text of a file."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from live_seg.errors import SourceError, UsageError, nearest
from live_seg.exports.records import Found, Record, categories, read_records
from live_seg.files import check_target, replacing

MOTS_CLASSES = {"car": 1, "person": 2, "pedestrian": 2}
"""Class ids of KITTI MOTS and MOTSChallenge; 10 marks regions to ignore, and other classes count from 11."""

MOTS_OTHERS = 11

MOTS_TRACKS = 1000
"""A track's id in MOTS is its class id times this, plus its number within the class."""


def convert(path: str | Path, to: str, output: str | Path, *, overwrite: bool = False) -> int:
    """Convert the JSON Lines file `path` to the file `output`; return the number of frames.

    The format `to` is "coco", "youtube-vis", "mot" or "mots". Raises UsageError for another one, SourceError
    for an invalid file, SinkError if `output` cannot be written, or exists and `overwrite` is False.
    """
    path, output = Path(path), Path(output)
    if to not in FORMATS:
        raise UsageError(f"There is no format {to!r}. {nearest(to, FORMATS)}")
    check_target(output, overwrite=overwrite)
    records = list(read_records(path))
    if not records:
        raise SourceError(f"{path} holds no frames.")
    text = FORMATS[to](records)
    with replacing(output) as partial:
        partial.write_text(text, encoding="utf-8")
    return len(records)


def coco(records: list[Record]) -> str:
    """Return a COCO instances file: every frame is an image, whose id is the frame's index.

    Annotations also have `score`, and `track_id` if confirmed.
    """
    ids = categories(records)
    images = [
        {
            "id": record.number,
            "file_name": f"{record.number:06d}.png",
            "width": record.size[0],
            "height": record.size[1],
            "seconds": record.seconds,
        }
        for record in records
    ]
    found = [(record, one) for record in records for one in record.instances]
    annotations = [
        {
            "id": number,
            "image_id": record.number,
            "category_id": ids[one.class_name],
            "bbox": one.xywh,
            "area": one.area,
            "segmentation": one.rle,
            "iscrowd": 0,
            "score": one.score,
            **({} if one.track_id is None else {"track_id": one.track_id}),
        }
        for number, (record, one) in enumerate(found, start=1)
    ]
    return _json({"images": images, "annotations": annotations, "categories": _categories(ids)})


def youtube_vis(records: list[Record]) -> str:
    """Return a YouTube-VIS file with one video: an annotation per confirmed track, null where missing.

    Masks are uncompressed RLE, as in the annotations of that dataset, which its tools expect.
    """
    ids = categories(records)
    tracks: dict[int, dict[int, Found]] = defaultdict(dict)
    for place, record in enumerate(records):
        for one in record.instances:
            if one.track_id is not None:
                tracks[one.track_id][place] = one
    (width, height), places = records[0].size, range(len(records))
    video = {
        "id": 1,
        "width": width,
        "height": height,
        "length": len(records),
        "file_names": [f"{record.number:06d}.png" for record in records],
    }
    annotations = [
        {
            "id": track_id,
            "video_id": 1,
            "category_id": ids[next(iter(found.values())).class_name],
            "segmentations": [found[place].runs() if place in found else None for place in places],
            "bboxes": [found[place].xywh if place in found else None for place in places],
            "areas": [found[place].area if place in found else None for place in places],
            "score": round(float(np.mean([one.score for one in found.values()])), 4),
            "iscrowd": 0,
            "width": width,
            "height": height,
        }
        for track_id, found in sorted(tracks.items())
    ]
    return _json({"videos": [video], "annotations": annotations, "categories": _categories(ids)})


def mot(records: list[Record]) -> str:
    """Return MOTChallenge lines: frame from 1, track id, left, top, width, height, score, -1, -1, -1.

    Only confirmed tracks are written. The format has no classes: choose one with `--classes` beforehand.
    """
    lines = (
        ",".join(map(str, (frame, one.track_id, *one.xywh, one.score, -1, -1, -1)))
        for frame, record in enumerate(records, start=1)
        for one in record.instances
        if one.track_id is not None
    )
    return "".join(f"{line}\n" for line in lines)


def mots(records: list[Record]) -> str:
    """Return MOTSChallenge lines: frame from 1, id, class id, height, width, RLE. Masks do not overlap.

    Only confirmed tracks are written. A pixel of several masks belongs to the one with the highest score.
    Raises UsageError for more than 999 tracks of a class.
    """
    others = [name for name in categories(records) if name not in MOTS_CLASSES]
    ids = MOTS_CLASSES | {name: MOTS_OTHERS + number for number, name in enumerate(others)}
    numbers: dict[int, dict[int, int]] = defaultdict(dict)
    lines = []
    for frame, record in enumerate(records, start=1):
        for one, rle in _without_overlap(record):
            kind = ids[one.class_name]
            number = numbers[kind].setdefault(int(one.track_id or 0), len(numbers[kind]) + 1)
            if number >= MOTS_TRACKS:
                raise UsageError(f"MOTS holds {MOTS_TRACKS - 1} tracks of a class, but there are more.")
            size = f"{record.size[1]} {record.size[0]}"
            lines.append(f"{frame} {kind * MOTS_TRACKS + number} {kind} {size} {rle}\n")
    return "".join(lines)


def _without_overlap(record: Record) -> Iterator[tuple[Found, str]]:
    """Yield the tracked instances of a frame, best first, with the RLE of what better ones leave of them."""
    taken = np.zeros(record.size[::-1], bool)
    tracked = [one for one in record.instances if one.track_id is not None]
    for one in sorted(tracked, key=lambda one: -one.score):
        bitmap = one.bitmap() & ~taken
        taken |= bitmap
        if bitmap.any():
            yield one, coco_mask.encode(np.asfortranarray(bitmap, np.uint8))["counts"].decode("ascii")


def _categories(ids: dict[str, int]) -> list[dict[str, Any]]:
    return [{"id": number, "name": name, "supercategory": ""} for name, number in ids.items()]


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[list[Record]], str]] = {
    "coco": coco,
    "youtube-vis": youtube_vis,
    "mot": mot,
    "mots": mots,
}
"""Formats by name."""

SUFFIXES = {"coco": ".json", "youtube-vis": ".json", "mot": ".txt", "mots": ".txt"}
"""Suffix of each format's files."""
