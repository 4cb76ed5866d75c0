"""The sample and benchmark programs, with a stand-in for the model."""

import itertools
import json
import re
import runpy
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

import live_seg
from live_seg.sources import cameras
from live_seg.sources.live import LiveSource
from live_seg.types import Frame, Image, Instances, Sink
from live_seg.ui import window
from tests.clips import clip, decode_frames, probe, variable_clip
from tests.stand_ins import ROOT, StandIn, left_half

FOLDERS = (ROOT / "samples", ROOT / "benchmarks")


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requested models; each is replaced by a stand-in."""
    models: list[Any] = []

    def load(model: str) -> StandIn:
        models.append(model)
        return StandIn()

    monkeypatch.setitem(vars(live_seg), "load", load)  # setattr would load TensorFlow first
    return models


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(name: str, *arguments: str | Path) -> None:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        folder = next(folder for folder in FOLDERS if (folder / name).exists())
        runpy.run_path(str(folder / name), run_name="__main__")

    return run


MEASURED = ("fleet", "flicker", "gpu", "hiding", "latency", "many", "propagation", "web_load")


def test_every_program_is_tested() -> None:
    samples, benchmarks = ({path.name for path in folder.glob("*.py")} for folder in FOLDERS)
    assert samples == {"process_video.py", "record_clip.py", "webcam_demo.py"}
    assert benchmarks == {"soak.py", "soak_many.py", *(f"measure_{name}.py" for name in MEASURED)}


class TestProcessVideo:
    def test_people_are_counted_per_second(
        self, sample: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[Any]
    ) -> None:
        sample("process_video.py", variable_clip(tmp_path / "in.mp4"))
        assert capsys.readouterr().out == "     0 s  1 people\n     1 s  1 people\n"
        assert asked == ["person"]

    def test_second_without_people(
        self,
        sample: Any,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def no_people(images: list[Image]) -> list[Instances]:
            return [Instances.empty()] * len(images)

        monkeypatch.setitem(vars(live_seg), "load", lambda _: no_people)
        sample("process_video.py", clip(tmp_path / "in.mp4", seconds=0.5))
        assert capsys.readouterr().out == "     0 s  0 people\n"


class TestRecordClip:
    def test_first_seconds_are_recorded_with_annotations(self, sample: Any, tmp_path: Path) -> None:
        source = clip(tmp_path / "in.mp4", rate="10", seconds=2, pattern="color=gray")
        out = tmp_path / "out.mp4"
        sample("record_clip.py", source, out, "0.55")
        assert probe(out).times == pytest.approx([i / 10 for i in range(6)], abs=1e-3)
        for before, after in zip(decode_frames(source)[:6], decode_frames(out), strict=True):
            change = np.abs(before.astype(int) - after).max(axis=2)
            assert change[40:110, 10:70].min() > 10  # the person's half
            assert change[:, 130:].max() < 10

    def test_default_length_is_ten_seconds(self, sample: Any, tmp_path: Path) -> None:
        out = tmp_path / "out.mp4"
        sample("record_clip.py", clip(tmp_path / "in.mp4", rate="2", seconds=12), out)
        assert len(probe(out).times) == 20

    def test_existing_file_is_kept(self, sample: Any, tmp_path: Path) -> None:
        out = tmp_path / "out.mp4"
        out.write_text("mine")
        with pytest.raises(live_seg.SinkError, match="exists already"):
            sample("record_clip.py", clip(tmp_path / "in.mp4"), out)
        assert out.read_text() == "mine"


class Camera:
    """A stand-in for cv2.VideoCapture with endless grey frames."""

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, prop: int) -> float:
        return {cv2.CAP_PROP_FRAME_WIDTH: 80, cv2.CAP_PROP_FRAME_HEIGHT: 60}.get(prop, 0.0)

    def read(self) -> tuple[bool, Image]:
        return True, np.full((60, 80, 3), 100, np.uint8)

    def release(self) -> None: ...


@pytest.mark.parametrize(("arguments", "number"), [((), 0), (("2",), 2)])
def test_webcam_demo_shows_until_asked_to_stop(
    sample: Any, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], number: int
) -> None:
    opened: list[object] = []
    shown: list[Image] = []

    class Window(Sink):
        def __init__(self, title: str) -> None:
            assert title == "live_seg"

        def write(self, frame: Any, image: Image, instances: Instances) -> bool:  # noqa: ARG002
            shown.append(image)
            return not np.any(image != 100)

        def close(self, complete: bool = True) -> None:
            assert complete

    def camera(target: object, *_: object) -> Camera:
        opened.append(target)
        return Camera()

    monkeypatch.setattr(window, "Window", Window)
    monkeypatch.setattr(cameras, "open_capture", camera)
    sample("webcam_demo.py", *arguments)
    assert opened == [number]
    assert len(shown) > 1  # the first frames are shown before anything is detected
    assert np.any(shown[-1][20:40, 10:30] != 100)


class TestSoak:
    def test_every_frame_is_accounted_for(self, sample: Any, capsys: pytest.CaptureFixture[str]) -> None:
        sample("soak.py", "--frames", "300", "--fps", "200", "--delay", "0.02", "--report", "100")
        *lines, summary, verdict = capsys.readouterr().out.splitlines()
        assert len(lines) == 1 + 3
        assert summary.startswith(verdict.split()[4])  # as many as were shown
        found = re.fullmatch(r"300 frames received = (\d+) shown \+ (\d+) dropped; no thread left", verdict)
        assert found
        assert int(found[1]) + int(found[2]) == 300
        assert int(found[1]) > 0

    def test_a_lost_frame_is_reported(self, sample: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def truncated(self: LiveSource) -> Iterator[Frame]:
            return itertools.islice(complete(self), 50)

        complete = LiveSource._numbered
        monkeypatch.setattr(LiveSource, "_numbered", truncated)
        with pytest.raises(SystemExit, match="60 frames sent, 50 received, 10 not accounted for"):
            sample("soak.py", "--frames", "60", "--fps", "200", "--delay", "0.02")

    @pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP")
    def test_every_frame_of_several_sources_is_accounted_for(
        self, sample: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.syspath_prepend(ROOT / "benchmarks")
        few = ("--frames", "80", "--sources", "2", "--delay", "0.01", "--every", "100", "--report", "20")
        sample("soak_many.py", *few)
        *lines, verdict = capsys.readouterr().out.splitlines()
        assert re.fullmatch(
            r" +\d+: \d+ = \d+ \+ \d+ \(\d+\); \d+ = .*; 0 stalls, 0 deaths; \d+ MB", lines[-1]
        )
        assert re.fullmatch(r"\d+ frames received, all accounted for; no thread and no process left", verdict)


class TestMeasuring:
    @pytest.fixture(autouse=True)
    def moving(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A person that moves by two pixels per frame; makes the programs importable."""

        def load(_: str, min_score: float) -> Any:
            boxes = (np.array([[x, 20, x + 60, 100]], np.float32) for x in itertools.count(10, 2))
            whole = left_half(np.zeros((2, 2, 3), np.uint8))
            return lambda images: [replace(whole, boxes=next(boxes)) for _ in images if min_score <= 0.9]

        monkeypatch.setitem(vars(live_seg), "load", load)
        monkeypatch.syspath_prepend(ROOT / "benchmarks")

    def test_propagation(self, sample: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pattern = "color=gray"  # no motion: propagated masks equal held ones
        source = clip(tmp_path / "in.mp4", rate="10", seconds=1.2, pattern=pattern)
        sample("measure_propagation.py", source, "--every", "4", "--strip", tmp_path)
        name, distances, held, propagated = capsys.readouterr().out.splitlines()
        assert name.startswith(str(source))
        assert distances.split() == ["distance", "1", "2", "3", "4"]
        ious = [float(word) for word in held.split()[1:]]
        np.testing.assert_allclose(ious, [(60 - 2 * n) / (60 + 2 * n) for n in range(1, 5)], atol=0.02)
        np.testing.assert_allclose([float(word) for word in propagated.split()[1:]], ious, atol=0.02)
        strip = cv2.imread(str(tmp_path / "strip_in.png"))
        assert strip is not None
        assert strip.shape[0] == 240
        assert strip.shape[1] % 5 == 0  # distances 0 to 4

    def test_flicker(self, sample: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        sample("measure_flicker.py", clip(tmp_path / "in.mp4", rate="10"), "--seconds", "0.5")
        _, before, after = capsys.readouterr().out.splitlines()
        change, edges, changes, lasting = (float(word) for word in before.split()[1:5])
        assert change == pytest.approx(1 - 58 / 62, abs=0.02)
        assert edges == pytest.approx(1.0)  # two of four edges, by 2 pixels
        assert (changes, lasting) == (0, 1)
        assert after.split()[0] == "smoothed"

    def test_fleet(self, sample: Any, capsys: pytest.CaptureFixture[str]) -> None:
        given = ("--files", "2", "--hours", "0.05", "--track-ms", "5", "--workers", "1", "3")
        sample("measure_fleet.py", *given)
        title, *rows = capsys.readouterr().out.splitlines()
        assert title == "0.05 h in 2 files, 0 instances, 100 fps"
        row = re.compile(r" +(\d) workers: efficiency (\d\.\d+), driver \d+\.\d ms per chunk")
        found = map(row.fullmatch, rows)
        one, three = ((match[1], float(match[2])) for match in found if match)
        assert (one[0], three[0]) == ("1", "3")
        assert 0.5 < three[1] < one[1] <= 1  # 15 s of detection and 12 s of rendering a chunk

    def test_many(
        self, sample: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes: list[int] = []

        def load(_: str, size: int) -> StandIn:
            sizes.append(size)
            return StandIn()

        monkeypatch.setitem(vars(live_seg), "load", load)
        source = clip(tmp_path / "in.mp4", rate="30", seconds=2)
        sample("measure_many.py", source, "--seconds", "0.2", "--size", "64", "--sources", "1,2")
        *_, one, two = capsys.readouterr().out.splitlines()
        for count, row in (("1", one), ("2", two)):
            columns = [column.strip() for column in row.split("|")]
            assert columns[0] == count
            network, shown, latency, memory = (float(columns[place]) for place in (1, 3, 4, 5))
            assert min(network, shown, memory) > 0
            assert latency > -1
            least, most = map(int, columns[2].split(".."))
            assert 0 < least <= most
        assert sizes == [64]


class TestMeasuringOfHiding:
    """A person fills the left half of every image; the stand-in finds one there unless it misses."""

    @pytest.fixture
    def misses(self, monkeypatch: pytest.MonkeyPatch) -> set[int]:
        """The images in which the model finds nothing, by number; the reference model finds every person."""
        missed: set[int] = set()

        def load(_: str, *, min_score: float, **others: object) -> Any:
            asked: list[object] = []

            def segment(images: list[Image]) -> list[Instances]:
                asked.extend(images)
                found = [left_half(image) for image in images]
                return [one[:0] for one in found] if len(asked) - 1 in missed and min_score < 0.5 else found

            assert others["classes"] == ["person"]
            return segment

        monkeypatch.setitem(vars(live_seg), "load", load)
        return missed

    def test_photos(
        self, sample: Any, misses: set[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "photos").mkdir()
        persons = []
        for number in (1, 2):
            cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), np.zeros((60, 80, 3), np.uint8))
            corners = [0, 0, 50, 0, 50, 60, 0, 60]  # the stand-in finds 40 of its 50 columns
            box = {"bbox": [0, 0, 50, 60], "area": 3000, "iscrowd": 0, "segmentation": [corners]}
            persons.append({"id": number, "image_id": number, "category_id": 1, **box})
        images = [{"id": n, "file_name": f"{n}.png", "width": 80, "height": 60} for n in (1, 2)]
        truth = {"images": images, "annotations": persons, "categories": [{"id": 1, "name": "person"}]}
        (tmp_path / "truth.json").write_text(json.dumps(truth))
        misses.add(1)
        given = ("photos", tmp_path / "photos", tmp_path / "truth.json", "--conf", "0.95", "0.4")
        sample("measure_hiding.py", *given)
        title, _, *rows = capsys.readouterr().out.splitlines()
        assert title == "2 persons. Shares in %:"
        shares = {tuple(row.split()[:2]): [float(word) for word in row.split()[2:]] for row in rows}
        assert shares["0.95", "box"] == shares["0.95", "mask"] == [100, 100, 0]
        assert shares["0.4", "mask"] == pytest.approx([60, 100, 0], abs=3)  # all of one, a fifth of the other

    def test_videos(
        self, sample: Any, misses: set[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        misses.add(10)
        source = clip(tmp_path / "in.mp4", rate="20", seconds=1, pattern="color=gray")
        sample("measure_hiding.py", "videos", source)
        title, counted, *rows = capsys.readouterr().out.splitlines()
        assert title == str(source)
        assert counted == "  5 of 5 frames show persons; visible in:"
        assert [row.split()[0] for row in rows] == ["mask", "hull", "box"]
        for row in rows:
            seen = re.findall(r"(none|one pass|two passes): +(\d+)", row)
            assert seen == [("none", "1"), ("one pass", "0"), ("two passes", "0")]


class TestNotebook:
    @pytest.fixture
    def notebook(self) -> Any:
        return nbformat.read(ROOT / "samples" / "tour.ipynb", as_version=4)

    def test_it_is_valid_and_has_no_outputs(self, notebook: Any) -> None:
        nbformat.validate(notebook)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)
        used = set(re.findall(r"\blive_seg\.(\w+)", "\n".join(cell.source for cell in cells)))
        assert {"load", "from_rgb", "draw", "run", "convert"} <= used <= set(live_seg.__all__)

    @pytest.mark.slow
    def test_it_runs(self, notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
            monkeypatch.setenv(name, str(tmp_path / "jupyter"))
        folder = tmp_path / "work"
        folder.mkdir()
        place = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, kernel_name="python3", timeout=200, resources=place).execute()
        assert sorted(path.name for path in folder.iterdir()) == ["tour.json", "tour.jsonl", "tour.mp4"]
        assert len(probe(folder / "tour.mp4").times) == 8
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        assert not [output for output in outputs if output.get("name") == "stderr"]
        assert "person 0." in outputs[0]["text"]
        assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
        assert "(8, [" in outputs[-1]["data"]["text/plain"]


@pytest.mark.slow
def test_measuring_a_gpu_works_without_one(sample: Any, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--size", "64", "--batch", "2", "--rounds", "1", "--dtype", "float32")
    sample("measure_gpu.py", *small)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines[:2]] == ["coco", "coco-v2"]
    assert all(re.search(r"live_seg, .*: batch 2, \d+\.\d frames per second", line) for line in lines[:2])


class TestMeasureLatency:
    def test_the_counter_can_be_read_from_each_frame(self) -> None:
        program = runpy.run_path(str(ROOT / "benchmarks" / "measure_latency.py"))
        bits, cell = program["BITS"], program["CELL"]
        for count, image in enumerate(itertools.islice(program["counted"](None), 5)):
            assert image.shape == (program["HEIGHT"], program["WIDTH"], 3)
            rows = image[cell // 2 : 2 * cell : cell, cell // 2 : bits * cell : cell, 0]
            assert (rows[0] == 255 - rows[1]).all()
            assert sum(1 << bit for bit in range(bits) if rows[0, bit]) == count

    def test_latencies_are_printed(self, capsys: pytest.CaptureFixture[str]) -> None:
        program = runpy.run_path(str(ROOT / "benchmarks" / "measure_latency.py"))
        found = {"latencies": [100, 120, 400], "sent": 60, "shown": 58, "unread": 1, "metrics": ["camera"]}
        program["report"](found, 2.0)
        printed = capsys.readouterr().out
        assert "median 120 ms" in printed
        assert "camera 30.0 fps, shown 29.0 fps, 1 not readable" in printed


@pytest.mark.slow
def test_measure_web_load(sample: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sample("measure_web_load.py", "--clients", "20", "--seconds", "0.5", "--fps", "10")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].strip() for line in lines] == ["0 clients", "20 clients", "0 clients"]
