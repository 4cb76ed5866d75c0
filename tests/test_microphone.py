"""Sound in live recordings: in step with the picture, silence where there is none, real PulseAudio."""

import contextlib
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from live_seg.cli.live_options import LiveOptions
from live_seg.doctor import microphones
from live_seg.errors import SourceError, UsageError
from live_seg.sinks.recorder import Recorder
from live_seg.sinks.timeline import Timeline, Timing
from live_seg.sinks.video_writer import VideoWriter
from live_seg.sound import CHANNELS, RATE, SAMPLE_BYTES, Sound, position
from live_seg.sources import kept_sound, microphone
from live_seg.sources.kept_sound import SoundClock
from live_seg.sources.microphone import Microphone
from live_seg.types import Frame, Image, Instances
from tests.clips import FFMPEG, clip, no_process_left_behind, probe
from tests.sound_server import MONITOR, Listener, Speaker, pulse_audio
from tests.stand_ins import StandIn
from tests.test_cli import invoke

pytestmark = [pytest.mark.usefixtures(no_process_left_behind.__name__), pytest.mark.timeout(60)]

FPS = 30
TONE = (b"\x00\x40" * CHANNELS * 24 + b"\x00\xc0" * CHANNELS * 24) * (RATE // 48)
"""A second of a square wave of 1 kHz."""

SILENCE = bytes(len(TONE))


def picture(bright: bool) -> Image:
    return np.full((48, 64, 3), 255 if bright else 0, np.uint8)


class Beeps(Sound):
    """A tone in each of the `spans`, in seconds."""

    def __init__(self, *spans: tuple[float, float]) -> None:
        self._spans = spans

    def between(self, begin: float, end: float) -> bytes:
        samples = np.zeros((position(end) - position(begin), CHANNELS), "<i2")
        times = np.arange(position(begin), position(end)) / RATE
        for start, stop in self._spans:
            samples[(times >= start) & (times < stop)] = 16000
        samples[1::2] *= -1
        return samples.tobytes()


def beginning_of_sound(path: Path) -> float:
    """Return when the sound of a video is loud for the first time, in seconds on the file's clock."""
    words = (FFMPEG, "-loglevel", "error", "-copyts", "-i", str(path), "-af", "aresample=first_pts=0")
    done = subprocess.run(
        [*words, "-ac", "1", "-ar", str(RATE), "-f", "s16le", "-"], capture_output=True, check=True
    )
    loud = np.flatnonzero(np.abs(np.frombuffer(done.stdout, "<i2")) > 3000)
    return float(loud[0]) / RATE


def beginning_of_flash(path: Path) -> float:
    """Return when the picture is bright for the first time, in seconds."""
    words = (FFMPEG, "-loglevel", "error", "-i", str(path), "-fps_mode", "passthrough", "-f", "rawvideo")
    done = subprocess.run([*words, "-pix_fmt", "gray", "-"], capture_output=True, check=True)
    means = np.frombuffer(done.stdout, np.uint8).reshape(-1, 48 * 64).mean(axis=1)
    return float(probe(path).times[int(np.argmax(means > 128))])


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_beep_and_a_flash_stay_together(tmp_path: Path, suffix: str) -> None:
    recorder = Recorder(tmp_path / f"out{suffix}", FPS)
    recorder.listen(Beeps((7.0, 7.3)))
    with recorder:
        recorder.start()
        for index in range(60):
            seconds = 6.0 + index / FPS
            recorder.write(
                Frame(index, seconds, picture(False)), picture(7 <= seconds < 7.3), Instances.empty()
            )
    (path,) = recorder.written
    assert beginning_of_flash(path) == pytest.approx(1.0, abs=0.01)
    assert beginning_of_sound(path) == pytest.approx(1.0, abs=0.01)


def test_a_pause_takes_no_time_in_the_sound(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "out.mkv", FPS)
    recorder.listen(Beeps((0.6, 1.4), (2.5, 2.7)))  # the first one is during the pause
    with recorder:
        recorder.start()
        for index in range(90):
            seconds = index / FPS
            if index == 15:
                recorder.pause()
            if index == 45:
                recorder.resume()
            bright = 2.5 <= seconds < 2.7
            recorder.write(Frame(index, seconds, picture(False)), picture(bright), Instances.empty())
    assert beginning_of_sound(tmp_path / "out.mkv") == pytest.approx(1.5, abs=0.01)
    assert beginning_of_flash(tmp_path / "out.mkv") == pytest.approx(1.5, abs=0.01)


def test_parts_of_the_source_that_a_video_shows() -> None:
    timeline = Timeline(Fraction(FPS), Timing())
    timeline.first = 5.0
    timeline.cuts = [(1.0, 20.0), (22.0, 30.0)]
    assert list(timeline.played(0.0, 6.0)) == [(5.0, 6.0), (25.0, 27.0), (35.0, 38.0)]
    assert list(timeline.played(1.0, 2.0)) == [(25.0, 26.0)]
    assert list(timeline.played(3.5, 4.0)) == [(35.5, 36.0)]
    assert list(timeline.played(2.0, 2.0)) == []


def test_a_gap_that_is_cut_is_cut_from_the_sound(tmp_path: Path) -> None:
    path = tmp_path / "out.mkv"
    with VideoWriter(path, FPS, timing=Timing(max_gap=1.0), audio=Beeps((3.0, 4.0), (20.5, 20.7))) as writer:
        for index in range(90):
            seconds = index / FPS + (0 if index < 30 else 19)
            image = picture(seconds >= 20.5)
            writer.write(Frame(index, seconds, image), image, Instances.empty())
    assert beginning_of_flash(path) == pytest.approx(1.5, abs=0.01)
    assert beginning_of_sound(path) == pytest.approx(1.5, abs=0.01)


@pytest.fixture
def sine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generated tone in place of a microphone."""
    tone = ["-re", "-f", "lavfi", "-i", f"sine=f=440:r={RATE},volume=5"]
    monkeypatch.setattr(microphone, "input_options", lambda _: tone)


@pytest.mark.usefixtures("sine")
def test_the_last_seconds_are_kept_and_the_rest_is_silence() -> None:
    with Microphone(keep=0.2) as one:
        begin = time.monotonic()
        heard = one.between(begin + 0.1, begin + 0.25)
        early = one.between(begin - 60, begin - 59.5)
    assert len(heard) == (position(begin + 0.25) - position(begin + 0.1)) * SAMPLE_BYTES
    assert np.abs(np.frombuffer(heard, "<i2")).max() > 1000
    assert set(early) == {0}
    assert len(early) == (position(begin - 59.5) - position(begin - 60)) * SAMPLE_BYTES
    assert "live_seg microphone" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.usefixtures("sine")
def test_sound_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_sound, "PATIENCE", 0.05)
    with Microphone() as one:
        begin = time.monotonic() + 60
        assert set(one.between(begin, begin + 0.1)) == {0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-f", "nonsense", "-i", "x"], "Unknown input format.*pip install -U imageio-ffmpeg"),
        (["-i", "nowhere.wav"], "No such file.*plugged in"),
    ],
)
def test_a_microphone_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.setattr(microphone, "input_options", lambda _: options)
    with pytest.raises(SourceError, match=message):
        Microphone()


def test_a_lost_microphone_is_opened_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(microphone, "RETRY_SECONDS", 0.05)
    short = ["-re", "-f", "lavfi", "-i", f"sine=r={RATE}:d=0.1"]
    monkeypatch.setattr(microphone, "input_options", lambda _: short)
    with Microphone() as one:
        first = one._process
        until = time.monotonic() + 20
        while one._process is first:
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.2)
        now = time.monotonic()
        assert len(one.between(now - 0.5, now)) == (position(now) - position(now - 0.5)) * SAMPLE_BYTES
    assert sum("microphone is silent" in message for message in caplog.messages) == 1


def arrived(clock: SoundClock, seconds: int, delay: float, *, fast: float = 0.0) -> None:
    """Let the sound of `seconds` arrive in pieces, with a `delay`, from a card that runs `fast`."""
    for piece in range(1, 10 * seconds + 1):
        clock.received(piece / 10, 100 + piece / 10 * (1 - fast) + delay * (piece % 7 > 0))


def test_the_shortest_delay_counts() -> None:
    clock = SoundClock()
    assert clock.sample(100) == 0
    arrived(clock, 3, 0.08)
    assert clock.sample(101.5) == position(1.5)


def test_a_fast_sound_card_is_followed() -> None:
    clock = SoundClock()
    arrived(clock, 300, 0.02, fast=1e-4)
    # 300 s have passed on the card, 30 ms less on the clock of the machine.
    assert clock.sample(100 + 300 * (1 - 1e-4)) == pytest.approx(position(300), abs=RATE * 0.01)


def test_a_jump_is_followed_at_once() -> None:
    clock = SoundClock()
    arrived(clock, 1, 0.0)
    for second in range(2, 15):  # half a second was lost
        clock.received(second, 100.5 + second)
    assert clock.sample(114.5) == position(14)


def test_windows_needs_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UsageError, match="--microphone NAME"):
        microphone.input_options("default")
    assert microphone.input_options("USB")[-1] == "audio=USB"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert microphone.input_options("default")[-1] == ":default"


@pytest.mark.slow
def test_the_sound_of_a_real_server_is_in_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture flashes when another client of the server hears the beep."""
    with contextlib.ExitStack() as stack:
        environment = stack.enter_context(pulse_audio(tmp_path))
        monkeypatch.setenv("PULSE_SERVER", environment["PULSE_SERVER"])
        speaker = stack.enter_context(contextlib.closing(Speaker(environment)))
        listener = stack.enter_context(contextlib.closing(Listener(environment)))
        sound = stack.enter_context(Microphone(MONITOR))
        recorder = stack.enter_context(Recorder(tmp_path / "out.mp4", 100))
        recorder.listen(sound)
        recorder.start()
        began = time.monotonic()
        for index in range(400):
            time.sleep(max(0.0, began + index / 100 - time.monotonic()))
            speaker.play((TONE if 200 <= index < 250 else SILENCE)[: RATE * SAMPLE_BYTES // 100])
            image = picture(listener.heard.is_set())
            recorder.write(Frame(index, time.monotonic(), image), image, Instances.empty())
    path = tmp_path / "out.mp4"
    assert abs(beginning_of_sound(path) - beginning_of_flash(path)) < 0.05


def test_doctor_names_what_ffmpeg_can_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphones, "FORMATS", {sys.platform: ("lavfi",)})
    assert microphones.microphones().state == "good"
    monkeypatch.setattr(microphones, "FORMATS", {sys.platform: ("lavfi", "no_pulse", "pulse_not_there")})
    finding = microphones.microphones()
    assert (finding.state, finding.remedy) == ("note", "pip install -U imageio-ffmpeg")
    assert finding.message.startswith("ffmpeg lacks no_pulse, pulse_not_there")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--show", "none", "--json", "-"], "--microphone would do nothing: nothing is recorded"),
        (["--show", "none", "--record", "a.mp4"], "--microphone needs a camera or a live stream. in.mp4 is"),
    ],
)
def test_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "in.mp4", seconds=0.2)
    result = invoke("webcam", "--source", "in.mp4", "--microphone", "default", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.usefixtures("sine")
def test_each_of_several_sources_is_recorded_with_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LiveOptions, "load", lambda _: StandIn())
    for name in ("a.mkv", "b.mkv"):
        clip(tmp_path / name, seconds=0.6)
    sources = ("--source", "a.mkv", "--source", "b.mkv", "--show", "none", "--microphone", "x")
    result = invoke("webcam", *sources, "--record", "{source}.mp4")
    assert result.exit_code == 0, result.output
    for name in ("a.mp4", "b.mp4"):
        assert beginning_of_sound(tmp_path / name) < 0.1
