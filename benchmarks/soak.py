"""Soak test of a live session: python benchmarks/soak.py [--frames 100000] [--delay 0.3] [--fps 160].

ffmpeg sends a small video over HTTP, faster than any camera; a stub of the network responds after random
delays; every frame is drawn with propagated masks, as by live-seg webcam. Reports memory, dropped frames and
latency from capture to display (requires psutil: `pip install live-seg[dev]`). Fails if a frame is neither
shown nor counted as dropped, if memory grows, or if a thread is left running.
"""

import argparse
import contextlib
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import imageio_ffmpeg
import numpy as np
import psutil

import live_seg
from live_seg.pipeline.run import run, show
from live_seg.pipeline.stats import Latency, Tally
from live_seg.sources.streams import Stream
from live_seg.types import Frame, Image, Instances, Segment

GROWTH = 30.0
"""Maximum growth of memory in megabytes from the first to the second half."""

SETTLED = 5
"""Minimum reports per half before memory is compared: allocations take a while to settle."""

STARTS_WITHIN = 10.0
"""Maximum seconds until the sender listens."""


def main() -> None:
    """Send, show and count the frames that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000, help="number of frames (100000)")
    parser.add_argument("--delay", type=float, default=0.3, help="mean seconds per result (0.3)")
    parser.add_argument("--fps", type=int, default=160, help="frames sent per second (160)")
    parser.add_argument("--report", type=int, default=5_000, help="frames per report (5000)")
    options = parser.parse_args()
    threads = threading.active_count()
    tally = Tally()
    with sending(options.frames, options.fps) as url, connected(url) as source:
        found = run(source, responding(options.delay), tally=tally)
        shown = show(found, lambda frame, seen: live_seg.draw(frame.image, seen, ("", "person")), [], tally)
        memory = reported(shown, source, tally, options.report)
    print(tally.summary())
    lost = options.frames - tally.frames - tally.dropped
    if source.received != options.frames or lost:
        raise SystemExit(
            f"{options.frames} frames sent, {source.received} received, {lost} not accounted for"
        )
    half = len(memory) // 2
    if half >= SETTLED and max(memory[half:]) - max(memory[:half]) > GROWTH:
        raise SystemExit(f"memory grew from {max(memory[:half]):.0f} to {max(memory[half:]):.0f} MB")
    if threading.active_count() > threads:
        raise SystemExit(f"threads left running: {threading.enumerate()}")
    print(
        f"{source.received} frames received = {tally.frames} shown + {tally.dropped} dropped; no thread left"
    )


class Counted(Stream):
    """A stream that counts the frames it delivers."""

    received = 0

    def _numbered(self) -> Iterator[Frame]:
        for frame in super()._numbered():
            self.received += 1
            yield frame


@contextlib.contextmanager
def sending(frames: int, fps: int) -> Iterator[str]:
    """Run an ffmpeg that serves `frames` frames, MPEG-TS over HTTP, to one client; yield the URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    video = ("-re", "-f", "lavfi", "-i", f"testsrc2=rate={fps}:size=320x240", "-frames:v", str(frames))
    encode = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", str(fps))
    command = (imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-nostdin", "-threads", "1", *video)
    with subprocess.Popen([*command, *encode, "-f", "mpegts", "-listen", "1", url]) as sender:
        yield url
        sender.kill()


def connected(url: str) -> Counted:
    """Connect to `url`, retrying until the sender listens."""
    until = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            return Counted(url, reconnect=False)
        except live_seg.SourceError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def responding(delay: float) -> Segment:
    """Return a stub that finds up to three persons after `delay` seconds on average (exponential)."""
    rng = random.Random(0)

    def segment(images: list[Image]) -> list[Instances]:
        time.sleep(rng.expovariate(1 / delay) if delay else 0)
        return [persons(rng, *image.shape[:2]) for image in images]

    return segment


def persons(rng: random.Random, height: int, width: int) -> Instances:
    """Return up to three persons that fill boxes of random position."""
    n = rng.randrange(4)
    corners = [(rng.uniform(0, 0.7) * width, rng.uniform(0, 0.7) * height) for _ in range(n)]
    boxes = [(x, y, x + 0.3 * width, y + 0.3 * height) for x, y in corners]
    return Instances(
        boxes=np.array(boxes, np.float32).reshape(n, 4),
        masks=np.ones((n, 28, 28), np.float32),
        class_ids=np.ones(n, np.int32),
        scores=np.full(n, 0.9, np.float32),
    )


def reported(shown: Iterator[Frame], source: Counted, tally: Tally, every: int) -> list[float]:
    """Print a report after every `every` frames; return the memory at each in megabytes."""
    process, window, memory, due = psutil.Process(), Latency(), list[float](), every
    print("received    shown  dropped  network fps  ms mean    p95  RSS, MB")
    for frame in shown:
        window.add(tally.latency.last)
        if frame.index + 1 < due:
            continue
        memory.append(process.memory_info().rss / 1e6)
        delays = f"{1000 * window.mean:8.1f} {1000 * window.percentile(95):6.0f}"
        counts = f"{source.received:8d} {tally.frames:8d} {tally.dropped:8d} {tally.network_fps:12.1f}"
        print(f"{counts} {delays} {memory[-1]:8.1f}", flush=True)
        window, due = Latency(), due + every
    return memory


if __name__ == "__main__":
    main()
