"""Run a command, and tell as JSON on stdout its exit code, seconds, and most memory in bytes.

    python -m live_seg.benchmark.launch COMMAND...

This is a process of its own because Linux charges a process at its start with the memory of the one that
starts it (`ru_maxrss` outlives exec): a benchmark that holds several models would find its own size.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence


def launch(command: Sequence[str]) -> tuple[int, float, int]:
    """Exit code, seconds from start to end, and peak resident memory, bytes, of the largest process in it."""
    begun = time.perf_counter()
    code = subprocess.call(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2) of macOS counts bytes, others KiB
    return code, seconds, unit * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


if __name__ == "__main__":
    json.dump(launch(sys.argv[1:]), sys.stdout)
