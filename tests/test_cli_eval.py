"""`live-seg eval`: report, files, exit codes and messages."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from typer.testing import CliRunner, Result

from live_seg.cli.main import app
from live_seg.cli.options import ModelOptions, Options
from live_seg.evaluation.evaluate import METRICS
from live_seg.types import Image, Instances
from tests.clips import names
from tests.stand_ins import StandIn

if TYPE_CHECKING:
    from live_seg.maskrcnn.model import MaskRCNN

HEIGHT, WIDTH = 96, 128


def invoke(data: SimpleNamespace, *arguments: str | Path) -> Result:
    words = ("eval", "--images", data.images, "--annotations", data.annotations, *arguments)
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def data(tmp_path: Path) -> SimpleNamespace:
    """Three photos with a person on the left half; the first also has a dog on the right half."""
    folder = tmp_path / "photos"
    folder.mkdir()
    left, right = [0, 0, WIDTH // 2, HEIGHT], [WIDTH // 2, 0, WIDTH // 2, HEIGHT]
    objects = [(1, 7, left), (2, 7, left), (3, 7, left), (1, 9, right)]
    for key in (1, 2, 3):
        cv2.imwrite(str(folder / f"{key}.png"), np.full((HEIGHT, WIDTH, 3), 60 * key, np.uint8))
    content = {
        "images": [
            {"id": key, "file_name": f"{key}.png", "height": HEIGHT, "width": WIDTH} for key in (1, 2, 3)
        ],
        "categories": [{"id": 7, "name": "Person"}, {"id": 9, "name": "dog"}],
        "annotations": [
            {
                "id": i,
                "image_id": photo,
                "category_id": category,
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": 0,
                "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
            }
            for i, (photo, category, (x, y, w, h)) in enumerate(objects, start=1)
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return SimpleNamespace(images=folder, annotations=path, content=content)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(ModelOptions, "load", lambda _: stand_in)
    return stand_in


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelOptions, "load", lambda _: pytest.fail("the model was loaded"))


@pytest.mark.usefixtures("model")
class TestOutput:
    def test_report_table(self, data: SimpleNamespace) -> None:
        result = invoke(data)
        assert (result.exit_code, result.stderr) == (0, "")
        lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
        assert lines[0] == "Average precision all IoU .50 IoU .75 small medium large"
        assert lines[1:3] == [f"{kind} 1.000 1.000 1.000 - 1.000 -" for kind in ("box", "mask")]
        assert "Person 3 1.000 1.000" in lines
        assert "Not evaluated, unknown to the model: dog" in lines
        assert lines[-1].startswith("3 photos, ")
        assert "without compilation" in lines[-1]

    def test_metrics_and_results_files(self, data: SimpleNamespace, out: Path) -> None:
        result = invoke(data, "--json", out / "m.json", "--results", out / "r.json")
        assert result.exit_code == 0
        assert result.stdout.endswith(f"-> {out / 'm.json'}\n-> {out / 'r.json'}\n")
        assert names(out) == ["m.json", "r.json"]
        metrics = json.loads((out / "m.json").read_text())
        assert tuple(metrics["box"]) == tuple(metrics["mask"]) == METRICS
        assert metrics["classes"]["Person"]["mask_ap"] == pytest.approx(1.0)
        assert metrics["unknown"] == ["dog"]
        rows = json.loads((out / "r.json").read_text())
        assert sorted(row["image_id"] for row in rows) == [1, 2, 3]
        assert {row["category_id"] for row in rows} == {7}
        COCO(str(data.annotations)).loadRes(str(out / "r.json"))

    def test_quiet_prints_nothing(self, data: SimpleNamespace, out: Path) -> None:
        result = invoke(data, "--quiet", "--json", out / "m.json")
        assert (result.exit_code, result.output, names(out)) == (0, "", ["m.json"])

    def test_overwrite_replaces_a_file(self, data: SimpleNamespace, out: Path) -> None:
        (out / "m.json").write_text("mine")
        assert invoke(data, "--json", out / "m.json", "--overwrite").exit_code == 0
        assert json.loads((out / "m.json").read_text())["photos"] == 3

    def test_selected_classes(self, data: SimpleNamespace) -> None:
        assert "Person" in invoke(data, "--classes", "person").stdout
        result = invoke(data, "--classes", "horse")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "no class 'horse'" in result.stderr


class TestOptions:
    def test_defaults(self, data: SimpleNamespace, model: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[ModelOptions] = []

        def load(options: ModelOptions) -> StandIn:
            seen.append(options)
            return model

        monkeypatch.setattr(ModelOptions, "load", load)
        given = ("--conf", "0.5", "--batch", "2", "--size", "256", "--model", "coco")
        assert invoke(data).exit_code == invoke(data, *given).exit_code == 0
        assert seen == [
            ModelOptions(conf=0.01, batch=1, engine="keras"),
            ModelOptions(conf=0.5, batch=2, size=256, model="coco", engine="keras"),
        ]
        assert model.batches == [1, 1, 1, 2, 1]

    @pytest.mark.parametrize(("command", "default"), [("eval", "0.01"), ("video", "(the model's own)")])
    def test_help_shows_the_default_threshold_of_the_command(self, command: str, default: str) -> None:
        lines = CliRunner().invoke(app, [command, "--help"], terminal_width=200).stdout.splitlines()
        (place,) = (number for number, line in enumerate(lines) if "--conf " in line)
        assert f"[default: {default}]" in " ".join(lines[place : place + 2])

    def test_options_of_other_commands_are_unchanged(self) -> None:
        assert (Options().conf, Options().batch, Options().alpha) == (None, 4, 0.45)
        text = CliRunner().invoke(app, ["eval", "--help"]).stdout
        for option in ("model", "classes", "conf", "size", "batch", "layout", "overwrite", "quiet"):
            assert f"--{option}" in text
        for option in ("labels", "boxes", "alpha"):
            assert f"--{option}" not in text


class TestMistakes:
    @pytest.mark.usefixtures("no_model")
    @pytest.mark.parametrize("option", ["--json", "--results"])
    def test_existing_file_is_kept(self, data: SimpleNamespace, out: Path, option: str) -> None:
        (out / "a.json").write_text("mine")
        result = invoke(data, option, out / "a.json")
        assert (result.exit_code, result.stdout) == (3, "")
        assert "a.json exists already. Choose another name or pass --overwrite." in result.stderr
        assert (out / "a.json").read_text() == "mine"

    @pytest.mark.usefixtures("no_model")
    def test_quiet_requires_an_output(self, data: SimpleNamespace, out: Path) -> None:
        result = invoke(data, "--quiet")
        assert result.exit_code == 2
        assert "Nothing to do: with --quiet give --json" in result.stderr
        result = invoke(data, "--json", out / "a.json", "--results", out / "a.json")
        assert result.exit_code == 2
        assert "Two outputs name one file" in result.stderr

    @pytest.mark.usefixtures("no_model")
    def test_unusable_annotations(self, data: SimpleNamespace, tmp_path: Path) -> None:
        (tmp_path / "results.json").write_text("[]")
        (tmp_path / "bare.json").write_text(json.dumps(data.content | {"categories": []}))
        for change, message in (
            ({"images": tmp_path / "nowhere"}, "There is no folder"),
            ({"images": tmp_path}, "lacks 3 of the 3 photos"),
            ({"annotations": tmp_path / "nothing.json"}, "nothing.json: No such file"),
            ({"annotations": data.images}, "Is a directory"),
            ({"annotations": tmp_path / "results.json"}, "detections, not annotations"),
            ({"annotations": tmp_path / "bare.json"}, "has no categories"),
        ):
            result = invoke(SimpleNamespace(**vars(data) | change))
            assert (result.exit_code, result.stdout) == (3, "")
            assert message in result.stderr
            assert result.stderr.startswith("live-seg: ")

    def test_damaged_photo_stops_the_evaluation(
        self, data: SimpleNamespace, out: Path, model: StandIn
    ) -> None:
        (data.images / "3.png").write_text("not an image")
        result = invoke(data, "--json", out / "m.json", "--results", out / "r.json")
        assert (result.exit_code, names(out)) == (3, [])
        assert "3.png" in result.stderr
        assert model.batches == [1, 1]

    def test_no_common_class(self, data: SimpleNamespace, model: StandIn) -> None:
        model.class_names = ("background", "zebra")
        result = invoke(data)
        assert (result.exit_code, result.stdout, model.batches) == (2, "", [])
        assert "knows no class of" in result.stderr
        assert "(person, dog). Known: zebra." in result.stderr

    def test_ctrl_c_leaves_no_file(
        self, data: SimpleNamespace, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Interrupted(StandIn):
            def __call__(self, images: list[Image]) -> list[Instances]:  # noqa: ARG002
                raise KeyboardInterrupt

        monkeypatch.setattr(ModelOptions, "load", lambda _: Interrupted())
        result = invoke(data, "--json", out / "m.json")
        assert (result.exit_code, result.stdout, names(out)) == (130, "", [])


@pytest.mark.usefixtures("untraced", "_built_once")
def test_eval_with_a_real_network(data: SimpleNamespace, out: Path, tiny: "MaskRCNN") -> None:
    """From the weights file to the report, without stand-ins."""
    tiny.save_weights(out / "pets.weights.h5")
    card = {"config": asdict(tiny.config), "class_names": ["background", "person", "dog"]}
    (out / "pets.json").write_text(json.dumps(card))
    given = ("--model", out / "pets.weights.h5", "--conf", "0", "--results", out / "r.json")
    result = invoke(data, *given)
    assert result.exit_code == 0, result.output
    assert "Person" in result.stdout
    assert "dog" in result.stdout
    assert "Not evaluated" not in result.stdout
    rows = json.loads((out / "r.json").read_text())
    assert {row["image_id"] for row in rows} == {1, 2, 3}
    assert {row["category_id"] for row in rows} <= {7, 9}
