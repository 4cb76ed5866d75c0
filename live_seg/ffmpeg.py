"""The ffmpeg binary of imageio-ffmpeg: run it, and inspect video files with it."""

import functools
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg

from live_seg.errors import SinkError
from live_seg.processes import OWN_GROUP, shielded

ERROR_LINES = 8
"""Number of ffmpeg's last lines of stderr shown in an error; the cause is rarely in the very last line."""

KEY = 1
"""Packet flag AV_PKT_FLAG_KEY: decoding can begin here."""

DISCARDED = 4
"""Packet flag AV_PKT_FLAG_DISCARD: the frame is decoded but not shown."""


def executable() -> str:
    """Return the path of the ffmpeg binary. Raises SinkError if there is none."""
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise SinkError(f"Cannot find ffmpeg: {error} Reinstall it: pip install imageio-ffmpeg") from error


def command(*arguments: str | Path) -> list[str]:
    """Build a command line that logs errors only.

    Paths become absolute because ffmpeg parses "12:30.mp4" as a URL. Run the command with
    `OWN_GROUP`, so that Ctrl-C in a terminal interrupts this program but not ffmpeg, which has to finish its
    file.
    """
    words = [str(word.absolute() if isinstance(word, Path) else word) for word in arguments]
    return [executable(), "-hide_banner", "-loglevel", "error", *words]


def failure(path: Path | str, stderr: bytes) -> SinkError:
    """Return the error for an ffmpeg that failed to write `path`, with the last lines of its `stderr`."""
    lines = _lines(stderr)[-ERROR_LINES:] or ["(no error message)"]
    return SinkError("\n  ".join([f"ffmpeg could not write {path}:", *lines]))


def run(*arguments: str | Path, to: Path) -> None:
    """Run ffmpeg until it has written the file `to`. Raises SinkError with ffmpeg's messages if it fails.

    If the wait is interrupted, ffmpeg is killed.
    """
    with shielded():
        process = subprocess.Popen(
            command(*arguments, to),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **OWN_GROUP,
        )
    with process:
        try:
            _, stderr = process.communicate()
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise failure(to, stderr)


def open_error(path: Path) -> str | None:
    """Return the error that ffmpeg reports when it opens `path`; None if it opens. Raises SinkError."""
    done = _run(command("-i", path, "-map", "0", "-t", "0", "-c", "copy", "-f", "null", "-"))
    if done.returncode == 0:
        return None
    return first_error(done.stderr)


def first_error(stderr: bytes) -> str:
    """Return the first line that ffmpeg wrote, usually the cause of all others."""
    first = next(iter(_lines(stderr)), "unknown error")
    return first.rpartition("] ")[2]  # without the "[in#0 @ 0x55d0c8]" of the component


@dataclass(frozen=True)
class Span:
    """Presentation times of the frames of a video file, in seconds."""

    start: float
    """Time of the first frame on the file's own clock, which its audio shares."""
    last: float
    """Time of the last frame, relative to the first."""
    end: float
    """End of the last frame, relative to the first."""


class Shown(NamedTuple):
    """When a frame of a video file is shown, in seconds on the file's clock."""

    begin: float
    end: float
    key: bool
    """True if decoding can begin with this frame."""


def video_span(path: Path) -> Span | None:
    """Return when the first frame of `path` starts and the last one ends; None if it has no frames.

    The first frame is decoded, because the first one in the file is not always shown. The others are only
    demuxed.
    """
    start = first_time(path)
    if start is None:
        return None
    last = end = start
    for frame in shown_frames(path):
        last, end = max(last, frame.begin), max(end, frame.end)
    return Span(start, last - start, end - start)


def first_time(path: Path) -> float | None:
    """Return when the first frame of `path` is shown, in seconds on the file's clock; None without frames."""
    return next((frame.begin for frame in _shown(path, "-frames:v", "1", "-enc_time_base", "demux")), None)


def shown_frames(path: Path) -> Iterator[Shown]:
    """Yield each frame of `path` that is shown, in the order of the file, without decoding."""
    return _shown(path, "-c", "copy")


def _shown(path: Path, *options: str) -> Iterator[Shown]:
    every = ("-map", "0:V:0", "-fps_mode", "passthrough", *options, "-f", "framecrc", "-")
    with subprocess.Popen(
        command("-copyts", "-i", path, *every),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        **OWN_GROUP,
    ) as process:
        assert process.stdout is not None
        unit = Fraction(1)
        for line in process.stdout:
            if line.startswith("#tb 0:"):
                unit = Fraction(line.partition(":")[2].strip())
            elif line.startswith("0,"):
                # stream, decoding time, presentation time, duration, size, checksum[, F=flags]
                _, decoded, shown, duration, _, _, *rest = (field.strip() for field in line.split(","))
                flags = _flags(rest)
                if not flags & DISCARDED:
                    begin = int(decoded if shown == "NOPTS" else shown)
                    end = begin + int(duration)
                    yield Shown(float(begin * unit), float(end * unit), bool(flags & KEY))


def _flags(fields: list[str]) -> int:
    """Return the packet flags among the last `fields` of a framecrc line, which omits KEY alone."""
    return next((int(field.removeprefix("F="), 16) for field in fields if field.startswith("F=")), KEY)


def listing(path: Path) -> str:
    """Return what ffmpeg prints about the file `path` and its streams; read again once the file has changed.

    It is empty for a missing file. Raises SinkError without ffmpeg.
    """
    try:
        status = path.stat()
    except OSError:
        return ""
    return _listing(path.absolute(), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _listing(path: Path, _size: int, _modified: int) -> str:
    # `command` would suppress the list.
    return _run([executable(), "-hide_banner", "-i", str(path)]).stderr.decode(errors="replace")


def audio_tracks(path: Path) -> dict[int, str]:
    """Return the audio tracks of `path` as {stream index: ffmpeg's name of the codec}, known codecs only."""
    listed = listing(path)
    found = re.findall(r"^ *Stream #0:(\d+).*?: Audio: (\w+)", listed, re.MULTILINE)
    return {int(number): codec for number, codec in found if codec != "none"}


def _run(words: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False, **OWN_GROUP)


def _lines(stderr: bytes) -> list[str]:
    return stderr.decode(errors="replace").strip().splitlines()
