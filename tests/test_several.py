"""`live-seg webcam` with several sources: mosaic, keys, and outputs of each source."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from live_seg.cli.live_options import LiveOptions
from live_seg.cli.several import for_source, labels_of
from live_seg.types import Frame, Image
from live_seg.ui import window
from live_seg.ui.controls import Controls
from live_seg.ui.mosaic import Mosaic, fitted
from tests.clips import clip, names, no_process_left_behind, probe
from tests.stand_ins import StandIn
from tests.test_cli import invoke

pytestmark = [pytest.mark.usefixtures(no_process_left_behind.__name__), pytest.mark.timeout(120)]


def test_labels_are_file_names_and_differ() -> None:
    sources = ["0", "rtsp://me:secret@host:554/a/b?key=1", "in/x.mp4", "other/x.mp4", "x.mkv", "/dev/video2"]
    assert labels_of(sources) == ["0", "host-554-a-b", "x", "x-2", "x-3", "video2"]


def test_names_of_files_are_filled_in() -> None:
    own = for_source(LiveOptions(record="{source}_{time}.mp4", json=Path("{source}.jsonl")), "door")
    assert (own.record, own.json) == ("door_{time}.mp4", Path("door.jsonl"))
    assert for_source(LiveOptions(), "door") == LiveOptions()


class TestMosaic:
    def test_tiles_are_in_order_and_keep_their_shape(self) -> None:
        mosaic = Mosaic(["a", "b", "c"], (400, 200))
        mosaic.place(1, np.full((100, 100, 3), 200, np.uint8))
        picture = mosaic.picture()
        assert picture.shape == (200, 400, 3)
        assert picture[20, 300, 0] == 200
        assert picture[20, 210, 0] < 50  # beside the square image
        assert picture[20, 100, 0] < 50

    def test_one_is_enlarged(self) -> None:
        mosaic = Mosaic(["a", "b"], (400, 200))
        mosaic.place(0, np.full((100, 200, 3), 90, np.uint8))
        assert mosaic.picture(1).mean() == 90
        for number in (0, 2, 3):  # 2 has no image yet
            assert (mosaic.picture(number) == mosaic.picture()).all()

    def test_pictures_do_not_change_later(self) -> None:
        mosaic = Mosaic(["a"], (400, 200))
        before = mosaic.picture()
        mosaic.place(0, np.full((100, 200, 3), 255, np.uint8))
        assert before.mean() < 100

    def test_fitted(self) -> None:
        tall = fitted(np.full((300, 100, 3), 255, np.uint8), (90, 60))
        assert tall.shape == (60, 90, 3)
        assert (tall[:, 37:53] == 255).all()
        assert tall[:, :30].max() < 50


def test_digits_enlarge_and_shrink() -> None:
    controls = Controls()
    shown = []
    for key in "233":
        controls.press(key)
        shown.append(controls.enlarged)
    assert shown == [2, 3, 0]


@pytest.mark.parametrize(
    ("place", "number"),
    [
        ((0, 0), 1),
        ((0.4, 0.1), 2),
        ((0.99, 0.49), 3),
        ((0.3, 0.5), 4),
        ((0.99, 0.99), 0),  # no sixth source
        ((1, 0), 0),
        ((-0.1, 0), 0),
    ],
)
def test_a_click_enlarges_a_tile(place: tuple[float, float], number: int) -> None:
    controls = Controls(sources=5)
    controls.click(*place)
    assert controls.enlarged == number
    controls.click(*place)
    assert controls.enlarged == 0


def test_a_click_on_the_enlarged_source_shows_all() -> None:
    controls = Controls(sources=4, enlarged=1)
    controls.click(0.9, 0.9)
    assert controls.enlarged == 0


def test_a_click_means_the_tile_that_is_shown_there() -> None:
    mosaic = Mosaic([str(number) for number in range(5)], (400, 200))
    for number in range(5):
        mosaic.place(number, np.full((100, 100, 3), 100 + 10 * number, np.uint8))
    picture = mosaic.picture()
    for x, y in [(66, 20), (200, 20), (333, 20), (66, 120), (200, 120)]:
        controls = Controls(sources=5)
        controls.click(x / 400, y / 200)
        assert picture[y, x, 0] == 90 + 10 * controls.enlarged


def test_a_click_on_a_single_source_does_nothing() -> None:
    controls = Controls()
    controls.click(0.5, 0.5)
    assert controls == Controls()


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two clips in the folder above; the model is a stand-in."""
    monkeypatch.setattr(LiveOptions, "load", lambda _: StandIn())
    clip(tmp_path / "a.mp4", rate="10", seconds=1)
    clip(tmp_path / "b.mp4", rate="10", seconds=1, size="120x90")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    return tmp_path / "out"


BOTH = ("--source", "../a.mp4", "--source", "../b.mp4")


def test_each_source_has_its_own_files(out: Path) -> None:
    files = ("--record", "{source}.mp4", "--json", "{source}.jsonl")
    result = invoke("webcam", *BOTH, "--show", "none", *files)
    assert (result.exit_code, result.stderr) == (0, "")
    assert names(out) == ["a.jsonl", "a.mp4", "b.jsonl", "b.mp4"]
    assert (probe(out / "a.mp4").size, probe(out / "b.mp4").size) == ((160, 120), (120, 90))
    for name, size in (("a", [160, 120]), ("b", [120, 90])):
        lines: list[Any] = [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]
        assert all(line["size"] == size for line in lines)
        assert len(lines) == len(probe(out / f"{name}.mp4").times) > 0
    assert re.search(r"segmented \d+ of a, \d+ of b -> ", result.stdout)


def test_a_source_that_is_missing_disturbs_no_other(out: Path) -> None:
    options = ("--source", "../nowhere.mp4", "--show", "none", "--record", "{source}.mp4")
    result = invoke("webcam", *BOTH, *options)
    assert result.exit_code == 3
    assert "nowhere.mp4" in result.stderr
    assert names(out) == ["a.mp4", "b.mp4"]


def test_the_mosaic_is_shown_and_keys_act(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Image] = []

    class Hand(window.Window):
        def __init__(self, title: str, controls: Controls) -> None:
            assert title == "live-seg a, b"
            self.controls = controls

        def write(self, frame: Frame, image: Image, *_: object) -> bool:  # noqa: ARG002
            shown.append(image)
            for key in {2: "r", 4: "s"}.get(len(shown), ""):
                self.controls.press(key)
            return not self.controls.ended

        def wait(self, seconds: float) -> bool:  # noqa: ARG002
            return True

        def close(self, complete: bool = True) -> None: ...

    monkeypatch.setattr(window, "Window", Hand)
    result = invoke("webcam", *BOTH)
    assert result.exit_code == 0, result.output
    assert {image.shape for image in shown} == {(720, 1280, 3)}
    kinds = {re.sub(r"\d{8}-\d{6}", "T", name) for name in names(out)}
    assert kinds >= {"live-seg_T.png", "live-seg_T_masks.png"}
    assert kinds & {"live-seg_a_T.mp4", "live-seg_b_T.mp4"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--record", "a.mp4"], "--record needs {source} in the name"),
        (["--json", "a.jsonl"], "--json needs {source} in the name"),
        (["--policy", "all"], "--policy would do nothing"),
        (["--no-propagate"], "--no-propagate would do nothing"),
        (["--camera-fps", "5"], "--camera-fps would do nothing"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("out")
def test_usage(arguments: list[str], message: str) -> None:
    result = invoke("webcam", *BOTH, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
