"""Checks of the model: the cache folder, the known weights, and a test segmentation."""

import shutil
import tempfile

from live_seg.doctor.findings import Finding
from live_seg.doctor.probing import ProbeError, run_probe
from live_seg.errors import WeightsError

SEGMENTATION_TIMEOUT = 300.0
"""Seconds: loading from a cold disk and compiling take up to a minute on a slow machine."""

MIN_FREE_SPACE = 1e9
"""Bytes free in the cache folder: the weights `coco` have 258 MB; converted weights are kept there too."""


def cache() -> Finding:
    """Check that the cache folder, or its nearest existing parent, is writable and has enough space."""
    from live_seg.files import cache_folder

    folder = cache_folder().absolute()
    remedy = "Set LIVE_SEG_CACHE=FOLDER to another folder"
    try:
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding("note", f"{folder} cannot be written: {error.strerror}", remedy)
    free = shutil.disk_usage(existing).free
    message = f"{folder}, {free / 1e9:.1f} GB free"
    if free < MIN_FREE_SPACE:
        return Finding("note", f"{message}; {MIN_FREE_SPACE / 1e9:g} GB are recommended", remedy)
    return Finding("good", message)


def bundled() -> Finding:
    """Check the hash of the bundled weights. Raises WeightsError."""
    from live_seg.models.registry import verify

    return Finding("good", f"verified: {verify('small')}")


def downloaded(name: str) -> Finding:
    """Check that the weights called `name` are downloaded, and their hash."""
    from live_seg.models.registry import status, verify

    remedy = f"live-seg weights download {name}"
    if (here := status(name)) == "not downloaded":
        return Finding("note", here, remedy)
    try:
        return Finding("good", f"verified: {verify(name)}")
    except WeightsError as error:
        return Finding("note", str(error), remedy)


def segmentation() -> Finding:
    """Check that the bundled model finds people in a frame of the demo clip, and how fast."""
    try:
        answer = run_probe("segmentation", SEGMENTATION_TIMEOUT)
    except ProbeError as error:
        return Finding("bad", f"the bundled model does not run: {error}")
    times = f"first result after {answer['start']:.1f} s, then {answer['frame']:.2f} s per frame"
    if not answer["people"]:
        reinstall = "pip install --force-reinstall live-seg keras tensorflow"
        return Finding("bad", f"the bundled model finds no person in the demo clip: {times}", reinstall)
    return Finding("good", f"{answer['people']} people found in the demo clip; {times}")
