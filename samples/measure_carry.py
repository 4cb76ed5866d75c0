"""How well carried masks hold: python samples/measure_carry.py VIDEO... [--every 8] [--frames 300].

Segments every frame as truth, then pretends that only every Nth was, and prints the mean mask IoU with the
truth by the distance from the last segmented frame, with and without carrying, and what carrying costs.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

import live_seg
from live_seg.structures import Frame, Instances
from live_seg.tracking.carry import Carrier
from live_seg.tracking.track import Tracker

Found = list[tuple[Frame, Instances]]


def main() -> None:
    """Measure each video named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("videos", nargs="+", metavar="VIDEO")
    parser.add_argument("--every", type=int, default=8, help="frames from one result to the next (8)")
    parser.add_argument("--frames", type=int, default=300, help="most frames read of each video (300)")
    parser.add_argument("--min-score", type=float, default=0.6, help="least score of a detection (0.6)")
    parser.add_argument("--threads", type=int, default=2, help="threads OpenCV may use (2)")
    options = parser.parse_args()
    if options.every < 2 or options.frames < options.every:
        parser.error("--every is 2 or more, --frames at least as many")
    segment = live_seg.load("person", min_score=options.min_score)
    for video in options.videos:
        with live_seg.open_source(video) as source:
            truth = segmented(islice(source, options.frames), segment)
        cv2.setNumThreads(options.threads)
        held, carried, costs = measured(truth, options.every)
        print(f"{video}: {costs:.1f} ms a frame")
        print("  distance " + " ".join(f"{distance:6d}" for distance in range(1, options.every)))
        print("  held     " + " ".join(f"{iou:6.3f}" for iou in held))
        print("  carried  " + " ".join(f"{iou:6.3f}" for iou in carried), flush=True)


def segmented(frames: Iterable[Frame], segment: Callable[..., Sequence[Instances]]) -> Found:
    """Segment every frame; the instances carry track ids."""
    tracker = Tracker()
    return [(frame, tracker.update(segment([frame.image])[0], frame.seconds)) for frame in frames]


def measured(truth: Found, every: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Mean IoU at distances 1 to `every` - 1 of held and of carried masks, and the median ms of a frame."""
    held: list[list[float]] = [[] for _ in range(every)]
    carried: list[list[float]] = [[] for _ in range(every)]
    costs = []
    carrier, last = Carrier(takeover=1), Instances.empty()
    for position, (frame, instances) in enumerate(truth):
        begun = time.perf_counter()
        now = carrier.advance(frame)
        costs.append((time.perf_counter() - begun) * 1000)
        if position % every == 0:
            last = instances
            carrier.correct(frame.index, instances)
            continue
        size = frame.image.shape[:2]
        held[position % every] += overlaps(last, instances, size, last)
        carried[position % every] += overlaps(now, instances, size, last)
    means = [[float(np.mean(found)) if found else np.nan for found in row[1:]] for row in (held, carried)]
    return np.array(means[0]), np.array(means[1]), float(np.median(costs))


def overlaps(shown: Instances, truth: Instances, size: tuple[int, int], last: Instances) -> list[float]:
    """Mask IoU with the truth of every track that is in `last` and in `truth`; one not shown counts 0."""
    one, other, begun = (tracks(instances) for instances in (shown, truth, last))
    shared = [track for track in other if track in begun]
    ours, theirs = list(shown.rles(size)), list(truth.rles(size))
    return [
        float(coco_mask.iou([ours[one[track]]], [theirs[other[track]]], [0])[0, 0]) if track in one else 0.0
        for track in shared
    ]


def tracks(instances: Instances) -> dict[int, int]:
    """The position of each track id."""
    ids = [] if instances.track_ids is None else instances.track_ids.tolist()
    return {track: position for position, track in enumerate(ids)}


if __name__ == "__main__":
    main()
