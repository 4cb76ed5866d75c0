"""The command line: exit codes, messages and files, with a stand-in for the model."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, get_args

import cv2
import imageio_ffmpeg
import numpy as np
import psutil
import pytest
import typer
from pycocotools import mask as coco_mask
from typer.testing import CliRunner, Result

from live_seg import __version__
from live_seg.choices import EngineName
from live_seg.cli.commands import SUMMARIES, loaded
from live_seg.cli.main import app
from live_seg.cli.options import Options
from live_seg.errors import SinkError, SourceError, UsageError, WeightsError
from live_seg.files import read_image
from live_seg.models.registry import WEIGHTS
from live_seg.sources import demo
from live_seg.types import Frame, Image, Instances, Sink
from live_seg.ui import window
from tests.clips import clip, decode_frames, names, probe, text_as_mp4, variable_clip
from tests.disks import small_disk
from tests.marks import slow
from tests.stand_ins import ROOT, StandIn

COMMANDS = ("demo", "image", "video", "webcam", "convert", "eval", "train", "optimize", "bench", "doctor")
BASIC = {
    "live_seg",
    "errors",
    "sources",
    "sources.driver_thread",
    "urls",
    "cli",
    *(f"cli.{name}" for name in ("commands", "main", "messages", "native_messages", "panels", "signals")),
    *(f"cli.{name}" for name in ("start", "streams", "weights")),
}
"""The modules of live_seg that every command imports, and the only ones that the list of commands needs."""

OF_HELP = ("annotated_doc", "attr", "markdown_it", "mdurl", "pygments", "rich", "shellingham", "typer")
"""The packages that may be imported for a help text: typer and what it needs."""

OF_VALUES = ("annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection")
"""What typer needs in addition to convert the values of a command's options."""

SUMMARY = re.compile(
    r"(Interrupted: )?(\d+) frames? in \d+\.\d s \(\d+\.\d fps\), (\d+) instances?"
    r"(?:; small with a stand-in)?( -> (.+))?\n"
)

PROGRAM = """
    import signal
    from live_seg.cli.main import main
    from live_seg.cli.options import Options
    from tests.stand_ins import StandIn
    {model}
    Options.load = load
    main()
"""
"""The real program, with the `load` that `model` defines."""

STAND_IN = "load = lambda options: StandIn()"


def invoke(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    return result


def program(model: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(PROGRAM).format(model=textwrap.dedent(model))]


def process(*arguments: str | Path, model: str | None = None, **environment: str) -> Any:
    """Run the real program in a new process, with `model` as a stand-in if given."""
    real = [sys.executable, "-c", "from live_seg.cli.main import main; main()"]
    command = [*(program(model) if model else real), *map(str, arguments)]
    # Another test may have imported TensorFlow, which sets its log level in the environment.
    own = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    return subprocess.run(
        command, cwd=ROOT, env=own | environment, capture_output=True, text=True, check=False
    )


def summary(result: Result) -> tuple[int, int, str]:
    """Return frames, instances and output from the summary, the only line on stdout."""
    assert result.stdout, result.output
    return summary_of(result.stdout)


def summary_of(text: str) -> tuple[int, int, str]:
    match = SUMMARY.fullmatch(text)
    assert match, text
    return int(match[2]), int(match[3]), match[5]


def image_file(path: Path, grey: int = 100) -> Path:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), np.full((60, 80, 3), grey, np.uint8))
    return path


def thresholds_asked(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """Return a list that receives the score threshold each time a model is loaded."""
    asked: list[float | None] = []

    def load(options: Options) -> StandIn:
        asked.append(options.conf)
        return StandIn()

    monkeypatch.setattr(Options, "load", load)
    return asked


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(Options, "load", lambda _: stand_in)
    return stand_in


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A clip of ten frames."""
    (tmp_path / "in").mkdir()
    return clip(tmp_path / "in" / "street.mp4", rate="10")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


class TestHelp:
    @pytest.mark.parametrize("command", [(), *((c,) for c in COMMANDS), ("weights",), ("weights", "verify")])
    def test_every_command_has_help(self, command: tuple[str, ...]) -> None:
        for flag in ("-h", "--help"):
            result = invoke(*command, flag)
            assert result.exit_code == 0
            assert result.stdout.strip().startswith(" ".join(["Usage: live-seg", *command]))
            assert result.stderr == ""

    def test_groups_options_in_panels(self) -> None:
        text = invoke("webcam", "--help").stdout
        titles = re.findall(r"^╭─ (\w+)", text, re.MULTILINE)
        assert titles == ["Input", "Model", "Output", "Live", "Advanced"]
        assert text.index("--source") < text.index("--model") < text.index("--record") < text.index("--show")

    def test_names_every_engine(self) -> None:
        text = re.sub(r"[\s│]+", " ", invoke("video", "--help").stdout)
        assert all(re.search(rf"\b{name}\b", text) for name in get_args(EngineName))

    def test_version(self) -> None:
        result = invoke("--version")
        assert (result.exit_code, result.stdout) == (0, f"live-seg {__version__}\n")

    def test_shell_completion_can_be_installed(self) -> None:
        assert "--install-completion" in invoke("--help").stdout
        words = {"_LIVE_SEG_COMPLETE": "complete_bash", "COMP_WORDS": "live-seg web", "COMP_CWORD": "1"}
        result = CliRunner().invoke(app, [], env=words, prog_name="live-seg")
        assert result.stdout.split() == ["webcam"]

    def test_names_every_common_option(self) -> None:
        for command in ("image", "video", "webcam"):
            text = invoke(command, "--help").stdout
            for option in (
                "model",
                "classes",
                "conf",
                "size",
                "batch",
                "layout",
                "json",
                "overwrite",
                "quiet",
            ):
                assert f"--{option}" in text

    @pytest.mark.parametrize(
        ("words", "loaded"),
        [
            ("--help", set()),
            ("--version", set()),
            ("weights --help", set()),
            ("convert --help", {"choices", "cli.convert", "cli.options", "cli.outputs"}),
        ],
    )
    def test_help_imports_little(self, words: str, loaded: set[str]) -> None:
        """Each import costs time: the help of all commands appears in less than half a second."""
        look = (
            "import sys; earlier = set(sys.modules)\n"
            "from live_seg.cli.start import main\n"
            "try: main()\n"
            "finally: print(*(set(sys.modules) - earlier), file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", look, *words.split()], cwd=ROOT, capture_output=True, text=True, check=True
        )
        imported = set(done.stderr.split())
        assert {name.removeprefix("live_seg.") for name in imported if "live_seg" in name} == BASIC | loaded
        packages = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names
        packages = {name for name in packages if not name.startswith("_sysconfigdata")}
        assert packages <= {"live_seg", *OF_HELP, *(OF_VALUES if words[0] != "-" else ())}
        assert not imported & {"asyncio", "multiprocessing", "ssl", "urllib.request"}

    def test_summaries_are_the_beginning_of_docstrings(self) -> None:
        group: Any = typer.main.get_command(app)
        for name, summary in SUMMARIES.items():
            first, *_ = loaded(group.commands[name]).help.split("\n\n")
            assert summary == first.replace("\n", " ")


NATIVE_MESSAGES = """
    import os, sys
    from live_seg.cli.native_messages import hidden_native_messages, separate_stderr
    separate_stderr()
    with hidden_native_messages():
        os.write(2, b"native ")
        print("python", file=sys.stderr)
    os.write(2, b"visible again")
"""


@pytest.mark.parametrize(("debug", "shown"), [("", ""), ("1", "native ")])
def test_only_native_messages_are_hidden(debug: str, shown: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(NATIVE_MESSAGES)]
    environment = os.environ | {"LIVE_SEG_DEBUG": debug}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == f"{shown}python\nvisible again"


@pytest.mark.parametrize(("flags", "shown"), [((), ["warning", "info"]), (("--quiet",), ["warning"])])
def test_log_messages_of_the_library_depend_on_quiet(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], shown: list[str]
) -> None:
    logger, messages = logging.getLogger("live_seg.anything"), list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]

    def load(_: Options) -> StandIn:
        logger.warning("warning")
        logger.info("info")
        return StandIn()

    monkeypatch.setattr(Options, "load", load)
    monkeypatch.setattr(logger, "handlers", [handler])
    assert invoke("video", source, "-o", out / "a.mp4", *flags).exit_code == 0
    assert messages == shown
    assert logging.getLogger("live_seg").level == logging.NOTSET


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "Usage"),
            (["vide"], "vide"),
            (["video"], "IN"),
            (["video", "in.mp4"], "Nothing to do: give -o OUT.mp4, --json OUT.jsonl or --show."),
            (["video", "in.mp4", "-o", "out.mp4", "--speed", "3"], "--speed"),
            (["video", "in.mp4", "-o", "out.mp4", "--conf", "1.5"], "--conf"),
            (["video", "in.mp4", "-o", "out.mp4", "--conf", "high"], "--conf"),
            (["video", "in.mp4", "-o", "out.mp4", "--batch", "0"], "--batch"),
            (["video", "in.mp4", "-o", "out.mp4", "--crf", "52"], "--crf"),
            (["video", "in.mp4", "-o", "out.mp4", "--alpha", "2"], "--alpha"),
            (["video", "in.mp4", "-o", "out.mp4", "--layout", "round"], "--layout"),
            (["video", "in.mp4", "-o", "out.mp4", "--policy", "some"], "--policy"),
            (["video", "in.mp4", "-o", "out.mp4", "--every", "0"], "--every"),
            (["video", "in.mp4", "-o", "out.mp4", "--timeout", "0"], "--timeout"),
            (["video", "in.mp4", "--json", "a", "--crf", "9"], "--crf would do nothing: no video is written"),
            (
                ["video", "in.mp4", "-o", "a.mp4", "--no-reconnect"],
                "in.mp4 is a file; only streams and cameras",
            ),
            (
                ["video", "in.mp4", "-o", "a.mp4", "--effect", "blur", "--alpha", "1"],
                "not blur. Leave it out.",
            ),
            (["image", "in.png", "-o", "a.png", "--effect", "cutout", "--no-labels"], "--no-labels would do"),
            (
                ["video", "in.mp4", "-o", "a.mp4", "--hide", "hull"],
                "--hide would do nothing: it applies to --effect",
            ),
            (["image", "in.png"], "--output"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_invalid_arguments_exit_with_2(self, arguments: list[str], message: str) -> None:
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert message in (result.stderr if arguments else result.stdout)

    @pytest.mark.parametrize(
        ("error", "code"), [(UsageError, 2), (SourceError, 3), (SinkError, 3), (WeightsError, 4)]
    )
    def test_each_error_class_has_its_exit_code(
        self, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], code: int
    ) -> None:
        def fail(_: Options) -> StandIn:
            raise error("This and that. Try something else.")

        monkeypatch.setattr(Options, "load", fail)
        result = invoke("video", source, "-o", out / "a.mp4", "--json", out / "a.jsonl")
        assert (result.exit_code, result.stdout) == (code, "")
        assert result.stderr == "live-seg: This and that. Try something else.\n"
        assert names(out) == []


class TestSourcesAndSinks:
    def test_missing_source(self, out: Path) -> None:
        result = invoke("video", out / "nowhere.mp4", "-o", out / "a.mp4")
        assert (result.exit_code, names(out)) == (3, [])
        assert re.fullmatch(r"live-seg: .*nowhere\.mp4.*\n", result.stderr)

    def test_text_file_named_mp4(self, out: Path) -> None:
        path = text_as_mp4(out / "text.mp4")
        result = invoke("video", path, "-o", out / "a.mp4")
        assert (result.exit_code, names(out)) == (3, ["text.mp4"])
        assert "not a video" in result.stderr

    def test_image_command_refuses_a_video(self, out: Path, source: Path) -> None:
        result = invoke("image", source, "-o", out / "a.png")
        assert result.exit_code == 3
        assert f"live-seg video {source}" in result.stderr

    @pytest.mark.parametrize("taken", ["a.mp4", "a.jsonl"])
    def test_existing_output_is_reported_before_the_model_loads(
        self, source: Path, out: Path, taken: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Options, "load", lambda _: pytest.fail("the model was loaded"))
        (out / taken).write_text("mine")
        result = invoke("video", source, "-o", out / "a.mp4", "--json", out / "a.jsonl")
        assert (result.exit_code, names(out)) == (3, [taken])
        assert f"{taken} exists already. Choose another name or pass --overwrite." in result.stderr
        assert (out / taken).read_text() == "mine"

    @pytest.mark.usefixtures("model")
    def test_overwrite(self, source: Path, out: Path) -> None:
        for taken in ("a.mp4", "a.jsonl"):
            (out / taken).write_text("mine")
        result = invoke("video", source, "-o", out / "a.mp4", "--json", out / "a.jsonl", "--overwrite")
        assert result.exit_code == 0
        assert len(probe(out / "a.mp4").times) == len((out / "a.jsonl").read_text().splitlines()) == 10

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a display")
    @pytest.mark.parametrize("command", ["video", "webcam"])
    def test_no_display(self, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
        monkeypatch.delenv("DISPLAY", raising=False)
        before = {
            "video": (str(source), "--show", "-o"),
            "webcam": ("--show", "window", "--source", str(source), "--record"),
        }
        result = invoke(command, *before[command], out / "a.mp4")
        assert (result.exit_code, names(out)) == (3, [])
        assert "no display" in result.stderr


@pytest.mark.usefixtures("model")
class TestVideo:
    def test_summary_and_file(self, source: Path, out: Path) -> None:
        result = invoke("video", source, "-o", out / "a.mp4")
        assert result.exit_code == 0
        assert summary(result) == (10, 10, str(out / "a.mp4"))
        assert result.stderr == ""
        info = probe(out / "a.mp4")
        assert (info.video_codec, info.size, len(info.times)) == ("h264", (160, 120), 10)

    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv", slow("a.mov")])
    def test_audio_and_the_time_of_every_frame_are_kept(self, tmp_path: Path, out: Path, name: str) -> None:
        source = variable_clip(tmp_path / "in.mp4", audio=1)
        assert invoke("video", source, "-o", out / name).exit_code == 0
        before, after = probe(source), probe(out / name)
        assert len(after.times) == 40
        assert after.times == pytest.approx(before.times, abs=1e-3)
        assert after.duration == pytest.approx(2.0, abs=0.1)
        assert after.audio_codecs == before.audio_codecs

    def test_constant_rate(self, tmp_path: Path, out: Path) -> None:
        source = variable_clip(tmp_path / "in.mp4")
        assert invoke("video", source, "-o", out / "a.mp4", "--fps", "30").exit_code == 0
        assert probe(out / "a.mp4").times == pytest.approx([i / 30 for i in range(60)], abs=1e-4)

    @pytest.mark.parametrize(
        ("gaps", "last"), [((), 20.0), (("--gaps", "keep"), 20.0), (("--gaps", "cut"), 0.6)]
    )
    def test_gaps(self, tmp_path: Path, out: Path, gaps: tuple[str, ...], last: float) -> None:
        jump = ("-vf", "setpts=PTS+gte(N\\,5)*19.5/TB", "-fps_mode", "passthrough")
        source = clip(tmp_path / "in.mkv", rate="10", encode=(*jump, "-bf", "0"))
        assert probe(source).times[5] == pytest.approx(20.0)
        assert invoke("video", source, "-o", out / "a.mp4", *gaps).exit_code == 0
        times = probe(out / "a.mp4").times
        assert len(times) == 10
        assert times[5] == pytest.approx(last, abs=0.11)

    def test_smoothing_lowers_the_network_threshold(
        self, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = thresholds_asked(monkeypatch)
        for more in ((), ("--smooth",)):
            result = invoke("video", source, "-o", out / "a.mp4", "--conf", "0.8", "--overwrite", *more)
            assert summary(result) == (10, 10, str(out / "a.mp4"))
        assert asked == [0.8, pytest.approx(0.6)]

    @pytest.mark.parametrize(
        ("flags", "conf"),
        [
            (("--effect", "blur", "--classes", "person"), 0.02),
            (("--effect", "pixelate", "--classes", "person", "--hide", "hull"), 0.02),
            (("--effect", "blur", "--classes", "person", "--conf", "0.4"), 0.4),
            (("--effect", "blur"), None),
            (("--effect", "cutout", "--classes", "person"), None),
        ],
    )
    def test_hiding_chosen_classes_lowers_the_threshold(
        self, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], conf: float | None
    ) -> None:
        asked = thresholds_asked(monkeypatch)
        assert invoke("video", source, "-o", out / "a.mov", *flags).exit_code == 0
        assert asked == [conf]

    @pytest.mark.usefixtures("model")
    def test_hide_chooses_the_region(self, source: Path, out: Path) -> None:
        hidden = []
        for hide in ("mask", "box"):
            target = out / f"{hide}.mp4"
            options = ("--effect", "pixelate", "--hide", hide, "--crf", "0")
            assert invoke("video", source, "-o", target, *options).exit_code == 0
            changed = decode_frames(target)[5].astype(int) - decode_frames(source)[5]
            hidden.append(np.count_nonzero(np.abs(changed).max(axis=2) > 30))
        assert hidden[1] > hidden[0]

    def test_quiet_prints_nothing(self, source: Path, out: Path) -> None:
        result = invoke("video", source, "-o", out / "a.mp4", "--quiet")
        assert (result.exit_code, result.output, names(out)) == (0, "", ["a.mp4"])

    def test_json_without_video(self, source: Path, out: Path) -> None:
        result = invoke("video", source, "--json", out / "a.jsonl")
        assert summary(result) == (10, 10, str(out / "a.jsonl"))
        lines = [json.loads(line) for line in (out / "a.jsonl").read_text().splitlines()]
        assert [line["index"] for line in lines] == list(range(10))
        assert [line["seconds"] for line in lines] == pytest.approx([i / 10 for i in range(10)], abs=1e-3)
        for line in lines:
            assert line["size"] == [160, 120]
            (person,) = line["instances"]
            assert (person["class"], person["score"]) == ("person", 0.9)
            confirmed = line["index"] >= 1
            assert person.get("track_id") == (1 if confirmed else None)
            bitmap = coco_mask.decode(person["mask"])
            assert bitmap.shape == (120, 160)
            assert bitmap[10:110, 10:70].all()
            assert not bitmap[:, 90:].any()

    def test_json_to_stdout(self, source: Path, out: Path) -> None:
        result = invoke("video", source, "--json", "-", "-o", out / "a.mp4")
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        assert [line["index"] for line in lines] == list(range(10))
        assert "10 frames" in result.stderr
        assert names(out) == ["a.mp4"]
        assert not Path("-").exists()
        refused = invoke("video", source, source, "--json", "-")
        assert (refused.exit_code, "--json - needs a single input" in refused.stderr) == (2, True)

    def test_json_is_written_frame_by_frame(
        self, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines: list[int] = []

        class Looks(StandIn):
            def __call__(self, images: list[Image]) -> list[Instances]:
                lines.append((out / "a.partial.jsonl").read_bytes().count(b"\n"))
                return super().__call__(images)

        monkeypatch.setattr(Options, "load", lambda _: Looks())
        assert invoke("video", source, "--json", out / "a.jsonl", "--batch", "1").exit_code == 0
        # One result may be queued and one being written during the next call.
        assert all(count >= index - 2 for index, count in enumerate(lines))

    def test_folder_of_frames_as_source(self, tmp_path: Path, out: Path) -> None:
        for index in range(3):
            image_file(tmp_path / "frames" / f"{index}.png")
        for fps, options in ((25, ()), (10, ("--fps", "10"))):
            result = invoke("video", tmp_path / "frames", "-o", out / "a.mp4", "--overwrite", *options)
            assert summary(result)[0] == 3
            assert probe(out / "a.mp4").times == pytest.approx([i / fps for i in range(3)], abs=1e-4)

    def test_batch_limits_the_number_of_frames_per_call(
        self, source: Path, out: Path, model: StandIn
    ) -> None:
        assert invoke("video", source, "--json", out / "a.jsonl", "--batch", "2").exit_code == 0
        assert max(model.batches) <= 2
        assert sum(model.batches) == 10

    def test_higher_crf_makes_a_smaller_file(self, source: Path, out: Path) -> None:
        for crf in ("10", "40"):
            assert invoke("video", source, "-o", out / f"{crf}.mp4", "--crf", crf).exit_code == 0
        assert (out / "10.mp4").stat().st_size > (out / "40.mp4").stat().st_size

    def test_closing_the_window_ends_the_run(
        self, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        titles: list[str] = []

        class Impatient(Sink):
            def __init__(self, title: str) -> None:
                titles.append(title)

            def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
                return frame.index < 3

            def wait(self, seconds: float) -> bool:  # noqa: ARG002
                return True

            def close(self, complete: bool = True) -> None:
                assert complete

        monkeypatch.setattr(window, "Window", Impatient)
        result = invoke("video", source, "--show", "-o", out / "a.mp4")
        assert (result.exit_code, summary(result)[0]) == (0, 4)
        assert len(probe(out / "a.mp4").times) == 4
        assert titles == [f"live-seg {source}"]

    def test_window_without_output(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Patient(Sink):
            def __init__(self, title: str) -> None: ...

            def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
                shown.append(time.monotonic())
                return True

            def wait(self, seconds: float) -> bool:
                time.sleep(seconds)
                return True

            def close(self, complete: bool = True) -> None: ...

        shown: list[float] = []
        monkeypatch.setattr(window, "Window", Patient)
        result = invoke("video", source, "--show")
        assert re.fullmatch(r"10 frames in .* 10 instances; small with a stand-in\n", result.stdout)
        assert shown[-1] - shown[0] > 0.7  # 10 frames at 10 per second

    def test_progress_bar_on_a_terminal(self, source: Path, out: Path) -> None:
        if sys.platform == "win32":
            pytest.skip("needs a terminal")
        import pty
        import termios

        terminal, their_end = pty.openpty()
        termios.tcsetwinsize(their_end, (24, 80))
        command = [*program(STAND_IN), "video", str(source), "-o", str(out / "a.mp4")]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=their_end, check=True)
        os.close(their_end)
        bar = os.read(terminal, 1 << 16).decode()
        os.close(terminal)
        assert SUMMARY.fullmatch(done.stdout.decode())
        assert re.search(r"10/10 .*frames/s", bar)

    def test_every_n_segments_each_nth_frame_and_writes_all(
        self, source: Path, out: Path, model: StandIn
    ) -> None:
        outputs = ("-o", out / "a.mp4", "--json", out / "a.jsonl")
        assert summary(invoke("video", source, *outputs, "--every", "4"))[0] == 10
        assert sum(model.batches) == 3
        assert len(probe(out / "a.mp4").times) == 10
        lines = [json.loads(line) for line in (out / "a.jsonl").read_text().splitlines()]
        assert [len(line["instances"]) for line in lines] == [1] * 10

    @pytest.mark.parametrize(
        "options", [("--every", "2", "--no-propagate"), ("--every", "2", "--policy", "latest")]
    )
    def test_every_requires_propagation(self, source: Path, out: Path, options: tuple[str, ...]) -> None:
        result = invoke("video", source, "-o", out / "a.mp4", *options)
        assert (result.exit_code, names(out)) == (2, [])
        assert "every=2" in result.stderr

    @pytest.mark.parametrize("folder", ["new", "there"])
    def test_output_folder_receives_images(self, source: Path, out: Path, folder: str) -> None:
        (out / "there").mkdir()
        result = invoke("video", source, "-o", out / folder)
        assert summary(result) == (10, 10, str(out / folder))
        assert names(out / folder) == [f"{index:06d}.png" for index in range(10)]


@pytest.mark.usefixtures("model")
class TestEffects:
    def test_cutouts_as_images_in_a_folder(self, source: Path, out: Path) -> None:
        assert invoke("video", source, "-o", out / "cut", "--effect", "cutout").exit_code == 0
        assert len(names(out / "cut")) == 10
        cut = cv2.imread(str(out / "cut" / "000003.png"), cv2.IMREAD_UNCHANGED)
        assert cut is not None
        assert cut.shape == (120, 160, 4)
        assert np.all(cut[:, :60, 3] == 255)
        assert np.all(cut[:, 100:, 3] == 0)

    def test_cutouts_as_a_transparent_video(self, source: Path, out: Path) -> None:
        assert invoke("video", source, "-o", out / "a.mov", "--effect", "cutout").exit_code == 0
        info = probe(out / "a.mov")
        assert (info.video_codec, len(info.times)) == ("prores", 10)
        assert info.pixel_format is not None
        assert info.pixel_format.startswith("yuva444p")

    @pytest.mark.parametrize("command", ["image", "video"])
    @pytest.mark.parametrize(
        ("effect", "code", "message"),
        [
            ("blurr", 2, "There is no effect 'blurr'"),
            ("replace-background", 2, "replace-background=beach.jpg"),
            ("replace-background=nowhere.jpg", 3, "nowhere.jpg"),
        ],
    )
    def test_invalid_effect_is_reported_before_the_model_loads(
        self,
        source: Path,
        out: Path,
        monkeypatch: pytest.MonkeyPatch,
        command: str,
        effect: str,
        code: int,
        message: str,
    ) -> None:
        monkeypatch.setattr(Options, "load", lambda _: pytest.fail("the model was loaded"))
        given = image_file(out.parent / "in.png") if command == "image" else source
        result = invoke(command, given, "-o", out / "drawn", "--effect", effect)
        assert (result.exit_code, names(out)) == (code, [])
        assert message in result.stderr

    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
    def test_cutout_requires_a_format_with_alpha(
        self, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setattr(Options, "load", lambda _: pytest.fail("the model was loaded"))
        result = invoke("video", source, "-o", out / name, "--effect", "cutout")
        assert (result.exit_code, names(out)) == (3, [])
        assert ".mov" in result.stderr

    @pytest.mark.parametrize("effect", ["blur", "pixelate", "blur-background", "grey-background", "cutout"])
    def test_effect_changes_only_its_part_of_an_image(self, out: Path, effect: str) -> None:
        checks = (np.indices((60, 80)).sum(axis=0) % 2 * 255).astype(np.uint8)
        path = out.parent / "in.png"
        coloured = np.stack([checks, checks // 2, checks // 4], axis=2)
        cv2.imwrite(str(path), coloured)
        assert invoke("image", path, "-o", out / "a.png", "--effect", effect).exit_code == 0
        drawn = cv2.imread(str(out / "a.png"), cv2.IMREAD_UNCHANGED)
        assert drawn is not None
        left, right = (
            (
                bool(np.array_equal(drawn[5:55, columns], coloured[5:55, columns]))
                for columns in (slice(5, 30), slice(50, 75))
                if effect != "cutout"
            )
            if effect != "cutout"
            else (drawn[30, 20, 3] == 255, drawn[30, 70, 3] == 255)
        )
        assert (left, right) == ((False, True) if effect in ("blur", "pixelate") else (True, False))


class Misses(StandIn):
    """Find the person in the frames `seen` only, who disappears from the frames `gone`."""

    def __init__(self, *seen: int) -> None:
        super().__init__()
        self.seen = seen

    def __call__(self, images: list[Image]) -> list[Instances]:
        first = sum(self.batches)
        found = super().__call__(images)
        return [one if first + i in self.seen else Instances.empty() for i, one in enumerate(found)]


class TestHidingOverTime:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        """A still clip of 20 frames."""
        (tmp_path / "in").mkdir()
        return clip(tmp_path / "in" / "in.mp4", rate="10", seconds=2, pattern="smptebars")

    @pytest.fixture(autouse=True)
    def model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Options, "load", lambda _: Misses(8, 9, 12))

    def changed(self, source: Path, folder: Path, region: tuple[slice, slice] = np.s_[20:100, 10:70]) -> str:
        """Return "x" for each frame whose region is changed in the images in `folder`, else "."."""
        plain = decode_frames(source)
        drawn = [read_image(folder / name) for name in names(folder)]
        large = [np.abs(a.astype(int) - b)[region].max() > 60 for a, b in zip(plain, drawn, strict=True)]
        return "".join("x" if one else "." for one in large)

    @pytest.mark.parametrize("effect", ["blur", slow("pixelate")])
    def test_a_file_is_hidden_in_gaps_and_half_a_second_past_both_ends(
        self, source: Path, out: Path, effect: str
    ) -> None:
        outputs = ("-o", out / "drawn", "--json", out / "a.jsonl")
        result = invoke("video", source, *outputs, "--effect", effect)
        assert summary(result) == (20, 3, str(out / "drawn"))
        assert self.changed(source, out / "drawn") == "...xxxxxxxxxxxxxxx.."
        lines = [json.loads(line) for line in (out / "a.jsonl").read_text().splitlines()]
        assert [line["index"] for line in lines if line["instances"]] == [8, 9, 12]

    def test_a_part_of_a_file(self, source: Path, out: Path) -> None:
        part = ("--start", "0.55", "--end", "1.45")  # frames 6 to 14
        assert invoke("video", source, "-o", out / "a", "--effect", "blur", *part).exit_code == 0
        whole = decode_frames(source)
        drawn = [read_image(out / "a" / name) for name in names(out / "a")]
        assert len(drawn) == 9
        np.testing.assert_array_equal(drawn[0][:, 100:], whole[6][:, 100:])

    def test_the_whole_frame_is_hidden_where_a_track_is_lost(
        self, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = np.s_[20:100, 100:150]
        monkeypatch.setattr(Options, "load", lambda _: Misses(0, 1))
        for flags, expected in (((), "." * 20), (("--fail-secure",), "." * 7 + "x" * 10 + "...")):
            result = invoke("video", source, "-o", out / f"a{len(flags)}", "--effect", "blur", *flags)
            assert result.exit_code == 0
            assert self.changed(source, out / f"a{len(flags)}", right) == expected

    def test_an_audit_is_written_beside_the_video(self, source: Path, out: Path) -> None:
        options = ("--effect", "blur", "--audit", out / "audit.json")
        result = invoke("video", source, "-o", out / "a.mp4", *options)
        assert (result.exit_code, names(out)) == (0, ["a.mp4", "audit.jpg", "audit.json"])
        report = json.loads((out / "audit.json").read_text())
        (track,) = report["tracks"]
        assert [(one["first"], one["last"]) for one in track["detected"]] == [(8, 9), (12, 12)]
        assert [(one["first"], one["last"]) for one in track["propagated"]] == [(3, 7), (10, 11), (13, 17)]
        assert [(one["first"], one["last"]) for one in track["uncertain"]] == [(18, 19)]

    def test_keyframes_are_propagated_backwards_too(
        self, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Options, "load", lambda _: Misses(2, 3))  # of the segmented frames: 8 and 12
        options = ("--effect", "blur", "--every", "4")
        assert invoke("video", source, "-o", out / "a", *options).exit_code == 0
        assert self.changed(source, out / "a")[:17] == "...xxxxxxxxxxxxxx"

    def test_a_folder_of_images(self, source: Path, out: Path, tmp_path: Path) -> None:
        for index, image in enumerate(decode_frames(source)):
            (tmp_path / "frames").mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / "frames" / f"{index:03d}.png"), image)
        options = ("--effect", "blur", "--fps", "10")
        assert invoke("video", tmp_path / "frames", "-o", out / "a", *options).exit_code == 0
        assert self.changed(source, out / "a") == "...xxxxxxxxxxxxxxx.."

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (("--fail-secure",), "--fail-secure would do nothing: it applies to --effect blur"),
            (("--audit", "a.json"), "--audit would do nothing: it applies to --effect blur"),
            (("--effect", "blur", "--delay", "1"), "--delay would do nothing: .* is a file, which is read"),
            (("--effect", "blur", "--audit", "a.txt"), "ends in .json"),
        ],
    )
    def test_useless_options_are_refused(
        self, source: Path, out: Path, flags: tuple[str, ...], message: str
    ) -> None:
        result = invoke("video", source, "-o", out / "a.mp4", *flags)
        assert result.exit_code == 2
        assert re.search(message, result.stderr)
        assert names(out) == []


@pytest.mark.usefixtures("model")
class TestImage:
    def test_one_image_to_one_file(self, tmp_path: Path, out: Path) -> None:
        result = invoke("image", image_file(tmp_path / "cat.jpg"), "-o", out / "drawn.jpg")
        assert summary(result) == (1, 1, str(out / "drawn.jpg"))
        assert names(out) == ["drawn.jpg"]

    @pytest.mark.parametrize("spec", ["photos", "photos/*.png"])
    def test_images_of_a_folder_or_glob_keep_their_names(self, tmp_path: Path, out: Path, spec: str) -> None:
        for name in ("b10.png", "b9.png", "a.png"):
            image_file(tmp_path / "photos" / name)
        result = invoke("image", tmp_path / spec, "-o", out / "drawn")
        assert (result.exit_code, names(out / "drawn")) == (0, ["a.png", "b10.png", "b9.png"])

    @pytest.mark.parametrize("second", ["cat", "CAT"])
    def test_equal_names_are_numbered(self, tmp_path: Path, out: Path, second: str) -> None:
        paths = [
            image_file(tmp_path / "a" / "cat.png", 50),
            image_file(tmp_path / "b" / f"{second}.jpg", 200),
        ]
        assert summary(invoke("image", *paths, "-o", out))[0] == 2
        assert names(out) == ["000000_cat.png", f"000001_{second}.png"]
        right = [int(read_image(out / name)[30, 75, 0]) for name in names(out)]
        assert right == [50, 200]

    def test_several_images_need_an_output_folder(self, tmp_path: Path, out: Path) -> None:
        paths = [image_file(tmp_path / "in" / f"{i}.png") for i in range(2)]
        result = invoke("image", *paths, "-o", out / "a.png")
        assert result.exit_code == 3
        assert "Give a folder instead" in result.stderr

    @pytest.mark.parametrize("command", ["image", "video"])
    def test_a_damaged_photo_is_skipped(
        self, tmp_path: Path, out: Path, command: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        photos = [image_file(tmp_path / "photos" / f"{name}.jpg") for name in "abcd"]
        photos[0].write_bytes(b"")
        photos[2].write_text("not an image")
        result = invoke(command, tmp_path / "photos", "-o", out / "drawn", "--json", out / "a.jsonl")
        assert result.exit_code == 3
        assert summary_of(result.stdout) == (2, 2, str(out / "drawn"))
        assert f"Skipped: Cannot read {photos[2]}: it is damaged" in caplog.text
        assert result.stderr == (
            f"live-seg: 2 of 4 images could not be read and were skipped:\n  {photos[0]}\n  {photos[2]}\n"
        )
        drawn = ["b.png", "d.png"] if command == "image" else ["000001.png", "000003.png"]
        assert (names(out), names(out / "drawn")) == (["a.jsonl", "drawn"], drawn)
        assert [json.loads(line)["index"] for line in (out / "a.jsonl").read_text().splitlines()] == [1, 3]

    def test_only_damaged_photos(self, tmp_path: Path, out: Path) -> None:
        photos = [image_file(tmp_path / "photos" / f"{name}.jpg") for name in "ab"]
        for photo in photos:
            photo.write_text("not an image")
        result = invoke("image", *photos, "-o", out / "drawn")
        assert (result.exit_code, result.stdout, names(out)) == (3, "", [])
        assert f"Cannot read {photos[0]}: it is damaged" in result.stderr

    def test_a_damaged_frame_does_not_stop_a_video(self, tmp_path: Path, out: Path) -> None:
        photos = [image_file(tmp_path / "photos" / f"{name}.jpg") for name in "abcdef"]
        photos[3].write_text("not an image")
        result = invoke("video", tmp_path / "photos", "-o", out / "a.mp4")
        assert (result.exit_code, names(out)) == (3, ["a.mp4"])
        assert probe(out / "a.mp4").times == pytest.approx([n / 25 for n in (0, 1, 2, 4, 5)], abs=1e-4)

    def test_json_of_photos_has_null_track_ids(self, tmp_path: Path, out: Path) -> None:
        path = image_file(tmp_path / "cat.png")
        assert invoke("image", path, "-o", out / "a.png", "--json", out / "a.jsonl").exit_code == 0
        (person,) = json.loads((out / "a.jsonl").read_text())["instances"]
        assert person["track_id"] is None

    def test_labels_boxes_and_masks_can_be_switched_off(self, tmp_path: Path, out: Path) -> None:
        path = image_file(tmp_path / "cat.png")
        bare = ("--alpha", "0", "--no-labels", "--no-boxes")
        for name, options in (("all", ()), ("bare", bare)):
            assert invoke("image", path, "-o", out / f"{name}.png", *options).exit_code == 0
        everything, hardly = (read_image(out / f"{name}.png") for name in ("all", "bare"))
        assert np.all(everything[45, 20] != 100)
        assert np.all(hardly[10:50, 10:30] == 100)
        assert np.all(everything[:, 75:] == 100)


@pytest.mark.usefixtures("model")
def test_demo(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.DemoClip, "frames", 4)
    assert summary(invoke("demo", "-o", out / "a.mp4")) == (4, 4, str(out / "a.mp4"))
    assert len(probe(out / "a.mp4").times) == 4
    again = invoke("demo", "-o", out / "a.mp4")
    assert (again.exit_code, again.stdout) == (3, "")
    assert invoke("demo", "-o", out / "a.mp4", "--overwrite", "--quiet").output == ""


class TestWeights:
    def test_list_shows_all_known_weights(self) -> None:
        result = invoke("weights", "list")
        assert result.exit_code == 0
        assert [line.split()[0] for line in result.stdout.splitlines()] == list(WEIGHTS)

    def test_verify_and_download_bundled_weights(self) -> None:
        for name in ("small", "person"):
            assert re.fullmatch(
                r".*small\.weights\.h5 is valid\.\n", invoke("weights", "verify", name).stdout
            )
            assert Path(invoke("weights", "download", name).stdout.strip()).is_file()

    @pytest.mark.parametrize("command", ["verify", "download"])
    def test_unknown_name_suggests_the_nearest(self, command: str) -> None:
        result = invoke("weights", command, "cocoo")
        assert result.exit_code == 4
        assert "Did you mean coco or coco-v2?" in result.stderr


class TestRealModel:
    def test_unknown_model_is_reported(self, source: Path, out: Path) -> None:
        result = invoke("video", source, "-o", out / "a.mp4", "--model", "persn")
        assert (result.exit_code, result.stdout, names(out)) == (4, "", [])
        assert result.stderr == (
            "live-seg: There is no model and no file called 'persn'. Did you mean person?\n"
        )

    def test_damaged_weights(self, tmp_path: Path, out: Path) -> None:
        path = tmp_path / "mine.h5"
        path.write_text("This is no HDF5.")
        result = invoke("image", image_file(tmp_path / "a.png"), "-o", out / "a.png", "--model", path)
        assert (result.exit_code, names(out)) == (4, [])
        assert "mine.h5" in result.stderr

    def test_unreadable_card(self, tmp_path: Path, out: Path) -> None:
        (tmp_path / "mine.weights.h5").touch()
        (tmp_path / "mine.json").mkdir()
        model = tmp_path / "mine.weights.h5"
        result = invoke("image", image_file(tmp_path / "a.png"), "-o", out / "a.png", "--model", model)
        assert (result.exit_code, names(out)) == (4, [])
        assert "mine.json" in result.stderr

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--classes", "person,persn"], "no class 'persn'. Did you mean person?"),
            (["--size", "10"], "too small"),
            (["--layout", "square", "--size", "100"], "multiple of 64"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_invalid_model_options(self, tmp_path: Path, out: Path, options: list[str], message: str) -> None:
        result = invoke("image", image_file(tmp_path / "a.png"), "-o", out / "a.png", *options)
        assert (result.exit_code, names(out)) == (2, [])
        assert message in result.stderr

    def test_quiet_also_silences_tensorflow(self, tmp_path: Path, out: Path) -> None:
        path = image_file(tmp_path / "a.png")
        done = process(
            "image", path, "-o", out / "a.png", "--quiet", "--size", "64", "--json", out / "a.jsonl"
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert names(out) == ["a.jsonl", "a.png"]


class Failing(StandIn):
    """Fails on batch number `fatal`."""

    def __init__(self, fatal: int) -> None:
        super().__init__()
        self.fatal = fatal

    def __call__(self, images: list[Image]) -> list[Instances]:
        if len(self.batches) == self.fatal:
            raise ZeroDivisionError("no such number")
        return super().__call__(images)


UNEXPECTED = (
    "live-seg: unexpected ZeroDivisionError: no such number\nSet LIVE_SEG_DEBUG=1 to see the traceback.\n"
)


class TestFaults:
    @pytest.mark.parametrize(("fatal", "left"), [(0, []), (3, ["a.partial.jsonl", "a.partial.mp4"])])
    def test_error_in_the_model(
        self, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, fatal: int, left: list[str]
    ) -> None:
        monkeypatch.setattr(Options, "load", lambda _: Failing(fatal))
        outputs = ("-o", out / "a.mp4", "--json", out / "a.jsonl")
        result = invoke("video", source, *outputs, "--batch", "1")
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", UNEXPECTED)
        assert names(out) == left
        if left:
            assert len(decode_frames(out / "a.partial.mp4")) == fatal

    def test_debug_variable_shows_the_traceback(
        self, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Options, "load", lambda _: Failing(0))
        monkeypatch.setenv("LIVE_SEG_DEBUG", "1")
        result = CliRunner().invoke(app, ["video", str(source), "-o", str(out / "a.mp4")])
        assert isinstance(result.exception, ZeroDivisionError)
        assert result.exit_code == 1

    @pytest.mark.parametrize("shown", [False, slow(True)])
    def test_error_in_a_real_process(self, source: Path, out: Path, shown: bool) -> None:
        broken = """
            class Broken(StandIn):
                def __call__(self, images):
                    raise ZeroDivisionError("no such number")
            load = lambda options: Broken()
        """
        debug = {"LIVE_SEG_DEBUG": "1"} if shown else {}
        done = process("video", source, "-o", out / "a.mp4", model=broken, **debug)
        assert (done.returncode, done.stdout, names(out)) == (1, "", [])
        if shown:
            assert done.stderr.startswith("Traceback")
            assert done.stderr.endswith("ZeroDivisionError: no such number\n")
        else:
            assert done.stderr == UNEXPECTED

    @pytest.mark.usefixtures("model")
    def test_error_in_drawing(self, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> Image:
            raise ZeroDivisionError("no such number")

        monkeypatch.setattr("live_seg.drawing.annotate.draw", fail)
        result = invoke("video", source, "-o", out / "a.mp4")
        assert (result.exit_code, result.stderr, names(out)) == (1, UNEXPECTED, [])

    @pytest.mark.usefixtures("model")
    def test_error_in_the_video_writer(
        self, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake = out / "ffmpeg"
        fake.write_text('#!/bin/sh\nhead -c 5000 >/dev/null\necho "boom, said ffmpeg" >&2\nexit 1\n')
        fake.chmod(0o755)
        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
        result = invoke("video", source, "-o", out / "a.mp4")
        assert (result.exit_code, result.stdout, names(out)) == (3, "", ["ffmpeg"])
        assert "boom, said ffmpeg" in result.stderr

    @pytest.mark.usefixtures("model")
    @pytest.mark.parametrize("output", ["-o a.mp4 --crf 0", "--json a.jsonl"])
    def test_full_disk(self, tmp_path: Path, output: str) -> None:
        source = clip(tmp_path / "in.mp4", seconds=4)
        option, name, *more = output.split()
        with small_disk(tmp_path / "disk", kibibytes=40 if option == "-o" else 16) as disk:
            result = invoke("video", source, option, disk / name, *more)
            assert (result.exit_code, result.stdout) == (3, "")
            assert "No space left on device" in result.stderr
            (partial,) = disk.iterdir()
            assert partial.name == name.replace(".", ".partial.")
            assert f"The output so far is in {partial}." in result.stderr
            if option == "-o":
                assert len(probe(partial).times) >= 5
            else:
                lines = partial.read_text().splitlines()
                assert [json.loads(line)["index"] for line in lines] == list(range(len(lines)))
                assert len(lines) >= 5

    def test_closed_stdout_ends_silently(self) -> None:
        shell = f"{sys.executable} -c 'from live_seg.cli.main import main; main()' weights list | true"
        done = subprocess.run(["sh", "-c", shell], cwd=ROOT, capture_output=True, check=True)
        assert done.stderr == b""


SLOW = """
    import time
    class Slow(StandIn):
        def __call__(self, images):
            time.sleep(0.02)
            if len(self.batches) == 10:
                print("running", flush=True)
            return super().__call__(images)
    load = lambda options: Slow()
"""

LOADING = """
    def load(options):
        print("running", flush=True)
        signal.pause()
"""


def interrupted(model: str, *arguments: str | Path) -> tuple[int, str, str]:
    """Run the program and send SIGINT once it prints "running". Returns exit code, stdout and stderr."""
    before = set(psutil.Process().children(recursive=True))
    with subprocess.Popen(
        [*program(model), *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate()
    assert set(psutil.Process().children(recursive=True)) <= before
    return process.returncode, stdout, stderr


class TestInterrupt:
    def test_ctrl_c_during_a_video_completes_the_outputs(self, tmp_path: Path, out: Path) -> None:
        source = clip(tmp_path / "in.mp4", seconds=10, audio=1)
        outputs = ("-o", out / "a.mp4", "--json", out / "a.jsonl", "--batch", "1")
        code, stdout, stderr = interrupted(SLOW, "video", source, *outputs)
        assert (code, stderr) == (130, "")
        match = SUMMARY.fullmatch(stdout)
        assert match, stdout
        frames = int(match[2])
        assert (match[1], match[5]) == ("Interrupted: ", str(out / "a.mp4"))
        assert 5 <= frames < 300
        assert names(out) == ["a.jsonl", "a.mp4"]
        # The signal may arrive after a frame is written and before it is counted.
        video = probe(out / "a.mp4")
        assert frames - 1 <= len(video.times) <= frames + 1
        assert video.duration == pytest.approx(frames / 30, abs=0.1)
        assert len(decode_frames(out / "a.mp4")) == len(video.times)
        ((_, audio_end),) = video.audio_spans
        assert audio_end == pytest.approx(frames / 30, abs=0.1)
        assert frames - 1 <= len((out / "a.jsonl").read_text().splitlines()) <= frames + 1

    def test_ctrl_c_before_the_first_frame_leaves_no_file(self, source: Path, out: Path) -> None:
        outputs = ("-o", out / "a.mp4", "--json", out / "a.jsonl")
        code, stdout, stderr = interrupted(LOADING, "video", source, *outputs)
        assert (code, stderr, names(out)) == (130, "", [])
        assert stdout == "Interrupted: 0 frames in 0.0 s (0.0 fps), 0 instances\n"


STUCK = """
    import os, threading
    from live_seg.sources import cameras, live
    from tests.live import FakeCapture
    class Stuck(FakeCapture):
        def read(self):
            threading.Event().wait()
    live.GRACE = live.CLOSE_TIMEOUT = 0.05
    cameras.open_capture = lambda *_: Stuck()
    leave = os._exit
    os._exit = lambda code: (print("left behind", flush=True), leave(code))
    load = lambda options: StandIn()
"""


@pytest.mark.parametrize("stuck", [True, slow(False)])
def test_exit_does_not_wait_for_a_blocked_driver(out: Path, stuck: bool) -> None:
    arguments = ("webcam", "--show", "none", "--timeout", "0.2", "--json", out / "a.jsonl")
    source = () if stuck else ("--source", out / "nowhere.mp4")
    done = process(*arguments, *source, model=STUCK if stuck else STAND_IN)
    assert done.returncode == 3
    assert done.stdout == ("left behind\n" if stuck else "")
    assert re.fullmatch(r"live-seg: .*\n", done.stderr)


MEASURED = """
    import psutil
    class Measured(StandIn):
        most = 0
        def __call__(self, images):
            Measured.most = max(Measured.most, psutil.Process().memory_info().rss)
            return super().__call__(images)
    load = lambda options: Measured()
    import atexit, sys
    atexit.register(lambda: print(Measured.most, file=sys.stderr))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_video_length(tmp_path: Path) -> None:
    most = []
    for frames in (300, 3000):
        source = clip(tmp_path / f"{frames}.mp4", seconds=frames / 30)
        outputs = ("-o", tmp_path / f"{frames}.out.mp4", "--json", tmp_path / f"{frames}.jsonl")
        done = process("video", source, *outputs, model=MEASURED)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{frames} frames")
        most.append(int(done.stderr))
    assert most[1] - most[0] < 50e6
