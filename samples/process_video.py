"""Count the people in a video, second by second: python samples/process_video.py IN.mp4."""

import sys

import live_seg


def main(path: str) -> None:
    """Print the largest number of people in any frame, for each second of the video at `path`."""
    segment = live_seg.load("person")
    second, most = 0, 0
    for frame, instances in live_seg.run(path, segment):
        while frame.seconds >= second + 1:
            print(f"{second:6d} s  {most} people")
            second, most = second + 1, 0
        most = max(most, len(instances))
    print(f"{second:6d} s  {most} people")


if __name__ == "__main__":
    main(*sys.argv[1:])
