"""Segment a camera live in a window: python samples/webcam_demo.py [CAMERA]. Press q or Esc to end."""

import sys

import live_seg


def main(camera: str = "0") -> None:
    """Show the annotated frames of `camera`, a number or a URL."""
    with live_seg.Window("live_seg") as window:
        segment = live_seg.load("person")
        for frame, instances in live_seg.run(camera, segment):
            image = live_seg.draw(frame.image, instances, segment.class_names)
            if not window.write(frame, image, instances):
                break


if __name__ == "__main__":
    main(*sys.argv[1:])
