"""Events: their delivery by HTTP and by command, faults of the receiver, and what is reported when."""

import contextlib
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from live_seg.cli.live_options import LiveOptions
from live_seg.errors import SinkError, UsageError
from live_seg.events import notifier as module
from live_seg.events import target as targets
from live_seg.events.notifier import Notifier
from live_seg.events.target import Command, Post, event_target
from live_seg.events.watcher import Watcher
from live_seg.events.zone import Zone
from live_seg.sinks.recorder import Recorder
from live_seg.sources import cameras, live
from live_seg.types import Frame, Image, Instances
from tests.clips import no_process_left_behind
from tests.live import FakeCapture, Sender, put_captures
from tests.stand_ins import StandIn
from tests.test_cli import invoke

pytestmark = pytest.mark.usefixtures(no_process_left_behind.__name__)


class Receiver(ThreadingHTTPServer):
    """Answers posts with `statuses` in order, the last one repeatedly; remembers bodies and headers."""

    daemon_threads = False

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses) or [204]
        self.events: list[Any] = []
        self.headers: list[Any] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/hook?key=secret"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        receiver = self.server
        assert isinstance(receiver, Receiver)
        assert self.path == "/hook?key=secret"
        receiver.headers.append(self.headers)
        receiver.events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(receiver.statuses[0] if len(receiver.statuses) == 1 else receiver.statuses.pop(0))
        self.end_headers()

    def log_message(self, *args: object) -> None: ...


@contextmanager
def receiving(*statuses: int) -> Iterator[Receiver]:
    with Receiver(*statuses) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "RETRY_DELAYS", (0.01, 0.01))


def script(words: str) -> str:
    return f'"{sys.executable}" -c "{words}"'


class TestPost:
    def test_the_body_is_json(self) -> None:
        with receiving() as receiver:
            Post(receiver.url.replace("127", "me:p%40ss@127")).send({"event": "seen"}, threading.Event())
        assert receiver.events == [{"event": "seen"}]
        assert receiver.headers[0]["Content-Type"] == "application/json"
        assert receiver.headers[0]["Authorization"] == "Basic bWU6cEBzcw=="

    def test_errors_of_the_server_are_retried(self) -> None:
        with receiving(500, 503, 200) as receiver:
            Post(receiver.url).send({}, threading.Event())
        assert len(receiver.events) == 3

    @pytest.mark.parametrize(("status", "attempts"), [(404, 1), (500, 3), (302, 3)])
    def test_failures_name_the_status(self, status: int, attempts: int) -> None:
        with receiving(status) as receiver, pytest.raises(SinkError, match=f"status {status}"):
            Post(receiver.url).send({}, threading.Event())
        assert len(receiver.events) == attempts

    def test_no_server(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        with pytest.raises(SinkError, match="refused"):
            Post(f"http://127.0.0.1:{port}").send({}, threading.Event())

    def test_a_server_that_sends_one_byte_after_the_other_is_left(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(targets, "HTTP_TIMEOUT", 0.2)

        def drip() -> None:
            link, _ = server.accept()
            with link, contextlib.suppress(OSError):  # until the client has left
                while True:
                    link.sendall(b"H")
                    time.sleep(0.02)

        ending = threading.Event()
        ending.set()
        with socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=drip)
            thread.start()
            with pytest.raises(SinkError):
                Post(f"http://127.0.0.1:{server.getsockname()[1]}").send({}, ending)
            thread.join()


class TestCommand:
    def test_the_command_reads_json(self, tmp_path: Path) -> None:
        words = f"import sys; open(r'{tmp_path / 'out'}', 'a').write(sys.stdin.read())"
        command = Command(script(words))
        command.send({"event": "seen"}, threading.Event())
        command.send({"event": "gone"}, threading.Event())
        lines = (tmp_path / "out").read_text().splitlines()
        assert [json.loads(line)["event"] for line in lines] == ["seen", "gone"]

    def test_failures_have_code_and_message(self) -> None:
        with pytest.raises(SinkError, match="exit code 7: no such room"):
            Command(script("import sys; sys.stderr.write('no such room'); sys.exit(7)")).send(
                {}, threading.Event()
            )

    @pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
    def test_slow_commands_are_killed_with_their_children(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(targets, "COMMAND_TIMEOUT", 0.1)
        with pytest.raises(SinkError, match=r"killed after 0.1 s"):
            Command("sh -c 'sleep 100; true'").send({}, threading.Event())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ftp://host/x", "http or https URL"),
        ("http://host:port/", "not a valid URL"),
        ("http:///path", "http or https URL"),
        ("no-such-program --now", "no program 'no-such-program'"),
        ("", "no program ''"),
        ("sh -c 'unbalanced", "Cannot parse"),
    ],
)
def test_invalid_targets(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        event_target(spec)


class Target:
    """Remembers events; blocks while `ready` is not set."""

    name = "a stand-in"

    def __init__(self, *, fails: bool = False) -> None:
        self.events: list[Any] = []
        self.ready = threading.Event()
        self.ready.set()
        self.fails = fails

    def send(self, event: Any, ending: threading.Event) -> None:  # noqa: ARG002
        self.ready.wait()
        if self.fails:
            raise SinkError("no")
        self.events.append(event)

    def stop(self) -> None:
        self.fails = True
        self.ready.set()

    def told(self) -> list[tuple[Any, ...]]:
        return [(e["event"], e.get("class"), e.get("track_id")) for e in self.events]


class TestNotifier:
    def test_events_have_time_and_source(self) -> None:
        target = Target()
        notifier = Notifier(target, "camera 0")
        notifier.send("source-back", seconds=1.5)
        notifier.close()
        notifier.close()
        (event,) = target.events
        assert (event["event"], event["source"], event["seconds"]) == ("source-back", "camera 0", 1.5)
        assert time.time() - time.mktime(time.strptime(event["time"][:19], "%Y-%m-%dT%H:%M:%S")) < 60
        assert notifier.summary == "1 event sent"

    def test_failures_are_counted_and_the_first_one_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        notifier = Notifier(Target(fails=True), "camera 0")
        for _ in range(3):
            notifier.send("seen")
        notifier.close()
        assert notifier.summary == "0 events sent, 3 failed"
        assert caplog.messages == [
            "The event seen could not be sent to a stand-in: no. Further failures are only counted."
        ]

    def test_a_stuck_target_blocks_neither_send_nor_close(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.05)
        monkeypatch.setattr(module, "MAX_WAITING", 5)
        target = Target()
        target.ready.clear()
        notifier = Notifier(target, "camera 0")
        for _ in range(20):
            notifier.send("seen")
        notifier.close()
        assert (notifier.sent, notifier.failed) == (0, 20)


def tracked(*ids: int, confirmed: bool = True, left: float = 0.0) -> Instances:
    count = len(ids)
    return Instances(
        boxes=np.array([[left, 0, left + 10, 10]] * count, np.float32).reshape(count, 4),
        masks=np.ones((count, 28, 28), np.float32),
        class_ids=np.ones(count, np.int32),
        scores=np.full(count, 0.9, np.float32),
        track_ids=np.array(ids, np.int32),
        confirmed=np.full(count, confirmed),
    )


def watched(frames: dict[float, Instances], zone: Zone | None = None) -> Target:
    target, image = Target(), np.zeros((100, 100, 3), np.uint8)
    notifier = Notifier(target, "camera 0")
    with Watcher(notifier, ("background", "person"), zone) as watcher:
        for index, (seconds, instances) in enumerate(frames.items()):
            watcher.write(Frame(index, seconds, image), image, instances)
    notifier.close()
    return target


class TestWatcher:
    def test_seen_once_and_gone_after_a_while(self) -> None:
        times = {0.0: tracked(1), 0.5: tracked(1, 2), 1.0: tracked(2), 2.4: tracked(1, 2), 4.0: tracked(2)}
        told = watched({**times, 4.5: tracked(2)}).told()
        assert told == [
            ("seen", "person", 1),
            ("seen", "person", 2),
            ("gone", "person", 1),
            ("gone", "person", 2),
        ]

    def test_details(self) -> None:
        seen, gone = watched({1.0: tracked(1), 2.5: tracked(1), 6.0: tracked()}).events
        assert (seen["seconds"], seen["score"], seen["box"]) == (1.0, 0.9, [0, 0, 10, 10])
        assert (gone["seconds"], gone["duration"]) == (2.5, 1.5)

    def test_unconfirmed_and_untracked_instances_do_not_count(self) -> None:
        assert watched({0.0: tracked(1, confirmed=False), 0.1: Instances.empty()}).events == []

    def test_only_instances_in_the_zone_count(self) -> None:
        right = Zone.parse("0.5,0,1,0,1,1,0.5,1")
        told = watched({0.0: tracked(1), 0.1: tracked(1, left=80)}, right)
        assert [event["seconds"] for event in told.events] == [0.1, 0.1]


def test_recordings_are_reported(tmp_path: Path) -> None:
    told: list[tuple[str, str, str | None]] = []
    image = np.zeros((48, 64, 3), np.uint8)
    path = tmp_path / "a.mp4"
    with Recorder(path, 10, on_file=lambda name, path, error: told.append((name, path.name, error))) as rec:
        rec.start()
        rec.write(Frame(0, 0.0, image), image, Instances.empty())
        rec.write(Frame(1, 20.0, image), image, Instances.empty())
    assert sorted(told) == [
        ("recording-finished", "a.mp4", None),
        ("recording-finished", "a_001.mp4", None),
        ("recording-started", "a.mp4", None),
        ("recording-started", "a_001.mp4", None),
    ]


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def _model(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(LiveOptions, "load", lambda _: StandIn())
        monkeypatch.chdir(tmp_path)

    def test_events_of_a_session(self, monkeypatch: pytest.MonkeyPatch) -> None:
        put_captures(monkeypatch, FakeCapture(20))
        with receiving() as receiver:
            record = ("--record", "a.mp4", "--policy", "all", "--batch", "1")
            result = invoke("webcam", "--show", "none", "--on-event", receiver.url, *record)
        assert result.exit_code == 3
        assert "stopped delivering" in result.stderr
        names = [event["event"] for event in receiver.events]
        assert sorted(names) == ["gone", "recording-finished", "recording-started", "seen", "source-lost"]
        assert {event["source"] for event in receiver.events} == {"0"}

    def test_a_receiver_that_fails_does_not_fail_the_session(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        put_captures(monkeypatch, FakeCapture(10**9))
        options = ("--seconds", "0.2", "--policy", "all", "--batch", "1")
        with receiving(404) as receiver:
            result = invoke("webcam", "--show", "none", "--on-event", receiver.url, *options)
        assert result.exit_code == 0
        assert "; 0 events sent, 2 failed" in result.stdout
        assert "/hook?***: answered with status 404" in caplog.messages[0]

    def test_a_lost_stream_is_reported(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.CRITICAL, "live_seg.sources.live")
        monkeypatch.setattr(live, "RETRY_DELAYS", (0.05,))
        sender, counts = Sender(b""), [0]

        class Kills(StandIn):
            def __call__(self, images: list[Image]) -> list[Instances]:
                time.sleep(0.02)
                counts[0] += 1
                if counts[0] == 5:
                    sender.kill()
                return super().__call__(images)

        monkeypatch.setattr(LiveOptions, "load", lambda _: Kills())
        source = f"tcp://127.0.0.1:{sender.port}"
        with receiving() as receiver:
            options = ("--on-event", receiver.url, "--seconds", "2")
            assert invoke("webcam", "--show", "none", "--source", source, *options).exit_code == 0
        sender.end()
        outages = [event for event in receiver.events if event["event"].startswith("source")]
        assert [event["event"] for event in outages] == ["source-lost", "source-back"]
        assert "disconnected after" in outages[0]["reason"]

    def test_each_lost_source_of_several_is_reported(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A camera is opened again; a source that has failed is lost for good."""
        caplog.set_level(logging.CRITICAL)
        monkeypatch.setattr(live, "RETRY_DELAYS", (0.05,))
        opened = list[int]()

        def open_capture(number: int, *_: object) -> FakeCapture:
            opened.append(number)
            return FakeCapture(8 if opened.count(number) == 1 and number == 0 else 10**9)

        monkeypatch.setattr(cameras, "open_capture", open_capture)
        sources = ("--source", "0", "--source", "1", "--source", "nowhere.mp4")
        with receiving() as receiver:
            options = ("--on-event", receiver.url, "--seconds", "0.6", "--show", "none")
            assert invoke("webcam", *sources, *options).exit_code == 3
        outages = [
            (event["source"], event["event"], event.get("reason", ""))
            for event in receiver.events
            if event["event"].startswith("source")
        ]
        assert [outage[1] for outage in outages if outage[0] == "0"] == ["source-lost", "source-back"]
        assert [outage[1] for outage in outages if outage[0] == "1"] == []
        ((_, name, reason),) = [outage for outage in outages if outage[0] == "nowhere"]
        assert (name, "nowhere.mp4" in reason) == ("source-lost", True)
        assert opened.count(0) == 2

    def test_a_camera_of_several_is_not_waited_for_on_request(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.CRITICAL)
        monkeypatch.setattr(cameras, "open_capture", lambda *_: FakeCapture(8))
        with receiving() as receiver:
            options = ("--on-event", receiver.url, "--no-reconnect", "--show", "none")
            assert invoke("webcam", "--source", "0", "--source", "1", *options).exit_code == 3
        lost = [event for event in receiver.events if event["event"] == "source-lost"]
        assert {event["source"] for event in lost} == {"0", "1"}
        assert all("stopped delivering" in event["reason"] for event in lost)
        assert not [event for event in receiver.events if event["event"] == "source-back"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--on-event", "ftp://a/b"], "http or https URL"),
            (["--zone", "0,0,1,1", "--on-event", "true"], "at least 3 corners"),
            (["--zone", "0,0,1,0,1,1"], "--zone would do nothing"),
            (["--zone-share", "0.2", "--record-on", "person"], "--zone-share would do nothing"),
        ],
        ids=str,
    )
    def test_usage(self, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
        monkeypatch.setattr(LiveOptions, "load", lambda _: pytest.fail("the model was loaded"))
        result = invoke("webcam", *arguments)
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.replace("│", " ").split())
