import errno
import itertools
import logging
import math
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_seg import sources
from live_seg.errors import SourceError
from live_seg.sources import Camera, Stream, VideoFile, open_source, redacted
from live_seg.stills import ImageFiles
from live_seg.structures import Image, Source
from tests.clips import clip, pictures, probe, text_as_mp4, truncated, variable_clip, zero_frames

FRAMES, WIDTH, HEIGHT = 6, 160, 120
SECRET = "hunter2"


class FakeCapture:
    """Stands for cv2.VideoCapture: delivers `frames` pictures, then nothing."""

    def __init__(
        self, frames: int = FRAMES, *, opens: bool = True, fps: float = 30.0, declared: int = -1
    ) -> None:
        self.left, self.opens = frames, opens
        self.released = False
        self.known = {
            cv2.CAP_PROP_FRAME_WIDTH: WIDTH,
            cv2.CAP_PROP_FRAME_HEIGHT: HEIGHT,
            cv2.CAP_PROP_FPS: fps,
            cv2.CAP_PROP_FRAME_COUNT: declared,
        }

    def isOpened(self) -> bool:  # noqa: N802
        return self.opens

    def get(self, prop: int) -> float:
        return self.known.get(prop, 0.0)

    def read(self) -> tuple[bool, Image | None]:
        assert not self.released
        delivered = self.left > 0
        self.left -= 1
        return delivered, np.zeros((HEIGHT, WIDTH, 3), np.uint8) if delivered else None

    def release(self) -> None:
        self.released = True


class ServingFolder(ThreadingHTTPServer):
    daemon_threads = False


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the files of `folder` over HTTP; gives the address."""
    with ServingFolder(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def talking(words: bytes) -> Iterator[int]:
    """Listen on a port, say `words` to the one caller, then stay silent until it hangs up; gives the port."""

    def talk(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(words)
            while connection.recv(4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=talk, args=(server,))
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def fake_camera(monkeypatch: pytest.MonkeyPatch, capture: FakeCapture) -> None:
    monkeypatch.setattr(sources, "open_capture", lambda *_: capture)


def write_images(folder: Path, names: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    for value, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((HEIGHT, WIDTH, 3), 10 * value, np.uint8))


def the_error(spec: str | int | Path) -> str:
    """What opening and reading `spec` fails with."""
    with pytest.raises(SourceError) as caught, open_source(spec) as source:
        list(source)
    return str(caught.value)


# One contract for every kind of source.


@contextmanager
def video_file(folder: Path, _: pytest.MonkeyPatch) -> Iterator[Source]:
    yield open_source(clip(folder / "a.mp4", seconds=FRAMES / 30, sound=2))


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
    fake_camera(monkeypatch, FakeCapture())
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


def test_contract_frames(source: Source) -> None:
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
    assert source.frames == (None if source.live else FRAMES)


def test_contract_close(source: Source) -> None:
    reading = iter(source)
    assert next(reading).index == 0
    source.close()
    source.close()
    assert list(reading) == []


def test_with_block_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture()
    fake_camera(monkeypatch, capture)
    with open_source(0) as source:
        next(iter(source))
    assert capture.released
    assert source.live


def test_close_waits_for_the_read_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowCapture(FakeCapture):
        reading, ready = threading.Event(), threading.Event()

        def read(self) -> tuple[bool, Image | None]:
            self.reading.set()
            self.ready.wait()
            assert not self.released, "released while it reads"
            return super().read()

    capture = SlowCapture(frames=10**9)
    fake_camera(monkeypatch, capture)
    source = open_source(0)
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.extend(frame.index for frame in source))
    closer = threading.Thread(target=source.close)
    reader.start()
    capture.reading.wait()
    closer.start()
    closer.join(timeout=0.05)
    waits = closer.is_alive()
    capture.ready.set()
    closer.join()
    reader.join()
    assert waits
    assert capture.released
    assert seen


# Video files.


def seconds_of(path: Path) -> list[float]:
    with open_source(path) as source:
        return [frame.seconds for frame in source]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_ntsc_times_are_those_of_the_container(tmp_path: Path, name: str) -> None:
    path = clip(tmp_path / name, rate="30000/1001", encode=("-preset", "medium"))
    times = probe(path).times
    assert seconds_of(path) == pytest.approx([time - times[0] for time in times], abs=1e-5)
    assert seconds_of(path) == pytest.approx([n * 1001 / 30000 for n in range(30)], abs=1e-3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_variable_rate_keeps_its_times(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    path = variable_clip(tmp_path / name, sound=1)
    assert seconds_of(path) == pytest.approx(
        [n / 10 for n in range(10)] + [1 + n / 30 for n in range(30)], abs=1e-3
    )
    assert caplog.records == []


@pytest.mark.parametrize("name", ["a.avi", "a.h264"])
def test_missing_timestamps_are_filled_in(tmp_path: Path, name: str) -> None:
    path = clip(tmp_path / name, encode=("-preset", "medium"))  # B-frames: the last ones come without a time
    with open_source(path) as source:
        seconds = [frame.seconds for frame in source]
        assert seconds == pytest.approx([n / source.fps for n in range(30)], abs=1e-3)


def test_joined_recordings_go_on_in_time(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.ts")
    path.write_bytes(path.read_bytes() * 2)
    assert seconds_of(path) == pytest.approx([n / 30 for n in range(60)], abs=2e-3)


def test_time_starts_with_the_first_picture(tmp_path: Path) -> None:
    path = clip(tmp_path / "late.mp4", sound=1, delay=0.5)
    assert probe(path).times[0] == pytest.approx(0.5)
    assert seconds_of(path)[:2] == pytest.approx([0.0, 1 / 30], abs=1e-3)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotation_is_honoured(tmp_path: Path, quarters: int) -> None:
    upright = pictures(clip(tmp_path / "upright.mp4", seconds=0.1))[0]
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
    assert np.abs(frames[0].image.astype(int) - pictures(path)[0]).mean() < 5


def test_sound_is_that_of_the_file(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", seconds=0.1, sound=1)
    with open_source(path) as source:
        assert source.sound == path
        assert not source.live


@pytest.mark.parametrize("name", ["Bär und 熊 [1].mp4", "12:30.mp4", "~clip.mp4", "%d.mp4"])
def test_unusual_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    clip(tmp_path / "a.mp4", seconds=0.1).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for spec in (name, Path(name), tmp_path / name):
        with open_source(spec) as source:
            assert len(list(source)) == 3


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    clip(tmp_path / "a.mp4", seconds=0.1)
    with open_source("~/a.mp4") as source:
        assert source.frames == 3


def test_animated_gif_is_a_video(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.gif", rate="10", encode=("-c:v", "gif", "-pix_fmt", "rgb8"))
    with open_source(path) as source:
        assert [round(frame.seconds, 3) for frame in source] == [n / 10 for n in range(10)]


def test_a_video_is_read_once(tmp_path: Path) -> None:
    with open_source(clip(tmp_path / "a.mp4", seconds=0.1)) as source:
        assert len(list(source)) == 3
        with pytest.raises(SourceError, match="Open it again"):
            list(source)


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    assert "No such file" in the_error(tmp_path / "missing.mp4")
    assert "moov" in the_error(truncated(tmp_path / "half.mp4"))
    assert "is not a video" in the_error(text_as_mp4(tmp_path / "text.mp4"))
    assert "holds no frames" in the_error(zero_frames(tmp_path / "sound.mp4"))
    assert "holds no frames" in the_error(clip(tmp_path / "none.avi", encode=("-frames:v", "0")))
    (tmp_path / "empty.mp4").touch()
    assert "is not a video" in the_error(tmp_path / "empty.mp4")
    assert "Not a directory" in the_error(tmp_path / "empty.mp4" / "a.mp4")


def test_an_index_behind_four_gigabytes_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    long_box = (1).to_bytes(4) + b"mdat" + (16 + 4).to_bytes(8) + b"long"
    path.write_bytes((8).to_bytes(4) + b"ftyp" + long_box + (8).to_bytes(4) + b"moov")
    assert "holds no frames" in the_error(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.png"])
def test_forbidden_files_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def forbid(*_: object) -> None:  # root may read everything, so the file's own rights cannot tell
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", forbid)
    assert "Permission denied" in the_error(tmp_path / name)


def test_a_file_that_ends_early_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = clip(tmp_path / "a.mp4", seconds=4, encode=("-movflags", "+faststart"))
    assert len(seconds_of(path)) == 120
    assert caplog.records == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert len(seconds_of(path)) < 100
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "a.mp4 ends after" in caplog.text


def test_a_header_that_says_two_more_is_common(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_source(clip(tmp_path / "a.flv", encode=("-preset", "medium"))) as source:
        assert source.frames == 32
        assert len(list(source)) == 30
    assert caplog.records == []


def test_opencv_and_ffmpeg_keep_quiet(tmp_path: Path) -> None:
    program = (
        "import sys, contextlib, live_seg.sources as s, live_seg.errors as e\n"
        "for path in sys.argv[1:]:\n"
        "    with contextlib.suppress(e.SourceError): list(s.open_source(path))\n"
    )
    (tmp_path / "a.png").write_bytes(b"no image")
    files = [truncated(tmp_path / "half.mp4"), text_as_mp4(tmp_path / "text.mp4"), tmp_path / "a.png", 999]
    command = [sys.executable, "-c", program, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(1e-3, 1.0))
def test_time_never_runs_backwards(stamps: list[float], step: float) -> None:
    clock = sources._ContainerClock(step)
    seconds = [clock.at(stamp) for stamp in stamps]
    assert seconds[0] == 0.0
    assert seconds == sorted(seconds)


# Cameras.


def test_camera_time_is_capture_time(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_camera(monkeypatch, FakeCapture(frames=3))
    ticks = iter([100.0, 100.5, 102.0, 110.0])
    monkeypatch.setattr(sources, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    with open_source("0") as source:
        assert [frame.seconds for frame in itertools.islice(source, 3)] == [0.0, 0.5, 2.0]


def test_camera_that_stops_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_camera(monkeypatch, FakeCapture(frames=2))
    seen: list[int] = []
    with pytest.raises(SourceError, match="camera 0 stopped delivering after 2 pictures"):
        seen.extend(frame.index for frame in open_source(0))


@pytest.mark.parametrize("spec", [7, "7", "/dev/video7"])
def test_camera_that_does_not_open(monkeypatch: pytest.MonkeyPatch, spec: str | int) -> None:
    fake_camera(monkeypatch, FakeCapture(opens=False))
    assert "Cannot open camera 7" in the_error(spec)


def test_camera_numbers_count_from_zero() -> None:
    assert "numbered from 0" in the_error(-1)


@pytest.mark.parametrize("fps", [0.0, -1.0, math.nan, math.inf, 90000.0])
def test_nonsense_rates_are_replaced(monkeypatch: pytest.MonkeyPatch, fps: float) -> None:
    fake_camera(monkeypatch, FakeCapture(fps=fps))
    assert Camera(0).fps == sources.DEFAULT_FPS


# Streams.


@pytest.mark.parametrize(("name", "live", "frames"), [("a.mp4", False, 30), ("a.ts", True, None)])
def test_http_ends_like_a_file(tmp_path: Path, name: str, live: bool, frames: int | None) -> None:
    clip(tmp_path / name)
    with served(tmp_path) as address, open_source(f"{address}/{name}") as source:
        assert (source.live, source.frames, source.sound) == (live, frames, None)
        assert len(list(source)) == 30


@pytest.mark.parametrize(("scheme", "live"), [("https", False), ("rtsp", True), ("udp", True)])
def test_only_http_with_a_length_is_read_like_a_file(
    monkeypatch: pytest.MonkeyPatch, scheme: str, live: bool
) -> None:
    fake_camera(monkeypatch, FakeCapture(declared=FRAMES))
    source = Stream(f"{scheme}://host/a")
    assert (source.live, source.frames) == (live, None if live else FRAMES)


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_server_that_says_nothing_times_out(scheme: str) -> None:
    with talking(b"") as port, pytest.raises(SourceError, match=r"within 0\.2 s"):
        Stream(f"{scheme}://127.0.0.1:{port}/a", timeout=0.2)


def test_a_stream_that_falls_silent_is_an_error(tmp_path: Path) -> None:
    words = b"HTTP/1.0 200 OK\r\n\r\n" + clip(tmp_path / "a.ts").read_bytes() * 2
    with talking(words) as port, Stream(f"http://127.0.0.1:{port}/a", timeout=0.3) as source:
        seen: list[int] = []
        with pytest.raises(SourceError, match=r"sent nothing for 0\.3 s"):
            seen.extend(frame.index for frame in source)
        assert len(seen) > 30


def test_refused_and_missing_addresses(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "Cannot open" in the_error(f"rtsp://127.0.0.1:{port}/a")
    with served(tmp_path) as address:
        assert "Cannot open" in the_error(f"{address}/missing.mp4")


@pytest.mark.parametrize(
    "url",
    [
        f"rtsp://user:{SECRET}@127.0.0.1:{{port}}/a",
        f"rtsp://user:p@ss/{SECRET}?#@127.0.0.1:{{port}}/a",
        f"http://127.0.0.1:{{port}}/a?token={SECRET}",
        f"nonsense://user:{SECRET}@127.0.0.1:{{port}}/a",
    ],
)
def test_secrets_are_never_told(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = the_error(url.format(port=port))
    assert "***" in error
    assert SECRET not in error + caplog.text
    assert "user" not in error.split("Check")[0]


def test_secrets_of_a_readable_stream_are_hidden(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = clip(tmp_path / "a.mp4", seconds=4, encode=("-movflags", "+faststart"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with served(tmp_path) as address:
        url = address.replace("//", f"//user:{SECRET}@") + f"/a.mp4?token={SECRET}"
        with caplog.at_level(logging.DEBUG), open_source(url) as source:
            list(source)
            with pytest.raises(SourceError) as caught:
                list(source)
    assert "***@127.0.0.1" in source.name
    assert "ends after" in caplog.text
    assert SECRET not in source.name + caplog.text + str(caught.value)


def test_redacted() -> None:
    assert redacted("rtsp://user:pass@host/path") == "rtsp://***@host/path"
    assert redacted("rtsp://host:554/path") == "rtsp://host:554/path"
    assert redacted("http://host/path?key=1") == "http://host/path?***"


# Still images.


def test_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    write_images(tmp_path / "in", ["9.png", "10.png", "1.PNG"])
    (tmp_path / "in" / "._9.png").write_bytes(b"a companion, no image")
    (tmp_path / "in" / "notes.txt").touch()
    source = open_source(tmp_path / "in")
    assert isinstance(source, ImageFiles)
    assert [path.name for path in source.paths] == ["1.PNG", "9.png", "10.png"]
    assert [int(frame.image.mean()) for frame in source] == [20, 0, 10]
    assert [frame.seconds for frame in source] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("pixel", "dtype"), [((10, 20, 30, 0), np.uint8), (25, np.uint8), ((2560, 5120, 7680), np.uint16)]
)
def test_all_pixel_kinds_become_bgr_bytes(
    tmp_path: Path, pixel: int | tuple[int, ...], dtype: type[np.integer[Any]]
) -> None:
    image = np.zeros((4, 6, *np.shape(pixel)), dtype)
    image[:] = pixel
    cv2.imwrite(str(tmp_path / "a b ä.png"), image)
    (frame,) = open_source(tmp_path / "a b ä.png")
    assert frame.image.dtype == np.uint8
    assert frame.image.shape == (4, 6, 3)
    assert frame.image[0, 0].tolist() == ([25] * 3 if pixel == 25 else [10, 20, 30])


def test_exif_rotation_is_honoured(tmp_path: Path) -> None:
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:, :16] = 255
    plain = cv2.imencode(".jpg", picture)[1].tobytes()
    # EXIF with one entry: orientation (0x0112) 6, to be turned a quarter clockwise.
    entry = bytes.fromhex("0112 0003 00000001 0006 0000")
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + bytes(4)
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2) + exif
    (tmp_path / "a.jpg").write_bytes(plain[:2] + segment + plain[2:])
    source = open_source(tmp_path / "a.jpg")
    (frame,) = source
    assert source.size == (16, 32)
    assert frame.image[:16].mean() > 200
    assert frame.image[16:].mean() < 50


def test_an_unreadable_image_among_many_is_named(tmp_path: Path) -> None:
    write_images(tmp_path / "in", ["1.png", "3.png"])
    (tmp_path / "in" / "2.png").write_bytes(b"no image")
    assert "2.png" in the_error(tmp_path / "in")


def test_an_image_opencv_refuses_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # as it does for more than 2**30 pixels
        raise cv2.error("too large")

    write_images(tmp_path, ["a.png"])
    monkeypatch.setattr(cv2, "imread", refuse)
    assert "Cannot read" in the_error(tmp_path / "a.png")


def test_no_images_is_an_error(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4", seconds=0.1)
    assert "holds no images" in the_error(tmp_path)
    assert "holds no images" in the_error(f"{tmp_path}/*.mp4")


def test_kinds_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "a.mp4", seconds=0.1).rename(tmp_path / "0")
    write_images(tmp_path / "[x]", ["a.png"])
    assert isinstance(open_source("./0"), VideoFile)
    assert isinstance(open_source(Path("0")), VideoFile)
    assert isinstance(open_source("[x]"), ImageFiles)
    assert isinstance(open_source("[x]/a.png"), ImageFiles)
