"""Outputs that would replace an input, or another output; standard output."""

import sys
from pathlib import Path

import pytest

from live_seg.cli.live_options import LiveOptions
from live_seg.cli.options import Options
from live_seg.files import file_key
from tests.clips import clip, decode_frames, names, probe
from tests.stand_ins import StandIn
from tests.test_cli import image_file, invoke


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in (Options, LiveOptions):
        monkeypatch.setattr(options, "load", lambda _: StandIn())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a clip, a photo, a background, a model and JSON Lines."""
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "a.mp4", rate="10")
    image_file(tmp_path / "photos" / "p.png")
    image_file(tmp_path / "beach.png")
    (tmp_path / "own.weights.h5").write_bytes(b"weights")
    (tmp_path / "own.json").write_text("{}")
    (tmp_path / "symbolic.mp4").symlink_to("a.mp4")
    (tmp_path / "hard.mp4").hardlink_to(tmp_path / "a.mp4")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


VIDEO = ("video", "a.mp4")
EVAL = ("eval", "--images", "photos", "--annotations", "own.json")


@pytest.mark.parametrize(
    ("arguments", "lost"),
    [
        ([*VIDEO, "-o", "a.mp4"], "a.mp4"),
        ([*VIDEO, "-o", "./a.mp4"], "a.mp4"),
        ([*VIDEO, "-o", "photos/../a.mp4"], "a.mp4"),
        ([*VIDEO, "-o", "symbolic.mp4"], "a.mp4"),
        ([*VIDEO, "-o", "hard.mp4"], "a.mp4"),
        (["video", "symbolic.mp4", "-o", "a.mp4"], "symbolic.mp4"),
        (["video", "a.mp4", "--start", "0.5", "-o", "a.mp4"], "a.mp4"),
        ([*VIDEO, "--json", "a.mp4"], "a.mp4"),
        ([*VIDEO, "--json", "hard.mp4", "-o", "out.mp4"], "a.mp4"),
        ([*VIDEO, "--json", "beach.png", "--effect", "replace-background=beach.png"], "beach.png"),
        ([*VIDEO, "--json", "own.json", "--model", "own.weights.h5"], "own.json"),
        ([*VIDEO, "--json", "own.weights.h5", "--model", "./own.weights.h5"], "own.weights.h5"),
        (["video", "photos", "-o", "photos"], "photos/p.png"),
        (["video", "a.mp4", "photos", "-o", "."], "a.mp4"),
        (["video", "a.mp4", "--workers", "1", "-o", "hard.mp4"], "a.mp4"),
        (["video", "photos", "--json", "photos/p.png"], "photos/p.png"),
        (["image", "photos/p.png", "-o", "photos/p.png"], "photos/p.png"),
        (["image", "photos", "-o", "photos"], "photos/p.png"),
        (["image", "photos/*.png", "-o", "./photos/"], "photos/p.png"),
        (["image", "beach.png", "-o", "."], "beach.png"),
        (["image", "photos", "-o", "out", "--json", "photos/p.png"], "photos/p.png"),
        (["webcam", "--show", "none", "--source", "a.mp4", "--json", "a.mp4"], "a.mp4"),
        (["webcam", "--source", "a.mp4", "--json", "own.json", "--model", "own.weights.h5"], "own.json"),
        (["convert", "own.json", "--to", "coco", "-o", "./own.json"], "own.json"),
        ([*EVAL, "--json", "own.json"], "own.json"),
        ([*EVAL, "--results", "photos/p.png"], "photos/p.png"),
        (["bench", "--video", "a.mp4", "--json", "hard.mp4"], "a.mp4"),
        (["bench", "--video", "photos", "--chart", "photos/p.png"], "photos/p.png"),
        (["bench", "--compare", "own.weights.h5:keras", "--json", "own.json"], "own.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_no_output_replaces_an_input(here: Path, arguments: list[str], lost: str) -> None:
    before = contents(here)
    result = invoke(*arguments, "--overwrite")
    assert result.exit_code == 2, result.output
    assert f"would replace the input {lost}. Choose another name." in result.stderr
    assert contents(here) == before


def test_a_recording_takes_another_name_than_its_input(here: Path) -> None:
    before = contents(here)
    result = invoke("webcam", "--show", "none", "--source", "a.mp4", "--record", "hard.mp4", "--overwrite")
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(probe(here / "hard_001.mp4").times) == 10
    (here / "hard_001.mp4").unlink()
    assert contents(here) == before


@pytest.mark.parametrize(
    "arguments",
    [
        [*VIDEO, "-o", "new.mp4", "--json", "new.mp4"],
        [*VIDEO, "-o", "new.mp4", "--json", "photos/../NEW.mp4"],
        ["image", "photos", "-o", "out", "--json", "./out"],
        ["image", "photos/p.png", "-o", "out.png", "--json", "out.png"],
        ["bench", "--chart", "out.png", "--json", "out.png"],
    ],
    ids=" ".join,
)
def test_two_outputs_with_one_name_are_refused(here: Path, arguments: list[str]) -> None:
    before = contents(here)
    result = invoke(*arguments, "--overwrite")
    assert result.exit_code == 2, result.output
    assert "Two outputs name one file" in result.stderr
    assert contents(here) == before


def test_a_file_with_a_similar_name_may_be_replaced(here: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("needs a file system with upper and lower case")
    (here / "A.mp4").write_text("old")
    result = invoke(*VIDEO, "-o", "A.mp4", "--overwrite")
    assert result.exit_code == 0, result.output
    assert len(decode_frames(here / "A.mp4")) == len(decode_frames(here / "a.mp4")) == 10


def test_names_that_differ_in_case_are_one_file_until_both_exist(tmp_path: Path) -> None:
    assert file_key(tmp_path / "a") == file_key(tmp_path / "A")
    assert file_key(tmp_path / "x" / ".." / "a") == file_key(tmp_path / "A")
    assert file_key(tmp_path / "a") != file_key(tmp_path / "b")


def test_other_folders_next_to_the_inputs_are_allowed(here: Path) -> None:
    (here / "out").mkdir()
    result = invoke("video", "a.mp4", "-o", ".", "--overwrite", "--json", "out/a.jsonl")
    assert result.exit_code == 0, result.output
    assert (here / "000009.png").exists()
    result = invoke("image", "photos", "-o", "out", "--overwrite")
    assert (result.exit_code, names(here / "out")) == (0, ["a.jsonl", "p.png"])


@pytest.mark.parametrize(
    "arguments",
    [[*VIDEO, "-o", "-"], ["image", "photos", "-o", "-"], ["convert", "own.json", "--to", "mot", "-o", "-"]],
    ids=" ".join,
)
def test_only_json_lines_go_to_standard_output(here: Path, arguments: list[str]) -> None:
    before = contents(here)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "only --json - writes to standard output" in result.stderr
    assert contents(here) == before
