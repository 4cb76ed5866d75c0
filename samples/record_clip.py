"""Record an annotated clip of a camera or video: python samples/record_clip.py SOURCE OUT.mp4 [SECONDS]."""

import sys
from pathlib import Path

import live_seg


def main(spec: str, out: str, seconds: str = "10") -> None:
    """Write the first `seconds` of the source `spec`, annotated, to the video file `out`."""
    segment = live_seg.load("person")
    with live_seg.open_source(spec) as source, live_seg.VideoWriter(Path(out), source.fps) as clip:
        for frame, instances in live_seg.run(source, segment):
            if frame.seconds >= float(seconds):
                break
            clip.write(frame, live_seg.draw(frame.image, instances, segment.class_names), instances)


if __name__ == "__main__":
    main(*sys.argv[1:])
