"""The memory that is available to this process."""

import contextlib
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
"""The control group of a container, as its processes see it (Linux, version 2)."""


def available_memory() -> int:
    """Return the bytes that can be used without swapping, within the limit of a container."""
    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # no container, or "max"
        limit, used = (int((CGROUP / f"memory.{name}").read_text("ascii")) for name in ("max", "current"))
        free = min(free, max(0, limit - used))
    return free
