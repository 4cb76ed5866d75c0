"""Checks of how pictures come in and go out: OpenCV, a window, ffmpeg, a video there and back, cameras."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from live_seg.doctor.asking import ProbeError, ask
from live_seg.doctor.findings import Finding
from live_seg.doctor.machine import OPENCV_WHEELS, installed
from live_seg.errors import SinkError, SourceError

WINDOW_SECONDS = 60.0

ENCODERS = {
    "libx264": "videos",
    "aac": "audio that is not copied",
    "prores_ks": "transparent .mov",
    "libvpx-vp9": "transparent .webm",
}
"""What live_seg writes with, and for what; without the first there are no videos at all."""

FRAMES = 5
SIZE = (64, 48)
"""Width and height of the video that is written and read back, pixels."""

NEAR = 12
"""Grey levels by which a picture may change in H.264."""

CAMERAS = range(4)

CAMERA_SECONDS = 5.0
"""How long a camera may take to open, and to deliver a picture."""

DEV = Path("/dev")


def opencv() -> Finding:
    """Whether OpenCV can be imported and reads videos; its kind of windows; whether two wheels clash."""
    wheels = [name for name in OPENCV_WHEELS if installed(name)]
    clash = f"; {' and '.join(wheels)} overwrite each other" if len(wheels) > 1 else ""
    best = next((name for name in wheels if "headless" not in name), OPENCV_WHEELS[0])
    anew = f"pip uninstall -y {' '.join(wheels)}; pip install {best}" if wheels else f"pip install {best}"
    try:
        import cv2
    except ImportError as error:
        system = ".so" in str(error) and not clash  # a library of the system, such as libGL.so.1
        told = f"it cannot be imported: {error}{clash}"
        return Finding("bad", told, "sudo apt install libgl1 libglib2.0-0" if system else anew)
    built = cv2.getBuildInformation()
    kind = re.search(r"^ *GUI: *(?!NONE)(\w+)", built, re.MULTILINE)
    told = f"{cv2.__version__}, {f'windows by {kind[1]}' if kind else 'no windows'}"
    if not re.search(r"^ *FFMPEG: *YES", built, re.MULTILINE):
        return Finding("bad", f"{told}, reads no videos: built without FFmpeg{clash}", anew)
    if clash or not kind:
        return Finding("note", f"{told}, reads videos{clash}", anew)
    return Finding("good", f"{told}, reads videos")


def window() -> Finding:
    """Whether a window can be shown."""
    try:
        ask("window", WINDOW_SECONDS)
    except ProbeError as error:
        return Finding("note", str(error))
    return Finding("good", "can be shown")


def ffmpeg() -> Finding:
    """Whether there is an ffmpeg, with the encoders that are used."""
    from live_seg.ffmpeg import executable

    own = "pip install --force-reinstall imageio-ffmpeg"
    chosen = "IMAGEIO_FFMPEG_EXE" in os.environ
    remedy = f"unset IMAGEIO_FFMPEG_EXE; {own}" if chosen else own
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
    there = set(re.findall(r"^ [VA]\S{5} (\S+)", done.stdout, re.MULTILINE))
    version = re.match(r"ffmpeg version (\S+)", done.stderr)
    told = f"{version[1] if version else 'of unknown version'} ({program})"
    if missing := [name for name in ENCODERS if name not in there]:
        lost = ", ".join(f"{name} ({ENCODERS[name]})" for name in missing)
        return Finding("bad" if "libx264" in missing else "note", f"{told} lacks {lost}", remedy)
    return Finding("good", f"{told} with {', '.join(ENCODERS)}")


def there_and_back() -> Finding:
    """Whether a small video can be written and read back as it was."""
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
            size, seen = source.size, [float(frame.image.mean()) for frame in source]
    if size != SIZE or len(seen) != FRAMES or not np.allclose(seen, shades, atol=NEAR):
        told = f"{FRAMES} pictures of {SIZE} came back as {len(seen)} of {size}, or changed"
        return Finding("bad", told, "pip install --force-reinstall imageio-ffmpeg opencv-python")
    return Finding("good", "H.264 written and read back")


def cameras() -> Finding:
    """Which cameras deliver a picture, of the first few."""
    numbers = [number for number in CAMERAS if sys.platform != "linux" or _device(number).exists()]
    if not numbers:
        return Finding(
            "note", "none: there is no /dev/video*", "Plug one in; hand a container --device /dev/video0"
        )
    opened, failures = {}, {}
    for number in numbers:
        try:
            opened[number] = _picture_size(number)
        except SourceError as error:
            failures[number] = str(error)
    if opened:
        return Finding("good", "; ".join(f"{number} ({size})" for number, size in opened.items()))
    locked = [n for n in numbers if _device(n).exists() and not os.access(_device(n), os.R_OK | os.W_OK)]
    group = "sudo usermod -aG video $USER, then log in anew"
    return Finding("note", f"none: {next(iter(failures.values()))}", group if locked else "")


def _device(number: int) -> Path:
    return DEV / f"video{number}"


def _picture_size(number: int) -> str:
    """Open a camera and take one picture. Raises SourceError."""
    from live_seg.sources.cameras import Camera

    with Camera(number, timeout=CAMERA_SECONDS) as camera:
        height, width = next(iter(camera)).image.shape[:2]
    return f"{width}x{height}"
