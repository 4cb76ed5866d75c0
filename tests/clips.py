"""Video clips for the tests, encoded and decoded with the ffmpeg of imageio-ffmpeg; and a check for leaks."""

import functools
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import psutil
import pytest

from live_seg.types import Image

FFMPEG: str = imageio_ffmpeg.get_ffmpeg_exe()


def ffmpeg(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run ffmpeg, overwriting files. A failure is an AssertionError with ffmpeg's messages."""
    command = [FFMPEG, "-hide_banner", "-nostdin", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr.decode(errors='replace')}"
    return done


def clip(
    path: Path,
    *,
    rate: str = "30",
    seconds: float = 1.0,
    size: str = "160x120",
    audio: int = 0,
    rotation: int = 0,
    delay: float = 0.0,
    pattern: str = "testsrc",
    encode: tuple[str, ...] = (),
) -> Path:
    """Write a clip to `path`, in the container of its suffix, and return `path`.

    `rate` may be a fraction ("30000/1001"); `size` may be odd; `audio` is the number of tracks, each with a
    different tone; `rotation` is written as metadata only, in degrees counterclockwise for display; `delay`
    starts the video that many seconds after the audio (negative: before); `pattern` is an ffmpeg lavfi source
    ("color=red"); `encode` adds output options, of which the last one of a kind applies. Equal clips are
    encoded once.
    """
    path.write_bytes(_encoded(path.suffix, rate, seconds, size, audio, rotation, delay, pattern, encode))
    return path


@functools.cache
def _encoded(
    suffix: str,
    rate: str,
    seconds: float,
    size: str,
    audio: int,
    rotation: int,
    delay: float,
    pattern: str,
    encode: tuple[str, ...],
) -> bytes:
    joint = ":" if "=" in pattern else "="
    inputs: list[str] = ["-itsoffset", str(max(delay, 0.0)), "-f", "lavfi"]
    inputs += ["-i", f"{pattern}{joint}rate={rate}:size={size}:duration={seconds}"]
    for track in range(audio):
        tone = f"sine=frequency={440 * (track + 1)}:duration={seconds}"
        inputs += ["-itsoffset", str(max(-delay, 0.0)), "-f", "lavfi", "-i", tone]
    mapped = [word for stream in range(audio + 1) for word in ("-map", str(stream))]
    odd = any(int(side) % 2 for side in size.split("x"))
    codec = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv444p" if odd else "yuv420p"]
    with tempfile.TemporaryDirectory() as folder:
        upright, path = (Path(folder) / f"{name}{suffix}" for name in ("upright", "rotated"))
        ffmpeg(*inputs, *mapped, *codec, *encode, upright)
        if not rotation:
            return upright.read_bytes()
        ffmpeg("-display_rotation", str(rotation), "-i", upright, "-map", "0", "-c", "copy", path)
        return path.read_bytes()


def variable_clip(path: Path, *, audio: int = 0) -> Path:
    """Write a clip of 1 s at 10 fps, then 1 s at 30 fps: 40 frames with exact times, 2 s long."""
    sparse_first = "select='gte(t,1)+not(mod(n,3))'"
    vary = ("-vf", sparse_first, "-fps_mode", "vfr", "-enc_time_base", "1/90000")
    return clip(path, seconds=2.0, audio=audio, encode=vary)


def truncated(path: Path) -> Path:
    """Write an mp4 truncated to half its size, as by an aborted copy: its index (moov) is missing."""
    whole = clip(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def text_as_mp4(path: Path) -> Path:
    """Write plain text to a file with the suffix of a video."""
    path.write_text("This is no video.\n" * 100)
    return path


def zero_frames(path: Path) -> Path:
    """Write a valid container that holds audio but no video."""
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", path)
    return path


@dataclass(frozen=True)
class Probe:
    """Properties of a media file as read by ffmpeg."""

    duration: float
    """Seconds declared by the container; 0 if none."""
    video_codec: str | None
    pixel_format: str | None
    size: tuple[int, int] | None
    """(width, height) after rotation."""
    rotation: int
    """Degrees counterclockwise in the metadata."""
    audio_codecs: tuple[str, ...]
    times: tuple[float, ...]
    """Presentation time of each video frame in seconds, relative to the earliest stream of the file."""
    audio_spans: tuple[tuple[float, float], ...]
    """(start, end) of each decoded audio track in seconds."""


def probe(path: Path) -> Probe:
    """Decode every video frame and audio track of `path` with ffmpeg and return their properties."""
    now = path.stat()
    return _probed(path, now.st_ino, now.st_size, now.st_mtime_ns)


@functools.lru_cache(maxsize=100)
def _probed(path: Path, *_: int) -> Probe:
    """Probe each state of a file once."""
    every = ("-map", "0:v?", "-map", "0:a?", "-fps_mode", "passthrough", "-enc_time_base", "demux")
    done = ffmpeg("-i", path, *every, "-f", "framecrc", "-")
    log = done.stderr.decode(errors="replace").split("\nOutput #0")[0]
    lines = done.stdout.decode().splitlines()

    video = re.search(r"Stream #0:\d+.*: Video: (\w+).*?, (\w+)(?:\(|,)", log)
    duration = re.search(r"Duration: (\d+):(\d+):([\d.]+)", log)
    rotation = re.search(r"rotation of (-?[\d.]+) degrees", log)
    shown = re.search(r"^#dimensions \d+: (\d+)x(\d+)", "\n".join(lines), re.MULTILINE)

    units = {
        m[1]: int(m[2]) / int(m[3]) for m in map(re.compile(r"#tb (\d+): (\d+)/(\d+)").match, lines) if m
    }
    kinds = {m[1]: m[2] for m in map(re.compile(r"#media_type (\d+): (\w+)").match, lines) if m}
    rows = [[cell.strip() for cell in line.split(",")] for line in lines if line[:1].isdigit()]
    spans = {
        stream: [(int(row[2]) * unit, (int(row[2]) + int(row[3])) * unit) for row in rows if row[0] == stream]
        for stream, unit in units.items()
    }
    hours, minutes, seconds = map(float, duration.groups()) if duration else (0.0, 0.0, 0.0)
    return Probe(
        duration=hours * 3600 + minutes * 60 + seconds,
        video_codec=video[1] if video else None,
        pixel_format=video[2] if video else None,
        size=(int(shown[1]), int(shown[2])) if shown else None,
        rotation=round(float(rotation[1])) if rotation else 0,
        audio_codecs=tuple(re.findall(r"Stream #0:\d+.*: Audio: (\w+)", log)),
        times=tuple(start for s, kind in kinds.items() if kind == "video" for start, _ in spans[s]),
        audio_spans=tuple(
            (spans[s][0][0], spans[s][-1][1]) for s, kind in kinds.items() if kind == "audio" and spans[s]
        ),
    )


def decode_frames(path: Path) -> list[Image]:
    """Decode the frames of `path` with ffmpeg, after rotation, as (height, width, 3) uint8 BGR each."""
    as_bgr = ("-fps_mode", "passthrough", "-pix_fmt", "bgr24", "-f", "rawvideo", "-")
    raw = ffmpeg("-i", path, "-map", "0:v:0", *as_bgr)
    written = raw.stderr.decode(errors="replace").partition("\nOutput #0")[2]
    size = re.search(r"Video: rawvideo.*?, (\d+)x(\d+)", written)
    assert size, f"{path} holds no video"
    return list(np.frombuffer(raw.stdout, np.uint8).reshape(-1, int(size[2]), int(size[1]), 3))


def names(folder: Path) -> list[str]:
    """Return the sorted names of the files in `folder`."""
    return sorted(path.name for path in folder.iterdir())


def running_ffmpeg() -> psutil.Process:
    """Return the one ffmpeg that this process runs. Libraries may run other processes."""
    (found,) = (child for child in psutil.Process().children() if "ffmpeg" in child.name())
    return found


@pytest.fixture
def no_process_left_behind() -> Iterator[None]:
    """Fail if a child process that the test started outlives it."""
    before = set(psutil.Process().children(recursive=True))
    yield
    left = set(psutil.Process().children(recursive=True)) - before
    assert not left, f"child processes still running after the test: {left}"
