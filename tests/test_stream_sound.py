"""The sound of network streams in recordings: in step with the picture, and silence where there is none."""

import contextlib
import itertools
import logging
import math
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from live_seg.cli.live_options import LiveOptions
from live_seg.cli.options import StreamOptions
from live_seg.errors import SourceError
from live_seg.sinks.recorder import Recorder
from live_seg.sound import CHANNELS, RATE, SAMPLE_BYTES, position
from live_seg.sources import live, sound_capture
from live_seg.sources.kept_sound import KeptSound, SoundClock
from live_seg.sources.opening import open_source
from live_seg.sources.sound_capture import SoundCapture
from live_seg.sources.streams import Stream
from live_seg.types import Image, Instances
from tests.clips import FFMPEG, clip, decode_frames, ffmpeg, probe
from tests.live import HTTP, FakeCapture, free_port, served, talking
from tests.marks import slow
from tests.stand_ins import StandIn
from tests.test_cli import invoke
from tests.test_microphone import beginning_of_flash, beginning_of_sound

SECRET = "hunter2"
SIZE = "64x48"
LOUD = 3000

FLASH = 1.0
"""Seconds after which the test clips are bright and loud, for 0.3 s."""


def flashing(
    path: Path, *, seconds: float = 2.0, flash: float = FLASH, rate: int = RATE, layout: str = "stereo"
) -> Path:
    """Write a black, silent clip with a flash and a beep every `flash` seconds from `flash` on."""
    during = f"gte(t,{flash})*lt(mod(t,{flash}),0.299)"
    box = f"drawbox=c=white:t=fill:enable='{during}'"
    tone = f"aevalsrc='0.8*sin(6283*t)*{during}':s={rate}:d={seconds}:c={layout}"
    if layout == "stereo":
        tone = tone.replace("':s", f"|0.8*sin(6283*t)*{during}':s")
    black = f"color=black:s={SIZE}:r=30:d={seconds},{box}"
    codecs = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "15", "-c:a", "aac")
    ffmpeg("-f", "lavfi", "-i", black, "-f", "lavfi", "-i", tone, *codecs, path)
    return path


def samples(number: int, value: int = 1000) -> bytes:
    """Return `number` samples of `value`."""
    return np.full((number, CHANNELS), value, "<i2").tobytes()


def values(found: bytes) -> list[int]:
    """Return the left channel."""
    return [int(value) for value in np.frombuffer(found, "<i2")[::CHANNELS]]


def ready(keep: float = 1.0) -> KeptSound:
    """Return a sound whose clock is that of `between`, where everything has arrived."""
    kept = KeptSound(keep, lambda: math.inf)
    kept.align(0.0, 0.0)
    return kept


class TestKeptSound:
    def test_a_gap_in_the_timestamps_is_silent(self) -> None:
        kept = ready()
        kept.add(samples(480), 0.0)
        kept.add(samples(480), 0.02)
        found = np.array(values(kept.between(0.0, 0.03)))
        assert found.tolist() == [1000] * 480 + [0] * 480 + [1000] * 480

    def test_samples_that_arrive_twice_are_kept_once(self) -> None:
        kept = ready()
        kept.add(samples(480, 1), 0.0)
        kept.add(samples(480, 2), 0.0)
        kept.add(samples(960, 3), 0.0)
        assert values(kept.between(0.0, 0.03)) == [1] * 480 + [3] * 480 + [0] * 480

    def test_rounded_timestamps_cut_nothing(self) -> None:
        kept = ready()
        kept.add(samples(480, 1), 0.0)
        kept.add(samples(480, 2), 0.01 + 4e-4)
        kept.add(samples(480, 3), 0.02 - 4e-4)
        assert values(kept.between(0.0, 0.03)) == [1] * 480 + [2] * 480 + [3] * 480

    @pytest.mark.parametrize("jump", [-60.0, 60.0])
    def test_a_jump_of_the_timestamps_begins_anew(self, jump: float) -> None:
        kept = ready()
        kept.add(samples(480), 100.0)
        kept.add(samples(480, 7), 100.0 + jump)
        assert values(kept.between(100.0 + jump, 100.01 + jump)) == [7] * 480
        assert set(values(kept.between(100.0, 100.01))) == {0}

    def test_only_the_last_seconds_are_kept(self) -> None:
        kept = ready(keep=0.5)
        for index in range(200):
            kept.add(samples(480), index / 100)
        assert len(kept._piece.samples) == position(0.5) * SAMPLE_BYTES
        assert set(values(kept.between(1.5, 2.0))) == {1000}
        assert set(values(kept.between(1.0, 1.5))) == {0}

    def test_nothing_is_heard_before_the_clock_is_known(self) -> None:
        kept = KeptSound(1.0, lambda: math.inf)
        assert set(kept.between(0.0, 0.1)) == {0}

    def test_a_restart_keeps_what_was_heard_before(self) -> None:
        now = 0.01
        kept = KeptSound(1.0, lambda: now)
        kept.align(100.0, 0.0)
        kept.add(samples(480), 100.0)
        kept.restart()
        now = 5.0
        kept.restart()  # a connection without samples
        kept.align(50.0, 0.01)
        kept.add(samples(480, 7), 50.0)
        assert values(kept.between(0.0, 0.03)) == [1000] * 480 + [7] * 480 + [0] * 480
        assert values(kept.between(-0.01, 0.0)) == [0] * 480
        assert values(kept.between(0.015, 0.02)) == [7] * 240

    def test_every_call_returns_the_samples_it_should(self) -> None:
        kept = ready()
        kept.add(samples(RATE), 0.0)
        times = np.cumsum(np.random.default_rng(0).uniform(0, 0.01, 200)) - 0.2
        lengths = [len(kept.between(*pair)) for pair in itertools.pairwise(times)]
        assert sum(lengths) == (position(times[-1]) - position(times[0])) * SAMPLE_BYTES


def test_the_median_delay_is_that_of_the_frames() -> None:
    clock = SoundClock(statistics.median)
    for index in range(90):
        clock.received(index / 30, 5 + index / 30 + (0.0, 0.02, 0.03, 0.03, 0.5)[index % 5])
    assert clock.sample(5.03) == 0


def test_the_delay_of_the_beginning_is_corrected_at_once() -> None:
    clock = SoundClock(statistics.median)
    for index in range(300):
        clock.received(index / 30, index / 30 + (0.0 if index < 31 else 0.08))
    assert clock.sample(5.0) == pytest.approx(position(4.92), abs=RATE * 0.006)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clip in each container, with 22 kHz and mono in one of them."""
    path = tmp_path_factory.mktemp("clips")
    flashing(path / "a.ts")
    flashing(path / "a.mkv", rate=22_050, layout="mono")
    ffmpeg("-i", path / "a.ts", "-c", "copy", "-movflags", "+faststart", path / "a.mp4")
    clip(path / "mute.mkv", seconds=0.3)
    return path


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.mp4"])
def test_the_sound_of_a_file_is_in_step_with_its_frames(folder: Path, name: str) -> None:
    with served(folder) as address, open_source(f"{address}/{name}", keep_sound=10) as source:
        frames = list(source)
        assert not source.live
        assert source.sound is not None
        heard = source.sound.between(0.0, 2.0)
    assert len(frames) == 60
    flash = next(frame.seconds for frame in frames if frame.image.mean() > 128)
    loud = np.flatnonzero(np.abs(np.frombuffer(heard, "<i2")[::CHANNELS]) > LOUD)
    assert flash == pytest.approx(FLASH, abs=0.01)
    assert loud[0] / RATE == pytest.approx(flash, abs=0.01)
    assert loud[-1] / RATE == pytest.approx(flash + 0.3, abs=0.03)


def test_images_equal_those_of_opencv(folder: Path) -> None:
    """Also size, rate, times and their number."""
    clip(folder / "turned.mp4", seconds=0.3, rotation=90, encode=("-movflags", "+faststart"))
    with served(folder) as address:
        for name in ("mute.mkv", "turned.mp4"):
            url = f"{address}/{name}"
            with open_source(url) as plain, open_source(url, keep_sound=1) as other:
                assert other.sound is None
                assert (other.size, other.fps, other.live) == (plain.size, plain.fps, plain.live)
                pairs = list(zip(plain, other, strict=True))
            assert len(pairs) == 9
            for one, two in pairs:
                assert one.seconds == pytest.approx(two.seconds, abs=1e-3)
                assert np.abs(one.image.astype(int) - two.image).mean() < 1


def test_a_damaged_stream_is_read_on(tmp_path: Path) -> None:
    path = flashing(tmp_path / "a.ts")
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 3000] = bytes(3000)
    path.write_bytes(data)
    with served(tmp_path) as address, open_source(f"{address}/a.ts", keep_sound=5) as source:
        frames = list(source)
        assert source.sound is not None
        assert max(map(abs, values(source.sound.between(0.0, 2.0)))) > LOUD
    assert len(frames) > 30


def playing(folder: Path) -> bytes:
    """Return what a server sends: a stream without length."""
    return HTTP + (folder / "a.ts").read_bytes()


@contextlib.contextmanager
def real_time(folder: Path) -> Iterator[str]:
    """Send a.ts to one client at the pace of its time. Yields the URL."""
    port = free_port()
    url = f"tcp://127.0.0.1:{port}"
    words = (FFMPEG, "-loglevel", "error", "-nostdin", "-re", "-i", str(folder / "a.ts"), "-c", "copy")
    with subprocess.Popen((*words, "-f", "mpegts", f"{url}?listen=1")) as sender:
        yield url
        sender.kill()


def test_a_live_recording_has_its_sound(folder: Path, tmp_path: Path) -> None:
    with real_time(folder) as url, open_source(url, keep_sound=5, timeout=20, reconnect=True) as source:
        assert source.live
        assert source.sound is not None
        with Recorder(tmp_path / "out.mp4", source.fps) as recorder:
            recorder.listen(source.sound)
            recorder.start()
            for frame in source:
                recorder.write(frame, frame.image, Instances.empty())
                if frame.index == 50:
                    break
    # The first second is probed, and arrives at once.
    flash, sound = (found(tmp_path / "out.mp4") for found in (beginning_of_flash, beginning_of_sound))
    assert abs(flash - sound) < 0.3


class SoundingCapture(FakeCapture):
    """A capture whose frames have times from `begin` on, with a sound of the value `loud` between them."""

    has_sound = True

    def __init__(self, kept: KeptSound, begin: float, loud: int) -> None:
        super().__init__(frames=3)
        self._kept, self._begin, self._loud = kept, begin, loud

    def read(self) -> tuple[bool, Image | None]:
        delivered, image = super().read()
        own = self._begin + self.reads / 10
        self.known[cv2.CAP_PROP_POS_MSEC] = own * 1000
        self._kept.add(samples(RATE // 10, self._loud), own)
        time.sleep(0.02)
        return delivered, image


def test_a_stream_that_returns_has_another_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RETRY_DELAYS", (0.01,))
    begins = iter([(500.0, 1), (20.0, 2)])

    def opened(_: str, __: float, kept: KeptSound, ___: int) -> SoundingCapture:
        return SoundingCapture(kept, *next(begins))

    monkeypatch.setattr(sound_capture, "SoundCapture", opened)
    with Stream("rtsp://host/a", keep_sound=5) as source:
        last = list(itertools.islice(source, 6))[-1].seconds
        assert source.sound is not None
        found = values(source.sound.between(last - 0.05, last + 0.05))
        assert set(found[RATE // 20 :]) == {2}
        before = values(source.sound.between(0.0, last - 0.1))
        assert 1 in before
        assert 2 not in before[: RATE // 100]


def error_of(url: str, timeout: float = 5.0) -> str:
    with pytest.raises(SourceError) as caught:
        Stream(url, timeout, reconnect=False, keep_sound=5)
    return str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"rtsp://user:{SECRET}@127.0.0.1:{{port}}/a",
        f"http://127.0.0.1:{{port}}/a?token={SECRET}",
    ],
)
def test_errors_name_no_secrets(
    url: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        error = error_of(url.format(port=free_port()))
    assert error.startswith("Cannot open ")
    assert "no video arrived. Check the address" in error
    assert SECRET not in error + caplog.text
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_and_one_without_images(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=duration=0.2", tmp_path / "a.wav")
    (tmp_path / "a.txt").write_text("no video")
    with served(tmp_path) as address:
        for name in ("missing.mp4", "a.wav", "a.txt"):
            assert "no video arrived" in error_of(f"{address}/{name}")


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_silent_server_times_out(scheme: str) -> None:
    with talking(b"") as port:
        assert "within 0.2 s" in error_of(f"{scheme}://127.0.0.1:{port}/a", 0.2)


def test_a_stream_that_falls_silent_is_an_error(folder: Path) -> None:
    with (
        talking(playing(folder)) as port,
        Stream(f"http://127.0.0.1:{port}/a", 0.5, reconnect=False, keep_sound=5) as source,
    ):
        seen: list[int] = []
        with pytest.raises(SourceError, match=r"No frame arrived from http.* for 0\.5 s"):
            seen.extend(frame.index for frame in source)
        assert len(seen) > 30


def test_a_released_capture_delivers_nothing(folder: Path) -> None:
    with served(folder) as address:
        capture = SoundCapture(f"{address}/a.ts", 5.0, ready(), 1)
        assert capture.isOpened()
        assert capture.read()[0]
        assert not capture.set(cv2.CAP_PROP_FPS, 5)
        capture.release()
        capture.release()
    assert not capture.isOpened()
    assert capture.read() == (False, None)


@pytest.mark.parametrize("sources", [slow(1), 2])
def test_webcam_records_the_sound(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LiveOptions, "load", lambda _: StandIn())
    with served(folder) as address:
        given = [word for name in ("a.ts", "a.mkv")[:sources] for word in ("--source", f"{address}/{name}")]
        result = invoke("webcam", *given, "--show", "none", "--record", "{source}.mp4")
        assert result.exit_code == 0, result.output
        recorded = sorted(tmp_path.glob("*.mp4"))
        assert len(recorded) == sources
        for path in recorded:
            assert abs(beginning_of_sound(path) - beginning_of_flash(path)) < 0.1


def test_video_keeps_the_sound(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StreamOptions, "load", lambda _: StandIn())
    out = tmp_path / "out.mp4"
    with served(folder) as address:
        result = invoke("video", f"{address}/a.ts", "-o", str(out))
        assert result.exit_code == 0, result.output
        assert beginning_of_flash(out) == pytest.approx(FLASH, abs=0.01)
        assert beginning_of_sound(out) == pytest.approx(FLASH, abs=0.02)
        result = invoke("video", f"{address}/a.ts", "-o", str(out), "--no-sound", "--overwrite")
        assert result.exit_code == 0, result.output
    assert probe(out).audio_codecs == ()
    result = invoke("video", str(folder / "a.mp4"), "-o", str(out), "--no-sound")
    assert result.exit_code == 2
    assert "--no-sound would do nothing" in result.output


def test_without_sound(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LiveOptions, "load", lambda _: StandIn())
    common = ("--show", "none", "--record", "out.mp4", "--no-sound")
    with served(folder) as address:
        result = invoke("webcam", "--source", f"{address}/a.ts", *common)
    assert result.exit_code == 0, result.output
    assert probe(tmp_path / "out.mp4").audio_codecs == ()
    (tmp_path / "in.mp4").write_bytes((folder / "a.mp4").read_bytes())
    for given in (["in.mp4"], [f"{address}/a.ts", "--microphone", "default"]):
        result = invoke("webcam", "--source", *given, *common)
        assert result.exit_code == 2
        assert "--no-sound would do nothing" in result.output


RTSP_SERVER = """
import sys, gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server, factory = GstRtspServer.RTSPServer(), GstRtspServer.RTSPMediaFactory()
server.set_service(sys.argv[1])
factory.set_launch(
    f"( filesrc location={sys.argv[2]} ! tsdemux name=d d. ! queue ! h264parse"
    " ! rtph264pay name=pay0 pt=96 config-interval=1 d. ! queue ! aacparse ! rtpmp4apay name=pay1 pt=97 )"
)
server.get_mount_points().add_factory("/camera", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""


@contextlib.contextmanager
def rtsp_server(path: Path) -> Iterator[str]:
    """Serve `path` with GStreamer's RTSP server. Yields the URL."""
    python = shutil.which("python3", path="/usr/bin")
    check = "import gi; gi.require_version('GstRtspServer', '1.0')"
    if python is None or subprocess.run([python, "-c", check], capture_output=True, check=False).returncode:
        pytest.skip("needs GStreamer's RTSP server: apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi")
    port = free_port()
    words = (python, "-c", RTSP_SERVER, str(port), str(path))
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        try:
            yield f"rtsp://127.0.0.1:{port}/camera"
        finally:
            server.kill()


def steps(loud: NDArray[np.bool_], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the times at which something begins that was not there for half a second."""
    found = times[loud]
    return found[1:][np.diff(found) > 0.5]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs GStreamer")
def test_the_sound_of_a_real_rtsp_server_is_in_step(tmp_path: Path) -> None:
    path, out = flashing(tmp_path / "long.ts", seconds=12.0), tmp_path / "out.mp4"
    with rtsp_server(path) as url, open_source(url, keep_sound=10) as source:
        assert source.sound is not None
        with Recorder(out, source.fps) as recorder:
            recorder.listen(source.sound)
            recorder.start()
            for frame in source:
                recorder.write(frame, frame.image, Instances.empty())
                if frame.seconds > 9:
                    break
    means = np.array([image.mean() for image in decode_frames(out)])
    heard = ffmpeg("-i", out, "-map", "0:a", "-ac", "1", "-ar", str(RATE), "-f", "s16le", "-").stdout
    level = np.abs(np.frombuffer(heard, "<i2"))
    flashes = steps(means > 128, np.array(probe(out).times))
    beeps = steps(level > LOUD, np.arange(len(level)) / RATE)
    late = [abs(beeps - flash).min() for flash in flashes if flash > 2]  # RTSP has no common clock at first
    assert len(late) >= 6
    assert np.median(late) < 0.05
