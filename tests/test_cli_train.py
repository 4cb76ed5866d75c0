"""`live-seg train`: settings, exit codes and messages."""

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from live_seg.cli.main import app
from live_seg.training import initial_weights
from live_seg.training.settings import Settings
from tests.tiny_world import draw_shapes


def invoke(*words: str | Path) -> Result:
    result = CliRunner().invoke(app, ["train", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    photos, file = draw_shapes(tmp_path / "data", 2)
    return ["--images", str(photos), "--annotations", str(file)]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of the library, which is replaced by stand-ins that only report a line."""
    seen: list[Any] = []

    def train(settings: Settings, folder: Path, *, report: Any, quiet: bool) -> None:
        seen.append((settings, folder, quiet))
        report("epoch 1/1: loss 1.000")

    def resume(folder: Path, *, epochs: int | None, report: Any, quiet: bool) -> None:
        seen.append((folder, epochs, quiet))
        report("Resuming after epoch 1 of 2.")

    monkeypatch.setattr("live_seg.training.train.train", train)
    monkeypatch.setattr("live_seg.training.train.resume", resume)
    return seen


def test_default_settings(data: list[str], tmp_path: Path, seen: list[Any]) -> None:
    run = tmp_path / "run"
    result = invoke(*data, "-o", run)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"epoch 1/1: loss 1.000\n-> {run / 'model.weights.h5'}\n"
    assert seen == [(Settings(data=((Path(data[1]), Path(data[3])),)), run, False)]


def test_every_option_reaches_the_settings(data: list[str], tmp_path: Path, seen: list[Any]) -> None:
    words = ["--val-images", "v", "--val-annotations", "v.json", "--from", "backbone:b.h5", "--epochs", "7"]
    words += ["--size", "128", "--batch", "3", "--lr", "0.01", "--layers", "4+", "--heads-first", "2"]
    words += ["--seed", "5", "--val-every", "2", "--quiet", "-o", str(tmp_path / "run")]
    result = invoke(*data, *data, *words)
    assert (result.exit_code, result.output) == (0, "")
    expected = Settings(
        data=((Path(data[1]), Path(data[3])),) * 2,
        val=(Path("v"), Path("v.json")),
        start="backbone:b.h5",
        epochs=7,
        size=128,
        batch=3,
        learning_rate=0.01,
        layers="4+",
        heads_first=2,
        seed=5,
        val_every=2,
    )
    assert seen == [(expected, tmp_path / "run", True)]


def test_resume(tmp_path: Path, seen: list[Any]) -> None:
    result = invoke("--resume", tmp_path)
    assert result.stdout == f"Resuming after epoch 1 of 2.\n-> {tmp_path / 'model.weights.h5'}\n"
    assert invoke("--resume", tmp_path, "--epochs", "40", "--quiet").stdout == ""
    assert seen == [(tmp_path, None, False), (tmp_path, 40, True)]


def test_help_shows_the_defaults() -> None:
    text = re.sub(r"[\s│]+", " ", CliRunner().invoke(app, ["train", "--help"]).stdout)
    standard = Settings(data=((Path("a"), Path("b")),))
    for value in (standard.start, standard.epochs, standard.batch, "3e-4", standard.layers):
        assert f"[default: ({value})]" in text
    assert standard.learning_rate == 3e-4


@pytest.mark.parametrize("published", [False, True])
def test_ctrl_c_explains_how_to_resume(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: bool
) -> None:
    run = tmp_path / "run"

    def train(*_: Any, **__: Any) -> None:
        run.mkdir()
        (run / "settings.json").write_text("{}")
        if published:
            (run / "model.weights.h5").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr("live_seg.training.train.train", train)
    result = invoke(*data, "-o", run)
    assert result.exit_code == 130
    assert result.stdout.endswith(f"Resume with: live-seg train --resume {run}\n")
    assert ("holds the best epoch so far" in result.stdout) == published


def test_native_messages_are_hidden_while_training(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("live_seg.training.train.train", lambda *_, **__: os.write(2, b"I0000 cuda_dnn\n"))
    assert invoke(*data, "-o", tmp_path / "run").exit_code == 0
    assert capfd.readouterr().err == ""
    os.write(2, b"visible\n")
    assert capfd.readouterr().err == "visible\n"


class TestMistakes:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["-o", "run"], "got 0 times --images and 0 times --annotations"),
            (["--images", "a", "-o", "run"], "got 1 times --images and 0 times --annotations"),
            (["--images", "a", "--annotations", "b"], "Give -o RUN_DIR"),
            (["--images", "a", "--annotations", "b", "-o", "r", "--val-images", "v"], "belong together"),
            (["--resume", "run", "--size", "128"], "give only --epochs and --quiet with it"),
            (
                ["--images", "a", "--annotations", "b", "-o", "r", "--size", "100"],
                "multiple of 64 up to 4096. Got 100",
            ),
            (
                ["--images", "a", "--annotations", "b", "-o", "r", "--lr", "0"],
                "learning rate must be above 0",
            ),
        ],
    )
    def test_usage_errors(self, words: list[str], message: str) -> None:
        result = invoke(*words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert message in result.stderr

    def test_unusable_data(self, data: list[str], tmp_path: Path) -> None:
        bare = json.loads(Path(data[3]).read_text()) | {"annotations": []}
        (tmp_path / "bare.json").write_text(json.dumps(bare))
        (tmp_path / "odd.json").write_text("[]")
        for images, file, message in (
            (tmp_path / "nowhere", data[3], f"There is no folder {tmp_path / 'nowhere'}."),
            (data[1], tmp_path / "nothing.json", "No such file or directory"),
            (data[1], tmp_path / "bare.json", "There are no objects to train on in"),
            (data[1], tmp_path / "odd.json", "is a list, like COCO's results: detections, not annotations"),
        ):
            result = invoke("--images", images, "--annotations", file, "-o", tmp_path / "run")
            assert (result.exit_code, result.stdout) == (3, "")
            assert message in result.stderr
            assert not (tmp_path / "run").exists()

    def test_unusable_run_folders(self, data: list[str], tmp_path: Path) -> None:
        result = invoke(*data, "-o", tmp_path)
        assert result.exit_code == 3
        assert f"is not empty. Choose another folder, or pass --resume {tmp_path}" in result.stderr
        result = invoke("--resume", tmp_path / "nowhere")
        assert result.exit_code == 3
        assert "holds no training to resume" in result.stderr

    def test_unusable_initial_weights(
        self,
        data: list[str],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(initial_weights, "build", lambda *_: pytest.fail("a network was built"))
        caplog.set_level(logging.ERROR)
        for start, message in (
            ("persson", "Did you mean person?"),
            ("backbone:nowhere.h5", "nowhere.h5 holds no"),
        ):
            result = invoke(*data, "-o", tmp_path / "run", "--from", start)
            assert (result.exit_code, result.stdout) == (4, "")
            assert message in result.stderr
            assert not (tmp_path / "run").exists()
