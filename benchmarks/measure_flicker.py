"""Measure flicker of masks and changes of ids: python benchmarks/measure_flicker.py VIDEO... [--fps 5].

Segments and tracks each video and prints, without and with smoothing: the change of a track's mask between
consecutive frames (1 - IoU), the motion of its box edges in pixels, how often tracks appear or disappear, and
the number of ids. For smoothed masks it also prints their IoU with the unsmoothed ones of the same frame
(1: no lag). A still scene should hardly change, a moving one should not lag.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from measure_propagation import command_line
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

import live_seg
from live_seg.tracking.smoother import HYSTERESIS, Smoother
from live_seg.tracking.tracker import Tracker
from live_seg.types import Instances, Segment

Tracks = dict[int, tuple[dict[str, Any], NDArray[np.float32]]]
"""Mask, as RLE, and box of every track in one frame."""


def main() -> None:
    """Measure each video named on the command line."""
    parser = command_line(__doc__ or "")
    parser.add_argument("--fps", type=float, default=1000.0, help="maximum frames segmented per second (all)")
    parser.add_argument("--seconds", type=float, default=10.0, help="maximum seconds of each video (10)")
    options = parser.parse_args()
    segment = live_seg.load("person", min_score=options.min_score * HYSTERESIS)
    print(f"{'':24}    change  box, px  changes  ids   IoU with unsmoothed: mean, 5th percentile")
    for video in options.videos:
        frames = list(tracked(video, segment, options.fps, options.seconds))
        before, after = measured(frames, options.min_score)
        print(f"{Path(video).name:24}  {table_row(before)}")
        ious = [
            iou(one[track], other[track]) for one, other, track in shared(zip(before, after, strict=True))
        ]
        lag = f"{np.mean(ious):.3f}, {np.percentile(ious, 5):.3f}" if ious else "no tracks to compare"
        print(f"{'smoothed':>24}  {table_row(after)}   {lag}", flush=True)


def tracked(
    video: str, segment: Segment, fps: float, seconds: float
) -> Iterator[tuple[float, tuple[int, int], Instances]]:
    """Yield seconds, size (height, width) and tracked instances of at most `fps` frames per second."""
    tracker, due = Tracker(), 0.0
    with live_seg.open_source(video) as source:
        for frame in source:
            if frame.seconds >= seconds:
                return
            if frame.seconds >= due:
                due = frame.seconds + 0.999 / fps
                height, width = frame.image.shape[:2]
                [found] = segment([frame.image])
                yield frame.seconds, (height, width), tracker.update(found, frame.seconds)


def measured(
    frames: list[tuple[float, tuple[int, int], Instances]], min_score: float
) -> tuple[list[Tracks], list[Tracks]]:
    """Return the tracks of each frame without and with smoothing."""
    smoother = Smoother(min_score)
    before = [tracks_of(instances[instances.scores >= min_score], size) for _, size, instances in frames]
    after = [tracks_of(smoother.update(instances, seconds), size) for seconds, size, instances in frames]
    return before, after


def tracks_of(instances: Instances, size: tuple[int, int]) -> Tracks:
    """Return every track in a frame of `size` (height, width)."""
    ids = [] if instances.track_ids is None else instances.track_ids.tolist()
    return dict(zip(ids, zip(instances.rles(size), instances.boxes, strict=True), strict=True))


def table_row(frames: list[Tracks]) -> str:
    """Return one row of the table."""
    both = list(shared(pairwise(frames)))
    change = np.mean([1 - iou(one[track], other[track]) for one, other, track in both] or [np.nan])
    edges = np.mean(
        [np.abs(one[track][1] - other[track][1]).mean() for one, other, track in both] or [np.nan]
    )
    changes = sum(len(one.keys() ^ other.keys()) for one, other in pairwise(frames))
    ids = [track for frame in frames for track in frame]
    lasting = sum(ids.count(track) > 1 for track in set(ids))
    return f"{change:8.4f} {edges:8.2f} {changes:8d} {lasting:4d}"


def shared(pairs: Any) -> Iterator[tuple[Tracks, Tracks, int]]:
    """Yield both frames and the id of each track that occurs in both frames of a pair."""
    return ((one, other, track) for one, other in pairs for track in sorted(one.keys() & other.keys()))


def iou(one: tuple[dict[str, Any], Any], other: tuple[dict[str, Any], Any]) -> float:
    """Return the IoU of two masks."""
    return float(coco_mask.iou([one[0]], [other[0]], [0])[0, 0])


if __name__ == "__main__":
    main()
