import itertools
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import cv2
import pytest

from live_seg.cli.native_messages import LOG_LEVELS
from live_seg.errors import SourceError, UsageError
from live_seg.pipeline.batched import Pipeline
from live_seg.pipeline.run import run
from live_seg.pipeline.stats import Tally
from live_seg.sources import cameras, captures, live, streams
from live_seg.sources.cameras import BACKENDS, Camera, CameraSettings, parse_size
from live_seg.sources.captures import DEFAULT_FPS
from live_seg.sources.driver_thread import DriverThread
from live_seg.sources.live import RETRY_DELAYS
from live_seg.sources.opening import open_source
from live_seg.sources.streams import DECODER_THREADS, Stream, has_length
from live_seg.types import Frame
from tests.clips import clip
from tests.live import (
    FRAMES,
    HTTP,
    FakeCapture,
    Sender,
    StuckCapture,
    When,
    free_port,
    put_captures,
    sending,
    served,
    talking,
)
from tests.marks import slow
from tests.stand_ins import StandIn

SECRET = "hunter2"
LONG = 60.0
"""Seconds allowed on a busy machine for an immediate action."""


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if isinstance(thread, DriverThread)]


@pytest.fixture(autouse=True)
def every_reader_ends() -> Iterator[None]:
    before = readers()
    yield
    for thread in readers():
        if thread not in before:
            thread.join(LONG)
            assert not thread.is_alive()


def error_of(spec: str | int) -> str:
    """Return the message of the error raised by opening and reading `spec`."""
    with pytest.raises(SourceError) as caught, open_source(spec, reconnect=False) as source:
        list(source)
    return str(caught.value)


@contextmanager
def watched(source: Iterable[Frame]) -> Iterator[threading.Thread]:
    """Read `source` in a thread, as the pipeline does, until it is closed."""
    thread = threading.Thread(target=lambda: list(source))
    thread.start()
    yield thread
    thread.join()


# Cameras.


def test_with_block_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture()
    put_captures(monkeypatch, capture)
    with open_source(0) as source:
        next(iter(source))
    assert capture.released
    assert source.live


def test_frame_times_of_a_camera_are_capture_times(monkeypatch: pytest.MonkeyPatch) -> None:
    put_captures(monkeypatch, FakeCapture(frames=3))
    ticks = iter([100.0, 100.5, 102.0, 110.0])
    monkeypatch.setattr(captures, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    with Camera(0) as source:
        assert source.started_at is None
        assert [frame.seconds for frame in itertools.islice(source, 3)] == [0.0, 0.5, 2.0]
        assert source.started_at == 100.0


def test_frames_are_read_on_demand_and_one_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture(frames=10**9)
    put_captures(monkeypatch, capture)
    with Camera(0) as source:
        assert capture.reads == 0
        seen = len(list(itertools.islice(source, 5)))
    assert seen <= capture.reads <= seen + 1


def test_camera_that_stops_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    put_captures(monkeypatch, FakeCapture(frames=2))
    seen: list[int] = []
    with pytest.raises(SourceError, match="camera 0 stopped delivering after 2 frames"):
        seen.extend(frame.index for frame in open_source(0))
    assert seen == [0, 1]


@pytest.mark.parametrize("spec", [7, "7", "/dev/video7"])
def test_camera_that_does_not_open(monkeypatch: pytest.MonkeyPatch, spec: str | int) -> None:
    put_captures(monkeypatch, FakeCapture(opens=False))
    assert "Cannot open camera 7. Check that it is plugged in" in error_of(spec)


def test_camera_numbers_count_from_zero() -> None:
    assert "numbered from 0" in error_of(-1)


@pytest.mark.parametrize("fps", [0.0, -1.0, math.nan, math.inf, 90000.0])
def test_invalid_rates_are_replaced(monkeypatch: pytest.MonkeyPatch, fps: float) -> None:
    put_captures(monkeypatch, FakeCapture(fps=fps))
    with Camera(0) as camera:
        assert camera.fps == DEFAULT_FPS


def test_settings_are_requested_from_the_camera(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    capture, asked = FakeCapture(), []

    def open_capture(*arguments: object) -> FakeCapture:
        asked.append(arguments)
        return capture

    monkeypatch.setattr(cameras, "open_capture", open_capture)
    with open_source(2, camera=CameraSettings((1280, 720), 60.0, "v4l2")) as source:
        assert (source.size, source.fps) == ((1280, 720), 60.0)
    assert asked == [(2, cv2.CAP_V4L2)]
    assert caplog.records == []


@pytest.mark.parametrize(
    ("settings", "fps", "warning"),
    [
        (CameraSettings(size=(1280, 720)), 30.0, "delivers 160x120 pixels at 30 fps"),
        (CameraSettings(fps=60.0), 30.0, "delivers 160x120 pixels at 30 fps"),
        (CameraSettings(size=(1280, 720)), 0.0, "delivers 160x120 pixels instead"),
        (CameraSettings(fps=60.0), 0.0, None),  # unknown rate
        (CameraSettings(fps=30.0), 29.97, None),
        (CameraSettings((160, 120), 30.0), 30.0, None),
        (CameraSettings(), 30.0, None),
    ],
)
def test_a_warning_is_logged_if_a_camera_ignores_the_settings(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    settings: CameraSettings,
    fps: float,
    warning: str | None,
) -> None:
    class Stubborn(FakeCapture):
        def set(self, prop: int, value: float) -> bool:  # noqa: ARG002
            return False

    put_captures(monkeypatch, Stubborn(fps=fps))
    with Camera(0, settings):
        pass
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * (warning is not None)
    assert (warning or "") in caplog.text


def test_a_missing_backend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    put_captures(monkeypatch, FakeCapture(opens=False))
    with pytest.raises(SourceError, match="camera 1 with gstreamer"):
        Camera(1, CameraSettings(backend="gstreamer"))


@pytest.mark.parametrize("wrong", [{"size": (0, 480)}, {"fps": 0.0}, {"fps": math.nan}, {"backend": "dx"}])
def test_invalid_settings(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        CameraSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [0.0, -1.0, math.nan, math.inf])
def test_invalid_timeouts(timeout: float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        Camera(0, timeout=timeout)


def test_parse_size() -> None:
    assert parse_size("1280x720") == (1280, 720)
    for wrong in ("1280", "1280x", "12.5x7", "-1x7", "1280 x 720 pixels"):
        with pytest.raises(UsageError, match="1280x720"):
            parse_size(wrong)


def test_backends_are_those_of_opencv() -> None:
    assert all(getattr(cv2, f"CAP_{name.upper()}") == value for name, value in BACKENDS.items())


# A read that hangs.


def test_a_camera_that_hangs_is_an_error_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = StuckCapture()
    put_captures(monkeypatch, capture)
    monkeypatch.setattr(live, "GRACE", 0.0)
    monkeypatch.setattr(live, "CLOSE_TIMEOUT", 0.01)
    try:
        with (
            pytest.raises(SourceError, match=r"No frame arrived from camera 0 for 0\.05 s"),
            Camera(0, timeout=0.05) as camera,
        ):
            list(camera)
        assert not capture.released
        assert len(readers()) == 1
    finally:
        capture.ready.set()
    for thread in readers():
        thread.join(LONG)
    assert capture.released


def test_a_camera_that_hangs_while_it_opens_is_an_error_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ready, capture = threading.Event(), FakeCapture()

    def open_capture(*_: object) -> FakeCapture:
        ready.wait()
        return capture

    monkeypatch.setattr(cameras, "open_capture", open_capture)
    monkeypatch.setattr(live, "GRACE", 0.0)
    monkeypatch.setattr(live, "CLOSE_TIMEOUT", 0.01)
    try:
        with pytest.raises(SourceError, match="No frame arrived from camera 0"):
            Camera(0, timeout=0.05)
    finally:
        ready.set()
    for thread in readers():
        thread.join(LONG)
    assert capture.released
    assert capture.reads == 0


@pytest.mark.parametrize("propagate", [True, False])
def test_a_camera_that_hangs_in_a_pipeline_is_an_error_in_time(
    monkeypatch: pytest.MonkeyPatch, propagate: bool
) -> None:
    capture = StuckCapture()
    put_captures(monkeypatch, capture)
    monkeypatch.setattr(live, "GRACE", 0.0)
    monkeypatch.setattr(live, "CLOSE_TIMEOUT", 0.01)
    try:
        with pytest.raises(SourceError, match=r"No frame arrived from camera 0 for 0\.05 s"):
            list(run(Camera(0, timeout=0.05), StandIn(), propagate=propagate))
    finally:
        capture.ready.set()


@pytest.mark.parametrize("propagate", [True, False])
def test_a_camera_feeds_the_pipeline_from_its_own_thread(
    monkeypatch: pytest.MonkeyPatch, propagate: bool
) -> None:
    capture, tally = FakeCapture(frames=10**9), Tally()
    put_captures(monkeypatch, capture)
    with Camera(0) as camera, closing(run(camera, StandIn(), propagate=propagate, tally=tally)) as results:
        next(results)
        names = {thread.name for thread in threading.enumerate()}
        assert names >= {"live_seg camera 0", "live_seg worker"}
        assert "live_seg reader" not in names
        assert tally.started_at == camera.started_at
    assert capture.released


@pytest.mark.timeout(30, method="thread")
def test_a_closed_camera_delivers_no_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    put_captures(monkeypatch, FakeCapture(frames=10**9))
    camera = Camera(0)
    camera.close()
    assert list(camera) == []


def test_a_pipeline_that_ends_releases_its_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture(frames=10**9)
    put_captures(monkeypatch, capture)
    camera = Camera(0)
    with Pipeline(camera, StandIn(), policy="latest") as results:
        next(iter(results))
    for thread in readers():
        thread.join(LONG)
    assert capture.released
    camera.close()
    assert list(results) == []


def test_close_ends_the_wait_for_a_read_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = StuckCapture()
    put_captures(monkeypatch, capture)
    monkeypatch.setattr(live, "CLOSE_TIMEOUT", 0.01)
    camera = Camera(0, timeout=LONG)
    try:
        with watched(camera) as watcher:
            capture.reading.wait()
            camera.close()
            watcher.join(LONG)
            ended, busy = not watcher.is_alive(), not capture.released
    finally:
        capture.ready.set()
    assert ended
    assert busy


def test_close_waits_for_a_read_that_is_about_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = StuckCapture()
    put_captures(monkeypatch, capture)
    monkeypatch.setattr(live, "CLOSE_TIMEOUT", LONG)
    camera = Camera(0, timeout=LONG)
    with watched(camera):
        capture.reading.wait()
        closer = threading.Thread(target=camera.close)
        closer.start()
        closer.join(timeout=0.05)
        waits = closer.is_alive()
        capture.ready.set()
        closer.join()
        released = capture.released
    assert waits
    assert released


def test_an_exception_of_a_read_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(FakeCapture):
        def read(self) -> tuple[bool, None]:
            raise cv2.error("out of memory")

    capture = Broken()
    put_captures(monkeypatch, capture)
    with Camera(0) as camera, pytest.raises(cv2.error, match="out of memory"):
        list(camera)
    assert capture.released


# Streams that end.


@pytest.mark.parametrize(("name", "frames"), [("a.mp4", 30), ("a.ts", None)])
def test_a_file_over_http_ends_and_is_not_read_again(
    tmp_path: Path, name: str, frames: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    clip(tmp_path / name)
    with served(tmp_path) as address, open_source(f"{address}/{name}") as source:
        assert (source.live, source.frames, source.audio) == (False, frames, None)
        time.sleep(0.1)  # a live source would drop frames
        read = list(source)
    assert [frame.seconds for frame in read] == pytest.approx([index / 30 for index in range(30)], abs=1e-4)
    assert caplog.records == []


class Answering(SimpleHTTPRequestHandler):
    """Answers HEAD as the path says: a status, or a media type with a length if it is not 0."""

    asked: ClassVar[list[tuple[str, str, str | None]]] = []

    def do_HEAD(self) -> None:
        self.asked.append((self.command, self.path, self.headers["Authorization"]))
        status, kind, length = self.path.strip("/").split("&")
        self.send_response(int(status))
        self.send_header("Content-Type", kind.replace("_", "/"))
        if length != "0":
            self.send_header("Content-Length", length)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def answering() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()
    Answering.asked.clear()


@pytest.mark.parametrize(
    ("answer", "has"),
    [
        ("200&video_mp2t&9000", True),
        ("200&video_mp2t&0", False),
        ("200&application_vnd.apple.mpegurl&300", False),
        ("200&application_dash+xml&300", False),
        ("405&text_html&40", False),
    ],
)
def test_whether_a_server_declares_a_length(answering: int, answer: str, has: bool) -> None:
    assert has_length(f"http://me:a%40b@127.0.0.1:{answering}/{answer}", 5) == has
    assert Answering.asked == [("HEAD", f"/{answer}", "Basic bWU6YUBi")]


def test_a_server_that_says_nothing_declares_no_length() -> None:
    assert not has_length(f"http://127.0.0.1:{free_port()}/a", 5)
    assert not has_length("http://[", 5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not has_length(f"http://127.0.0.1:{silent.getsockname()[1]}/a", 0.05)


def test_a_file_over_http_is_read_once_though_streams_reconnect(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4")
    with served(tmp_path) as address, open_source(f"{address}/a.mp4") as source, open_source(path) as local:
        assert [frame.seconds for frame in source] == [frame.seconds for frame in local]


@pytest.mark.parametrize(("scheme", "is_live"), [("https", False), ("rtsp", True), ("udp", True)])
def test_only_http_with_a_length_is_read_like_a_file(
    monkeypatch: pytest.MonkeyPatch, scheme: str, is_live: bool
) -> None:
    put_captures(monkeypatch, FakeCapture(declared=FRAMES))
    with Stream(f"{scheme}://host/a") as source:
        assert (source.live, source.frames) == (is_live, None if is_live else FRAMES)


def test_options_passed_to_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def open_capture(*arguments: object) -> FakeCapture:
        asked.append(arguments)
        return FakeCapture()

    monkeypatch.setattr(streams, "open_capture", open_capture)
    with open_source("rtsp://host/a", timeout=2.5):
        pass
    limits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 2500, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 2500)
    assert asked == [("rtsp://host/a", cv2.CAP_FFMPEG, (*limits, cv2.CAP_PROP_N_THREADS, DECODER_THREADS))]


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_silent_server_times_out(scheme: str) -> None:
    with talking(b"") as port, pytest.raises(SourceError, match=r"within 0\.2 s"):
        Stream(f"{scheme}://127.0.0.1:{port}/a", timeout=0.2, reconnect=False)


def test_a_stream_that_falls_silent_is_an_error(tmp_path: Path) -> None:
    words = HTTP + clip(tmp_path / "a.ts").read_bytes() * 2
    with (
        talking(words) as port,
        Stream(f"http://127.0.0.1:{port}/a", timeout=0.5, reconnect=False) as source,
    ):
        seen: list[int] = []
        with pytest.raises(SourceError, match=r"No frame arrived from http.* for 0\.5 s"):
            seen.extend(frame.index for frame in source)
        assert len(seen) > 30


def test_refused_connection_and_missing_file(tmp_path: Path) -> None:
    assert "Cannot open" in error_of(f"rtsp://127.0.0.1:{free_port()}/a")
    with served(tmp_path) as address:
        assert "Cannot open" in error_of(f"{address}/missing.mp4")


# Streams that come back.


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RETRY_DELAYS", (0.01, 0.05))


@contextmanager
def sender(greeting: bytes = b"") -> Iterator[Sender]:
    sender = Sender(greeting)
    try:
        yield sender
    finally:
        sender.end()


def address(of: Sender, kind: str) -> str:
    return f"{kind}://127.0.0.1:{of.port}"


def followed(source: Iterable[Frame], frames: int, faults: dict[int, Callable[[], object]]) -> list[Frame]:
    """Read `frames` frames, let the fault of an index happen after it, and check what holds for all."""
    seen: list[Frame] = []
    for frame in itertools.islice(source, frames):
        seen.append(frame)
        faults.get(frame.index, int)()
    assert [frame.index for frame in seen] == list(range(frames))
    seconds = [frame.seconds for frame in seen]
    assert seconds == sorted(seconds)
    assert all(frame.image.mean() > 50 for frame in seen), "a black frame"
    return seen


def warnings(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    """Return the warnings of live sources that contain `words`."""
    messages = [record.getMessage() for record in caplog.records if record.name == "live_seg.sources.live"]
    return [message for message in messages if words in message]


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize(("kind", "greeting"), [slow("tcp", b""), ("http", HTTP)])
def test_a_killed_stream_is_reconnected(kind: str, greeting: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with sender(greeting) as server, open_source(address(server, kind)) as source:
        followed(source, 240, {20: server.kill, 120: server.kill})
        assert len(server.senders) >= 3
    assert len(warnings(caplog, "disconnected after")) >= 2
    assert len(warnings(caplog, "is available after")) >= 2


@pytest.mark.usefixtures("short_pauses")
def test_a_stalled_stream_is_reconnected(caplog: pytest.LogCaptureFixture) -> None:
    with sender() as server, open_source(address(server, "tcp"), timeout=1.0) as source:
        seen = followed(source, 150, {20: server.stall})
        steps = [b.seconds - a.seconds for a, b in itertools.pairwise(seen)]
        assert max(steps) >= 1.0
    assert warnings(caplog, "sent nothing for 1 s after")
    assert warnings(caplog, "is available after")


@pytest.mark.usefixtures("short_pauses")
def test_without_reconnect_the_source_ends_with_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    with sender() as server, open_source(address(server, "tcp"), reconnect=False) as source:
        seen = 0
        for frame in source:
            seen += 1
            if frame.index == 20:
                server.kill()
        assert seen > 20
        assert len(server.senders) == 1
    with sender() as server, open_source(address(server, "tcp"), reconnect=False, timeout=1.0) as source:
        with pytest.raises(SourceError, match="No frame arrived from tcp"):
            followed(source, 10**6, {20: server.stall})
        assert len(server.senders) == 1
    assert warnings(caplog, "") == []


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize(("to", "at"), [(("{}?listen=1",), "tcp"), (("-listen", "1", "{}"), "http")])
def test_a_server_started_late_is_waited_for(
    to: tuple[str, ...], at: str, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    url = f"{at}://user:{SECRET}@127.0.0.1:{port}/a.ts?key={SECRET}"
    listen = [word.format(f"{at}://127.0.0.1:{port}/a.ts") for word in to]
    started = []
    with When("Waiting for it to return", lambda: started.append(sending(*listen))):
        try:
            with open_source(url) as source:
                followed(source, 20, {})
        finally:
            for server in started:
                server.kill()
                server.wait()
    assert len(started) == 1
    assert len(warnings(caplog, f"Cannot open {at}://***@127.0.0.1:{port}/a.ts?***")) == 1
    assert len(warnings(caplog, "is available after")) == 1
    assert SECRET not in caplog.text


@pytest.mark.usefixtures("short_pauses")
def test_without_wait_only_a_stream_seen_before_is_reconnected(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SourceError, match="Cannot open tcp"):
        open_source(f"tcp://127.0.0.1:{free_port()}", wait=False)
    assert warnings(caplog, "") == []
    with sender() as server, open_source(address(server, "tcp"), wait=False) as source:
        followed(source, 40, {20: server.kill})  # but what was there is
        assert len(server.senders) == 2
    assert len(warnings(caplog, "Waiting for it to return")) == 1


@pytest.mark.usefixtures("short_pauses")
def test_a_stream_without_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    put_captures(monkeypatch, FakeCapture(frames=0))
    with Stream("tcp://host", wait=False) as source, pytest.raises(SourceError, match="holds no frames"):
        next(iter(source))


def test_waiting_is_logged_periodically(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "RETRY_DELAYS", (0.0,))
    monkeypatch.setattr(live, "REMINDER_INTERVAL", 0.0)
    closed, opened = FakeCapture(opens=False), FakeCapture()
    put_captures(monkeypatch, closed, closed, closed, opened)
    with Stream("tcp://host"):
        pass
    assert len(warnings(caplog, "Waiting for it to return")) == 1
    assert len(warnings(caplog, "tcp://host has been unavailable for 0 s. Still waiting.")) == 2
    assert len(warnings(caplog, "is available after")) == 1


@pytest.mark.usefixtures("short_pauses")
def test_a_new_frame_size_after_reconnecting_is_an_error() -> None:
    with sender() as server, open_source(address(server, "tcp")) as source:

        def change() -> None:
            server.size = "320x240"
            server.kill()

        with pytest.raises(SourceError, match="changed its frame size from 160x120 to 320x240"):
            followed(source, 10**6, {20: change})


def test_close_ends_a_stall_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "CLOSE_TIMEOUT", 0.01)
    with sender() as server, open_source(address(server, "tcp"), timeout=3.0) as source:
        frames = iter(source)
        followed(itertools.islice(frames, 20), 20, {19: server.stall})
        with watched(frames) as watcher:
            watcher.join(0.5)  # what is on its way still comes
            began = time.monotonic()
            source.close()
            watcher.join()
            assert time.monotonic() - began < 2.0


def test_close_ends_a_pause_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RETRY_DELAYS", (10 * LONG,))
    put_captures(monkeypatch, FakeCapture())
    waiting = threading.Event()
    with (
        Stream("tcp://host") as source,
        When("Waiting for it to return", waiting.set),
        watched(source) as watcher,
    ):
        waiting.wait()
        source.close()
        watcher.join(LONG)
        assert readers() == []


def test_ctrl_c_ends_the_wait_for_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RETRY_DELAYS", (10 * LONG,))
    with (
        When("Waiting for it to return", lambda: os.kill(os.getpid(), signal.SIGINT)),
        pytest.raises(KeyboardInterrupt),
    ):
        Stream(f"tcp://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("scheme", ["tcp", "rtsp"])
def test_the_wait_for_a_silent_server_can_be_ended(scheme: str) -> None:
    calls: list[float] = []

    def idle() -> bool:
        calls.append(time.monotonic())
        return len(calls) < 3

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/a"
        with pytest.raises(SourceError, match=rf"The wait for {url} was ended before a frame arrived"):
            open_source(url, timeout=0.5, idle=idle)
    assert calls[2] - calls[1] < 0.5


def test_the_wait_for_a_camera_can_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    opening = threading.Event()

    def open_capture(*_: object) -> FakeCapture:
        opening.wait()
        return FakeCapture()

    monkeypatch.setattr("live_seg.sources.cameras.open_capture", open_capture)
    with pytest.raises(SourceError, match="The wait for camera 0 was ended"):
        open_source(0, idle=lambda: False)
    opening.set()


def test_ctrl_c_while_the_reader_starts_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(DriverThread):
        def start(self) -> None:
            super().start()
            raise KeyboardInterrupt

    monkeypatch.setattr(live, "DriverThread", Interrupted)
    monkeypatch.setattr(live, "RETRY_DELAYS", (10 * LONG,))
    put_captures(monkeypatch, FakeCapture(opens=False))
    with pytest.raises(KeyboardInterrupt):
        Stream("tcp://host")


class Pauses(threading.Event):
    """An event that returns from `wait` at once and records the timeouts."""

    asked: ClassVar[list[float | None]] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.asked.append(timeout)
        return self.is_set()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """Return the pauses requested between attempts to connect; none is waited for."""
    monkeypatch.setattr(Pauses, "asked", [])
    monkeypatch.setattr(live, "Event", Pauses)
    return Pauses.asked


def test_pauses_grow_while_nothing_answers(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float | None], caplog: pytest.LogCaptureFixture
) -> None:
    put_captures(monkeypatch, *[FakeCapture(opens=False)] * 8, FakeCapture(10**9))
    with Stream("rtsp://host"):
        assert pauses == [*RETRY_DELAYS, RETRY_DELAYS[-1], RETRY_DELAYS[-1]]
    assert len(warnings(caplog, "Cannot open")) == len(warnings(caplog, "")) - 1 == 1


@pytest.mark.parametrize(
    ("held", "expected"), [(1.0, [*RETRY_DELAYS[:4]]), (2 * RETRY_DELAYS[-1], [RETRY_DELAYS[0]] * 4)]
)
def test_pauses_start_over_after_a_connection_that_held(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float | None], held: float, expected: list[float]
) -> None:
    captures = [FakeCapture(frames=2) for _ in range(4)]
    put_captures(monkeypatch, *captures, FakeCapture(10**9))
    clock = itertools.count(0.0, held)
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with Stream("rtsp://host", timeout=86_400) as source:
        assert len(list(itertools.islice(source, 10))) == 10
        assert pauses == expected
    assert all(capture.released for capture in captures)


# Secrets.


@pytest.mark.parametrize(
    "url",
    [
        f"rtsp://user:{SECRET}@127.0.0.1:{{port}}/a",
        f"rtsp://user:p@ss/{SECRET}?#@127.0.0.1:{{port}}/a",
        f"http://127.0.0.1:{{port}}/a?token={SECRET}",
        f"nonsense://user:{SECRET}@127.0.0.1:{{port}}/a",
    ],
)
def test_secrets_are_not_logged_or_shown(url: str, caplog: pytest.LogCaptureFixture) -> None:
    error = error_of(url.format(port=free_port()))
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


# Native messages.


def test_opencv_and_ffmpeg_are_silent_in_the_environment_of_the_command_line(tmp_path: Path) -> None:
    program = (
        "import sys, contextlib, live_seg.sources.opening as s, live_seg.errors as e\n"
        "for url in sys.argv[1:]:\n"
        "    with contextlib.suppress(e.SourceError):\n"
        "        with s.open_source(url, timeout=0.5, reconnect=False) as source: list(source)\n"
    )
    words = HTTP + clip(tmp_path / "a.ts").read_bytes()
    with talking(words) as silent, talking(b"") as mute:
        urls = [
            f"http://127.0.0.1:{silent}/a",
            f"tcp://127.0.0.1:{mute}",
            f"rtsp://127.0.0.1:{free_port()}/a",
        ]
        command = [sys.executable, "-c", program, *urls]
        quiet = os.environ | LOG_LEVELS
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=quiet)
    assert (done.stdout, done.stderr) == ("", "")
