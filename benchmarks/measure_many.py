"""Measure several sources with one model: network rate, display rate, fairness, latency and memory.

    python benchmarks/measure_many.py CLIP... [--seconds 15] [--size 320] [--sources 1,2,4,8]

The sources are the clips in turn, each repeated without end and shown at its own speed. `network` is the sum
over all sources; `share` is the smallest and largest number of frames segmented of one source; latency is the
median from the time at which a frame is due until it is returned with propagated masks. For shares to be
compared, clips need the same frame rate, and colours that OpenCV reads without ffmpeg: no full range, no HDR.
"""

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import psutil

import live_seg
from live_seg.pipeline.many import SharedKeyframes
from live_seg.pipeline.member import Member
from live_seg.pipeline.run_many import joined
from live_seg.pipeline.stats import Latency
from live_seg.types import Frame

HEADER = """\
sources | network | share      | shown each | latency | memory
        | fps     | frames     | fps        | ms      | MB"""


def repeated(clip: str) -> Iterator[Frame]:
    """Yield the frames of `clip` without end."""
    index, begin = 0, 0.0
    while True:
        with live_seg.open_source(clip) as source:
            for frame in source:
                seconds = begin + frame.seconds
                yield Frame(index, seconds, frame.image)
                index += 1
            begin = seconds + 1 / source.fps


def measure(clips: Sequence[str], segment: live_seg.Segmenter, seconds: float) -> str:
    """Run one source for each of `clips` for `seconds` after the first results; return a row."""
    members = joined([repeated(clip) for clip in clips], live_seg.open_source)
    shown: Counter[int] = Counter()
    latency, began, before = Latency(), 0.0, [0] * len(clips)
    with SharedKeyframes(members, segment, batch=8) as results:
        for position, frame, _ in results:
            now = time.monotonic()
            if not began:
                if all(member.segmented for member in members):
                    began, before = now, [member.segmented for member in members]
                continue
            shown[position] += 1
            due = (members[position].lane.started_at or now) + frame.seconds
            latency.add(max(now - due, 0.0))
            if now - began > seconds:
                break
        return row(members, before, shown, latency, time.monotonic() - began)


def row(
    members: Sequence[Member], before: Sequence[int], shown: Counter[int], latency: Latency, seconds: float
) -> str:
    """Return the row of the table."""
    segmented = [member.segmented - old for member, old in zip(members, before, strict=True)]
    share = f"{min(segmented)}..{max(segmented)}"
    memory = psutil.Process().memory_info().rss / 1e6
    each, median = shown.total() / seconds / len(members), 1000 * latency.percentile(50)
    return (
        f"{len(members):7} | {sum(segmented) / seconds:7.1f} | {share:10} | {each:10.1f} | {median:7.0f} | "
        f"{memory:6.0f}"
    )


def main() -> None:
    """Print one row for each number of sources."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--sources", default="1,2,4,8")
    arguments = parser.parse_args()
    segment = live_seg.load("small", size=arguments.size)
    print(HEADER, flush=True)
    for count in map(int, arguments.sources.split(",")):
        clips = [arguments.clips[number % len(arguments.clips)] for number in range(count)]
        print(measure(clips, segment, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
