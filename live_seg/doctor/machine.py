"""Checks of what everything stands on: Python, the packages, the processor, the memory."""

import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from live_seg.doctor.findings import Finding

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PACKAGE = "live-seg"

OPENCV_WHEELS = (
    *("opencv-python", "opencv-contrib-python"),
    *("opencv-python-headless", "opencv-contrib-python-headless"),
)
"""Packages that bring `cv2`, the best for us first; any one of them will do, two overwrite each other."""

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")

FEATURES = {
    "AVX2": {"avx2", "avx2_0"},
    "AVX-512": {"avx512f"},
    "AVX-512 VNNI": {"avx512_vnni", "avx512vnni"},
    "AVX-VNNI": {"avx_vnni"},
    "AMX": {"amx_int8", "amx_bf16"},
    "bfloat16": {"avx512_bf16", "bf16", "feat_bf16"},
    "int8 dot product": {"asimddp", "feat_dotprod"},
    "int8 matrix product": {"i8mm", "feat_i8mm"},
}
"""What speeds a network up, and its names in Linux's /proc/cpuinfo and macOS's sysctl."""

ENOUGH_MEMORY = 2e9
"""Bytes that should be free: the person model takes some 1.3 GB with TensorFlow, 720p frames the rest."""


def python() -> Finding:
    """Whether this is a Python that the package is made for."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    told = f"{version} ({sys.executable}) on {platform.platform()}"
    try:
        wanted = ",".join(metadata.metadata(PACKAGE).get_all("Requires-Python") or [])
    except metadata.PackageNotFoundError:
        return Finding("note", f"{told}; {PACKAGE} itself is not installed", "pip install .")
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return Finding("good", told)
    return Finding("bad", f"{told}; expected {wanted}", "Install live-seg into such a Python.")


def packages() -> Finding:
    """Whether every package that is required is there, in a version that fits."""
    there, wrong, wanted = [], [], []
    for requirement in _required():
        version = next(filter(None, map(installed, _alternatives(requirement.name))), None)
        if version and requirement.specifier.contains(version, prereleases=True):
            there.append(f"{requirement.name} {version}")
        else:
            expected = f", expected {requirement.specifier}" if requirement.specifier else ""
            wrong.append(f"{requirement.name} {version or 'is missing'}{expected}")
            wanted.append(f"'{requirement.name}{requirement.specifier}'")
    if wrong:
        return Finding("bad", "; ".join(wrong), f"pip install {' '.join(wanted)}")
    return Finding("good", ", ".join(there))


def _required() -> "list[Requirement]":
    """What the package requires, without its extras; nothing where it is not installed."""
    from packaging.requirements import Requirement

    try:
        every = map(Requirement, metadata.requires(PACKAGE) or [])
    except metadata.PackageNotFoundError:
        return []
    return [one for one in every if one.marker is None or one.marker.evaluate({"extra": ""})]


def _alternatives(name: str) -> tuple[str, ...]:
    return OPENCV_WHEELS if name in OPENCV_WHEELS else (name,)


def installed(name: str) -> str | None:
    """The version of an installed package, read without importing it; None when it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def cpu() -> Finding:
    """How many cores may be used, and which instructions that speed a network up they know."""
    name, words = _processor()
    known = [feature for feature, names in FEATURES.items() if names & words]
    told = ", ".join([f"{usable_cores()} of {os.cpu_count()} cores usable", name, *known])
    if "avx" in words and "AVX2" not in known:
        return Finding("note", f"{told}; no AVX2, which most of the speed comes from")
    return Finding("good", told)


def usable_cores() -> int:
    """Cores that this process may use: those it may run on, less what its cgroup's quota forbids."""
    scheduled = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [text.split() for text in _cgroup("cpu.max")]
    allowed = [math.ceil(int(quota) / int(period)) for quota, period in quotas if quota != "max"]
    return min([scheduled, *allowed])


def _processor() -> tuple[str, set[str]]:
    """The processor's name, and words among which are its features."""
    if sys.platform == "darwin":
        done = subprocess.run(
            ["sysctl", "machdep.cpu", "hw.optional"], capture_output=True, text=True, timeout=10, check=False
        )
        told = done.stdout.lower()
        present = re.findall(r"^hw\.optional\.(?:arm\.)?(\w+): 1$", told, re.MULTILINE)
        brand = re.search(r"^machdep\.cpu\.brand_string: (.+)", done.stdout, re.MULTILINE)
        return brand[1] if brand else platform.machine(), {*told.split(), *present}
    path = PROC / "cpuinfo"
    told = path.read_text(errors="replace") if path.exists() else ""
    name = re.search(r"^model name\s*: (.+)", told, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.+)", told, re.MULTILINE)
    return name[1] if name else platform.machine(), set(flags[1].split()) if flags else set()


def memory() -> Finding:
    """How much memory there is for this process, and how much of it is free."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    total = min([total, *(int(text) for text in _cgroup("memory.max") if text.strip() != "max")])
    free = min(_available() or total, total)
    told = f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB of it free"
    if free < ENOUGH_MEMORY:
        return Finding("note", f"{told}; {ENOUGH_MEMORY / 1e9:g} GB should be", "Close other programs.")
    return Finding("good", told)


def _available() -> int | None:
    """Bytes that Linux could give to a program now; None on other systems."""
    path = PROC / "meminfo"
    found = re.search(r"^MemAvailable: *(\d+) kB", path.read_text(), re.MULTILINE) if path.exists() else None
    return int(found[1]) * 1024 if found else None


def _cgroup(name: str) -> Iterator[str]:
    """The texts of file `name` in this process's control group (version 2) and all that contain it."""
    path = PROC / "self" / "cgroup"
    own = re.search(r"^0::/(.*)$", path.read_text(), re.MULTILINE) if path.exists() else None
    if own is None:
        return
    inner = Path(own[1])
    for folder in (inner, *inner.parents):
        file = CGROUPS / folder / name
        if file.is_file():
            yield file.read_text()
