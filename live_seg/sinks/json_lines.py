"""Detections as JSON Lines."""

import contextlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from live_seg.errors import SinkError
from live_seg.files import claim
from live_seg.types import Frame, Image, Instances, Sink

logger = logging.getLogger(__name__)


class JsonLines(Sink):
    """Write one JSON object per frame to the file `path`: index, seconds, size, and instances with masks.

    docs/json-lines.schema.json defines the format; `track_id` is null until a track is confirmed.
    `class_names` is indexed by class id. Boxes are x1 y1 x2 y2 in frame pixels; masks are COCO's compressed
    RLE at the full resolution of the frame. Each line is flushed at once, and memory use is constant.

    Raises SinkError if `path` cannot be written, or exists and `overwrite` is False.
    """

    def __init__(self, path: str | Path, class_names: Sequence[str], *, overwrite: bool = False) -> None:
        self._path = path = Path(path)
        self._class_names = class_names
        self._overwrite = overwrite
        self._partial = claim(path, overwrite=overwrite)
        self._size = 0
        """Bytes of the complete lines."""
        try:
            self._file = self._partial.name.open("wb", buffering=0)
        except OSError as error:
            self._partial.discard()
            raise SinkError(f"Cannot write {self._partial.name}: {error.strerror}.") from error

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
        """Append the line of one frame. Returns True. Raises SinkError."""
        line = _line(frame, instances, self._class_names)
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError as error:
            raise SinkError(
                f"Cannot write {self._path}: {error.strerror}. {self._complete_lines()}"
            ) from error
        self._size += len(line)
        return True

    def close(self, complete: bool = True) -> None:
        """Give the file its final name, or delete it if there were no frames."""
        if self._file.closed:
            return
        kept = self._complete_lines()
        if complete and self._size:
            self._partial.publish(overwrite=self._overwrite)
            self.outputs = (self._path,)
        elif self._size:
            logger.warning("The run failed. %s", kept)

    def _complete_lines(self) -> str:
        """Close the file, without a line that was interrupted. Return a sentence that names it."""
        with contextlib.suppress(OSError):
            self._file.truncate(self._size)
        with contextlib.suppress(OSError):
            self._file.close()
        return self._partial.keep()


class JsonStream(Sink):
    """Write the same lines as JsonLines to an open binary `stream`, such as `sys.stdout.buffer`.

    The stream is left open. When the reader of a pipe has left, the run ends, as by the user.
    """

    def __init__(self, stream: BinaryIO, class_names: Sequence[str]) -> None:
        self._stream, self._class_names = stream, class_names

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
        """Write the line of one frame. Returns False once the reader has left. Raises SinkError."""
        try:
            self._stream.write(_line(frame, instances, self._class_names))
            self._stream.flush()
        except BrokenPipeError:
            return False
        except OSError as error:
            raise SinkError(f"Cannot write JSON Lines to the stream: {error.strerror}.") from error
        return True

    def close(self, complete: bool = True) -> None:
        """Do nothing: the stream is left open."""


def _line(frame: Frame, instances: Instances, class_names: Sequence[str]) -> bytes:
    """Return one frame as a line of JSON."""
    height, width = frame.image.shape[:2]
    record = {
        "index": frame.index,
        "seconds": round(frame.seconds, 6),
        "size": [width, height],
        "instances": [
            {
                "box": [round(edge, 2) for edge in instances.boxes[i].tolist()],
                "score": round(float(instances.scores[i]), 4),
                "class": class_names[instances.class_ids[i]],
                "track_id": instances.confirmed_id(i),
                "mask": mask,
            }
            for i, mask in enumerate(instances.rles((height, width)))
        ],
    }
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"
