"""Segment a camera live in a window: python samples/webcam_demo.py [CAMERA]. q or Esc ends."""

import sys

import live_seg
from live_seg.ui.window import Window


def main(camera: str = "0") -> None:
    """Show the camera called `camera`, a number or a URL, with everyone in it drawn."""
    with Window("live_seg") as window:
        segment = live_seg.load("person")
        for frame, instances in live_seg.run(camera, segment):
            picture = live_seg.draw(frame.image, instances, segment.class_names)
            if not window.write(frame, picture, instances):
                break


if __name__ == "__main__":
    main(*sys.argv[1:])
