"""Open a source by what names it: a file, a camera number, a URL, a folder or a glob; or wrap images."""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from live_seg.channel import Idle
from live_seg.errors import UsageError
from live_seg.files import expand_user
from live_seg.sources.cameras import Camera, CameraSettings
from live_seg.sources.converted_files import open_video
from live_seg.sources.excerpt import Excerpt
from live_seg.sources.image_files import ImageFiles, find_images
from live_seg.sources.live import DEFAULT_TIMEOUT
from live_seg.sources.screen import Screen, screen_number
from live_seg.sources.sequences import FrameSequence
from live_seg.sources.streams import Stream
from live_seg.types import Frame, Image, Source
from live_seg.urls import redacted


def open_source(
    spec: str | int | os.PathLike[str] | Iterable[Image | Frame],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    reconnect: bool = True,
    wait: bool = True,
    camera: CameraSettings | None = None,
    image_fps: float = 1.0,
    start: float = 0.0,
    end: float = math.inf,
    keep_sound: float = 0.0,
    idle: Idle | None = None,
) -> Source:
    """Open the source that `spec` names. Close it when done, or use it in a `with` block.

    A number (0, "0", "/dev/video0") is a camera, "screen" or "screen:2" a monitor, and a string with "://"
    a stream. Everything else is a path: a video, an image, a folder of images or a glob of images
    ("in/*.jpg"). Write "./0" for a file named "0". Any other iterable, such as a list or a generator, holds
    BGR images (H, W, 3) uint8 or Frames.

    `timeout` is the number of seconds without a frame after which a camera or stream counts as dead. With
    `reconnect`, a dead stream is reconnected until it is back, and a warning is logged; with `wait`, also one
    that is not available yet. Otherwise that is an error. `camera` holds the settings to request from a
    camera. `image_fps` is the number of still images per second. Of a video file, the
    frames from `start` on and before `end` are read, in seconds; they keep their times in the whole file.
    Of a stream, the last `keep_sound` seconds of sound are kept for recordings, as `Source.sound`.
    `idle` is called about 20 times a second while a camera or stream opens; when it returns False, the wait
    ends with a SourceError.

    Raises SourceError, with the reason and a remedy, if the source cannot be opened; UsageError if `timeout`
    is not above 0, an image is not BGR, or `start` and `end` are invalid or given for anything but a file.
    """
    path = _path(spec)
    images = find_images(path) if path is not None else []
    if path is not None and not images:
        video = open_video(path, start)
        return Excerpt(video, start, end) if start != 0 or end != math.inf else video
    if start != 0 or end != math.inf:
        raise UsageError(f"Only a video file can be read in part. Got {redacted(spec)}.")
    if path is not None:
        return ImageFiles(str(path), images, image_fps)
    if isinstance(spec, str) and "://" in spec:
        return Stream(spec, timeout, reconnect=reconnect, wait=wait, idle=idle, keep_sound=keep_sound)
    if (screen := screen_number(spec)) is not None:
        return Screen(screen, timeout, idle=idle)
    if isinstance(spec, int | str):
        digits = str(spec).removeprefix("/dev/video")
        return Camera(int(digits[:9]), camera, timeout, idle=idle)  # a longer number is refused as well
    return FrameSequence(cast("Iterable[Image | Frame]", spec))


def _path(spec: object) -> Path | None:
    """Return the path that `spec` names; None for a camera number, a URL or images."""
    if isinstance(spec, str):
        device = spec.removeprefix("/dev/video").isdecimal() or screen_number(spec) is not None
        named = "://" not in spec and not device
        return expand_user(spec) if named else None
    return expand_user(Path(spec)) if isinstance(spec, os.PathLike) else None
