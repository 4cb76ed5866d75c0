"""Asking in a process of its own what may crash, hang, or talk on stderr: TensorFlow, drivers, Qt."""

import json
import signal
import subprocess
import sys
from typing import Any

from live_seg.errors import LiveSegError

MEANINGS = {
    signal.SIGILL: "this CPU lacks an instruction that it was built for",
    signal.SIGKILL: "the system may be short of memory",
}
"""What a deadly signal tells of its cause, where it does."""


class ProbeError(LiveSegError):
    """What was asked failed, crashed or gave no answer in time."""


def ask(probe: str, seconds: float) -> dict[str, Any]:
    """Run a probe of `live_seg.doctor.probes` in its own process, for `seconds` at most; return its answer.

    Raises ProbeError with the probe's own reason, or with how its process ended.
    """
    # -P: a file of the user's named like a module is not imported.
    command = [sys.executable, "-P", "-m", "live_seg.doctor.probes", probe]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProbeError(f"no answer within {seconds:g} s") from None
    if done.returncode != 0:
        raise ProbeError(_ending(done.returncode, done.stderr))
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "failed" in answer:
        raise ProbeError(answer["failed"])
    return answer


def _ending(code: int, said: str) -> str:
    """Say how a process ended: by its last word on stderr, or by the signal that ended it."""
    last = said.strip().splitlines()[-1:]
    if code > 0:
        return last[0] if last else f"it ended with exit code {code}"
    name = signal.Signals(-code).name
    return "; ".join([f"it crashed ({name})", *filter(None, [MEANINGS.get(signal.Signals(-code))])])
