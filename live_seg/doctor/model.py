"""Checks of the model: where downloads lie, the known weights, and the main job itself."""

import shutil
import tempfile

from live_seg.doctor.asking import ProbeError, ask
from live_seg.doctor.findings import Finding
from live_seg.errors import WeightsError

SEGMENTATION_SECONDS = 300.0
"""Loading from a cold disk and compiling take up to a minute on a slow machine."""

ENOUGH_SPACE = 1e9
"""Bytes free in the cache folder: COCO's weights are 258 MB, and converted ones may lie beside them."""


def cache() -> Finding:
    """Whether the cache folder, or the folder it would be made in, can be written, and has room."""
    from live_seg.files import cache_folder

    folder = cache_folder().absolute()
    elsewhere = "LIVE_SEG_CACHE=FOLDER names another"
    try:
        there = next(place for place in (folder, *folder.parents) if place.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding("note", f"{folder} cannot be written: {error.strerror}", elsewhere)
    free = shutil.disk_usage(there).free
    told = f"{folder}, {free / 1e9:.1f} GB free"
    if free < ENOUGH_SPACE:
        return Finding("note", f"{told}; {ENOUGH_SPACE / 1e9:g} GB should be", elsewhere)
    return Finding("good", told)


def person() -> Finding:
    """Whether the bundled weights are what they should be, by their hash. Raises WeightsError."""
    from live_seg.models.registry import verify

    return Finding("good", f"verified: {verify('person')}")


def coco() -> Finding:
    """Whether the weights of COCO's 80 classes are downloaded, and valid by their hash."""
    from live_seg.models.registry import status, verify

    remedy = "live-seg weights download coco"
    if (here := status("coco")) == "not downloaded":
        return Finding("note", here, remedy)
    try:
        return Finding("good", f"verified: {verify('coco')}")
    except WeightsError as error:
        return Finding("note", str(error), remedy)


def segmentation() -> Finding:
    """Whether the bundled model finds people on a picture, and how fast. Raises ProbeError."""
    try:
        answer = ask("segmentation", SEGMENTATION_SECONDS)
    except ProbeError as error:
        return Finding("bad", f"the person model does not run: {error}")
    times = f"ready after {answer['start']:.1f} s, then {answer['picture']:.2f} s a picture"
    if not answer["people"]:
        again = "pip install --force-reinstall live-seg keras tensorflow"
        return Finding("bad", f"the person model finds nobody on the demo's picture: {times}", again)
    return Finding("good", f"{answer['people']} people found on the demo's picture; {times}")
