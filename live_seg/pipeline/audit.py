"""A report on hidden tracks: where each was found, propagated and uncertain, and images of the latter."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from live_seg.errors import SinkError, UsageError
from live_seg.files import check_target, claim, write_image
from live_seg.propagation.open_frame import Filled
from live_seg.types import Frame, Image, Instances, Sink

logger = logging.getLogger(__name__)

TILE = 240
"""Side of an image on the contact sheet in pixels."""

COLUMNS = 8

MAX_TILES = 200
"""Maximum number of images on the contact sheet, the first ones."""

MARGIN = 0.75
"""Surroundings shown around a box on each side, as a fraction of its longer side."""

FORGET = 10.0
"""Seconds after which a track that was never confirmed is left out."""

KINDS = ("detected", "propagated", "uncertain")


class Audit(Sink):
    """Write a report on every confirmed track to the JSON file `path`, and a contact sheet beside it.

    `latest` returns what was hidden in the frame that is being written. For each track the report holds
    ranges of frames, with their times, in which it was detected, propagated and uncertain. The contact sheet,
    a JPEG image, shows the drawn image where each range of uncertain frames begins. Frames that are no
    multiple of `every` were not segmented.

    Raises UsageError unless `path` ends in .json; SinkError if a file cannot be written, or exists and
    `overwrite` is False.
    """

    def __init__(
        self,
        path: Path,
        latest: Callable[[], Filled],
        *,
        every: int = 1,
        overwrite: bool = False,
    ) -> None:
        if path.suffix.lower() != ".json":
            raise UsageError(f"{path} is no name for an audit. Give a file that ends in .json.")
        self._sheet = path.with_suffix(".jpg")
        check_target(self._sheet, overwrite=overwrite)
        self._partial = claim(path, overwrite=overwrite)
        self._path, self._overwrite = path, overwrite
        self._latest, self._every = latest, every
        self._frames = 0
        self._uncertain_frames = 0
        self._tracks: dict[int, _Track] = {}
        self._tiles: list[Image] = []
        self._closed = False

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
        """Note the tracks of one frame. Returns True."""
        latest = self._latest()
        found = "detected" if frame.index % self._every == 0 else "propagated"
        for kind, rows in (
            (found, latest.found),
            ("propagated", latest.missed),
            ("uncertain", latest.uncertain),
        ):
            for position, track_id in enumerate(() if rows.track_ids is None else rows.track_ids.tolist()):
                track = self._tracks.setdefault(track_id, _Track(_class_name(rows, position)))
                track.confirmed |= rows.confirmed_id(position) is not None
                if track.add(kind, frame) and kind == "uncertain" and len(self._tiles) < MAX_TILES:
                    self._tiles.append(
                        _tile(image, rows.boxes[position], f"#{track_id} {frame.seconds:.2f} s")
                    )
        self._frames += 1
        self._uncertain_frames += len(latest.uncertain) > 0
        if frame.index % 1000 == 0:
            self._tracks = {key: one for key, one in self._tracks.items() if one.is_kept(frame.seconds)}
        return True

    def close(self, complete: bool = True) -> None:
        """Write the report and the contact sheet, or nothing after a failure. Raises SinkError."""
        if self._closed:
            return
        self._closed = True
        if not complete or not self._frames:
            self._partial.discard()
            return
        try:
            if self._tiles:
                write_image(_sheet(self._tiles), self._sheet)
            self._partial.name.write_text(json.dumps(self._report(), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            self._partial.discard()
            raise SinkError(f"Cannot write {self._path}: {error.strerror}.") from error
        except SinkError:
            self._partial.discard()
            raise
        self._partial.publish(overwrite=self._overwrite)
        self.outputs = (self._path, *([self._sheet] if self._tiles else []))
        logger.info(
            "Tracks are uncertain in %d of %d frames: see %s.",
            *(self._uncertain_frames, self._frames, " and ".join(map(str, self.outputs))),
        )

    def _report(self) -> dict[str, Any]:
        tracks = {key: one for key, one in sorted(self._tracks.items()) if one.confirmed}
        return {
            "frames": self._frames,
            "uncertain_frames": self._uncertain_frames,
            "contact_sheet": self._sheet.name if self._tiles else None,
            "tracks": [
                {"track_id": key, "class": one.class_name, **one.ranges} for key, one in tracks.items()
            ],
        }


class _Track:
    """Ranges of frames of one track, by kind."""

    def __init__(self, class_name: str) -> None:
        self.class_name, self.confirmed, self.seconds = class_name, False, 0.0
        self.ranges: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}

    def add(self, kind: str, frame: Frame) -> bool:
        """Add a frame. Return whether a new range begins."""
        ranges, self.seconds = self.ranges[kind], frame.seconds
        seconds = round(frame.seconds, 3)
        if ranges and ranges[-1]["last"] == frame.index - 1:
            ranges[-1] |= {"last": frame.index, "end": seconds}
            return False
        ranges.append({"first": frame.index, "last": frame.index, "start": seconds, "end": seconds})
        return True

    def is_kept(self, seconds: float) -> bool:
        return self.confirmed or seconds - self.seconds < FORGET


def _class_name(rows: Instances, position: int) -> str:
    class_id = int(rows.class_ids[position])
    return f"class {class_id}" if rows.class_names is None else rows.class_names[class_id]


def _tile(image: Image, box: Any, caption: str) -> Image:
    """Return a square of TILE pixels with the surroundings of `box` in a drawn image, and a caption."""
    box = np.asarray(box, float)
    side = (1 + 2 * MARGIN) * max(8.0, *(box[2:] - box[:2]))
    scale = TILE / side
    middle = (box[:2] + box[2:]) / 2
    matrix = np.array([[scale, 0, TILE / 2 - scale * middle[0]], [0, scale, TILE / 2 - scale * middle[1]]])
    tile = np.asarray(cv2.warpAffine(image[..., :3], matrix, (TILE, TILE), flags=cv2.INTER_AREA), np.uint8)
    corners = (box.reshape(2, 2) - middle) * scale + TILE / 2
    (left, top), (right, bottom) = np.rint(corners).astype(int).tolist()
    cv2.rectangle(tile, (left, top), (right, bottom), (0, 0, 255), 1)
    for shade, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(tile, caption, (6, TILE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, shade, width, cv2.LINE_AA)
    return tile


def _sheet(tiles: list[Image]) -> Image:
    """Arrange tiles in rows of COLUMNS."""
    blank = np.zeros((TILE, TILE, 3), np.uint8)
    columns = min(COLUMNS, len(tiles))
    padded = [*tiles, *[blank] * (-len(tiles) % columns)]
    rows = [np.hstack(padded[start : start + columns]) for start in range(0, len(padded), columns)]
    return np.asarray(np.vstack(rows), np.uint8)
