"""COCO instances files: each fault is refused, or repaired and reported, for training and evaluation."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from live_seg.errors import SourceError
from live_seg.evaluation import coco
from live_seg.evaluation.coco import CocoObject
from live_seg.evaluation.faults import Faults
from live_seg.evaluation.ground_truth import GroundTruth
from live_seg.evaluation.outlines import checked_mask
from live_seg.training.photos import read_coco

HEIGHT, WIDTH = 40, 50
SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
NAN, INF = float("nan"), float("inf")


def content(**changes: Any) -> dict[str, Any]:
    """Return a valid file of one photo with two objects, with `changes` to the first entry of a list."""
    whole: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "segmentation": [SQUARE]}
            for i in (1, 2)
        ],
    }
    for name, change in changes.items():
        whole[name][0] |= change
    return whole


def read(folder: Path, data: Any) -> list[CocoObject]:
    """Read `data` for training and for evaluation, and return its objects."""
    path = folder / "instances.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    (folder / "a.png").touch()
    reports = []
    for reader in (coco.read_instances, GroundTruth, read_coco):
        try:
            reader(folder, path)
            reports.append("")
        except SourceError as error:
            reports.append(str(error))
    assert len(set(reports)) == 1
    return coco.read_instances(folder, path).objects


def test_a_valid_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    objects = read(tmp_path, content())
    assert [one["bbox"] for one in objects] == [[10, 10, 20, 20]] * 2
    assert objects[0]["segmentation"] == [SQUARE]
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("changes", "report"),
    [
        ({"images": {"id": "1"}}, r"1 x Expected `int`, got `str` - at `\$.id` \(first: images\[0\]\)"),
        ({"images": {"id": 10**30}}, r"at `\$.id`"),
        ({"images": {"file_name": 5}}, r"at `\$.file_name`"),
        ({"images": {"height": 0}}, ">= 1"),
        ({"images": {"height": 2**20, "width": 2**20}}, "1 x photo with more than 1,073,741,824 pixels"),
        ({"images": {"file_name": "/etc/a.png"}}, "leads out of the folder of photos .*'/etc/a.png'"),
        ({"images": {"file_name": "../a.png"}}, "leads out of the folder"),
        ({"images": {"file_name": "b\\..\\..\\a.png"}}, "leads out of the folder"),
        ({"images": {"file_name": "C:\\a.png"}}, "leads out of the folder"),
        ({"images": {"file_name": "a\0.png"}}, "lacks 1 of the 1 photos"),
        ({"images": {"file_name": "a" * 300}}, "lacks 1 of the 1 photos"),
        ({"categories": {"name": "Background"}}, r"called background.* \(first: 1\)"),
        ({"categories": {"name": "a\x1b[2J"}}, "control characters"),
        ({"categories": {"name": "\ud800"}}, "control characters"),
        ({"categories": {"name": ""}}, "1 to 100 characters"),
        ({"categories": {"id": None}}, r"at `\$.id`"),
        ({"annotations": {"image_id": "1"}}, r"at `\$.image_id` \(first: annotations\[0\]\)"),
        ({"annotations": {"category_id": 5}}, r"1 x unknown category_id 5 \(first: annotations\[0\]\)"),
        ({"annotations": {"bbox": [1, 2, 3]}}, r"length >= 4 - at `\$.bbox`"),
        ({"annotations": {"bbox": [1, 2, 3, None]}}, r"at `\$.bbox\[3\]`"),
        ({"annotations": {"bbox": [1, 2, 3, 10**400]}}, r"first: annotations\[0\]"),
        ({"annotations": {"segmentation": "outline"}}, r"at `\$.segmentation`"),
        ({"annotations": {"segmentation": SQUARE}}, r"at `\$.segmentation\[0\]`"),
        ({"annotations": {"iscrowd": "no"}}, r"at `\$.iscrowd`"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], report: str) -> None:
    with pytest.raises(SourceError, match=report):
        read(tmp_path, content(**changes))


@pytest.mark.parametrize("name", ["images", "categories"])
def test_ids_that_occur_twice_are_refused(tmp_path: Path, name: str) -> None:
    data = content()
    data[name].append(data[name][0] | {"name": "dog"})
    with pytest.raises(SourceError, match=r"1 x (image|category) id that occurs twice \(first: 1\)"):
        read(tmp_path, data)


def test_names_that_occur_twice_are_refused(tmp_path: Path) -> None:
    data = content()
    data["categories"].append({"id": 2, "name": "Cat"})
    with pytest.raises(SourceError, match="'Cat' occurs twice"):
        read(tmp_path, data)


@pytest.mark.parametrize("text", ["{", "", "[" * 10**5, '{"images": ' * 10**5, "\x00"], ids=lambda t: t[:9])
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SourceError, match="as JSON"):
        read(tmp_path, text)


def test_boxes_given_by_corners_are_refused(tmp_path: Path) -> None:
    data = content()
    for entry, box in zip(data["annotations"], ([20, 10, 48, 38], [25, 20, 50, 40]), strict=True):
        entry["bbox"] = box
    with pytest.raises(SourceError, match="boxes x1 y1 x2 y2"):
        read(tmp_path, data)


@pytest.mark.parametrize(
    ("box", "report", "left"),
    [
        ([NAN, 1, 5, 5], "1 x box with NaN or infinity, object skipped", None),
        ([1, 1, INF, 5], "1 x box with NaN or infinity, object skipped", None),
        ([1, 1, -5, 5], "1 x box without positive sides, object skipped", None),
        ([1, 1, 0, 5], "1 x box without positive sides, object skipped", None),
        ([60, 1, 5, 5], "1 x box outside of its photo, object skipped", None),
        ([1e300, 1, 1e300, 5], "1 x box outside of its photo, object skipped", None),
        ([-10, 5, 20, 99], "1 x box that leaves its photo, clipped", [0, 5, 10, 35]),
        ([0, 0, 50.5, 40.5], "", [0, 0, 50.5, 40.5]),
    ],
    ids=str,
)
def test_boxes(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    box: list[float],
    report: str,
    left: list[float] | None,
) -> None:
    objects = read(tmp_path, content(annotations={"bbox": box}))
    assert [one["bbox"] for one in objects] == [*([] if left is None else [left]), [10, 10, 20, 20]]
    assert report in caplog.text
    assert ("first: annotation 1 of image 1" in caplog.text) == bool(report)


@pytest.mark.parametrize(
    ("outline", "report"),
    [
        ([[NAN, *SQUARE[1:]]], "polygon with NaN or infinity"),
        ([SQUARE[1:]], "polygon with an odd number of coordinates"),
        ({"size": [5, 5], "counts": [25]}, "run lengths for a photo of another size"),
        ({"counts": [25]}, "run lengths for a photo of another size"),
        ({"size": [HEIGHT, WIDTH]}, "run lengths without counts"),
        ({"size": [HEIGHT, WIDTH], "counts": [25]}, "run lengths that do not cover the image"),
        ({"size": [HEIGHT, WIDTH], "counts": [-1, 2001]}, "run lengths that do not cover the image"),
        ({"size": [HEIGHT, WIDTH], "counts": [2**40]}, "run lengths that do not cover the image"),
        ({"size": [HEIGHT, WIDTH], "counts": []}, "run lengths that do not cover the image"),
        ({"size": [HEIGHT, WIDTH], "counts": ""}, "run lengths that do not cover the image"),
        ({"size": [HEIGHT, WIDTH], "counts": "ooooooooo1"}, "run lengths that cannot be decoded"),
        ({"size": [HEIGHT, WIDTH], "counts": "o"}, "run lengths that cannot be decoded"),
        ({"size": [HEIGHT, WIDTH], "counts": "\u1234"}, "run lengths that cannot be decoded"),
    ],
    ids=str,
)
def test_masks_that_are_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, outline: Any, report: str
) -> None:
    objects = read(tmp_path, content(annotations={"segmentation": outline}))
    assert [one["segmentation"] for one in objects] == [None, [SQUARE]]
    assert f"1 x {report}, mask dropped (first: annotation 1 of image 1)" in caplog.text


@pytest.mark.parametrize("outline", [None, [], [[1, 2, 3, 4]], [[]]], ids=str)
def test_objects_without_a_mask(tmp_path: Path, outline: Any) -> None:
    assert read(tmp_path, content(annotations={"segmentation": outline}))[0]["segmentation"] is None


def test_polygons_are_clipped_to_the_photo(tmp_path: Path) -> None:
    far = [-1e9, -5, 1e9, -5, 1e9, 1e9, -1e9, 1e9]
    objects = read(tmp_path, content(annotations={"segmentation": [far]}))
    assert objects[0]["segmentation"] == [[0, 0, WIDTH, 0, WIDTH, HEIGHT, 0, HEIGHT]]


@pytest.mark.parametrize(("area", "known"), [(NAN, None), (-5, None), (0, None), (INF, None), (7.5, 7.5)])
def test_areas(tmp_path: Path, area: float, known: float | None) -> None:
    assert read(tmp_path, content(annotations={"area": area}))[0]["area"] == known


def test_faults_are_counted_by_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = content()
    data["annotations"] = [
        *(data["annotations"][0] | {"bbox": [0, 0, -1, 1]} for _ in range(3)),
        data["annotations"][0] | {"image_id": 9},
        data["annotations"][1],
    ]
    with caplog.at_level(logging.WARNING):
        assert len(read(tmp_path, data)) == 1
    assert "3 x box without positive sides, object skipped (first: annotation 1 of image 1)" in caplog.text
    assert "1 x object of a photo that is not listed, skipped (first: annotations[3])" in caplog.text


@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 30))
def test_run_lengths_are_read_as_pycocotools_reads_them(seed: int, height: int, width: int) -> None:
    bitmap = np.asfortranarray(np.random.default_rng(seed).random((height, width)) < 0.3, np.uint8)
    packed = coco_mask.encode(bitmap)
    runs = {"size": [height, width], "counts": packed["counts"].decode()}
    mask = checked_mask(runs, (height, width), Faults(), "")  # type: ignore[arg-type]
    assert mask == runs
    edges = np.flatnonzero(np.diff(np.concatenate([[0], bitmap.ravel(order="F"), [2]])))
    counts = np.diff(np.concatenate([[0], edges])).tolist()
    unpacked = checked_mask({"size": [height, width], "counts": counts}, (height, width), Faults(), "")
    assert unpacked == runs
