"""Measure several sources with one model: network rate, display rate, fairness, latency and memory.

    python benchmarks/measure_many.py CLIP [--seconds 15] [--size 320] [--sources 1,2,4,8]

Every source is the same clip, read with OpenCV and shown at its own speed.
"""

import argparse
import contextlib
import time
from collections import Counter

import psutil

import live_seg
from live_seg.pipeline.many import SharedKeyframes
from live_seg.pipeline.run_many import joined


def measure(clip: str, count: int, segment: live_seg.Segmenter, seconds: float) -> None:
    """Run `count` sources for `seconds` after the first result; print one row."""
    members, wake = joined([clip] * count, live_seg.open_source)
    shown: Counter[int] = Counter()
    latencies = []
    with (
        SharedKeyframes(members, segment, wake, batch=8) as results,
        contextlib.suppress(live_seg.SourceError),
    ):
        began = before = None
        for position, frame, _ in results:
            now = time.monotonic()
            if began is None:
                if all(member.segmented for member in members):
                    began, before = now, [member.segmented for member in members]
                continue
            shown[position] += 1
            latencies.append(now - (members[position].lane.started_at or now) - frame.seconds)
            if now - began > seconds:
                break
        if began is None or before is None:
            print(f"{count} sources: the clip ended before all were segmented")
            return
        spent = time.monotonic() - began
        segmented = [member.segmented - old for member, old in zip(members, before, strict=True)]
    latencies.sort()
    memory = psutil.Process().memory_info().rss / 1e6
    print(
        f"{count:7} | {sum(segmented) / spent:7.2f} | {min(segmented):4}..{max(segmented):<4} | "
        f"{sum(shown.values()) / spent / count:10.1f} | {1000 * latencies[len(latencies) // 2]:7.0f} | "
        f"{memory:6.0f}"
    )


def main() -> None:
    """Print one row for each number of sources."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--sources", default="1,2,4,8")
    arguments = parser.parse_args()
    segment = live_seg.load("small", size=arguments.size)
    print("sources | network | segmented  | shown each | latency | memory")
    print("        |  fps    | per source | fps        | ms      | MB")
    for count in map(int, arguments.sources.split(",")):
        measure(arguments.clip, count, segment, arguments.seconds)


if __name__ == "__main__":
    main()
