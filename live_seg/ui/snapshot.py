"""Snapshots: one frame of a session, with and without annotations, as image files."""

import itertools
from datetime import datetime
from pathlib import Path

from live_seg.sinks.images import Images
from live_seg.types import Frame, Image, Instances


def save_snapshot(
    frame: Frame, drawn: Image, folder: Path, when: datetime | None = None
) -> tuple[Path, Path]:
    """Save the image of `frame` and its `drawn` version as PNG files in `folder`. Return both paths.

    The names are live-seg_DATE-TIME.png and live-seg_DATE-TIME_masks.png, with the time `when`, by default
    now, and a number if one of the files exists: nothing is overwritten. Both images
    are (H, W, 3) uint8 BGR. Raises SinkError when a file cannot be written.
    """
    stem = f"live-seg_{when or datetime.now().astimezone():%Y%m%d-%H%M%S}"
    for number in itertools.count(1):
        name = stem if number == 1 else f"{stem}_{number:03d}"
        plain, masks = folder / f"{name}.png", folder / f"{name}_masks.png"
        if not plain.exists() and not masks.exists():
            break
    for path, image in ((plain, frame.image), (masks, drawn)):
        with Images(path) as sink:
            sink.write(frame, image, Instances.empty())
    return plain, masks
