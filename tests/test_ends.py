"""Ends of a run by signals, lost readers and closed streams, in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from live_seg.cli.signals import AGAIN
from tests.clips import clip, decode_frames, names, no_process_left_behind, probe
from tests.marks import slow
from tests.stand_ins import ROOT
from tests.test_cli import LOADING, SLOW, STAND_IN, program
from tests.test_cli_live import SLOW as SLOW_CAMERA

if sys.platform == "win32":
    pytest.skip("needs the signals of POSIX", allow_module_level=True)

pytestmark = pytest.mark.usefixtures(no_process_left_behind.__name__)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("source") / "in.mp4", seconds=20)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@contextmanager
def started(
    model: str, *arguments: str | Path, before: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Start the program, by the command `before` if given, and wait until it prints "running"."""
    with subprocess.Popen(
        [*before, *program(model), *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        yield process


INT, TERM, HUP = (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)
"""The ending signals, each with its exit code."""


COMPLETING = """
    import time
    from live_seg.sources import cameras
    from live_seg.sinks import video_writer
    from tests.live import FakeCapture
    whole = video_writer.remux
    def remux(*arguments, **options):
        print("running", flush=True)
        time.sleep(0.4)
        whole(*arguments, **options)
    video_writer.remux = remux
    cameras.open_capture = lambda *_: FakeCapture(10**6)
    load = lambda options: StandIn()
"""


class TestWhileCompleting:
    """A signal that comes when the run has ended, and its outputs are completed."""

    @pytest.mark.parametrize(("number", "code"), [TERM, slow(*INT), slow(*HUP)])
    def test_of_a_video(self, tmp_path: Path, out: Path, number: signal.Signals, code: int) -> None:
        source = clip(tmp_path / "in.mp4", rate="10", seconds=1, audio=1)
        with started(COMPLETING, "video", source, "-o", out / "a.mp4") as process:
            process.send_signal(number)
            stdout, stderr = process.communicate()
        assert (process.returncode, names(out)) == (code, ["a.mp4"])
        assert stderr == AGAIN
        assert stdout.startswith("10 frames in ")
        assert len(decode_frames(out / "a.mp4")) == 10

    @pytest.mark.parametrize("sources", [slow(("0",)), ("0", "1")])
    def test_of_a_recording(self, out: Path, sources: tuple[str, ...]) -> None:
        words = [word for source in sources for word in ("--source", source)]
        options = ("--show", "none", "--seconds", "0.3", "--record", out / "{source}.mp4")
        with started(COMPLETING, "webcam", *words, *options) as process:
            process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate()
        assert (process.returncode, names(out)) == (143, [f"{source}.mp4" for source in sources])
        assert stderr == AGAIN

    def test_a_second_one_keeps_the_partial_file(self, tmp_path: Path, out: Path) -> None:
        source = clip(tmp_path / "in.mp4", rate="10", seconds=1, audio=1)
        with started(COMPLETING, "video", source, "-o", out / "a.mp4") as process:
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            assert process.stderr.readline() == "\n"
            process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate()
        assert (process.returncode, names(out)) == (143, ["a.partial.mp4"])
        assert "a.partial.mp4" in stderr
        assert len(decode_frames(out / "a.partial.mp4")) == 10


class TestSignals:
    @pytest.mark.parametrize(
        ("name", "number", "code"),
        [
            ("a.mp4", *TERM),
            *(slow("a.mp4", *ending) for ending in (INT, HUP)),
            *(slow("a.mkv", *ending) for ending in (INT, TERM, HUP)),
        ],
    )
    def test_a_signal_completes_a_video(
        self, source: Path, out: Path, number: signal.Signals, code: int, name: str
    ) -> None:
        with started(SLOW, "video", source, "-o", out / name, "--json", out / "a.jsonl") as process:
            process.send_signal(number)
            stdout, stderr = process.communicate()
        assert (process.returncode, stderr, names(out)) == (code, "", sorted(["a.jsonl", name]))
        assert stdout.startswith("Interrupted: ")
        assert stdout.endswith(f" -> {out / name}\n")
        assert 5 <= len(decode_frames(out / name)) < 600

    @pytest.mark.parametrize(("number", "code"), [TERM, slow(*INT), slow(*HUP)])
    def test_a_signal_completes_a_recording(self, out: Path, number: signal.Signals, code: int) -> None:
        with started(SLOW_CAMERA, "webcam", "--show", "none", "--record", out / "a.mp4") as process:
            process.send_signal(number)
            _, stderr = process.communicate()
        assert (process.returncode, stderr, names(out)) == (code, "", ["a.mp4"])
        assert len(decode_frames(out / "a.mp4")) > 5

    def test_a_service_manager_signals_ffmpeg_too(self, source: Path, out: Path) -> None:
        with started(SLOW, "video", source, "-o", out / "a.mp4") as process:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            process.communicate()
        assert (process.returncode, names(out)) == (143, ["a.mp4"])
        assert len(decode_frames(out / "a.mp4")) >= 5

    def test_the_first_process_of_a_container_completes_its_file(self, source: Path, out: Path) -> None:
        container = ("unshare", "--pid", "--fork", "--kill-child")
        if subprocess.run([*container, "true"], capture_output=True, check=False).returncode != 0:
            pytest.skip("may not create process namespaces")
        with started(SLOW, "video", source, "-o", out / "a.mp4", before=container) as process:
            (first,) = psutil.Process(process.pid).children()
            first.send_signal(signal.SIGTERM)
            process.communicate()
        assert (process.returncode, names(out)) == (143, ["a.mp4"])
        assert len(decode_frames(out / "a.mp4")) >= 5

    def test_a_signal_while_loading_leaves_no_file(self, source: Path, out: Path) -> None:
        with started(LOADING, "video", source, "-o", out / "a.mp4") as process:
            process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate()
        assert (process.returncode, stderr, names(out)) == (143, "", [])

    def test_an_ignored_signal_stays_ignored(self, source: Path, out: Path) -> None:
        with started(SLOW, "video", source, "-o", out / "a.mp4", before=("nohup",)) as process:
            process.send_signal(signal.SIGHUP)
            time.sleep(0.2)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            process.communicate()
        assert process.returncode == 143

    @pytest.mark.parametrize("delay", [0.02, *map(slow, (0.0, 0.005, 0.05, 0.1, 0.25))])
    def test_a_second_signal_loses_nothing(self, source: Path, out: Path, delay: float) -> None:
        with started(SLOW, "video", source, "-o", out / "a.mp4") as process:
            process.send_signal(signal.SIGINT)
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            stdout, _ = process.communicate()
        (left,) = out.iterdir()
        assert left.name == "a.mp4"
        assert len(decode_frames(left)) >= 5
        assert stdout.endswith(f" -> {left}\n")

    @pytest.mark.parametrize("delay", [0.01, *map(slow, (0.03, 0.06))])
    def test_a_third_signal_keeps_the_partial_file(self, source: Path, out: Path, delay: float) -> None:
        with started(SLOW, "video", source, "-o", out / "a.mp4") as process:
            for _ in range(3):
                process.send_signal(signal.SIGINT)
                time.sleep(delay)
            stdout, stderr = process.communicate()
        (left,) = out.iterdir()
        assert len(decode_frames(left)) >= 5
        assert str(left) in stdout + stderr
        assert ("-> " in stdout) == (left.name == "a.mp4")

    @pytest.mark.parametrize("name", ["a.mp4", *map(slow, ("a.mkv", "a.mov"))])
    def test_a_killed_program_leaves_a_file_that_plays(self, source: Path, out: Path, name: str) -> None:
        with started(SLOW, "video", source, "-o", out / name) as process:
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.communicate()
        psutil.wait_procs(children, timeout=10)  # ffmpeg completes the file
        (left,) = out.iterdir()
        assert left.name == name.replace(".", ".partial.")
        assert len(probe(left).times) >= 5


SWALLOWED = """
import signal, sys, time
from live_seg.cli.signals import Ended, end_in_order
class Swallowing:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
end_in_order()
try:
    Swallowing()
    time.sleep(60)
except Ended as ended:
    sys.exit(128 + ended.number)
"""


def test_a_signal_in_a_destructor_is_raised_again() -> None:
    """Also while the main thread waits."""
    command = [sys.executable, "-c", SWALLOWED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=50)
    assert (done.returncode, done.stderr) == (143, b"")


FIRST = "from live_seg.cli.start import main; main()"


class TestFirstInstant:
    @pytest.mark.parametrize("step", [110, slow(20)])
    def test_no_traceback(self, step: int) -> None:
        ends = set()
        for milliseconds in range(60, 400, step):
            with subprocess.Popen(
                [sys.executable, "-c", FIRST, "video", "nowhere.mp4", "-o", "nowhere/a.mp4"],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            ) as process:
                time.sleep(milliseconds / 1000)
                process.send_signal(signal.SIGINT)
                _, stderr = process.communicate()
            ends.add(process.returncode)
            assert "live_seg" not in stderr.replace("live-seg", "")
            if process.returncode == 1:  # Python itself was interrupted while it started
                assert "live-seg" not in stderr
                ends.remove(1)
        assert ends <= {-signal.SIGINT, 130, 3}


def shell(command: str, *arguments: str | Path, pipefail: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `command` in bash, where "$@" is the program with `arguments`."""
    options = ["-o", "pipefail"] if pipefail else []
    words = ["bash", *options, "-c", command, "bash", *program(STAND_IN), *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


class TestStreams:
    @pytest.mark.parametrize(
        "command",
        [
            '"$@" <&- >&- 2>&-',
            '"$@" 2>&1 | true',
            *map(slow, ('"$@" | true', '"$@" 2>&-', '"$@" >&-', '{ "$@" 2>&1 >&3 | true; } 3>&1')),
        ],
    )
    def test_closed_streams_and_lost_readers_fail_no_run(
        self, tmp_path: Path, out: Path, command: str
    ) -> None:
        short = clip(tmp_path / "short.mp4", rate="10")
        done = shell(command, "video", short, "-o", out / "a.mp4", "--json", out / "a.jsonl")
        assert (done.returncode, done.stderr, names(out)) == (0, "", ["a.jsonl", "a.mp4"])
        assert len(decode_frames(out / "a.mp4")) == 10
        assert (out / "a.jsonl").read_text().count("\n") == 10

    def test_a_closed_terminal_completes_the_file(self, source: Path, out: Path) -> None:
        import pty

        terminal, end = pty.openpty()
        with subprocess.Popen(
            ["setsid", "--ctty", "--wait", *program(SLOW), "video", str(source), "-o", str(out / "a.mp4")],
            cwd=ROOT,
            stdin=end,
            stdout=end,
            stderr=end,
        ) as process:
            os.close(end)
            while b"running" not in os.read(terminal, 4096):
                pass
            os.close(terminal)
            process.wait()
        assert process.returncode == 129
        assert names(out) == ["a.mp4"]
        assert len(decode_frames(out / "a.mp4")) >= 5
