"""Random input: see tests.fuzz."""

import os
import subprocess
import sys

import pytest

from live_seg.cli.native_messages import LOG_LEVELS
from tests.fuzz import TARGETS, fuzz
from tests.stand_ins import ROOT

COUNTS = dict.fromkeys(TARGETS, 1000) | {"video": 400, "http": 600}
"""Cases of each target in the long run: ten thousand and more together."""


@pytest.mark.parametrize("name", TARGETS)
def test_some_cases(name: str) -> None:
    assert fuzz(name, 3 if name == "video" else 10) > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", TARGETS)
def test_many_cases(name: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz", name, str(COUNTS[name])]
    quiet = os.environ | LOG_LEVELS
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
