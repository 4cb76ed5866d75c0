"""Average precision with a stand-in that knows the answers."""

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from live_seg.errors import SinkError, SourceError, UsageError
from live_seg.evaluation.evaluate import METRICS, ClassMetrics, Evaluation, evaluate, save
from live_seg.evaluation.ground_truth import GroundTruth
from live_seg.types import Image, Instances

if TYPE_CHECKING:
    from live_seg.segmenter import Segmenter

HEIGHT, WIDTH = 160, 200
PERSON, DOG, CAT = 1, 18, 17
"""Ids of the file's categories."""

Box = tuple[int, int, int, int]
"""x1 y1 x2 y2."""

SMALL, MEDIUM, LARGE = (5, 5, 25, 25), (30, 10, 80, 60), (85, 30, 195, 150)

Found = Sequence[tuple[int, Box, float]]
"""Class id of the model, box, score."""


class Knows:
    """Recognises a photo by its grey and finds in it what it was message."""

    def __init__(
        self, found: dict[int, Found], class_names: Sequence[str] = ("background", "person")
    ) -> None:
        self.found = found
        self.class_names = tuple(class_names)
        self.calls: list[list[int]] = []

    def __call__(self, images: list[Image]) -> list[Instances]:
        self.calls.append([int(image[0, 0, 0]) for image in images])
        return [instances(self.found.get(int(image[0, 0, 0]), ())) for image in images]


def instances(found: Found) -> Instances:
    return Instances(
        np.array([box for _, box, _ in found], np.float32).reshape(-1, 4),
        np.ones((len(found), 28, 28), np.float32),
        np.array([class_id for class_id, _, _ in found], np.int32),
        np.array([score for _, _, score in found], np.float32),
    )


def annotation(photo: int, category: int, box: Box) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {
        "image_id": photo,
        "category_id": category,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
        "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
    }


def crowd(photo: int, category: int, box: Box) -> dict[str, Any]:
    bitmap = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    bitmap[box[1] : box[3], box[0] : box[2]] = 1
    rle = coco_mask.encode(bitmap)
    counts = {"size": rle["size"], "counts": rle["counts"].decode()}
    return annotation(photo, category, box) | {"iscrowd": 1, "segmentation": counts}


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Makes three photos, of grey 1, 2 and 3, and a file with these annotations."""

    def write(
        *annotations: dict[str, Any], categories: Sequence[tuple[int, str]] = ((PERSON, "person"),)
    ) -> Path:
        for grey in (1, 2, 3):
            cv2.imwrite(str(tmp_path / f"{grey}.png"), np.full((HEIGHT, WIDTH, 3), grey, np.uint8))
        data = {
            "info": {},
            "images": [
                {"id": grey, "file_name": f"{grey}.png", "height": HEIGHT, "width": WIDTH}
                for grey in (1, 2, 3)
            ],
            "categories": [{"id": key, "name": name} for key, name in categories],
            "annotations": [a | {"id": i} for i, a in enumerate(annotations, start=1)],
        }
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(data))
        return path

    return write


def evaluated(model: Knows, path: Path, **how: Any) -> Evaluation:
    return evaluate(cast("Segmenter", model), GroundTruth(path.parent, path), **how)


THREE = tuple(annotation(photo, PERSON, box) for photo, box in ((1, SMALL), (1, MEDIUM), (2, LARGE)))
ALL_THREE: dict[int, Found] = {1: [(1, MEDIUM, 0.9), (1, SMALL, 0.8)], 2: [(1, LARGE, 0.7)]}
"""The third photo shows nobody."""


def test_perfect_results_have_ap_1(write: Write) -> None:
    metrics = evaluated(Knows(ALL_THREE), write(*THREE))
    for kind in (metrics.box, metrics.mask):
        assert tuple(kind) == METRICS
        several = {"ar1"}  # of the two in the first photo, one
        assert all(kind[name] == pytest.approx(1.0) for name in set(METRICS) - several), kind
        assert kind["ar1"] == pytest.approx(2 / 3)


def test_no_results_have_ap_0(write: Write) -> None:
    metrics = evaluated(Knows({}), write(annotation(1, PERSON, SMALL), annotation(2, PERSON, LARGE)))
    for kind in (metrics.box, metrics.mask):
        medium = {name for name in METRICS if name.endswith("medium")}
        assert all(kind[name] == 0.0 for name in set(METRICS) - medium), kind
        assert all(kind[name] == -1.0 for name in medium), kind


def test_a_file_without_objects_measures_nothing(write: Write) -> None:
    for found in ({}, ALL_THREE):
        metrics = evaluated(Knows(found), write())
        assert set(metrics.box.values()) == set(metrics.mask.values()) == {-1.0}


def test_a_false_alarm_in_a_photo_without_objects_counts(write: Write) -> None:
    metrics = evaluated(Knows(ALL_THREE | {3: [(1, LARGE, 0.99)]}), write(*THREE))
    assert 0.5 < metrics.box["ap"] < 0.9
    assert metrics.mask["ap"] == pytest.approx(metrics.box["ap"])


@pytest.mark.parametrize(("alarm", "same"), [((90, 40, 120, 80), True), ((5, 100, 60, 150), False)])
def test_what_is_found_in_a_crowd_does_not_count(write: Write, alarm: Box, same: bool) -> None:
    truth = write(annotation(1, PERSON, MEDIUM), crowd(1, PERSON, LARGE))
    metrics = evaluated(Knows({1: [(1, alarm, 0.99), (1, MEDIUM, 0.9)]}), truth)
    for kind in (metrics.box, metrics.mask):
        assert (kind["ap"] == pytest.approx(1.0)) == same


def test_boxes_and_masks_are_evaluated_separately(write: Write) -> None:
    x1, y1, x2, y2 = LARGE
    triangle = annotation(2, PERSON, LARGE) | {"segmentation": [[x1, y1, x2, y1, x1, y2]]}
    metrics = evaluated(Knows({2: [(1, LARGE, 0.9)]}), write(triangle))
    assert metrics.box["ap"] == pytest.approx(1.0)
    assert metrics.mask["ap50"] == 0.0  # half of the box: IoU just below 0.5


def test_masks_are_small_or_large_by_their_own_area(write: Write) -> None:
    """A false alarm with a small mask in a medium box: no false alarm among the medium masks."""

    class Quarter(Knows):
        def __call__(self, images: list[Image]) -> list[Instances]:
            (found,) = super().__call__(images)
            found.masks[1:, 14:] = found.masks[1:, :, 14:] = 0
            return [found]

    model = Quarter({1: [(1, MEDIUM, 0.5), (1, (100, 100, 140, 140), 0.9)]})
    metrics = evaluated(model, write(annotation(1, PERSON, MEDIUM)))
    assert metrics.mask["ap_medium"] == pytest.approx(1.0)
    assert metrics.box["ap_medium"] == pytest.approx(0.5)


class TestClasses:
    categories = ((PERSON, "person"), (DOG, "Dog"), (CAT, "cat"))

    def test_are_matched_by_name(self, write: Write) -> None:
        truth = write(annotation(1, PERSON, SMALL), annotation(1, DOG, LARGE), categories=self.categories)
        model = Knows({1: [(1, LARGE, 0.9), (2, SMALL, 0.9)]}, ("background", "dog", "Person"))
        metrics = evaluated(model, truth)
        assert metrics.box["ap"] == metrics.mask["ap"] == pytest.approx(1.0)
        model.found = {1: [(1, LARGE, 0.9)]}
        assert evaluated(model, truth).box["ap"] == pytest.approx(0.5)

    def test_those_that_only_one_side_has_are_left_out(self, write: Write) -> None:
        truth = write(annotation(1, PERSON, SMALL), annotation(1, CAT, LARGE), categories=self.categories)
        model = Knows({1: [(1, SMALL, 0.8), (2, LARGE, 0.9)]}, ("background", "person", "zebra"))
        metrics = evaluated(model, truth)
        assert metrics.box["ap"] == metrics.mask["ap"] == pytest.approx(1.0)

    def test_none_in_common(self, write: Write) -> None:
        truth = write(*THREE, categories=((PERSON, "persn"),))
        message = r"knows no class of .*instances\.json \(persn\)\. Did you mean person\?"
        with pytest.raises(UsageError, match=message):
            evaluated(Knows({}), truth)

    def test_are_evaluated_separately(self, write: Write) -> None:
        truth = write(*THREE, annotation(3, DOG, LARGE), crowd(3, PERSON, SMALL), categories=self.categories)
        found: dict[int, Found] = {1: [(1, (28, 12, 80, 60), 0.9), (2, LARGE, 0.6)], 3: [(2, LARGE, 0.5)]}
        metrics = evaluated(Knows(found, ("background", "person", "dog", "zebra")), truth)
        assert list(metrics.classes) == ["person", "Dog"]
        assert metrics.unknown == ("cat",)
        for name, category, objects in (("person", PERSON, 3), ("Dog", DOG, 1)):
            own = metrics.classes[name]
            assert own.objects == objects
            assert own.box_ap == pytest.approx(by_hand(truth, found, "bbox", [category])[0])
            assert own.mask_ap == pytest.approx(by_hand(truth, found, "segm", [category])[0])
            assert 0 < own.box_ap < 1
        mean = sum(own.box_ap for own in metrics.classes.values()) / 2
        assert metrics.box["ap"] == pytest.approx(mean)

    def test_without_objects_have_nothing_to_measure(self, write: Write) -> None:
        truth = write(*THREE, categories=self.categories)
        metrics = evaluated(Knows(ALL_THREE, ("background", "person", "dog")), truth)
        assert metrics.classes["Dog"] == ClassMetrics(0, -1.0, -1.0)
        assert metrics.box["ap"] == pytest.approx(1.0)

    def test_some_of_them(self, write: Write) -> None:
        truth = write(*THREE, annotation(3, DOG, LARGE), categories=self.categories)
        model = Knows(ALL_THREE | {3: [(2, SMALL, 0.9)]}, ("background", "person", "dog"))
        metrics = evaluated(model, truth, classes=["Person"])
        assert list(metrics.classes) == ["person"]
        assert metrics.unknown == ("cat",)
        assert metrics.mask["ap"] == pytest.approx(1.0)
        assert {row["category_id"] for row in metrics.detections} == {PERSON}
        with pytest.raises(UsageError, match="no class 'horse'"):
            evaluated(model, truth, classes=["horse"])


def test_metrics_are_pycocotools_own(write: Write) -> None:
    rng = np.random.default_rng(0)
    found: dict[int, Found] = {}
    for photo, known in ALL_THREE.items():
        shaken = [(box + rng.integers(-4, 5, 4)).tolist() for _, box, _ in known for _ in range(3)]
        found[photo] = [(1, (a, b, c, d), float(rng.uniform(0.1, 1))) for a, b, c, d in shaken]
    truth = write(*THREE)
    metrics = evaluated(Knows(found), truth)
    for own, kind in ((metrics.box, "bbox"), (metrics.mask, "segm")):
        assert list(own.values()) == pytest.approx(by_hand(truth, found, kind))
        assert 0.1 < own["ap"] < 0.95


def by_hand(truth: Path, found: dict[int, Found], kind: str, only: Sequence[int] = ()) -> list[float]:
    """Judge with pycocotools: boxes as boxes, masks as full-size bitmaps encoded one by one."""
    rows: list[dict[str, Any]] = []
    for photo, some in found.items():
        bitmaps = instances(some).bitmaps((HEIGHT, WIDTH))
        for (class_id, (x1, y1, x2, y2), score), bitmap in zip(some, bitmaps, strict=True):
            shape: dict[str, Any] = {"bbox": [x1, y1, x2 - x1, y2 - y1]}
            if kind == "segm":
                shape = {"segmentation": coco_mask.encode(np.asfortranarray(bitmap, np.uint8))}
            rows.append({"image_id": photo, "category_id": (PERSON, DOG)[class_id - 1]} | shape)
            rows[-1]["score"] = np.float32(score)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(truth))
        coco_eval = COCOeval(reference, reference.loadRes(rows), kind)
        coco_eval.params.catIds = only or coco_eval.params.catIds
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    return [float(figure) for figure in coco_eval.stats]


class TestWithoutMasks:
    """Objects of which only the box is known."""

    def truth(self, write: Write, **without: Any) -> Path:
        return write(annotation(1, PERSON, MEDIUM), annotation(2, PERSON, LARGE) | without)

    @pytest.mark.parametrize("nothing", [None, []])
    def test_count_in_the_box_metrics_alone(self, write: Write, nothing: Any) -> None:
        truth = self.truth(write, segmentation=nothing)
        metrics = evaluated(Knows({1: [(1, MEDIUM, 0.9)]}), truth)
        assert metrics.box["ar100"] == pytest.approx(0.5)
        assert metrics.box["ap"] == pytest.approx(0.5, abs=0.01)  # 51 of COCO's 101 recalls
        assert (metrics.mask["ap"], metrics.mask["ar100"]) == pytest.approx((1.0, 1.0))
        assert metrics.classes["person"].objects == 2

    def test_what_is_found_in_them_is_no_false_alarm(self, write: Write) -> None:
        found: dict[int, Found] = {1: [(1, MEDIUM, 0.8)], 2: [(1, LARGE, 0.9)]}
        metrics = evaluated(Knows(found), self.truth(write, segmentation=None))
        assert (metrics.box["ap"], metrics.mask["ap"]) == pytest.approx((1.0, 1.0))
        found[2] = [(1, (5, 5, 60, 140), 0.9)]
        metrics = evaluated(Knows(found), self.truth(write, segmentation=None))
        assert metrics.mask["ap"] == pytest.approx(0.5)

    def test_and_nothing_else(self, write: Write, caplog: pytest.LogCaptureFixture) -> None:
        boxes = [{k: v for k, v in a.items() if k != "segmentation"} for a in THREE]
        metrics = evaluated(Knows(ALL_THREE), write(*boxes))
        assert metrics.box["ap"] == pytest.approx(1.0)
        assert set(metrics.mask.values()) == {-1.0}
        assert "3 of 3 objects" in caplog.text


def test_what_other_tools_leave_out(write: Write) -> None:
    """Neither area nor iscrowd; ids from 0, which pycocotools takes for no match."""
    bare = [{k: v for k, v in a.items() if k not in ("area", "iscrowd")} for a in THREE]
    path = write(*bare)
    data = json.loads(path.read_text())
    for entry in data["annotations"]:
        entry["id"] -= 1
    path.write_text(json.dumps(data))
    metrics = evaluated(Knows(ALL_THREE), path)
    for kind in (metrics.box, metrics.mask):
        assert all(kind[name] == pytest.approx(1.0) for name in set(METRICS) - {"ar1"}), kind


def test_truth_may_be_used_again(write: Write) -> None:
    path = write(*THREE, crowd(3, PERSON, LARGE))
    truth = GroundTruth(path.parent, path)
    model = cast("Segmenter", Knows(ALL_THREE))
    assert evaluate(model, truth).metrics()["mask"] == evaluate(model, truth).metrics()["mask"]


def test_detections_are_cocos_results(write: Write, tmp_path: Path) -> None:
    """Saved, read and scored by pycocotools alone, they give the same average precision."""
    path = write(*THREE)
    found = ALL_THREE | {3: [(1, LARGE, 0.85)]}
    metrics = evaluated(Knows(found), path)
    save(metrics.detections, tmp_path / "results.json")
    rows = json.loads((tmp_path / "results.json").read_text())
    assert len(rows) == 4
    first = next(row for row in rows if row["score"] > 0.89)
    x1, y1, x2, y2 = MEDIUM
    assert first.pop("segmentation")["size"] == [HEIGHT, WIDTH]
    assert first.pop("score") == pytest.approx(0.9)
    assert first == {"image_id": 1, "category_id": PERSON, "bbox": [x1, y1, x2 - x1, y2 - y1]}
    assert all(isinstance(row["segmentation"]["counts"], str) for row in metrics.detections)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(path))
        for kind, own in (("bbox", metrics.box), ("segm", metrics.mask)):
            coco_eval = COCOeval(reference, reference.loadRes(str(tmp_path / "results.json")), kind)
            coco_eval.evaluate()
            coco_eval.accumulate()
            coco_eval.summarize()
            assert coco_eval.stats[0] == pytest.approx(own["ap"])
            assert 0 < own["ap"] < 1


class TestCalls:
    def test_take_a_batch(self, write: Write) -> None:
        truth = write(*THREE)
        for batch, calls in ((1, [[1], [2], [3]]), (2, [[1, 2], [3]]), (4, [[1, 2, 3], [1, 2, 3]])):
            model = Knows(ALL_THREE)
            metrics = evaluated(model, truth, batch=batch)
            assert model.calls == calls  # the last one again, where none was without a new size
            assert metrics.box["ap"] == pytest.approx(1.0)
            assert metrics.photos == 3

    def test_that_compile_are_not_timed(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = [0.0]
        monkeypatch.setattr("live_seg.evaluation.evaluate.time.perf_counter", lambda: clock[0])

        class Compiles(Knows):
            def __call__(self, images: list[Image]) -> list[Instances]:
                clock[0] += 100.0 if not self.calls else 0.25 * len(images)
                return super().__call__(images)

        for batch in (1, 2, 3):
            clock[0] = 0.0
            assert evaluated(Compiles(ALL_THREE), write(*THREE), batch=batch).seconds_per_image == 0.25


class TestUnreadable:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (None, "No such file"),
            ("{broken", "as JSON.*Expected a COCO instances file, with images, categories, annotations"),
            ("[]", "is a list, like COCO's results: detections, not annotations"),
            ("3", "has no images"),
            ('{"images": []}', "has no images"),
            ('{"images": [3]}', r"is invalid: 1 x Expected `object`, got `int` \(first: images\[0\]\)"),
            (
                '{"images": [{"id": 1, "file_name": "1.png", "height": 5}]}',
                "missing required field `width`",
            ),
        ],
    )
    def test_annotations(self, tmp_path: Path, text: str | None, message: str) -> None:
        path = tmp_path / "instances.json"
        if text is not None:
            path.write_text(text)
        with pytest.raises(SourceError, match=rf"instances\.json.*{message}"):
            evaluated(Knows({}), path)

    def test_no_categories(self, write: Write) -> None:
        with pytest.raises(SourceError, match=r"instances\.json has no categories"):
            evaluated(Knows({}), write(*THREE, categories=()))

    def test_missing_photos(self, write: Write) -> None:
        truth = write(*THREE)
        (truth.parent / "2.png").unlink()
        with pytest.raises(SourceError, match=r"lacks 1 of the 3 photos in .*, such as 2\.png\. Give"):
            evaluated(Knows({}), truth)
        with pytest.raises(SourceError, match=r"There is no folder .*elsewhere"):
            GroundTruth(truth.parent / "elsewhere", truth)

    def test_a_damaged_photo(self, write: Write) -> None:
        truth = write(*THREE)
        (truth.parent / "2.png").write_text("no picture")
        with pytest.raises(SourceError, match=r"2\.png"):
            evaluated(Knows({}), truth)

    def test_a_photo_of_another_size(self, write: Write) -> None:
        truth = write(*THREE)
        cv2.imwrite(str(truth.parent / "2.png"), np.zeros((WIDTH, HEIGHT, 3), np.uint8))
        with pytest.raises(SourceError, match=r"2\.png has 160x200 pixels, .* say 200x160"):
            evaluated(Knows({}), truth)


class TestReport:
    def test_contains_every_metric(self, write: Write) -> None:
        truth = write(*THREE, categories=((PERSON, "person"), (DOG, "dog"), (CAT, "cat")))
        message = evaluated(Knows(ALL_THREE, ("background", "person", "dog")), truth).report()
        lines = [" ".join(line.split()) for line in message.splitlines()]
        assert lines[1] == "box 1.000 1.000 1.000 1.000 1.000 1.000"
        assert lines[6] == "mask 0.667 1.000 1.000 1.000 1.000 1.000"
        assert lines[9:11] == ["person 3 1.000 1.000", "dog 0 - -"]
        assert lines[12] == "Not evaluated, unknown to the model: cat"
        assert lines[13].startswith("3 photos, ")
        assert max(map(len, message.splitlines())) < 80

    def test_metrics_are_json(self, write: Write) -> None:
        metrics = evaluated(Knows(ALL_THREE), write(*THREE))
        metrics = json.loads(json.dumps(metrics.metrics()))
        assert list(metrics["mask"]) == list(METRICS)
        assert metrics["classes"] == {"person": {"objects": 3, "box_ap": 1.0, "mask_ap": 1.0}}
        assert (metrics["unknown"], metrics["photos"]) == ([], 3)
        assert metrics["seconds_per_image"] >= 0


def test_saving_where_one_cannot(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"Cannot write .*missing.a\.json: No such file"):
        save({}, tmp_path / "missing" / "a.json")


def test_nothing_is_printed(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated(Knows(ALL_THREE), write(*THREE))
    assert capsys.readouterr() == ("", "")
