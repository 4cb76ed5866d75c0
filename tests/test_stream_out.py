"""Live streams to servers, which are the bundled ffmpeg as a listener, and what happens without one."""

import re
import subprocess
import sys
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from live_seg.cli.live_options import LiveOptions
from live_seg.errors import SinkError, UsageError
from live_seg.sinks import stream_out as module
from live_seg.sinks.encoding import Encoding
from live_seg.sinks.stream_out import StreamOut
from live_seg.sinks.stream_targets import StreamTarget, streaming_server, virtual_camera
from live_seg.types import Frame, Image, Instances
from tests.clips import FFMPEG, decode_frames, no_process_left_behind
from tests.live import FakeCapture, free_port, put_captures
from tests.stand_ins import StandIn
from tests.test_cli import invoke

pytestmark = [pytest.mark.usefixtures(no_process_left_behind.__name__), pytest.mark.timeout(120)]

LISTEN = {
    "rtmp": ("-listen", "1", "-i", "rtmp://127.0.0.1:{port}/live/camera-key"),
    "srt": ("-i", "srt://127.0.0.1:{port}?mode=listener"),
    "rtsp": ("-rtsp_flags", "listen", "-listen_timeout", "60", "-i", "rtsp://127.0.0.1:{port}/camera"),
}


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_DELAYS", (0.05,))


def url(scheme: str, port: int) -> str:
    return LISTEN[scheme][-1].format(port=port).replace("?mode=listener", "")


def listening(scheme: str, port: int, to: Path, *options: str) -> "subprocess.Popen[bytes]":
    words = [word.format(port=port) for word in LISTEN[scheme]]
    return subprocess.Popen(
        [FFMPEG, "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *words, *options, str(to)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def grey(level: int, size: tuple[int, int] = (48, 64)) -> Image:
    return np.full((*size, 3), level, np.uint8)


def send(out: StreamOut, image: Image) -> None:
    assert out.write(Frame(0, 0.0, image), image, Instances.empty())


def send_until(out: StreamOut, ended: "subprocess.Popen[bytes]", level: int = 120) -> None:
    """Send images until the receiver has ended."""
    while ended.poll() is None:
        send(out, grey(level))
        time.sleep(0.02)


@pytest.mark.parametrize("scheme", LISTEN)
def test_a_server_receives_the_images(tmp_path: Path, scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whenever the server is there: before the stream, or later."""
    port, received = free_port(), tmp_path / "received.mkv"
    with StreamOut(streaming_server(url(scheme, port), Encoding()), 30) as out:
        send(out, grey(120))
        server = listening(scheme, port, received, "-frames:v", "5")
        send_until(out, server)
    images = decode_frames(received)
    assert len(images) == 5
    assert float(images[4].mean()) == pytest.approx(120, abs=4)
    assert "key" not in caplog.text


def test_a_server_that_leaves_is_connected_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SETTLED_SECONDS", 0.1)
    port = free_port()
    with StreamOut(streaming_server(url("rtmp", port), Encoding()), 30) as out:
        for name in ("first.mkv", "second.mkv"):
            send_until(out, listening("rtmp", port, tmp_path / name, "-frames:v", "20"))
        assert out.losses > 0
        assert re.fullmatch(
            r"\d+ frames to rtmp://127.0.0.1:\d+/live/\*\*\*, connection lost \d+ times", out.summary
        )
    assert len(decode_frames(tmp_path / "second.mkv")) == 20
    assert "connected again" in caplog.text
    failed = [message for message in caplog.messages if "It is tried again" in message]
    assert re.match(r"Streaming to rtmp://127.0.0.1:\d+/live/\*\*\* failed \(.+\). It is tried", failed[0])


def test_a_new_size_is_a_new_connection(tmp_path: Path) -> None:
    port = free_port()
    with StreamOut(streaming_server(url("rtmp", port), Encoding()), 30) as out:
        send_until(out, listening("rtmp", port, tmp_path / "a.mkv", "-frames:v", "3"))
        server = listening("rtmp", port, tmp_path / "b.mkv", "-frames:v", "3")
        while server.poll() is None:
            send(out, grey(80, (64, 96)))
            time.sleep(0.02)
    assert decode_frames(tmp_path / "b.mkv")[0].shape == (64, 96, 3)


def test_the_last_image_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPEAT_SECONDS", 0.05)
    port = free_port()
    server = listening("srt", port, tmp_path / "a.mkv", "-frames:v", "8")
    with StreamOut(streaming_server(url("srt", port), Encoding()), 30) as out:
        send(out, grey(120))
        server.wait(60)
        assert out.sent >= 8


@pytest.fixture
def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ffmpeg that reads nothing and does not end. Returns a file with a line for each start."""
    if sys.platform == "win32":
        pytest.skip("needs a shell script")
    fake = tmp_path / "ffmpeg"
    fake.write_text(f"#!/bin/sh\necho started >> {tmp_path / 'starts'}\nexec sleep 1000\n")
    fake.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
    return tmp_path / "starts"


LARGE = (480, 640)
"""More than a pipe holds, so that writing it blocks."""


def test_a_stalled_output_blocks_nothing_and_is_replaced(
    stuck: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_SECONDS", 0.2)
    out = StreamOut(StreamTarget("a server", "nowhere", ()), 30)
    while not stuck.exists() or len(stuck.read_text().splitlines()) < 3:
        send(out, grey(1, LARGE))
        time.sleep(0.01)
    assert out.sent == 0
    out.close()
    assert out.losses >= 2


@pytest.mark.usefixtures("stuck")
def test_closing_ends_a_stalled_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.05)
    out = StreamOut(StreamTarget("a server", "nowhere", ()), 30)
    send(out, grey(1, LARGE))
    out.close()
    out.close()


def test_missing_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    with pytest.raises(SinkError, match="Cannot find ffmpeg"):
        StreamOut(StreamTarget("a server", "nowhere", ()), 30)


class TestTargets:
    @pytest.mark.parametrize(
        ("address", "name"),
        [
            ("rtmp://host/live/abcd-1234", "rtmp://host/live/***"),
            ("rtmp://host/live/cam", "rtmp://host/live/***"),
            ("rtsp://me:secret@host/cam", "rtsp://***@host/cam"),
            ("srt://host:9000?passphrase=secret", "srt://host:9000?***"),
        ],
    )
    def test_names_hide_secrets(self, address: str, name: str) -> None:
        target = streaming_server(address, Encoding())
        assert target.name == name
        said = f"Cannot open {address}: no abcd-1234, secret"
        cleaned = target.cleaned(said)
        assert cleaned.startswith(f"Cannot open {name}: ")
        assert all(word not in cleaned for word in target.secrets)

    def test_whip_is_h264_without_b_frames(self) -> None:
        options = " ".join(streaming_server("https://host/whip/1", Encoding()).options)
        assert "-profile:v baseline" in options
        assert "-bf 0" in options
        assert options.endswith("-f whip")

    @pytest.mark.parametrize(
        ("address", "encoding", "message"),
        [
            ("ftp://host/x", Encoding(), "scheme must be rtmp"),
            ("out.mp4", Encoding(), "scheme must be rtmp"),
            ("http://host/whip", Encoding(codec="hevc"), "WHIP carries h264 only"),
        ],
    )
    def test_invalid_servers(self, address: str, encoding: Encoding, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            streaming_server(address, encoding)

    @pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
    def test_virtual_cameras(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(UsageError, match="/dev/video10"):
            virtual_camera("/dev/null")
        with pytest.raises(SinkError, match="modprobe v4l2loopback video_nr=4711"):
            virtual_camera("/dev/video4711")
        monkeypatch.setattr(Path, "exists", lambda _: True)
        assert virtual_camera("/dev/video10").options[-1] == "v4l2"

    def test_virtual_cameras_need_linux(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "platform", "darwin")
        with pytest.raises(UsageError, match="OBS"):
            virtual_camera("/dev/video10")


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def _session(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(LiveOptions, "load", lambda _: StandIn())

    def test_a_session_is_streamed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Paced(FakeCapture):
            def read(self) -> tuple[bool, Image | None]:
                time.sleep(0.05)
                return super().read()

        put_captures(monkeypatch, Paced(10**6))
        port, received = free_port(), tmp_path / "a.mkv"
        server = listening("rtmp", port, received, "-frames:v", "5")
        result = invoke("webcam", "--show", "none", "--stream", url("rtmp", port), "--seconds", "5")
        assert result.exit_code == 0
        assert re.search(r"; \d+ frames to rtmp://127.0.0.1:\d+/live/\*\*\*", result.stdout)
        server.wait(60)
        assert decode_frames(received)[0].shape == (120, 160, 3)

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["--stream", "ftp://a/b"], 2, "scheme must be rtmp"),
            (["--stream", "rtmp://a/b", "--effect", "cutout"], 2, "streams cannot be transparent"),
            (["--virtual-camera", "/dev/video4711"], 3, "modprobe v4l2loopback"),
        ],
        ids=str,
    )
    @pytest.mark.skipif(sys.platform != "linux", reason="virtual cameras need Linux")
    def test_usage(
        self, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
    ) -> None:
        monkeypatch.setattr(LiveOptions, "load", lambda _: pytest.fail("the model was loaded"))
        result = invoke("webcam", "--show", "none", *arguments)
        assert result.exit_code == code
        assert message in " ".join(result.stderr.replace("│", " ").split())
