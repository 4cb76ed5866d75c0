"""Where pictures come from: a video file, a camera, a network stream or still images, by what names it."""

import re
from pathlib import Path

from live_seg.files import expand_user
from live_seg.sources.cameras import Camera, CameraSettings
from live_seg.sources.image_files import ImageFiles, find_images
from live_seg.sources.live import TIMEOUT
from live_seg.sources.streams import Stream
from live_seg.sources.video_files import VideoFile
from live_seg.types import Source


def open_source(
    spec: str | int | Path,
    *,
    timeout: float = TIMEOUT,
    reconnect: bool = True,
    wait: bool = True,
    camera: CameraSettings | None = None,
) -> Source:
    """Open whatever `spec` names; close it when done (a `with` block does).

    A number (0, "0", "/dev/video0") is a camera, a string with "://" a stream; everything else is a path:
    a video, an image, a folder of images or a glob of images ("in/*.jpg"). A file called "0" is "./0".

    `timeout` is the seconds without a picture after which a camera or stream counts as dead. With `reconnect`
    a stream that is dead is waited for without end, and a warning logged; with `wait`, too, one that is not
    there yet. Otherwise that is an error. `camera` is what to ask of a camera.

    Raises SourceError, with the reason and the way out, when it cannot be opened; UsageError for a `timeout`
    that is not above 0.
    """
    if isinstance(spec, int):
        return Camera(spec, camera, timeout)
    if isinstance(spec, str) and (number := re.fullmatch(r"(?:/dev/video)?(\d+)", spec)):
        return Camera(int(number[1]), camera, timeout)
    if isinstance(spec, str) and "://" in spec:
        return Stream(spec, timeout, reconnect=reconnect, wait=wait)
    path = expand_user(spec)
    images = find_images(path)
    return ImageFiles(str(path), images) if images else VideoFile(path)
