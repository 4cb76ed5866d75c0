"""A small file system that tests of failing writes can fill."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, *, kibibytes: int = 16) -> Iterator[Path]:
    """Mount a disk of this size at the new `folder`, or skip the test if that is not allowed."""
    if sys.platform == "win32":
        pytest.skip("only root may mount a small disk")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, *, left: int = 0) -> Path:
    """Fill `disk` up to `left` bytes with one file, and return it."""
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * max(shutil.disk_usage(disk).free - left, 0))
    return ballast
