"""Calling the ffmpeg of imageio-ffmpeg, and what it tells of a video file."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg

from live_seg.errors import SinkError

ERROR_LINES = 8
"""How many of ffmpeg's last words an error shows; the cause is rarely the very last line."""


def executable() -> str:
    """Path of the ffmpeg binary. Raises SinkError when there is none."""
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise SinkError(f"No ffmpeg to write videos with: {error}") from error


def command(*arguments: str | Path) -> list[str]:
    """Build a quiet command line. Paths become absolute, as ffmpeg takes "12:30.mp4" for an address.

    Run it with `start_new_session`: the terminal's Ctrl-C is for this program, which lets ffmpeg finish.
    """
    words = [str(word.absolute() if isinstance(word, Path) else word) for word in arguments]
    return [executable(), "-hide_banner", "-loglevel", "error", *words]


def failure(path: Path, told: bytes) -> SinkError:
    """Make the error for an ffmpeg that failed to write `path`, with the last of what it `told` on stderr."""
    lines = told.decode(errors="replace").strip().splitlines()[-ERROR_LINES:]
    return SinkError("\n  ".join([f"ffmpeg could not write {path}:", *(lines or ["it said nothing."])]))


def run(*arguments: str | Path, to: Path) -> None:
    """Run ffmpeg until it has written the file `to`. Raises SinkError with its own words when it fails."""
    done = subprocess.run(
        command(*arguments, to),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        start_new_session=True,
    )
    if done.returncode != 0:
        raise failure(to, done.stderr)


@dataclass(frozen=True)
class Span:
    """When the pictures of a video file are shown, in seconds."""

    start: float
    """The first picture, on the file's own clock, which its audio shares."""
    last: float
    """The last picture, since the first."""
    end: float
    """The end of the last picture, since the first."""


def video_span(path: Path) -> Span | None:
    """Find when the first picture of `path` begins and the last one ends; None when it has no pictures.

    The first is decoded, as the first in the file is not always shown. The rest are only read, not decoded.
    """
    start = next((begin for begin, _ in _shown(path, "-frames:v", "1", "-enc_time_base", "demux")), None)
    if start is None:
        return None
    last = end = start
    for begin, until in _shown(path, "-c", "copy"):
        last, end = max(last, begin), max(end, until)
    return Span(start, last - start, end - start)


def _shown(path: Path, *options: str) -> Iterator[tuple[float, float]]:
    """Begin and end, in seconds on the file's clock, of each picture of `path` that is meant to be shown."""
    every = ("-map", "0:V:0", "-fps_mode", "passthrough", *options, "-f", "framecrc", "-")
    with subprocess.Popen(
        command("-copyts", "-i", path, *every),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    ) as process:
        assert process.stdout is not None
        unit = Fraction(1)
        for line in process.stdout:
            if found := re.match(r"#tb 0: (\d+)/(\d+)", line):
                unit = Fraction(int(found[1]), int(found[2]))
            # stream, decoding time, time, duration, bytes, checksum, flags (bit 4: decoded but not shown)
            elif found := re.match(r"0, *(\S+), *(\S+), *(\d+), *\d+, \w+(?:, F=0x(\w+))?", line):
                decoded, shown, duration, flags = found.groups()
                if not int(flags or "0", 16) & 4:
                    begin = int(decoded if shown == "NOPTS" else shown)
                    yield float(begin * unit), float((begin + int(duration)) * unit)


def audio_tracks(path: Path) -> dict[int, str]:
    """Find the audio tracks of `path`: stream number -> codec by ffmpeg's name; unknown codecs left out."""
    # Not by `command`: that silences what is wanted here.
    done = subprocess.run(
        [executable(), "-hide_banner", "-i", str(path.absolute())],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        start_new_session=True,
    )
    told = done.stderr.decode(errors="replace")
    found = re.findall(r"^ *Stream #0:(\d+).*?: Audio: (\w+)", told, re.MULTILINE)
    return {int(number): codec for number, codec in found if codec != "none"}
