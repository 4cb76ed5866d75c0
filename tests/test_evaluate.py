"""Average precision with a stand-in that knows the answers."""

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from live_seg.errors import SourceError, UsageError
from live_seg.evaluate import FIGURES, evaluate
from live_seg.segmenter import Segmenter
from live_seg.structures import Image, Instances

HEIGHT, WIDTH = 160, 200
PERSON, DOG, CAT = 1, 18, 17
"""Ids of the file's categories."""

Box = tuple[int, int, int, int]
"""x1 y1 x2 y2."""

SMALL, MEDIUM, LARGE = (5, 5, 25, 25), (30, 10, 80, 60), (85, 30, 195, 150)

Found = Sequence[tuple[int, Box, float]]
"""Class id of the model, box, score."""


class Knows:
    """Recognises a photo by its grey and finds in it what it was told."""

    def __init__(
        self, found: dict[int, Found], class_names: Sequence[str] = ("background", "person")
    ) -> None:
        self.found = found
        self.class_names = tuple(class_names)

    def __call__(self, images: list[Image]) -> list[Instances]:
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


def judged(model: Knows, path: Path) -> dict[str, dict[str, float]]:
    return evaluate(cast(Segmenter, model), path.parent, path)


THREE = tuple(annotation(photo, PERSON, box) for photo, box in ((1, SMALL), (1, MEDIUM), (2, LARGE)))
ALL_THREE: dict[int, Found] = {1: [(1, MEDIUM, 0.9), (1, SMALL, 0.8)], 2: [(1, LARGE, 0.7)]}
"""The third photo shows nobody."""


def test_who_finds_everything_gets_one(write: Write) -> None:
    figures = judged(Knows(ALL_THREE), write(*THREE))
    assert set(figures) == {"box", "mask"}
    for kind in figures.values():
        assert tuple(kind) == FIGURES
        several = {"ar1"}  # of the two in the first photo, one
        assert all(kind[name] == pytest.approx(1.0) for name in set(FIGURES) - several), kind
        assert kind["ar1"] == pytest.approx(2 / 3)


def test_who_finds_nothing_gets_zero_where_there_is_something(write: Write) -> None:
    figures = judged(Knows({}), write(annotation(1, PERSON, SMALL), annotation(2, PERSON, LARGE)))
    for kind in figures.values():
        medium = {name for name in FIGURES if name.endswith("medium")}
        assert all(kind[name] == 0.0 for name in set(FIGURES) - medium), kind
        assert all(kind[name] == -1.0 for name in medium), kind


def test_a_file_without_objects_measures_nothing(write: Write) -> None:
    for found in ({}, ALL_THREE):
        figures = judged(Knows(found), write())
        assert set(figures["box"].values()) == set(figures["mask"].values()) == {-1.0}


def test_a_false_alarm_in_a_photo_without_objects_counts(write: Write) -> None:
    figures = judged(Knows(ALL_THREE | {3: [(1, LARGE, 0.99)]}), write(*THREE))
    assert 0.5 < figures["box"]["ap"] < 0.9
    assert figures["mask"]["ap"] == pytest.approx(figures["box"]["ap"])


@pytest.mark.parametrize(("alarm", "same"), [((90, 40, 120, 80), True), ((5, 100, 60, 150), False)])
def test_what_is_found_in_a_crowd_does_not_count(write: Write, alarm: Box, same: bool) -> None:
    truth = write(annotation(1, PERSON, MEDIUM), crowd(1, PERSON, LARGE))
    figures = judged(Knows({1: [(1, alarm, 0.99), (1, MEDIUM, 0.9)]}), truth)
    for kind in figures.values():
        assert (kind["ap"] == pytest.approx(1.0)) == same


def test_boxes_and_masks_are_judged_apart(write: Write) -> None:
    x1, y1, x2, y2 = LARGE
    triangle = annotation(2, PERSON, LARGE) | {"segmentation": [[x1, y1, x2, y1, x1, y2]]}
    figures = judged(Knows({2: [(1, LARGE, 0.9)]}), write(triangle))
    assert figures["box"]["ap"] == pytest.approx(1.0)
    assert figures["mask"]["ap50"] == 0.0  # half of the box: IoU just below 0.5


def test_masks_are_small_or_large_by_their_own_area(write: Write) -> None:
    """A false alarm with a small mask in a medium box: no false alarm among the medium masks."""

    class Quarter(Knows):
        def __call__(self, images: list[Image]) -> list[Instances]:
            (found,) = super().__call__(images)
            found.masks[1:, 14:] = found.masks[1:, :, 14:] = 0
            return [found]

    model = Quarter({1: [(1, MEDIUM, 0.5), (1, (100, 100, 140, 140), 0.9)]})
    figures = judged(model, write(annotation(1, PERSON, MEDIUM)))
    assert figures["mask"]["ap_medium"] == pytest.approx(1.0)
    assert figures["box"]["ap_medium"] == pytest.approx(0.5)


class TestClasses:
    categories = ((PERSON, "person"), (DOG, "Dog"), (CAT, "cat"))

    def test_are_matched_by_name(self, write: Write) -> None:
        truth = write(annotation(1, PERSON, SMALL), annotation(1, DOG, LARGE), categories=self.categories)
        model = Knows({1: [(1, LARGE, 0.9), (2, SMALL, 0.9)]}, ("background", "dog", "Person"))
        figures = judged(model, truth)
        assert figures["box"]["ap"] == figures["mask"]["ap"] == pytest.approx(1.0)
        model.found = {1: [(1, LARGE, 0.9)]}
        assert judged(model, truth)["box"]["ap"] == pytest.approx(0.5)

    def test_those_that_only_one_side_has_are_left_out(self, write: Write) -> None:
        truth = write(annotation(1, PERSON, SMALL), annotation(1, CAT, LARGE), categories=self.categories)
        model = Knows({1: [(1, SMALL, 0.8), (2, LARGE, 0.9)]}, ("background", "person", "zebra"))
        figures = judged(model, truth)
        assert figures["box"]["ap"] == figures["mask"]["ap"] == pytest.approx(1.0)

    def test_none_in_common(self, write: Write) -> None:
        truth = write(*THREE, categories=((PERSON, "persn"),))
        with pytest.raises(UsageError, match=r"knows no class of the file. Did you mean person\?"):
            judged(Knows({}), truth)


def test_figures_are_pycocotools_own(write: Write) -> None:
    rng = np.random.default_rng(0)
    found: dict[int, Found] = {}
    for photo, known in ALL_THREE.items():
        shaken = [(box + rng.integers(-4, 5, 4)).tolist() for _, box, _ in known for _ in range(3)]
        found[photo] = [(1, (a, b, c, d), float(rng.uniform(0.1, 1))) for a, b, c, d in shaken]
    truth = write(*THREE)
    figures = judged(Knows(found), truth)
    for name, kind in (("box", "bbox"), ("mask", "segm")):
        expected = by_hand(truth, found, kind)
        assert list(figures[name].values()) == pytest.approx(expected)
        assert 0.1 < figures[name]["ap"] < 0.95


def by_hand(truth: Path, found: dict[int, Found], kind: str) -> list[float]:
    """Judge with pycocotools: boxes as boxes, masks as full-size bitmaps encoded one by one."""
    rows: list[dict[str, Any]] = []
    for photo, some in found.items():
        bitmaps = instances(some).bitmaps((HEIGHT, WIDTH))
        for (_, (x1, y1, x2, y2), score), bitmap in zip(some, bitmaps, strict=True):
            shape: dict[str, Any] = {"bbox": [x1, y1, x2 - x1, y2 - y1]}
            if kind == "segm":
                shape = {"segmentation": coco_mask.encode(np.asfortranarray(bitmap, np.uint8))}
            rows.append({"image_id": photo, "category_id": PERSON, "score": np.float32(score), **shape})
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(truth))
        judge = COCOeval(reference, reference.loadRes(rows), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [float(figure) for figure in judge.stats]


class TestUnreadable:
    @pytest.mark.parametrize("text", [None, "{broken"])
    def test_annotations(self, tmp_path: Path, text: str | None) -> None:
        path = tmp_path / "instances.json"
        if text is not None:
            path.write_text(text)
        with pytest.raises(SourceError, match=r"Cannot read the annotations .*instances\.json"):
            judged(Knows({}), path)

    def test_a_photo(self, write: Write) -> None:
        truth = write(*THREE)
        (truth.parent / "2.png").unlink()
        with pytest.raises(SourceError, match=r"2\.png"):
            judged(Knows({}), truth)


def test_nothing_is_printed(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    judged(Knows(ALL_THREE), write(*THREE))
    assert capsys.readouterr() == ("", "")
