"""Open a source by what names it: a file, a camera number, a URL, a folder or a glob; or wrap images."""

import os
from collections.abc import Iterable
from pathlib import Path

from live_seg.files import expand_user
from live_seg.sources.cameras import Camera, CameraSettings
from live_seg.sources.image_files import ImageFiles, find_images
from live_seg.sources.live import DEFAULT_TIMEOUT
from live_seg.sources.sequences import FrameSequence
from live_seg.sources.streams import Stream
from live_seg.sources.video_files import VideoFile
from live_seg.types import Frame, Image, Source


def open_source(
    spec: str | int | os.PathLike[str] | Iterable[Image | Frame],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    reconnect: bool = True,
    wait: bool = True,
    camera: CameraSettings | None = None,
    image_fps: float = 1.0,
) -> Source:
    """Open the source that `spec` names. Close it when done, or use it in a `with` block.

    A number (0, "0", "/dev/video0") is a camera and a string with "://" is a stream. Everything else is a
    path: a video, an image, a folder of images or a glob of images ("in/*.jpg"). Write "./0" for a file
    named "0". Any other iterable, such as a list or a generator, holds BGR images (H, W, 3) uint8 or Frames.

    `timeout` is the number of seconds without a frame after which a camera or stream counts as dead. With
    `reconnect`, a dead stream is reconnected until it is back, and a warning is logged; with `wait`, also one
    that is not available yet. Otherwise that is an error. `camera` holds the settings to request from a
    camera. `image_fps` is the number of still images per second.

    Raises SourceError, with the reason and a remedy, if the source cannot be opened; UsageError if `timeout`
    is not above 0, or an image is not BGR.
    """
    if isinstance(spec, int):
        return Camera(spec, camera, timeout)
    if isinstance(spec, str) and (number := spec.removeprefix("/dev/video")).isdecimal():
        return Camera(int(number[:9]), camera, timeout)  # a longer one is refused as well
    if isinstance(spec, str) and "://" in spec:
        return Stream(spec, timeout, reconnect=reconnect, wait=wait)
    if not isinstance(spec, str | os.PathLike):
        return FrameSequence(spec)
    path = expand_user(Path(spec))
    images = find_images(path)
    return ImageFiles(str(path), images, image_fps) if images else VideoFile(path)
