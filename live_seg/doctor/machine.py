"""Checks of Python, the installed packages, the CPU and the memory."""

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

import psutil

from live_seg.doctor.findings import Finding

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PACKAGE = "live-seg"

OPENCV_WHEELS = (
    *("opencv-python", "opencv-contrib-python"),
    *("opencv-python-headless", "opencv-contrib-python-headless"),
)
"""Packages that install `cv2`, the recommended one first. Any one suffices; two overwrite each other."""

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
"""CPU features that speed a network up, with their names in Linux's /proc/cpuinfo and macOS's sysctl."""

MIN_FREE_MEMORY = 2e9
"""Bytes: the bundled model takes about 1.3 GB with TensorFlow; frames of 720p take the rest."""


def python() -> Finding:
    """Check that the package supports this version of Python."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    message = f"{version} ({sys.executable}) on {platform.platform()}"
    try:
        wanted = ",".join(metadata.metadata(PACKAGE).get_all("Requires-Python") or [])
    except metadata.PackageNotFoundError:
        return Finding("note", f"{message}; {PACKAGE} itself is not installed", "pip install .")
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return Finding("good", message)
    return Finding("bad", f"{message}; expected {wanted}", "Install live-seg with a supported Python.")


def packages() -> Finding:
    """Check that every required package is installed in a supported version."""
    present, wrong, wanted = [], [], []
    for requirement in requirements(PACKAGE):
        version = next(filter(None, map(installed_version, _alternatives(requirement.name))), None)
        if version and requirement.specifier.contains(version, prereleases=True):
            present.append(f"{requirement.name} {version}")
        else:
            expected = f", expected {requirement.specifier}" if requirement.specifier else ""
            wrong.append(f"{requirement.name} {version or 'is missing'}{expected}")
            wanted.append(f"'{requirement.name}{requirement.specifier}'")
    if wrong:
        return Finding("bad", "; ".join(wrong), f"pip install {' '.join(wanted)}")
    return Finding("good", ", ".join(present))


def requirements(package: str, extra: str | None = None) -> "list[Requirement]":
    """Return the requirements of a package, or those that an extra adds; none if it is not installed."""
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(text) for text in metadata.requires(package) or []]
    except metadata.PackageNotFoundError:
        return []
    base = [wanted for wanted in declared if wanted.marker is None or wanted.marker.evaluate({"extra": ""})]
    if extra is None:
        return base
    others = [wanted for wanted in declared if wanted not in base]
    return [wanted for wanted in others if wanted.marker and wanted.marker.evaluate({"extra": extra})]


def _alternatives(name: str) -> tuple[str, ...]:
    return OPENCV_WHEELS if name in OPENCV_WHEELS else (name,)


def installed_version(name: str) -> str | None:
    """Return the version of a package without importing it; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def cpu() -> Finding:
    """Check how many cores are usable and which of FEATURES they have."""
    name, words = _processor()
    known = [feature for feature, names in FEATURES.items() if names & words]
    message = ", ".join([f"{usable_cores()} of {os.cpu_count()} cores usable", name, *known])
    if "avx" in words and "AVX2" not in known:
        return Finding("note", f"{message}; without AVX2 segmenting is very slow")
    return Finding("good", message)


def usable_cores() -> int:
    """Return the number of cores that affinity and cgroup quota allow this process to use."""
    scheduled = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [text.split() for text in _cgroup("cpu.max")]
    allowed = [math.ceil(int(quota) / int(period)) for quota, period in quotas if quota != "max"]
    return min([scheduled, *allowed])


def _processor() -> tuple[str, set[str]]:
    """Return the name of the CPU and a set of words that contains the names of its features."""
    if sys.platform == "darwin":
        done = subprocess.run(
            ["sysctl", "machdep.cpu", "hw.optional"], capture_output=True, text=True, timeout=10, check=False
        )
        text = done.stdout.lower()
        present = re.findall(r"^hw\.optional\.(?:arm\.)?(\w+): 1$", text, re.MULTILINE)
        brand = re.search(r"^machdep\.cpu\.brand_string: (.+)", done.stdout, re.MULTILINE)
        return brand[1] if brand else platform.machine(), {*text.split(), *present}
    path = PROC / "cpuinfo"
    text = path.read_text(errors="replace") if path.exists() else ""
    name = re.search(r"^model name\s*: (.+)", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.+)", text, re.MULTILINE)
    return name[1] if name else platform.machine(), set(flags[1].split()) if flags else set()


def memory() -> Finding:
    """Check the memory available to this process and how much of it is free."""
    system = psutil.virtual_memory()
    total = min([system.total, *(int(text) for text in _cgroup("memory.max") if text.strip() != "max")])
    free = min(system.available, total)
    message = f"{total / 1e9:.1f} GB, {free / 1e9:.1f} GB free"
    if free < MIN_FREE_MEMORY:
        return Finding(
            "note", f"{message}; {MIN_FREE_MEMORY / 1e9:g} GB are recommended", "Close other programs."
        )
    return Finding("good", message)


def _cgroup(name: str) -> Iterator[str]:
    """Yield the text of the file `name` in this process's cgroup (version 2) and in all its parents."""
    path = PROC / "self" / "cgroup"
    own = re.search(r"^0::/(.*)$", path.read_text(), re.MULTILINE) if path.exists() else None
    if own is None:
        return
    inner = Path(own[1])
    for folder in (inner, *inner.parents):
        file = CGROUPS / folder / name
        if file.is_file():
            yield file.read_text()
