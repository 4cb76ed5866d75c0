import errno
import itertools
import logging
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_seg.errors import SourceError
from live_seg.sources.captures import ContainerClock
from live_seg.sources.image_files import ImageFiles
from live_seg.sources.opening import open_source
from live_seg.sources.video_files import VideoFile
from live_seg.types import Image, Source
from tests.clips import clip, decode_frames, probe, text_as_mp4, truncated, variable_clip, zero_frames
from tests.live import FRAMES, HEIGHT, WIDTH, FakeCapture, put_captures, served


def write_images(folder: Path, names: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    for value, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((HEIGHT, WIDTH, 3), 10 * value, np.uint8))


def error_of(spec: str | int | Path) -> str:
    """Return the message of the error raised by opening and reading `spec`."""
    with pytest.raises(SourceError) as caught, open_source(spec) as source:
        list(source)
    return str(caught.value)


# All kinds of sources.


@contextmanager
def video_file(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Source]:
    yield open_source(clip(folder / "a.mp4", seconds=FRAMES / 30, audio=2))


@contextmanager
def image_folder(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Source]:
    write_images(folder / "in", [f"{n}.png" for n in range(FRAMES)])
    yield open_source(folder / "in")


@contextmanager
def image_glob(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Source]:
    write_images(folder / "in", [f"{n}.jpg" for n in range(FRAMES)])
    yield open_source(f"{folder}/*/*.jpg")


@contextmanager
def camera(_: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    put_captures(monkeypatch, FakeCapture())
    yield open_source(0)


@contextmanager
def http_file(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Source]:
    clip(folder / "a.mp4", seconds=FRAMES / 30)
    with served(folder) as address:
        yield open_source(f"{address}/a.mp4")


@contextmanager
def http_stream(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Source]:
    clip(folder / "a.ts", seconds=FRAMES / 30)
    with served(folder) as address:
        yield open_source(f"{address}/a.ts")


Kind = Callable[[Path, pytest.MonkeyPatch], AbstractContextManager[Source]]
KINDS: list[Kind] = [video_file, image_folder, image_glob, camera, http_file, http_stream]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def source(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Source]:
    kind: Kind = request.param
    with kind(tmp_path, monkeypatch) as source, source:
        yield source


def test_frames_are_numbered_timed_and_sized_as_declared(source: Source) -> None:
    frames = list(itertools.islice(source, FRAMES))
    assert [frame.index for frame in frames] == list(range(FRAMES))
    seconds = [frame.seconds for frame in frames]
    assert seconds[0] == 0.0
    assert seconds == sorted(seconds)
    for frame in frames:
        assert frame.image.dtype == np.uint8
        assert frame.image.shape == (source.size[1], source.size[0], 3)
    assert source.size == (WIDTH, HEIGHT)
    assert math.isfinite(source.fps)
    assert source.fps > 0
    known = not source.live and not source.name.endswith(".ts")
    assert source.frames == (FRAMES if known else None)


def test_close_ends_iteration_and_may_be_repeated(source: Source) -> None:
    reading = iter(source)
    assert next(reading).index == 0
    source.close()
    source.close()
    assert list(reading) == []


# Video files.


def seconds_of(path: Path) -> list[float]:
    with open_source(path) as source:
        return [frame.seconds for frame in source]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_ntsc_frame_times_match_the_container(tmp_path: Path, name: str) -> None:
    path = clip(tmp_path / name, rate="30000/1001", encode=("-preset", "medium"))
    times = probe(path).times
    assert seconds_of(path) == pytest.approx([time - times[0] for time in times], abs=1e-5)
    assert seconds_of(path) == pytest.approx([n * 1001 / 30000 for n in range(30)], abs=1e-3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_variable_rate_frame_times_are_kept(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = variable_clip(tmp_path / name, audio=1)
    assert seconds_of(path) == pytest.approx(
        [n / 10 for n in range(10)] + [1 + n / 30 for n in range(30)], abs=1e-3
    )
    assert caplog.records == []


@pytest.mark.parametrize("name", ["a.avi", "a.h264"])
def test_missing_timestamps_are_interpolated(tmp_path: Path, name: str) -> None:
    path = clip(
        tmp_path / name, encode=("-preset", "medium")
    )  # with B-frames, the last frames have no timestamp
    with open_source(path) as source:
        seconds = [frame.seconds for frame in source]
        assert seconds == pytest.approx([n / source.fps for n in range(30)], abs=1e-3)


def test_time_continues_across_joined_recordings(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.ts")
    path.write_bytes(path.read_bytes() * 2)
    assert seconds_of(path) == pytest.approx([n / 30 for n in range(60)], abs=2e-3)


def test_time_starts_at_the_first_frame(tmp_path: Path) -> None:
    path = clip(tmp_path / "late.mp4", audio=1, delay=0.5)
    assert probe(path).times[0] == pytest.approx(0.5)
    assert seconds_of(path)[:2] == pytest.approx([0.0, 1 / 30], abs=1e-3)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotation_metadata_is_applied(tmp_path: Path, quarters: int) -> None:
    upright = decode_frames(clip(tmp_path / "upright.mp4", seconds=0.1))[0]
    with open_source(clip(tmp_path / "a.mp4", seconds=0.1, rotation=90 * quarters)) as source:
        image = next(iter(source)).image
    assert source.size == image.shape[1::-1]

    def difference(turned: Image) -> float:
        same = turned.shape == image.shape
        return float(np.abs(turned.astype(int) - image).mean()) if same else math.inf

    differences = [difference(np.rot90(upright, turn)) for turn in range(4)]
    assert differences[quarters] < 5
    assert min(differences[:quarters] + differences[quarters + 1 :]) > 20


@pytest.mark.parametrize(("size", "seconds"), [("161x121", 0.1), ("160x120", 0.03)])
def test_odd_sizes_and_single_frames(tmp_path: Path, size: str, seconds: float) -> None:
    path = clip(tmp_path / "a.mp4", size=size, seconds=seconds)
    with open_source(path) as source:
        frames = list(source)
    assert len(frames) == source.frames == round(seconds * 30)
    assert f"{source.size[0]}x{source.size[1]}" == size
    assert np.abs(frames[0].image.astype(int) - decode_frames(path)[0]).mean() < 5


def test_audio_is_the_file_itself(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", seconds=0.1, audio=1)
    with open_source(path) as source:
        assert source.audio == path
        assert not source.live


@pytest.mark.parametrize("name", ["Bär und 熊 [1].mp4", "12:30.mp4", "~clip.mp4", "%d.mp4"])
def test_unusual_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    clip(tmp_path / "a.mp4", seconds=0.1).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for spec in (name, Path(name), tmp_path / name):
        with open_source(spec) as source:
            assert len(list(source)) == 3


def test_tilde_expands_to_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    clip(tmp_path / "a.mp4", seconds=0.1)
    with open_source("~/a.mp4") as source:
        assert source.frames == 3


def test_animated_gif_is_read_as_video(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.gif", rate="10", encode=("-c:v", "gif", "-pix_fmt", "rgb8"))
    with open_source(path) as source:
        assert [round(frame.seconds, 3) for frame in source] == [n / 10 for n in range(10)]


def test_a_second_iteration_raises(tmp_path: Path) -> None:
    with open_source(clip(tmp_path / "a.mp4", seconds=0.1)) as source:
        assert len(list(source)) == 3
        with pytest.raises(SourceError, match="Open it again"):
            list(source)


def test_unreadable_files_report_the_reason(tmp_path: Path) -> None:
    assert "No such file" in error_of(tmp_path / "missing.mp4")
    assert "moov" in error_of(truncated(tmp_path / "half.mp4"))
    assert "not a video" in error_of(text_as_mp4(tmp_path / "text.mp4"))
    assert "holds no frames" in error_of(zero_frames(tmp_path / "audio.mp4"))
    assert "holds no frames" in error_of(clip(tmp_path / "none.avi", encode=("-frames:v", "0")))
    (tmp_path / "empty.mp4").touch()
    assert "not a video" in error_of(tmp_path / "empty.mp4")
    assert "Not a directory" in error_of(tmp_path / "empty.mp4" / "a.mp4")


def test_an_unreadable_file_is_reported_without_ffmpeg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    assert "not a video (ffmpeg: no details)" in error_of(text_as_mp4(tmp_path / "text.mp4"))


@pytest.mark.parametrize("name", ["a.mp4", "a.png"])
def test_missing_permission_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def forbid(*_: object, **__: object) -> None:  # root ignores file permissions
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", forbid)
    assert "Permission denied" in error_of(tmp_path / name)


def test_a_truncated_file_logs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = clip(tmp_path / "a.mp4", seconds=4, encode=("-movflags", "+faststart"))
    assert len(seconds_of(path)) == 120
    assert caplog.records == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert len(seconds_of(path)) < 100
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "a.mp4 ends after" in caplog.text


def test_two_missing_frames_log_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_source(clip(tmp_path / "a.flv", encode=("-preset", "medium"))) as source:
        assert source.frames == 32
        assert len(list(source)) == 30
    assert caplog.records == []


@pytest.mark.parametrize("name", ["half.mp4", "text.mp4"])
def test_the_command_line_suppresses_messages_of_opencv_and_ffmpeg(tmp_path: Path, name: str) -> None:
    path = {"half.mp4": truncated, "text.mp4": text_as_mp4}[name](tmp_path / name)
    command = [sys.executable, "-c", "from live_seg.cli.main import main; main()", "video"]
    command += [str(path), "-o", str(tmp_path / "out.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert re.fullmatch(rf"live-seg: Cannot read .*{name}.*\n", done.stderr)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(1e-3, 1.0))
def test_container_clock_never_decreases(stamps: list[float], step: float) -> None:
    clock = ContainerClock(step)
    seconds = [clock.at(stamp) for stamp in stamps]
    assert seconds[0] == 0.0
    assert seconds == sorted(seconds)


# Still images.


def test_images_of_a_folder_are_sorted_naturally(tmp_path: Path) -> None:
    write_images(tmp_path / "in", ["9.png", "10.png", "1.PNG"])
    (tmp_path / "in" / "._9.png").write_bytes(b"metadata of macOS")
    (tmp_path / "in" / "notes.txt").touch()
    source = open_source(tmp_path / "in")
    assert isinstance(source, ImageFiles)
    assert [path.name for path in source.paths] == ["1.PNG", "9.png", "10.png"]
    assert [int(frame.image.mean()) for frame in source] == [20, 0, 10]
    assert [frame.seconds for frame in source] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("pixel", "dtype"), [((10, 20, 30, 0), np.uint8), (25, np.uint8), ((2560, 5120, 7680), np.uint16)]
)
def test_all_pixel_formats_become_bgr_uint8(
    tmp_path: Path, pixel: int | tuple[int, ...], dtype: type[np.integer[Any]]
) -> None:
    image = np.zeros((4, 6, *np.shape(pixel)), dtype)
    image[:] = pixel
    cv2.imwrite(str(tmp_path / "a b ä.png"), image)
    (frame,) = open_source(tmp_path / "a b ä.png")
    assert frame.image.dtype == np.uint8
    assert frame.image.shape == (4, 6, 3)
    assert frame.image[0, 0].tolist() == ([25] * 3 if pixel == 25 else [10, 20, 30])


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16] = 255
    plain = cv2.imencode(".jpg", image)[1].tobytes()
    # EXIF with one entry: orientation (0x0112) 6, which is a rotation by 90 degrees clockwise.
    entry = bytes.fromhex("0112 0003 00000001 0006 0000")
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + bytes(4)
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2) + exif
    (tmp_path / "a.jpg").write_bytes(plain[:2] + segment + plain[2:])
    source = open_source(tmp_path / "a.jpg")
    (frame,) = source
    assert source.size == (16, 32)
    assert frame.image[:16].mean() > 200
    assert frame.image[16:].mean() < 50


def test_an_unreadable_image_in_a_folder_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path / "in", ["2.png", "4.png"])
    unreadable = [tmp_path / "in" / name for name in ("1.png", "3.png")]
    for path in unreadable:
        path.write_bytes(b"not an image")
    with open_source(tmp_path / "in") as source:
        for _ in range(2):
            caplog.clear()
            assert [(frame.index, frame.seconds) for frame in source] == [(1, 1.0), (3, 3.0)]
            assert source.skipped == unreadable
            assert [message[:20] for message in caplog.messages] == ["Skipped: Cannot read"] * 2
    assert source.size == (WIDTH, HEIGHT)


def test_a_folder_without_any_readable_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"not an image")
    assert "1.png" in error_of(tmp_path)


def test_an_error_raised_by_opencv_becomes_a_source_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:  # as for more than 2**30 pixels
        raise cv2.error("too large")

    write_images(tmp_path, ["a.png"])
    monkeypatch.setattr(cv2, "imdecode", refuse)
    assert "Cannot read" in error_of(tmp_path / "a.png")


def test_a_folder_or_glob_without_images_raises(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4", seconds=0.1)
    assert "holds no images" in error_of(tmp_path)
    assert "holds no images" in error_of(f"{tmp_path}/*.mp4")


def test_paths_are_distinguished_from_cameras_and_globs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "a.mp4", seconds=0.1).rename(tmp_path / "0")
    write_images(tmp_path / "[x]", ["a.png"])
    assert isinstance(open_source("./0"), VideoFile)
    assert isinstance(open_source(Path("0")), VideoFile)
    assert isinstance(open_source("[x]"), ImageFiles)
    assert isinstance(open_source("[x]/a.png"), ImageFiles)
