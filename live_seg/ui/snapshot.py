"""One picture of a session, saved as it came and as it was drawn."""

import itertools
from datetime import datetime
from pathlib import Path

from live_seg.sinks.images import Images
from live_seg.types import Frame, Image, Instances


def save_snapshot(
    frame: Frame, drawn: Image, folder: Path, when: datetime | None = None
) -> tuple[Path, Path]:
    """Save `frame`'s own picture and the `drawn` one as PNG files in `folder`; return their names.

    They are called live-seg_DATE-TIME.png and live-seg_DATE-TIME_masks.png after `when`, by default now, with
    a number where one of these exists: no file is overwritten. Both pictures are (H, W, 3) uint8, BGR.
    Raises SinkError when they cannot be written.
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
