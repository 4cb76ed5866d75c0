"""Run checks that may crash, hang or write to stderr (TensorFlow, drivers, Qt) in a separate process."""

import json
import signal
import subprocess
import sys
from typing import Any

from live_seg.errors import LiveSegError

LIKELY_CAUSES = {
    "SIGILL": "this CPU lacks an instruction that the program uses",
    "SIGKILL": "the system may be out of memory",
}
"""The likely cause of a fatal signal, by its name. Windows has no SIGKILL."""


class ProbeError(LiveSegError):
    """A probe failed, crashed or did not answer in time."""


def run_probe(name: str, timeout: float) -> dict[str, Any]:
    """Run the probe `name` of `live_seg.doctor.probes` in a new process and return its answer.

    Raises ProbeError with the reason when the probe fails, its process ends abnormally, or it takes longer
    than `timeout` seconds.
    """
    # -P: do not import a file in the user's folder that is named like a module.
    command = [sys.executable, "-P", "-m", "live_seg.doctor.probes", name]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProbeError(f"no answer within {timeout:g} s") from None
    if done.returncode != 0:
        raise ProbeError(_reason(done.returncode, done.stderr))
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise ProbeError(answer["error"])
    return answer


def _reason(code: int, stderr: str) -> str:
    """Return why a process ended: the last line on stderr, or the signal and its likely cause."""
    last = stderr.strip().splitlines()[-1:]
    if code > 0:
        return last[0] if last else f"it ended with exit code {code}"
    fatal = signal.Signals(-code)
    return "; ".join(filter(None, [f"it crashed ({fatal.name})", LIKELY_CAUSES.get(fatal.name)]))
