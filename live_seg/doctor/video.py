"""Checks of input and output: OpenCV, windows, ffmpeg, a video written and read back, and cameras."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from live_seg.doctor.findings import Finding
from live_seg.doctor.machine import OPENCV_WHEELS, installed_version
from live_seg.doctor.probing import ProbeError, run_probe
from live_seg.errors import SinkError, SourceError

WINDOW_TIMEOUT = 60.0

ENCODERS = {
    "libx264": "videos",
    "aac": "audio that is not copied",
    "prores_ks": "transparent .mov",
    "libvpx-vp9": "transparent .webm",
}
"""The encoders that are used, and for which output. Without the first one no video can be written."""

FRAMES = 5
SIZE = (64, 48)
"""Width and height in pixels of the video that is written and read back."""

TOLERANCE = 12
"""Largest change of the mean grey level of a frame through H.264."""

CAMERAS = range(4)
"""The numbers of the cameras that are tried."""

CAMERA_TIMEOUT = 5.0
"""Seconds in which a camera must deliver its first frame."""

DEV = Path("/dev")


def opencv() -> Finding:
    """Check that OpenCV can be imported and reads videos, its window system, and for conflicting wheels."""
    wheels = [name for name in OPENCV_WHEELS if installed_version(name)]
    conflict = f"; {' and '.join(wheels)} overwrite each other" if len(wheels) > 1 else ""
    recommended = next((name for name in wheels if "headless" not in name), OPENCV_WHEELS[0])
    reinstall = f"pip install {recommended}"
    if wheels:
        reinstall = f"pip uninstall -y {' '.join(wheels)}; {reinstall}"
    try:
        import cv2
    except ImportError as error:
        system = ".so" in str(error) and not conflict  # a library of the system, such as libGL.so.1
        message = f"it cannot be imported: {error}{conflict}"
        return Finding("bad", message, "sudo apt install libgl1 libglib2.0-0" if system else reinstall)
    build = cv2.getBuildInformation()
    windows = re.search(r"^ *GUI: *(?!NONE)(\w+)", build, re.MULTILINE)
    message = f"{cv2.__version__}, {f'windows by {windows[1]}' if windows else 'no windows'}"
    if not re.search(r"^ *FFMPEG: *YES", build, re.MULTILINE):
        return Finding("bad", f"{message}, reads no videos: built without FFmpeg{conflict}", reinstall)
    if conflict or not windows:
        return Finding("note", f"{message}, reads videos{conflict}", reinstall)
    return Finding("good", f"{message}, reads videos")


def window() -> Finding:
    """Check that a window can be shown."""
    try:
        run_probe("window", WINDOW_TIMEOUT)
    except ProbeError as error:
        return Finding("note", str(error))
    return Finding("good", "can be shown")


def ffmpeg() -> Finding:
    """Check that ffmpeg runs and has all of ENCODERS."""
    from live_seg.ffmpeg import executable

    remedy = "pip install --force-reinstall imageio-ffmpeg"
    if "IMAGEIO_FFMPEG_EXE" in os.environ:
        remedy = f"unset IMAGEIO_FFMPEG_EXE; {remedy}"
    try:
        program = executable()
        done = subprocess.run(
            [program, "-encoders"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (SinkError, OSError, subprocess.SubprocessError) as error:
        return Finding("bad", str(error), remedy)
    available = set(re.findall(r"^ [VA]\S{5} (\S+)", done.stdout, re.MULTILINE))
    version = re.match(r"ffmpeg version (\S+)", done.stderr)
    message = f"{version[1] if version else 'of unknown version'} ({program})"
    if missing := [name for name in ENCODERS if name not in available]:
        outputs = ", ".join(f"{name} ({ENCODERS[name]})" for name in missing)
        return Finding("bad" if "libx264" in missing else "note", f"{message} lacks {outputs}", remedy)
    return Finding("good", f"{message} with {', '.join(ENCODERS)}")


def round_trip() -> Finding:
    """Check that a small video can be written and read back unchanged."""
    import numpy as np

    from live_seg.sinks.video_writer import VideoWriter
    from live_seg.sources.opening import open_source
    from live_seg.types import Frame, Instances

    shades = [40 + 40 * i for i in range(FRAMES)]
    with tempfile.TemporaryDirectory(prefix="live_seg") as folder:
        path = Path(folder) / "doctor.mp4"
        with VideoWriter(path, 25.0) as sink:
            for index, shade in enumerate(shades):
                image = np.full((SIZE[1], SIZE[0], 3), shade, np.uint8)
                sink.write(Frame(index, index / 25, image), image, Instances.empty())
        with open_source(path) as source:
            size, means = source.size, [float(frame.image.mean()) for frame in source]
    if size != SIZE or len(means) != FRAMES or not np.allclose(means, shades, atol=TOLERANCE):
        message = f"{FRAMES} frames of {SIZE} were read back as {len(means)} of {size}, or changed"
        return Finding("bad", message, "pip install --force-reinstall imageio-ffmpeg opencv-python")
    return Finding("good", "H.264 written and read back")


def cameras() -> Finding:
    """Check which of CAMERAS deliver a frame."""
    numbers = [number for number in CAMERAS if sys.platform != "linux" or _device(number).exists()]
    if not numbers:
        return Finding(
            "note",
            "none: there is no /dev/video*",
            "Connect one; start a container with --device /dev/video0",
        )
    opened, failures = {}, {}
    for number in numbers:
        try:
            opened[number] = _frame_size(number)
        except SourceError as error:
            failures[number] = str(error)
    if opened:
        return Finding("good", "; ".join(f"{number} ({size})" for number, size in opened.items()))
    locked = [n for n in numbers if _device(n).exists() and not os.access(_device(n), os.R_OK | os.W_OK)]
    group = "sudo usermod -aG video $USER, then log in again"
    return Finding("note", f"none: {next(iter(failures.values()))}", group if locked else "")


def _device(number: int) -> Path:
    return DEV / f"video{number}"


def _frame_size(number: int) -> str:
    """Return WIDTHxHEIGHT of one frame of a camera. Raises SourceError."""
    from live_seg.sources.cameras import Camera

    with Camera(number, timeout=CAMERA_TIMEOUT) as camera:
        height, width = next(iter(camera)).image.shape[:2]
    return f"{width}x{height}"
