"""`live-seg webcam`, with stand-ins for camera, window and model."""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest

from live_seg.cli.live_options import LiveOptions
from live_seg.errors import SinkError
from live_seg.sources import live
from live_seg.types import Frame, Image, Instances
from live_seg.ui import window
from live_seg.ui.web import page as web
from tests.clips import decode_frames, names, probe
from tests.live import FakeCapture, Sender, StuckCapture, put_captures
from tests.stand_ins import StandIn
from tests.test_cli import interrupted, invoke
from tests.test_web import press
from tests.test_window import Desktop

SUMMARY = re.compile(
    r"(\d+) frames? in \d+\.\d s \(\d+\.\d fps\), (\d+) instances?"
    r"(; network \d+\.\d fps; latency \d+ ms, 95% within \d+ ms; \d+ dropped)?"
    r"(?:; small with a stand-in)?( -> (.+))?\n"
)
ALL = ("--policy", "all", "--batch", "1")


class Clock:
    """The time of cameras and sessions: each frame advances it by 0.1 s."""

    def __init__(self) -> None:
        self.now = 100.0


class Camera(FakeCapture):
    """Delivers `frames` frames at 10 per second of its clock, then behaves as if unplugged."""

    READ_SECONDS = 0.001
    """Seconds of real time per read, so that the network processes frames before the camera ends."""

    def __init__(self, clock: Clock, frames: int) -> None:
        super().__init__(frames, fps=10)
        self.clock = clock

    def read(self) -> tuple[bool, Image | None]:
        time.sleep(self.READ_SECONDS)
        self.clock.now += 0.1
        return super().read()


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(LiveOptions, "load", lambda _: stand_in)
    return stand_in


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Camera:
    """A camera whose frames arrive by its own clock."""
    clock = Clock()
    fake = Camera(clock, 1000)
    put_captures(monkeypatch, fake)
    monkeypatch.setattr("live_seg.sources.captures.time", type("Time", (), {"monotonic": lambda: clock.now}))
    # Only the frames' times limit a session, however slow this machine is.
    monkeypatch.setattr("live_seg.ui.session.time", type("Time", (), {"monotonic": lambda: 0.0}))
    return fake


@contextmanager
def opening_camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make cameras open after the `with` block only."""
    opens = threading.Event()

    def open_capture(*_: object) -> FakeCapture:
        opens.wait()
        return FakeCapture()

    monkeypatch.setattr("live_seg.sources.cameras.open_capture", open_capture)
    monkeypatch.setattr("live_seg.ui.session.FIRST_FRAME_SECONDS", 0.1)
    try:
        yield
    finally:
        opens.set()


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the program."""
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """Keys to press, by index of the shown frame."""
    keys: dict[int, str] = {}

    class Hand(window.Window):
        def __init__(self, title: str, controls: Any) -> None:
            assert title.startswith("live-seg ")
            self.controls = controls

        def write(self, frame: Frame, *_: object) -> bool:
            for key in keys.pop(frame.index, ""):
                self.controls.press(key)
            return not self.controls.ended

        def wait(self, seconds: float) -> bool:  # noqa: ARG002
            if self.controls.paused:
                self.controls.press(" ")
            return not self.controls.ended

        def close(self, complete: bool = True) -> None: ...

    monkeypatch.setattr(window, "Window", Hand)
    return keys


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--show", "none"], "with --show none give --record CLIP.mp4 or --json OUT.jsonl"),
            (["--seconds", "-1"], "--seconds"),
            (
                ["--show", "none", "--record", "a.mov", "--effect", "cutout"],
                "cannot be transparent",
            ),
            (["--show", "none", "--record", "a.mp4", "--effect", "blurr"], "There is no effect 'blurr'"),
            (["--show", "none", "--record", "a.mp4", "--camera-size", "big"], "1280x720"),
            (["--show", "none", "--record", "a.mp4", "--camera-backend", "vfl"], "v4l2"),
            (["--show", "none", "--record", "a.mp4", "--camera-fps", "0"], "above 0"),
            (["--show", "tv"], "'window', 'web', 'none'"),
            (["--show", "web", "--web-address", "8460"], "HOST:PORT, for example 127.0.0.1:8460"),
            (["--show", "none", "--record-on", "persn"], "Did you mean person?"),
            (["--show", "none", "--record", "a.mp4", "--segment", "soon"], "is not a duration"),
            (["--show", "none", "--record", "a.mp4", "--segment", "0.1s"], "at least 1 second"),
            (["--show", "none", "--record", "{when}.mp4"], "there is no field {when}"),
            (["--segment", "10m"], "--segment would do nothing: nothing is recorded. Give --record FILE"),
            (
                ["--record", "a.mp4", "--pre", "1"],
                "--pre would do nothing: it applies to recordings by class",
            ),
            (
                ["--source", "rtsp://a/1", "--camera-size", "640x480"],
                "--camera-size would do nothing: the source",
            ),
            (
                ["--source", "a.mp4", "--camera-fps", "5"],
                "--camera-fps would do nothing: the source is no camera",
            ),
            (["--no-reconnect"], "--no-reconnect would do nothing: only streams reconnect"),
            (["--record", "a.mp4", "--effect", "blur", "--no-boxes"], "--no-boxes would do nothing"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_invalid_options_are_reported_before_the_model_loads(
        self, out: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
    ) -> None:
        monkeypatch.setattr(LiveOptions, "load", lambda _: pytest.fail("the model was loaded"))
        result = invoke("webcam", *arguments)
        assert (result.exit_code, names(out)) == (2, [])
        assert message in re.sub(r"[\s│]+", " ", result.stderr)

    @pytest.mark.usefixtures("camera")
    @pytest.mark.parametrize(("name", "code"), [("cat", 0), ("dog", 2)])
    def test_record_on_is_checked_against_the_model_without_a_card(
        self, out: Path, monkeypatch: pytest.MonkeyPatch, model: StandIn, name: str, code: int
    ) -> None:
        model.class_names = ("background", "cat")
        monkeypatch.setattr("live_seg.models.card.read_card", lambda _: {})
        result = invoke("webcam", "--show", "none", "--record-on", name, "--seconds", "0.3", *ALL)
        assert (result.exit_code, len(names(out))) == (code, 1 if code == 0 else 0)


@pytest.mark.usefixtures("camera", "out")
class TestOutputs:
    def test_seconds_limit_the_session(self, out: Path) -> None:
        record = ("--show", "none", "--record", "a.mp4", "--json", "a.jsonl")
        result = invoke("webcam", *record, "--seconds", "0.95", *ALL)
        assert (result.exit_code, result.stderr) == (0, "")
        match = SUMMARY.fullmatch(result.stdout)
        assert match, result.stdout
        assert (match[1], match[2], match[5]) == ("10", "10", "a.jsonl, a.mp4")
        assert probe(out / "a.mp4").times == pytest.approx([i / 10 for i in range(10)], abs=1e-3)
        assert [line["seconds"] for line in lines(out / "a.jsonl")] == pytest.approx(
            [i / 10 for i in range(10)]
        )

    def test_zero_seconds_leave_no_file(self, out: Path) -> None:
        result = invoke(
            "webcam", "--show", "none", "--record", "a.mp4", "--json", "a.jsonl", "--seconds", "0"
        )
        assert SUMMARY.fullmatch(result.stdout)
        assert (result.exit_code, names(out)) == (0, [])

    def test_seconds_limit_the_wait_for_a_camera(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with opening_camera(monkeypatch):
            result = invoke("webcam", "--show", "none", "--json", "a.jsonl", "--seconds", "0.1")
        assert (result.exit_code, names(out)) == (3, [])
        assert "was ended before a frame arrived. It was limited by --seconds 0.1" in result.stderr

    def test_seconds_limit_a_camera_that_sends_nothing(
        self, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stuck = StuckCapture()
        put_captures(monkeypatch, stuck)
        monkeypatch.setattr("live_seg.ui.session.time", time)
        result = invoke("webcam", "--show", "none", "--record", "a.mp4", "--seconds", "0.1")
        stuck.ready.set()
        assert (result.exit_code, names(out)) == (3, [])
        assert "No frame arrived from camera 0 within 0.1 s." in result.stderr

    def test_seconds_limit_a_camera_that_stops_sending(
        self, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Stops(StuckCapture):
            def read(self) -> tuple[bool, Image | None]:
                return super().read() if self.reads >= 5 else FakeCapture.read(self)

        stuck = Stops()
        put_captures(monkeypatch, stuck)
        monkeypatch.setattr("live_seg.ui.session.time", time)
        result = invoke("webcam", "--show", "none", "--record", "a.mp4", "--seconds", "1", *ALL)
        stuck.ready.set()
        assert (result.exit_code, result.stderr, names(out)) == (0, "", ["a.mp4"])
        assert len(probe(out / "a.mp4").times) == 5

    def test_quiet_prints_nothing(self, out: Path) -> None:
        result = invoke("webcam", "--show", "none", "--json", "a.jsonl", "--seconds", "0.5", "--quiet", *ALL)
        assert (result.exit_code, result.output, names(out)) == (0, "", ["a.jsonl"])

    def test_existing_files_are_kept(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (out / "a.mp4").write_text("mine")
        invoke("webcam", "--show", "none", "--record", "a.mp4", "--seconds", "0.5", *ALL)
        assert names(out) == ["a.mp4", "a_001.mp4"]
        assert (out / "a.mp4").read_text() == "mine"
        (out / "a.jsonl").write_text("mine")
        monkeypatch.setattr(LiveOptions, "load", lambda _: pytest.fail("the model was loaded"))
        result = invoke("webcam", "--show", "none", "--json", "a.jsonl")
        assert result.exit_code == 3
        assert "a.jsonl exists already" in result.stderr

    def test_record_on_records_around_an_event(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Comes(StandIn):
            def __call__(self, images: list[Image]) -> list[Instances]:
                seen = sum(self.batches)
                found = super().__call__(images)
                return [one if 20 <= seen + i < 25 else Instances.empty() for i, one in enumerate(found)]

        monkeypatch.setattr(LiveOptions, "load", lambda _: Comes())
        options = ("--record", "event.mp4", "--record-on", "person", "--pre", "1", "--post", "0.5")
        result = invoke("webcam", "--show", "none", *options, "--seconds", "5", *ALL)
        assert (result.exit_code, names(out)) == (0, ["event_001.mp4"])
        # 1 s before the 20th frame, 0.5 s after the 24th.
        assert probe(out / "event_001.mp4").duration == pytest.approx(2.0, abs=0.11)

    def test_segment_splits_the_recording(self, out: Path) -> None:
        invoke("webcam", "--show", "none", "--record", "a.mp4", "--segment", "1s", "--seconds", "2.55", *ALL)
        assert names(out) == ["a_001.mp4", "a_002.mp4", "a_003.mp4"]
        assert [len(probe(out / name).times) for name in names(out)] == [10, 10, 6]

    def test_no_propagate_yields_segmented_frames_only(self, out: Path) -> None:
        result = invoke("webcam", "--show", "none", "--no-propagate", "--json", "a.jsonl", "--seconds", "20")
        assert result.exit_code == 0
        assert all(len(line["instances"]) == 1 for line in lines(out / "a.jsonl"))


class Late(StandIn):
    """Finds the person in frames 20 to 22 only."""

    def __call__(self, images: list[Image]) -> list[Instances]:
        seen = sum(self.batches)
        found = super().__call__(images)
        return [one if 20 <= seen + i < 23 else Instances.empty() for i, one in enumerate(found)]


@pytest.mark.usefixtures("camera")
class TestHidingOverTime:
    @pytest.mark.parametrize(
        ("flags", "first", "last"),
        [
            ((), 20, 27),
            (("--delay", "0.35"), 17, 27),
            (("--delay", "2"), 15, 27),
            (("--fail-secure",), 20, 37),
        ],
    )
    def test_a_delay_hides_from_before(
        self,
        camera: Camera,
        out: Path,
        monkeypatch: pytest.MonkeyPatch,
        flags: tuple[str, ...],
        first: int,
        last: int,
    ) -> None:
        camera.image = np.random.default_rng(0).integers(0, 256, camera.image.shape, np.uint8)
        monkeypatch.setattr(LiveOptions, "load", lambda _: Late())
        options = ("--show", "none", "--effect", "pixelate", "--record", "a.mp4", "--crf", "0", *flags)
        assert invoke("webcam", *options, "--json", "a.jsonl", "--seconds", "5", *ALL).exit_code == 0
        assert [bool(line["instances"]) for line in lines(out / "a.jsonl")].index(True) == 20
        drawn = decode_frames(out / "a.mp4")
        hidden = [
            index for index, image in enumerate(drawn) if image[:, : image.shape[1] // 2 - 8].std() < 40
        ]
        assert hidden == list(range(first, last + 1))

    @pytest.mark.parametrize("flags", [("--delay", "1"), ("--fail-secure",)])
    def test_nothing_to_hide(self, flags: tuple[str, str]) -> None:
        result = invoke("webcam", "--show", "none", "--record", "a.mp4", *flags)
        assert result.exit_code == 2
        assert f"{flags[0]} would do nothing: it applies to --effect blur" in result.stderr


class TestFaults:
    @pytest.mark.usefixtures("out")
    def test_unplugged_camera(self, camera: Camera, out: Path) -> None:
        camera.left = 5
        result = invoke("webcam", "--show", "none", "--record", "a.mp4", "--json", "a.jsonl", *ALL)
        assert (result.exit_code, result.stdout) == (3, "")
        assert "camera 0 stopped delivering after 5 frames" in result.stderr
        assert names(out) == ["a.mp4", "a.partial.jsonl"]
        assert len(probe(out / "a.mp4").times) == 5

    @pytest.mark.usefixtures("camera")
    def test_failing_encoder(self, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fake = tmp_path / "ffmpeg"
        fake.write_text('#!/bin/sh\nhead -c 5000 >/dev/null\necho "boom, said ffmpeg" >&2\nexit 1\n')
        fake.chmod(0o755)
        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
        result = invoke(
            "webcam", "--show", "none", "--record", "a.mp4", "--json", "a.jsonl", "--seconds", "9.95", *ALL
        )
        assert (result.exit_code, result.stdout, names(out)) == (3, "", ["a.jsonl"])
        assert len(lines(out / "a.jsonl")) == 100
        assert "live-seg: A recording failed: " in result.stderr
        assert "boom, said ffmpeg" in result.stderr

    def test_failing_model(self, camera: Camera, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Fails(StandIn):
            def __call__(self, images: list[Image]) -> list[Instances]:
                if len(self.batches) == 3:
                    raise ZeroDivisionError("no such number")
                return super().__call__(images)

        monkeypatch.setattr(LiveOptions, "load", lambda _: Fails())
        result = invoke("webcam", "--show", "none", "--record", "a.mp4", *ALL)
        assert (result.exit_code, names(out)) == (1, ["a.mp4"])
        assert len(probe(out / "a.mp4").times) == 3
        assert camera.released

    @pytest.mark.usefixtures("out")
    def test_interrupted_stream_is_reconnected(
        self, monkeypatch: pytest.MonkeyPatch, sender: Sender, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(live, "RETRY_DELAYS", (0.1, 0.1))
        source = ("--source", f"tcp://127.0.0.1:{sender.port}")
        counts = [0]

        class Kills(StandIn):
            def __call__(self, images: list[Image]) -> list[Instances]:
                time.sleep(0.02)
                counts[0] += len(images)
                if counts[0] == 10:
                    sender.kill()
                return super().__call__(images)

        monkeypatch.setattr(LiveOptions, "load", lambda _: Kills())
        result = invoke("webcam", "--show", "none", *source, "--json", "a.jsonl", "--seconds", "3")
        assert result.exit_code == 0
        gone, there = caplog.messages
        assert re.match(r"tcp://127.0.0.1:\d+ disconnected after \d+ frames", gone)
        assert re.match(r"tcp://127.0.0.1:\d+ is available after \d+\.\d s\.", there)
        assert len(sender.senders) == 2
        assert SUMMARY.fullmatch(result.stdout)


@pytest.fixture
def sender() -> Iterator[Sender]:
    server = Sender(b"")
    yield server
    server.end()


@pytest.mark.usefixtures("camera")
class TestKeys:
    @pytest.mark.parametrize("key", ["q", "\x1b"])
    def test_q_and_escape_end_the_session(self, out: Path, hand: dict[int, str], key: str) -> None:
        hand[4] = key
        result = invoke("webcam", "--record", "a.mp4", *ALL)
        match = SUMMARY.fullmatch(result.stdout)
        assert match, result.output
        assert (result.exit_code, match[1], match[5]) == (0, "5", "a.mp4")
        assert len(probe(out / "a.mp4").times) == 5

    @pytest.mark.parametrize("key", ["q", "\x1b"])
    def test_keys_work_before_the_source_is_open(
        self, out: Path, monkeypatch: pytest.MonkeyPatch, key: str
    ) -> None:
        desktop = Desktop(monkeypatch)
        desktop.next_keys = [-1, -1, ord(key)]
        with opening_camera(monkeypatch):
            result = invoke("webcam", "--show", "window")
        assert (result.exit_code, result.stderr, names(out)) == (0, "", [])
        assert result.stdout.startswith("0 frames in ")
        assert len(desktop.shown) == 1  # "waiting for the first frame"

    def test_keys_record_take_a_snapshot_and_pause(self, out: Path, hand: dict[int, str]) -> None:
        hand |= {2: "r", 5: "s", 7: "r", 9: " ", 12: "q"}
        result = invoke("webcam", *ALL)
        assert (result.exit_code, SUMMARY.fullmatch(result.stdout)[1]) == (0, "13")  # type: ignore[index]
        clip, plain, masks = sorted(names(out), key=lambda name: (not name.endswith("mp4"), len(name)))
        stamp = r"live-seg_\d{8}-\d{6}"
        assert re.fullmatch(stamp + r"\.mp4", clip)
        assert re.fullmatch(stamp + r"\.png", plain)
        assert re.fullmatch(stamp + r"_masks\.png", masks)
        assert len(decode_frames(out / clip)) == 5

    def test_network_threshold_is_below_the_shown_one(
        self, out: Path, hand: dict[int, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[float | None] = []

        class Unsure(StandIn):
            def __call__(self, images: list[Image]) -> list[Instances]:
                found = super().__call__(images)
                return [Instances(i.boxes, i.masks, i.class_ids, np.array([0.45], np.float32)) for i in found]

        def load(options: LiveOptions) -> StandIn:
            asked.append(options.conf)
            return Unsure()

        monkeypatch.setattr(LiveOptions, "load", load)
        hand |= {2: "----", 5: "q"}
        invoke("webcam", "--conf", "0.6", "--json", "a.jsonl", *ALL)
        assert asked == [0.3]
        assert [len(line["instances"]) for line in lines(out / "a.jsonl")] == [0, 0, 0, 1, 1, 1]
        invoke("webcam", "--show", "none", "--conf", "0.6", "--json", "b.jsonl", "--seconds", "0.1", *ALL)
        assert asked == [0.3, 0.6]

    @pytest.mark.parametrize("switch", ["labels", "boxes"])
    def test_switched_off_drawing_is_toggled_by_its_key(
        self,
        hand: dict[int, str],
        monkeypatch: pytest.MonkeyPatch,
        switch: str,
        out: Path,  # noqa: ARG002
    ) -> None:
        seen: list[bool] = []

        def draw(image: Image, *_: object, **switches: bool) -> Image:
            seen.append(switches[switch])
            return image

        monkeypatch.setattr("live_seg.drawing.annotate.draw", draw)
        hand |= {1: switch[0], 3: "q"}
        assert invoke("webcam", f"--no-{switch}", *ALL).exit_code == 0
        assert seen == [False, False, True, True]


@pytest.fixture
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise SinkError("There is no display.")

    monkeypatch.setattr(window, "Window", refuse)


class TestScreen:
    """A session opens either a window or a web page."""

    @pytest.fixture
    def opened(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        opened: list[str] = []

        class Page(web.WebPage):
            def __init__(self, title: str, controls: Any, address: str) -> None:
                super().__init__(title, controls, address)
                opened.append(f"{title}: {self.url}")

        monkeypatch.setattr(web, "WebPage", Page)
        return opened

    @pytest.mark.usefixtures("camera", "out", "hand")
    @pytest.mark.parametrize("show", [(), ("--show", "window")])
    def test_window_is_preferred(self, opened: list[str], show: tuple[str, ...]) -> None:
        assert invoke("webcam", *show, "--seconds", "0.3", *ALL).exit_code == 0
        assert opened == []

    @pytest.mark.usefixtures("camera", "out", "no_display")
    @pytest.mark.parametrize("show", [(), ("--show", "web")])
    def test_web_page_without_a_display(self, opened: list[str], show: tuple[str, ...]) -> None:
        result = invoke("webcam", *show, "--web-address", "127.0.0.1:0", "--seconds", "0.3", *ALL)
        assert result.exit_code == 0
        url = re.fullmatch(r"live-seg: watch at (http://127\.0\.0\.1:\d+/)\n", result.stderr)
        assert url, result.stderr
        assert opened == [f"live-seg 0: {url[1]}"]

    @pytest.mark.usefixtures("out", "no_display")
    def test_the_page_can_end_the_wait_for_the_first_frame(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Clicked(web.WebPage):
            def wait(self, seconds: float) -> bool:  # noqa: ARG002
                assert press(self.url, "q") == 204
                return super().wait(10.0)  # until the key is there

        monkeypatch.setattr(web, "WebPage", Clicked)
        with opening_camera(monkeypatch):
            result = invoke("webcam", "--web-address", "127.0.0.1:0")
        assert result.exit_code == 0
        assert result.stdout.startswith("0 frames in ")

    @pytest.mark.usefixtures("no_display")
    def test_requested_window_without_a_display_fails(self, opened: list[str]) -> None:
        result = invoke("webcam", "--show", "window")
        assert (result.exit_code, opened) == (3, [])
        assert "no display" in result.stderr

    def test_occupied_web_address_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(LiveOptions, "load", lambda _: pytest.fail("the model was loaded"))
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = f"127.0.0.1:{other.getsockname()[1]}"
            result = invoke("webcam", "--show", "web", "--web-address", address)
        assert result.exit_code == 3
        assert f"Cannot open a web page at {address}: Address already in use" in result.stderr

    @pytest.mark.usefixtures("out", "no_display")
    def test_title_hides_the_password(self, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        put_captures(monkeypatch, FakeCapture(3))
        source = ("--source", "tcp://user:secret@127.0.0.1:1")
        result = invoke("webcam", *source, "--no-reconnect", "--web-address", "127.0.0.1:0")
        assert result.exit_code == 0
        assert opened[0].startswith("live-seg tcp://***@127.0.0.1:1: ")


class TestLostStream:
    """Keys work while the reader waits for a stream that does not come back."""

    LOOKS = 6
    """Polls of the screen, 0.05 s apart, after which the stream counts as lost."""

    @pytest.fixture(autouse=True)
    def _patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(live, "RETRY_DELAYS", (100.0,))
        monkeypatch.setattr(live, "CLOSE_TIMEOUT", 0.05)

    def watch(self, port: int, propagate: str) -> None:
        source = ("--source", f"tcp://127.0.0.1:{port}", "--timeout", "100", "--web-address", "127.0.0.1:0")
        result = invoke("webcam", *source, propagate)
        assert result.exit_code == 0
        assert SUMMARY.fullmatch(result.stdout)

    @pytest.mark.timeout(60)
    @pytest.mark.usefixtures("out")
    @pytest.mark.parametrize("propagate", ["--propagate", "--no-propagate"])
    @pytest.mark.parametrize("how", ["stall", "kill"])
    @pytest.mark.parametrize("closed", [False, True], ids=["key", "close button"])
    def test_window_ends_a_wait_for_frames(
        self, monkeypatch: pytest.MonkeyPatch, sender: Sender, how: str, propagate: str, closed: bool
    ) -> None:
        looks = [0]

        class Impatient(Desktop):
            def show(self, title: str, image: Image) -> None:
                super().show(title, image)
                looks[0] = 0
                # The first one says that a frame is awaited. Live, some frames are dropped.
                if len(self.shown) == 4:
                    getattr(sender, how)()

            def wait(self, milliseconds: int) -> int:
                looks[0] += len(self.shown) >= 4
                gone = looks[0] == TestLostStream.LOOKS
                self.closes_window = gone and closed
                self.next_keys = [ord("q")] if gone and not closed else []
                return super().wait(milliseconds)

        Impatient(monkeypatch)
        self.watch(sender.port, propagate)
        assert looks[0] >= self.LOOKS

    @pytest.mark.timeout(60)
    @pytest.mark.usefixtures("out", "no_display")
    @pytest.mark.parametrize("propagate", ["--propagate", "--no-propagate"])
    def test_web_page_ends_a_wait_for_frames(
        self, monkeypatch: pytest.MonkeyPatch, sender: Sender, propagate: str
    ) -> None:
        class Clicked(web.WebPage):
            shown = looks = 0

            def write(self, *shown: Any) -> bool:
                self.shown, self.looks = self.shown + 1, 0
                if self.shown == 3:
                    sender.stall()
                return super().write(*shown)

            def wait(self, seconds: float) -> bool:
                self.looks += self.shown >= 3
                if self.looks == TestLostStream.LOOKS:
                    assert press(self.url, "q") == 204
                    seconds = 10.0  # until the key is there
                return super().wait(seconds)

        monkeypatch.setattr(web, "WebPage", Clicked)
        self.watch(sender.port, propagate)


SLOW = """
    import time, numpy as np
    from live_seg.sources import cameras
    from tests.live import FakeCapture
    class Paced(FakeCapture):
        def read(self):
            time.sleep(0.03)
            return super().read()
    cameras.open_capture = lambda *_: Paced(10**6)
    class Announces(StandIn):
        def __call__(self, images):
            if len(self.batches) == 10:
                print("running", flush=True)
            return super().__call__(images)
    load = lambda options: Announces()
"""


def test_ctrl_c_completes_the_recording(out: Path) -> None:
    outputs = ("--record", out / "a.mp4", "--json", out / "a.jsonl")
    code, stdout, stderr = interrupted(SLOW, "webcam", "--show", "none", *outputs)
    assert (code, stderr, names(out)) == (130, "", ["a.jsonl", "a.mp4"])
    match = SUMMARY.fullmatch(stdout.removeprefix("Interrupted: "))
    assert match, stdout
    assert len(decode_frames(out / "a.mp4")) > 5


def test_timeout_is_passed_to_the_camera_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "")
    monkeypatch.delenv("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT")
    put_captures(monkeypatch, FakeCapture())
    LiveOptions(timeout=2.5).open("0").close()
    assert os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] == "3"
