"""Make the images of README and documentation: python docs/make_images.py [MODEL]."""

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from matplotlib import cbook
from PIL import Image as Pillow

import live_seg
from live_seg.drawing.hiding import pixelate
from live_seg.files import read_image
from live_seg.segmenter import Segmenter
from live_seg.sources.demo import DemoClip
from live_seg.types import Frame, Image, Instances
from live_seg.ui.controls import Controls
from live_seg.ui.hud import draw_hud
from live_seg.ui.metrics import Metrics

FOLDER = Path(__file__).parent / "images"

WIDTH = 640
"""Pixels across a wide image, and down a tall one."""

EVERY = 2
"""Frames of the clip from one frame of the animation to the next."""

STILL = 20
"""Frame of the clip that the still images show."""

STATUS = Metrics(camera_fps=30, network_fps=28.7, latency=0.021, instances=3, dropped=0)
"""What the status display of the webcam image shows."""


def main(model: str = "small") -> None:
    """Write demo.webp, video.jpg, effect.jpg, webcam.jpg and image.jpg with a model."""
    segment = live_seg.load(model)
    with DemoClip() as clip:
        shown = list(_segmented(clip, segment))
        rate = clip.fps
    frames = [_resized(live_seg.draw(f.image, found, segment.class_names)) for f, found in shown[::EVERY]]
    pages = [Pillow.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)) for frame in frames]
    pages[0].save(
        FOLDER / "demo.webp",
        save_all=True,
        append_images=pages[1:],
        duration=round(1000 * EVERY / rate),
        loop=0,
        quality=60,
        method=6,
    )
    frame, found = shown[STILL]
    _write("video.jpg", live_seg.draw(frame.image, found, segment.class_names))
    _write("effect.jpg", pixelate(frame.image, found))
    screen = live_seg.draw(frame.image, found, segment.class_names)
    draw_hud(screen, Controls(segment.config.min_score), STATUS)
    _write("webcam.jpg", screen)
    photo = read_image(Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
    _write("image.jpg", live_seg.draw(photo, segment([photo])[0], segment.class_names))


def _segmented(clip: DemoClip, segment: Segmenter) -> Iterator[tuple[Frame, Instances]]:
    yield from islice(live_seg.run(clip, segment, smooth=segment.config.min_score), clip.frames)


def _resized(image: Image) -> Image:
    scale = WIDTH / max(image.shape[:2])
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def _write(name: str, image: Image) -> None:
    cv2.imwrite(str(FOLDER / name), _resized(image), [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main(*sys.argv[1:])
