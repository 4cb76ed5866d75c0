"""Soak test of several live sources: python benchmarks/soak_many.py [--frames 100000] [--sources 4].

Each source is an endless stream of ffmpeg that stalls, dies and comes back at random; a stub of the network
responds after random delays; every frame that arrives in time is returned with propagated masks. Reports
memory, frames and outages of each source (requires psutil: `pip install live-seg[dev]`). Fails if a frame is
neither shown nor counted as dropped, if memory grows, or if a thread or process is left running. Memory goes
up and down: each source keeps up to MAX_STEPS frames of 0.12 MB while it waits for a result, and glibc keeps
up to 40 MB that has been freed, in an arena for each thread. With MALLOC_ARENA_MAX=1 the rest is flat.
"""

import argparse
import contextlib
import random
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import imageio_ffmpeg
import psutil
from soak import GROWTH, SETTLED, Counted, responding

from live_seg.pipeline.many import SharedKeyframes
from live_seg.pipeline.member import Member
from live_seg.pipeline.run_many import joined
from live_seg.sources.lane import FRAMES_WAITING
from live_seg.types import Frame, Instances

TIMEOUT = 2.0
"""Seconds without a frame after which a stream counts as lost."""

STALL = 3.0
"""Longest stall in seconds."""


class Sender:
    """A server that sends an endless video to each client, until it is stalled or killed."""

    def __init__(self, fps: int) -> None:
        self.stalls = self.deaths = 0
        self._fps = fps
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._ending = False
        self._senders = list[subprocess.Popen[bytes]]()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        video = ("-re", "-f", "lavfi", "-i", f"testsrc2=rate={self._fps}:size=160x120", "-threads", "1")
        encode = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "25")
        while True:
            connection, _ = self._server.accept()
            with connection:
                if self._ending:
                    return
                command = (imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "quiet", "-nostdin", *video, *encode)
                sender = subprocess.Popen([*command, "-f", "mpegts", "pipe:1"], stdout=connection.fileno())
                self._senders = [*(one for one in self._senders if one.poll() is None), sender]

    def disturb(self, rng: random.Random) -> None:
        """Kill the sender, or stop it for a while."""
        if not self._senders or self._senders[-1].poll() is not None:
            return
        sender = self._senders[-1]
        if rng.random() < 0.5:
            self.deaths += 1
            sender.kill()
            return
        self.stalls += 1
        process = psutil.Process(sender.pid)
        process.suspend()
        threading.Timer(rng.uniform(0.1, STALL), resume, [process]).start()

    def end(self) -> None:
        """Stop serving."""
        self._ending = True
        with contextlib.suppress(OSError), socket.create_connection(self._server.getsockname()):
            pass
        self._thread.join()
        self._server.close()
        for sender in self._senders:
            sender.kill()
            sender.wait()


def resume(process: psutil.Process) -> None:
    """Let a stopped process run, unless it has been killed."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.resume()


def main() -> None:
    """Run the sources that the command line asks for, and check the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000, help="frames received in all (100000)")
    parser.add_argument("--sources", type=int, default=4, help="number of sources (4)")
    parser.add_argument("--delay", type=float, default=0.1, help="mean seconds per result (0.1)")
    parser.add_argument("--fps", type=int, default=60, help="frames per second of each source (60)")
    parser.add_argument("--every", type=float, default=3.0, help="mean seconds between disturbances (3)")
    parser.add_argument("--report", type=int, default=5_000, help="frames per report (5000)")
    options = parser.parse_args()
    threads = threading.active_count()
    senders = [Sender(options.fps) for _ in range(options.sources)]
    members = joined([sender.url for sender in senders], lambda url: opened(str(url)))
    shown, memory = Counter[int](), list[float]()
    with contextlib.ExitStack() as stack:
        for sender in senders:
            stack.callback(sender.end)
        running = stack.enter_context(SharedKeyframes(members, responding(options.delay)))
        disturbed = disturbing(iter(running), senders, options.every)
        for position, _, _ in disturbed:
            shown[position] += 1
            if received(members) >= (len(memory) + 1) * options.report:
                memory.append(report(members, shown, senders))
            if received(members) >= options.frames:
                break
    check(members, shown, memory)
    if threading.active_count() > threads or psutil.Process().children():
        raise SystemExit(f"left running: {threading.enumerate()}, {psutil.Process().children()}")
    print(f"{received(members)} frames received, all accounted for; no thread and no process left")


def opened(url: str) -> Counted:
    """Open a stream that counts its frames."""
    return Counted(url, TIMEOUT, wait=False)


def received(members: Sequence[Member]) -> int:
    """Return the number of frames of all sources."""
    return sum(counted(member) for member in members)


def counted(member: Member) -> int:
    """Return the number of frames received of a source."""
    source = member.lane.source
    return source.received if isinstance(source, Counted) else 0


def disturbing(
    results: Iterator[tuple[int, Frame, Instances]], senders: Sequence[Sender], every: float
) -> Iterator[tuple[int, Frame, Instances]]:
    """Yield `results`, and disturb one of `senders` every now and then."""
    rng = random.Random(0)
    due = time.monotonic() + every
    for result in results:
        if time.monotonic() > due:
            rng.choice(senders).disturb(rng)
            due = time.monotonic() + rng.expovariate(1 / every)
        yield result


def report(members: Sequence[Member], shown: Counter[int], senders: Sequence[Sender]) -> float:
    """Print a line; return the memory in megabytes."""
    memory = psutil.Process().memory_info().rss / 1e6
    rows = [
        f"{counted(member)} = {shown[number]} + {member.lane.dropped} ({member.segmented})"
        for number, member in enumerate(members)
    ]
    outages = f"{sum(one.stalls for one in senders)} stalls, {sum(one.deaths for one in senders)} deaths"
    print(f"{received(members):7d}: {'; '.join(rows)}; {outages}; {memory:.0f} MB", flush=True)
    return memory


def check(members: Sequence[Member], shown: Counter[int], memory: Sequence[float]) -> None:
    """Exit with a message if counts or memory are not as expected."""
    for number, member in enumerate(members):
        waiting = counted(member) - shown[number] - member.lane.dropped
        # One more may be on its way into the queue.
        if not 0 <= waiting <= FRAMES_WAITING + 1 or not shown[number] >= member.segmented > 0:
            raise SystemExit(
                f"source {number}: {counted(member)} received, {shown[number]} shown, {waiting} left"
            )
    half = len(memory) // 2
    if half >= SETTLED and max(memory[half:]) - max(memory[:half]) > GROWTH:
        raise SystemExit(f"memory grew from {max(memory[:half]):.0f} to {max(memory[half:]):.0f} MB")


if __name__ == "__main__":
    main()
