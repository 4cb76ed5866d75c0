"""Interrupts at random moments, in a process of their own."""

import subprocess
import sys

from tests.stand_ins import ROOT

PROGRAM = """
import random, signal, threading
{imports}

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
random.seed(0)
for count in range({rounds}):
    try:
        with {stages} as results:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.002))
            for _ in results:
                pass
    except KeyboardInterrupt:
        assert threading.active_count() == 1
print("done")
"""


def assert_interrupts_leave_nothing(stages: str, *, imports: str, rounds: int, patience: float) -> None:
    """Interrupt loops over `stages`, an expression of `count`. Each must end without a thread left."""
    program = PROGRAM.format(stages=stages, imports=imports, rounds=rounds)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=patience
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
