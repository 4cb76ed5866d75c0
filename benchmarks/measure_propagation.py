"""Measure the quality of propagated masks.

    python benchmarks/measure_propagation.py VIDEO... [--every 8] [--frames 300]

Segments every frame as ground truth, then propagates from every Nth frame only. Prints the mean mask IoU by
distance from the last segmented frame, with propagation and with masks that are held still, and the cost of
propagation. --strip FOLDER saves an image for each video: propagated masks at each distance with the ground
truth outlined in white, from the segmented frame after which held masks lose most.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

import live_seg
from live_seg.propagation.propagator import Propagator
from live_seg.tracking.tracker import Tracker
from live_seg.types import Frame, Image, Instances

Found = list[tuple[Frame, Instances]]
Floats = NDArray[np.float64]

TILE = 240
"""Height of each image in a strip."""


def main() -> None:
    """Measure each video named on the command line."""
    parser = command_line(__doc__ or "")
    parser.add_argument("--every", type=int, default=8, help="distance of segmented frames (8)")
    parser.add_argument("--frames", type=int, default=300, help="maximum frames read of each video (300)")
    parser.add_argument("--threads", type=int, default=2, help="OpenCV threads (2)")
    parser.add_argument("--strip", type=Path, metavar="FOLDER", help="save images there")
    options = parser.parse_args()
    if options.every < 2 or options.frames <= options.every:
        parser.error("expected --every of 2 or more and --frames above --every")
    segment = live_seg.load("person", min_score=options.min_score)
    for video in options.videos:
        with live_seg.open_source(video) as source:
            truth = segmented(islice(source, options.frames), segment)
        cv2.setNumThreads(options.threads)
        propagated, wall, cpu = followed(truth, options.every)
        print(f"{video}: {wall:.1f} ms per frame, {cpu:.1f} ms of CPU time")
        print("  distance " + " ".join(f"{distance:6d}" for distance in range(1, options.every + 1)))
        held = [truth[last(at, options.every)][1] for at in range(len(truth))]
        for name, shown in (("held", held), ("propagated", propagated)):
            means = by_distance(quality(shown, truth, options.every), options.every)
            print(f"  {name:9}" + " ".join(f"{iou:6.3f}" for iou in means), flush=True)
        if options.strip:
            begin = most_moved(quality(held, truth, options.every), options.every)
            strip = drawn(truth, propagated, begin, options.every)
            cv2.imwrite(str(options.strip / f"strip_{Path(video).stem}.png"), strip)


def command_line(description: str) -> argparse.ArgumentParser:
    """Return a parser of the arguments that all measurements share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("videos", nargs="+", metavar="VIDEO")
    parser.add_argument("--min-score", type=float, default=0.6, help="score threshold (0.6)")
    return parser


def segmented(frames: Iterable[Frame], segment: Callable[..., Sequence[Instances]]) -> Found:
    """Return every frame with its tracked instances."""
    tracker = Tracker()
    return [(frame, tracker.update(segment([frame.image])[0], frame.seconds)) for frame in frames]


def followed(truth: Found, every: int) -> tuple[list[Instances], float, float]:
    """Return the instances propagated from every Nth frame, the median ms and the mean CPU ms per frame."""
    propagator, start = Propagator(blend_frames=1), time.process_time()
    propagated, costs = list[Instances](), list[float]()
    for position, (frame, instances) in enumerate(truth):
        since = time.perf_counter()
        propagated.append(propagator.advance(frame))
        if position % every == 0:
            propagator.correct(frame.index, instances)
        costs.append(time.perf_counter() - since)
    cpu = (time.process_time() - start) / max(1, len(truth))
    return propagated, 1000 * float(np.median(costs)), 1000 * cpu


def last(position: int, every: int) -> int:
    """Return the position of the last segmented frame before `position`, for the first frame itself."""
    return max(0, position - 1) // every * every


def quality(shown: list[Instances], truth: Found, every: int) -> list[list[float]]:
    """Return for each frame the mask IoUs of `shown` with the truth, of tracks in the last result."""
    return [
        overlaps(shown[at], instances, frame.image.shape[:2], truth[last(at, every)][1])
        for at, (frame, instances) in enumerate(truth)
    ]


def overlaps(shown: Instances, truth: Instances, size: tuple[int, ...], known: Instances) -> list[float]:
    """Return the mask IoU with the truth of every track in both `known` and `truth`; 0 if not shown."""
    one, other, started = (tracks(instances) for instances in (shown, truth, known))
    ours, theirs = list(shown.rles((size[0], size[1]))), list(truth.rles((size[0], size[1])))
    return [
        float(coco_mask.iou([ours[one[track]]], [theirs[place]], [0])[0, 0]) if track in one else 0.0
        for track, place in other.items()
        if track in started
    ]


def tracks(instances: Instances) -> dict[int, int]:
    """Map each track id to its position."""
    ids = [] if instances.track_ids is None else instances.track_ids.tolist()
    return {track: position for position, track in enumerate(ids)}


def by_distance(ious: list[list[float]], every: int) -> list[float]:
    """Return the mean IoU of all tracks at 1 to `every` frames from the last result."""
    rows = [[iou for found in ious[first + 1 :: every] for iou in found] for first in range(every)]
    return [float(np.mean(row)) if row else np.nan for row in rows]


def most_moved(held: list[list[float]], every: int) -> int:
    """Return the position of the segmented frame after which held masks lose most."""
    starts = range(0, len(held) - every, every)
    losses = [sum(1 - iou for found in held[at + 1 : at + every + 1] for iou in found) for at in starts]
    return starts[int(np.argmax(losses))]


def drawn(truth: Found, propagated: list[Instances], begin: int, every: int) -> Image:
    """Return the frames from `begin` to the next result side by side, cropped to their instances."""
    shown = [truth[begin][1], *propagated[begin + 1 : begin + every + 1]]
    stretch = truth[begin : begin + every + 1]
    boxes = np.concatenate([instances.boxes for _, instances in stretch])
    height, width = stretch[0][0].image.shape[:2]
    left, top = np.maximum(boxes[:, :2].min(axis=0) - 10, 0).astype(int)
    right, bottom = np.minimum(boxes[:, 2:].max(axis=0) + 10, (width, height)).astype(int)
    tiles = []
    for (frame, instances), masks in zip(stretch, shown, strict=True):
        image = live_seg.draw(frame.image, masks, ("", "person"), labels=False, boxes=False)
        for bitmap in instances.bitmaps((height, width)):
            edge, _ = cv2.findContours(bitmap.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(image, edge, -1, (255, 255, 255), 1)
        part = image[top:bottom, left:right]
        tiles.append(cv2.resize(part, (max(1, part.shape[1] * TILE // part.shape[0]), TILE)))
    return np.asarray(np.hstack(tiles), np.uint8)


if __name__ == "__main__":
    main()
