"""Measure the duration and peak memory of a command.

    python -m live_seg.benchmark.launch COMMAND...

prints its exit code, duration in seconds and peak memory in bytes (null on Windows) as a JSON list. This
needs a process of its own: on Linux a new process inherits the peak memory of the process that starts it
(`ru_maxrss` survives exec), so a benchmark that holds several models would measure its own size.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence

import psutil

from live_seg.errors import LiveSegError
from live_seg.processes import OWN_GROUP


def measure_command(command: Sequence[str]) -> tuple[float, int | None]:
    """Run `command` in a new process; return its duration in seconds and peak resident memory in bytes.

    The memory is that of the largest process that it consists of, without an encoder beside it, and None on
    Windows. Raises LiveSegError, with the command's error output, when the command fails.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "live_seg.benchmark.launch", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **OWN_GROUP,
    )
    with process:
        try:
            output, errors = process.communicate()
        except BaseException:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            raise
    code, seconds, peak = json.loads(output) if output else (process.returncode, 0.0, 0)
    if code:
        text = errors.decode(errors="replace").strip()
        raise LiveSegError(f"{' '.join(command)} ended with exit code {code}:\n{text}")
    return seconds, peak


def run_command(command: Sequence[str]) -> tuple[int, float, int | None]:
    """Run `command` as a child process; return its exit code, duration in seconds and peak memory in bytes.

    The memory is the largest of all children of this process so far. It is None on Windows.
    """
    started = time.perf_counter()
    code = subprocess.call(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    if sys.platform == "win32":
        return code, seconds, None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2) returns bytes on macOS, KiB elsewhere
    return code, seconds, unit * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


if __name__ == "__main__":
    json.dump(run_command(sys.argv[1:]), sys.stdout)
