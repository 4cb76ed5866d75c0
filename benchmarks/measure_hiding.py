"""Measure how much of the persons in photos or videos `--effect blur` and `pixelate` leave visible.

    python benchmarks/measure_hiding.py photos IMAGES ANNOTATIONS [--size 640]
    python benchmarks/measure_hiding.py videos VIDEO... [--frames 300]

photos: IMAGES is a folder and ANNOTATIONS its COCO instances file, with masks of the class person. Prints,
for every region of `--hide` and every score threshold, the share of the pixels of large and medium persons
(COCO: from 32 x 32 pixels on) that stays visible, the share of these persons of whom more than a tenth stays
visible, and the share of all other pixels that is hidden.

videos: the persons are those that a larger input in float32 finds with a score of at least 0.5 in every
fourth frame. Prints for every region the number of these frames in which more than a tenth of a person stays
visible: without propagation, in one pass (held for half a second), and in two passes.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

import live_seg
from live_seg.choices import Hide
from live_seg.drawing.hiding import opacity
from live_seg.evaluation.ground_truth import GroundTruth
from live_seg.pipeline.filling import LOOKAHEAD
from live_seg.propagation.gaps import GapFiller
from live_seg.tracking.retention import Retention
from live_seg.tracking.tracker import Tracker
from live_seg.types import Frame, Image, Instances, Segment

MEDIUM = 32**2
"""Area in pixels of the smallest medium object, as COCO defines it."""

TOLERATED = 0.1
"""Share of a person's pixels above which the person counts as visible."""

Bits = NDArray[np.bool_]


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    photos, videos = kinds.add_parser("photos"), kinds.add_parser("videos")
    photos.add_argument("images", type=Path)
    photos.add_argument("annotations", type=Path)
    photos.add_argument("--conf", type=float, nargs="+", default=[0.5, 0.25, 0.1, 0.05, 0.02])
    videos.add_argument("videos", nargs="+")
    videos.add_argument("--conf", type=float, default=0.05, help="score threshold (0.05)")
    videos.add_argument("--frames", type=int, default=300, help="maximum frames read of each video (300)")
    videos.add_argument("--step", type=int, default=4, help="distance of the frames that count (4)")
    videos.add_argument("--reference-size", type=int, default=960, help="input of the reference (960)")
    for kind in (photos, videos):
        kind.add_argument("--model", default="small", help="name or weights file (small)")
        kind.add_argument("--engine", default="auto", help="engine (auto)")
        kind.add_argument("--size", type=int, help="longest side of the input (the model's own)")
    options = parser.parse_args()
    conf = min(options.conf) if options.kind == "photos" else options.conf
    arguments = {"engine": options.engine, "size": options.size, "min_score": conf, "classes": ["person"]}
    segment = live_seg.load(options.model, **arguments)
    if options.kind == "photos":
        measure_photos(segment, GroundTruth(options.images, options.annotations), options.conf)
        return
    arguments |= {"engine": "openvino", "size": options.reference_size, "min_score": 0.5}
    reference = live_seg.load(options.model, **arguments)
    for video in options.videos:
        with live_seg.open_source(video) as source:
            tracker = Tracker()
            frames = (
                (f, tracker.update(segment([f.image])[0], f.seconds)) for f in islice(source, options.frames)
            )
            print(video)
            measure_video(frames, reference, options.step)


def measure_photos(segment: Segment, truth: GroundTruth, thresholds: Sequence[float]) -> None:
    """Print a table of regions and thresholds."""
    cases = [(hide, conf) for conf in thresholds for hide in get_args(Hide)]
    totals = np.zeros((len(cases), 6))
    for image, persons, others in annotated(truth):
        [found] = segment([image])
        totals += [counts(found[found.scores >= conf], persons, others, hide) for hide, conf in cases]
    print(f"{int(totals[0, 3])} persons. Shares in %:")
    print("conf  hide   pixels visible  persons visible  others hidden")
    for (hide, conf), (visible, area, seen, every, hidden, rest) in zip(cases, totals, strict=True):
        shares = [100 * visible / area, 100 * seen / every, 100 * hidden / rest]
        print(f"{conf:<5g} {hide:5}  {shares[0]:14.2f}  {shares[1]:15.1f}  {shares[2]:13.1f}", flush=True)


def annotated(truth: GroundTruth) -> Iterator[tuple[Image, list[Bits], Bits]]:
    """Yield each photo with large and medium persons, their masks (H, W), and the pixels of no person."""
    coco = truth.masks()
    category = next(key for key, name in truth.categories.items() if name == "person")
    for photo in truth.photos:
        entries = coco.loadAnns(coco.getAnnIds(imgIds=[photo["id"]], catIds=[category]))
        persons = [
            coco.annToMask(entry).astype(bool)
            for entry in entries
            if not entry["iscrowd"] and entry["area"] >= MEDIUM
        ]
        if persons:
            every = [coco.annToMask(entry).astype(bool) for entry in entries]
            yield truth.read(photo), persons, ~np.any(every, axis=0)


def counts(found: Instances, persons: Sequence[Bits], others: Bits, hide: Hide) -> list[int]:
    """Return pixels of persons visible and in all, persons visible and in all, others hidden and in all."""
    visible = opacity(found, (others.shape[0], others.shape[1]), hide) < 255
    left = sum(int(np.sum(mask & visible)) for mask in persons)
    area = sum(int(np.sum(mask)) for mask in persons)
    seen = sum(is_visible(mask, visible) for mask in persons)
    return [left, area, seen, len(persons), int(np.sum(others & ~visible)), int(np.sum(others))]


def is_visible(mask: Bits, visible: Bits) -> bool:
    """Return whether more than TOLERATED of a person's `mask` is among the `visible` pixels."""
    return bool(np.count_nonzero(mask & visible) > TOLERATED * np.count_nonzero(mask))


class Way(NamedTuple):
    """What one way of propagation hides in each frame of a video."""

    name: str
    instances: list[Instances]


def measure_video(frames: Iterable[tuple[Frame, Instances]], reference: Segment, step: int) -> None:
    """Print a table of regions and ways of propagation for frames with tracked instances."""
    ways = [Way("none", []), Way("one pass", []), Way("two passes", [])]
    retention, filler = Retention(), GapFiller(LOOKAHEAD)
    persons: dict[int, list[dict[str, object]]] = {}
    size = (0, 0)
    for frame, instances in frames:
        size = (frame.image.shape[0], frame.image.shape[1])
        ways[0].instances.append(instances)
        ways[1].instances.append(retention.update(instances, frame.seconds))
        ways[2].instances.extend(one.all for one in filler.update(frame.image, frame.seconds, instances))
        if frame.index % step == step // 2:
            persons[frame.index] = list(reference([frame.image])[0].rles(size))
    ways[2].instances.extend(one.all for one in filler.finish())
    print(f"  {sum(map(bool, persons.values()))} of {len(persons)} frames show persons; visible in:")
    for hide in get_args(Hide):
        print(f"  {hide:5}", end="")
        for way in ways:
            shown = [
                frame_counts(way.instances[index], masks, size, hide) for index, masks in persons.items()
            ]
            seen, hidden = sum(one[0] for one in shown), np.mean([one[1] for one in shown])
            print(f"  {way.name}: {seen:3d} ({100 * hidden:4.1f} % hidden)", end="")
        print(flush=True)


def frame_counts(
    instances: Instances, persons: list[dict[str, object]], size: tuple[int, int], hide: Hide
) -> tuple[bool, float]:
    """Return whether any of the persons (RLE) stays visible, and the share of the frame that is hidden."""
    visible = opacity(instances, size, hide) < 255
    masks = [coco_mask.decode(mask).astype(bool) for mask in persons]
    return any(is_visible(mask, visible) for mask in masks), float(1 - visible.mean())


if __name__ == "__main__":
    main()
