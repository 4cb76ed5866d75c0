"""`live-seg bench` with stand-ins for engines, on real clips. No speed is asserted."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from live_seg.benchmark import stages
from live_seg.benchmark.benchmark import benchmark
from live_seg.benchmark.end_to_end import Excerpt, end_to_end_fps
from live_seg.benchmark.launch import measure_command, run_command
from live_seg.benchmark.measurement import Measurement, in_columns
from live_seg.benchmark.report import as_json, comparison, speedups, table
from live_seg.benchmark.stages import Candidate
from live_seg.cli import bench
from live_seg.cli.main import app
from live_seg.cli.options import ModelOptions
from live_seg.engines.engine import Engine, Found, Pixels
from live_seg.errors import LiveSegError, SourceError
from live_seg.segmenter import Segmenter
from live_seg.sources.demo import DemoClip
from live_seg.sources.opening import open_source
from live_seg.timing import NO_TIMER, StageTimer
from live_seg.types import Frame
from tests.clips import clip, probe
from tests.stand_ins import TINY

FRAMES = 10
STAGES = ["decode", "prepare", "trunk", "heads", "masks", "to pixels", "track", "draw", "encode"]
PNG = b"\x89PNG\r\n\x1a\n"
NOTHING = [sys.executable, "-S", "-E", "-c", "pass"]
"""A program that does nothing, whatever its arguments are."""


class FakeEngine(Engine):
    """Finds one person from its second call on; appends its name and the batch size to `calls`."""

    def __init__(self, name: str = "auto", calls: list[tuple[str, int]] | None = None) -> None:
        self.config = TINY
        self.name = name
        self.calls = [] if calls is None else calls

    @property
    def device(self) -> str:
        return f"thin air, {self.name}"

    def detect(self, images: Pixels, windows: NDArray[np.float32]) -> tuple[list[str], Found]:
        with self.timer("trunk"):
            self.calls.append((self.name, len(images)))
        with self.timer("heads"):
            rows = np.arange(len(images) if len(self.calls) > 1 else 0, dtype=np.int32)
            return ["maps"], Found(
                rows, windows[rows] * 0.5, np.ones(len(rows), np.int32), np.full(len(rows), 0.9, np.float32)
            )

    def masks(self, maps: list[str], found: Found) -> NDArray[np.float32]:
        with self.timer("masks"):
            assert maps == ["maps"]
            return np.ones((len(found.rows), 28, 28), np.float32)


def candidate(name: str = "auto", calls: list[tuple[str, int]] | None = None) -> Candidate:
    return Candidate(name, Segmenter(FakeEngine(name, calls), ("background", "person")))


def measurement(name: str = "keras", scale: float = 1.0, frames: int = 4) -> Measurement:
    column = scale * np.arange(1.0, frames + 1) / 1000
    columns = {"decode": column / scale, "trunk": 5 * column, "heads": 2 * column, "encode": column / scale}
    return Measurement(name, "thin air", columns, 40.0 / scale, 2.0 * scale, 300 * 2**20)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("in") / "street.mp4", rate="10", size="64x48")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Replace the engines and the program of the command. Returns the calls of the engines."""
    calls: list[tuple[str, int]] = []
    load = lambda options: candidate(options.engine, calls).segment  # noqa: E731
    monkeypatch.setattr(ModelOptions, "load", load)
    monkeypatch.setattr(bench, "PROGRAM", tuple(NOTHING))
    return calls


def invoke(*words: str | int | Path) -> Result:
    result = CliRunner().invoke(app, ["bench", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result


class TestStageTimer:
    def test_lap_adds_repeated_stages_and_resets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = iter([1.0, 2.0, 10.0, 14.0, 20.0, 20.5])
        monkeypatch.setattr("time.perf_counter", lambda: next(clock))
        timer = StageTimer()
        for stage in ("trunk", "heads", "trunk"):
            with timer(stage):
                pass
        assert timer.lap() == {"trunk": 1.5, "heads": 4.0}
        assert timer.lap() == {}

    def test_failed_stage_is_not_counted(self) -> None:
        timer = StageTimer()
        with pytest.raises(MemoryError), timer("trunk"):
            raise MemoryError
        assert timer.lap() == {}

    def test_no_op_timer_allows_nested_stages(self) -> None:
        with NO_TIMER("trunk"), NO_TIMER("heads"):
            assert FakeEngine().timer is NO_TIMER


class TestColumns:
    def test_columns_are_in_frame_order_with_zero_for_absent_stages(self) -> None:
        laps = [{"decode": 1.0, "trunk": 2.0, "draw": 3.0}, {"trunk": 4.0, "masks": 5.0, "to pixels": 6.0}]
        columns = in_columns(laps)
        assert list(columns) == ["decode", "trunk", "masks", "to pixels", "draw"]
        assert [column.tolist() for column in columns.values()] == [[1, 0], [2, 4], [0, 5], [0, 6], [3, 0]]

    def test_stages_of_the_engine_are_the_network(self) -> None:
        assert measurement().parts == ("trunk", "heads")
        assert measurement().network.tolist() == pytest.approx([0.007, 0.014, 0.021, 0.028])
        assert measurement().total.tolist() == pytest.approx([0.009, 0.018, 0.027, 0.036])
        assert measurement().network_fps == pytest.approx(4 / 0.07)


class TestReport:
    def test_table_lists_every_stage_and_the_summary(self) -> None:
        lines = table(measurement()).splitlines()
        assert lines[0] == "keras, runs on thin air"
        assert [line[:15].rstrip() for line in lines[2:8]] == [
            "decode",
            "network",
            "  trunk",
            "  heads",
            "encode",
            "all",
        ]
        assert lines[3].split() == ["network", "17.5", "26.9", "78%"]
        assert lines[8:] == [
            "end to end 40.0 fps (network alone 57.1 fps: 0.70 of it)",
            "start-up 2.0 s",
            "peak memory 300 MiB",
        ]
        assert len({len(line) for line in lines[1:8]}) == 1, "not aligned"

    @settings(max_examples=30, deadline=None)
    @given(arrays(np.float64, (3, 5), elements=st.floats(0.0, 10.0)))
    def test_stages_add_up_to_the_total(self, times: NDArray[np.float64]) -> None:
        columns = dict(zip(("decode", "trunk", "draw"), times, strict=True))
        found = as_json([Measurement("keras", "", columns, 1.0, 1.0, 1)])[0]["stages"]
        parts = [found[name]["mean_ms"] for name in columns]
        assert sum(parts) == pytest.approx(found["all"]["mean_ms"])
        for entry in found.values():
            assert entry["median_ms"] <= entry["p95_ms"] or entry["p95_ms"] == pytest.approx(
                entry["median_ms"]
            )

    def test_speedups_compare_frame_by_frame(self) -> None:
        slow, fast = measurement(), measurement("openvino", 0.5)
        found = speedups(fast, slow)
        assert found == pytest.approx(
            {"network": 2.0, "one frame": 9 / 5.5, "end to end": 2.0, "start-up": 2.0}
        )
        assert comparison([slow, fast]).splitlines()[0] == "times as fast as keras"
        assert comparison([slow, fast]).splitlines()[-1].split() == [
            "openvino",
            "2.00x",
            "1.64x",
            "2.00x",
            "2.00x",
        ]

    def test_engine_without_timed_stages(self) -> None:
        silent = Measurement("auto", "thin air", {"decode": np.ones(2)}, 1.0, 1.0, 1)
        assert speedups(silent, silent)["network"] is None
        assert "end to end 1.0 fps\n" in table(silent)
        assert " - " in comparison([silent, silent])


class TestStages:
    def test_every_frame_is_timed_in_every_stage(self, street: Path, tmp_path: Path) -> None:
        video = tmp_path / "drawn.mp4"
        with open_source(street) as source:
            (columns,) = stages.measure(source, [candidate()], video, batch=4)
        assert list(columns) == STAGES
        assert {len(column) for column in columns.values()} == {FRAMES}
        assert all((column >= 0).all() for column in columns.values())
        # The frames of a batch share its time. The first batch has no detections, so no masks.
        assert (columns["trunk"][:4] == columns["trunk"][0]).all()
        assert not columns["masks"][:4].any()
        assert columns["masks"][4:].all()
        assert len(probe(video).times) == FRAMES

    def test_engines_take_turns_in_rotating_order(self, street: Path, tmp_path: Path) -> None:
        calls: list[tuple[str, int]] = []
        with open_source(street) as source:
            found = stages.measure(
                source, [candidate(name, calls) for name in "abc"], tmp_path / "drawn.mp4", batch=4
            )
        assert "".join(name for name, _ in calls) == "abcbcacab"
        assert [count for _, count in calls[::3]] == [4, 4, 2]
        first, second, third = found
        for stage in ("decode", "encode"):
            assert first[stage].tolist() == second[stage].tolist() == third[stage].tolist()

    def test_encoded_frames_are_limited_by_memory(
        self, street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stages, "MAX_KEPT", 3 * 64 * 48 * 3)
        with open_source(street) as source:
            (columns,) = stages.measure(source, [candidate()], tmp_path / "drawn.mp4", batch=4)
        assert len(probe(tmp_path / "drawn.mp4").times) == 3
        assert columns["encode"][:3].tolist() == columns["encode"][3:6].tolist()
        assert len(columns["encode"]) == FRAMES

    def test_at_least_one_frame_is_encoded(
        self, street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stages, "MAX_KEPT", 1)
        with open_source(street) as source:
            stages.measure(source, [candidate()], tmp_path / "drawn.mp4", batch=4)
        assert len(probe(tmp_path / "drawn.mp4").times) == 1

    def test_timer_is_removed_after_a_failure(self, street: Path, tmp_path: Path) -> None:
        class Failing(FakeEngine):
            def masks(self, *_: object) -> NDArray[np.float32]:
                raise MemoryError

        segment = Segmenter(Failing(), ("background", "person"))
        with open_source(street) as source, pytest.raises(MemoryError):
            stages.measure(source, [Candidate("auto", segment)], tmp_path / "drawn.mp4", batch=1)
        assert segment.engine.timer is NO_TIMER

    def test_warm_up_runs_single_images_and_batches(self) -> None:
        one = candidate()
        stages.warm_up([one], np.zeros((48, 64, 3), np.uint8), 3)
        assert isinstance(one.segment.engine, FakeEngine)
        assert [count for _, count in one.segment.engine.calls] == [1, 3, 1, 3]


class TestEndToEnd:
    @pytest.mark.parametrize(("most", "kept"), [(3, 3), (FRAMES, FRAMES), (99, FRAMES)])
    def test_excerpt_length(self, street: Path, most: int, kept: int) -> None:
        with Excerpt(open_source(street), most) as source:
            assert source.frames == kept
            assert [frame.index for frame in source] == list(range(kept))
            assert not source.live

    def test_end_to_end_writes_every_frame(self, street: Path, tmp_path: Path) -> None:
        done: list[int] = []
        with open_source(street) as source:
            fps = end_to_end_fps(
                source, candidate().segment, tmp_path / "out.mp4", batch=4, progress=done.append
            )
        assert fps > 0
        assert sum(done) == len(probe(tmp_path / "out.mp4").times) == FRAMES

    def test_peak_memory_excludes_the_benchmark(self) -> None:
        ballast = np.ones(200 * 2**20, np.uint8)  # memory that a child process would inherit in its peak
        small, large = (
            measure_command([sys.executable, "-S", "-E", "-c", f"b'x' * {size}"])[1]
            for size in (1, 120 * 2**20)
        )
        if small is None or large is None:  # Windows
            pytest.skip("this system measures no memory")
        assert small < 60 * 2**20 < 120 * 2**20 < large < ballast.nbytes

    def test_failing_command_is_reported_with_its_output(self) -> None:
        with pytest.raises(LiveSegError, match=r"(?s)ended with exit code 7:.*no such luck"):
            measure_command(
                [sys.executable, "-c", "import sys; print('no such luck', file=sys.stderr); sys.exit(7)"]
            )

    def test_missing_command(self) -> None:
        with pytest.raises(LiveSegError, match="nowhere"):
            measure_command(["/nowhere/live-seg"])

    def test_run_command_returns_code_seconds_and_bytes(self) -> None:
        code, seconds, peak = run_command([*NOTHING[:-1], "raise SystemExit(3)"])
        assert code == 3
        assert seconds > 0
        assert peak is not None or sys.platform == "win32"
        assert peak is None or 2**20 < peak < 2**36

    def test_command_is_killed_on_interrupt(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if sys.platform == "win32":
            pytest.skip("needs a FIFO")
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)

        opened: list[BinaryIO] = []

        def interrupted(_: object) -> None:
            opened.append(fifo.open("rb"))  # waits until the command has opened its end
            raise KeyboardInterrupt

        monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
        hold = f"import signal; file = open({str(fifo)!r}, 'wb'); signal.pause()"
        with pytest.raises(KeyboardInterrupt):
            measure_command([sys.executable, "-c", hold])
        with opened[0] as end:
            assert end.read() == b"", "the pipe ends when the command has ended"


class TestBenchmark:
    def test_program_is_started_for_image_and_video(
        self, street: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commands: list[Sequence[str]] = []

        def measure(command: Sequence[str]) -> tuple[float, int]:
            commands.append(command)
            assert Path(command[2]).exists()
            return float(len(commands)), 100 * len(commands)

        monkeypatch.setattr("live_seg.benchmark.benchmark.measure_command", measure)
        one = replace(candidate(), arguments=("--size", "64"))
        (found,) = benchmark(lambda: open_source(street), [one], ["live-seg"], frames=3, batch=2, quiet=True)
        assert (found.start_up, found.peak_memory) == (1.5, 300)
        assert [(words[1], Path(words[2]).suffix) for words in commands] == [
            ("image", ".png"),
            ("image", ".png"),
            ("video", ".mp4"),
        ]
        assert {tuple(words[-2:]) for words in commands} == {("--size", "64")}
        assert len(found.total) == 3

    def test_source_without_frames(self) -> None:
        class Empty(DemoClip):
            name = "the void"
            frames = 0

            def __iter__(self) -> Iterator[Frame]:
                return iter(())

        with pytest.raises(SourceError, match="the void contains no frame"):
            benchmark(Empty, [candidate()], NOTHING, frames=5, batch=4, quiet=True)


class TestCommand:
    def test_table_json_and_chart(self, street: Path, tmp_path: Path, calls: list[tuple[str, int]]) -> None:
        output, chart = tmp_path / "bench.json", tmp_path / "bench.png"
        result = invoke(
            "--video",
            street,
            "--compare",
            "keras,openvino",
            "--json",
            output,
            "--chart",
            chart,
            "--frames",
            6,
        )
        assert result.exit_code == 0, result.output
        assert f"small, size {TINY.size}, batch 4, 6 frames of street.mp4, 64x48" in result.stdout
        assert "\nkeras, runs on thin air, keras\n" in result.stdout
        assert "\nopenvino, runs on thin air, openvino\n" in result.stdout
        assert "times as fast as keras" in result.stdout
        assert result.stdout.endswith(f"-> {output}\n-> {chart}\n")
        written = json.loads(output.read_text())
        assert {key: written[key] for key in ("model", "batch", "frames")} == {
            "model": "small",
            "batch": 4,
            "frames": 6,
        }
        for engine, name in zip(written["engines"], ("keras", "openvino"), strict=True):
            assert engine["engine"] == name
            assert set(engine["stages"]) == {*STAGES, "network", "all"}
            assert engine["peak_memory_bytes"] > 0
        assert written["engines"][0]["times_as_fast_as_first"]["network"] == 1
        assert chart.read_bytes().startswith(PNG)
        image = cv2.imread(str(chart))
        assert image is not None
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > len(STAGES)
        assert {name for name, _ in calls} == {"keras", "openvino"}

    def test_models_are_compared_by_name(self, street: Path, calls: list[tuple[str, int]]) -> None:
        result = invoke("--video", street, "--compare", "openvino,person:keras", "--frames", 2)
        assert result.exit_code == 0, result.output
        assert f"small, person, size {TINY.size}, batch 4, 2 frames of" in result.stdout
        assert "\nopenvino, runs on thin air, openvino\n" in result.stdout
        assert "\nperson:keras, runs on thin air, keras\n" in result.stdout
        assert {name for name, _ in calls} == {"openvino", "keras"}

    def test_one_frame_of_one_engine(self, street: Path, calls: list[tuple[str, int]]) -> None:
        result = invoke("--video", street, "--frames", 1)
        assert result.exit_code == 0
        assert "1 frames of" in result.stdout
        assert "times as fast" not in result.stdout
        assert re.search(
            r"^end to end \d+\.\d fps \(network alone \d+\.\d fps: \d+\.\d\d of it\)$", result.stdout, re.M
        )
        assert set(calls) == {("auto", 1)}

    def test_demo_clip_is_the_default_video(self, calls: list[tuple[str, int]]) -> None:
        result = invoke("--frames", 2)
        assert "2 frames of the demo clip, 960x540" in result.stdout
        assert calls

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--compare", "keras,openvimo"), "Did you mean openvino"),
            (("--compare", "keras", "--engine", "keras"), "give only one of the two"),
            (("--quiet",), "Nothing to do"),
            (("--chart", "bench.txt"), "name it bench.png"),
            (("--frames", "0"), "--frames"),
        ],
    )
    def test_usage_errors(self, words: tuple[str, ...], message: str, calls: list[tuple[str, int]]) -> None:
        result = invoke(*words)
        assert result.exit_code == 2
        assert message in result.stderr
        assert not calls

    def test_existing_file_is_kept(self, tmp_path: Path, calls: list[tuple[str, int]]) -> None:
        (tmp_path / "bench.json").write_text("mine")
        result = invoke("--json", tmp_path / "bench.json")
        assert result.exit_code == 3
        assert "exists already" in result.stderr
        assert (tmp_path / "bench.json").read_text() == "mine"
        assert not calls

    def test_live_source_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[str, int]]
    ) -> None:
        class Camera(DemoClip):
            live = True
            closed = False

            def close(self) -> None:
                self.closed = True

        camera = Camera()
        monkeypatch.setattr("live_seg.sources.opening.open_source", lambda *_, **__: camera)
        result = invoke("--video", "0")
        assert result.exit_code == 2
        assert "give a file or folder" in result.stderr
        assert camera.closed
        assert not calls

    def test_options_are_passed_to_the_new_process(self, calls: list[tuple[str, int]]) -> None:
        options = ModelOptions(model="coco", size=320, conf=0.5, classes="person,dog")
        words = bench._candidate("coco", options).arguments
        assert dict(zip(words[::2], words[1::2], strict=True)) == {
            "--model": "coco",
            "--classes": "person,dog",
            "--conf": "0.5",
            "--size": "320",
            "--batch": "4",
            "--engine": "auto",
            "--layout": "fit",
        }
        assert not calls
