"""COCO instances as photos to learn from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from live_seg.errors import SourceError
from live_seg.training.augment import CanvasObject
from live_seg.training.photos import AnnotatedPhoto, read_all, read_coco
from tests.tiny_world import draw_shapes


def rectangle(box: tuple[float, float, float, float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2, y1, x2, y2, x1, y2]


@pytest.fixture
def photos(tmp_path: Path) -> list[AnnotatedPhoto]:
    """A photo with objects of each kind, and one without."""
    base = {"iscrowd": 0, "category_id": 18, "image_id": 7}
    counts = {"counts": [0, 5], "size": [1, 5]}
    two_rings = [rectangle((1, 2, 3, 4)), [5, 5, 9, 5, 9, 8]]
    data: dict[str, list[dict[str, Any]]] = {
        "images": [
            {"id": 7, "file_name": "a.jpg", "height": 80, "width": 90},
            {"id": 3, "file_name": "b.jpg", "height": 80, "width": 90},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
        "annotations": [
            {**base, "bbox": [1, 2, 8, 6], "segmentation": two_rings},
            {**base, "bbox": [10, 20, 30, 40], "category_id": 1},
            {**base, "bbox": [0, 0, 5, 1], "category_id": 1, "iscrowd": 1, "segmentation": counts},
            {**base, "bbox": [2, 2, 4, 4], "segmentation": []},
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(data))
    (tmp_path / "photos").mkdir()
    for image in data["images"]:
        (tmp_path / "photos" / str(image["file_name"])).touch()
    found, names = read_coco(tmp_path / "photos", tmp_path / "instances.json")
    assert names == ["background", "person", "dog"]
    return found


def test_photos_in_the_files_order(photos: list[AnnotatedPhoto], tmp_path: Path) -> None:
    assert [photo.path for photo in photos] == [tmp_path / "photos" / name for name in ("a.jpg", "b.jpg")]


def test_boxes_as_corners(photos: list[AnnotatedPhoto]) -> None:
    expected = [[1, 2, 9, 8], [10, 20, 40, 60], [0, 0, 5, 1], [2, 2, 6, 6]]
    assert photos[0].boxes.tolist() == expected
    assert photos[0].boxes.dtype == np.float32


def test_classes_by_their_place_in_the_file_negative_for_crowds(photos: list[AnnotatedPhoto]) -> None:
    assert photos[0].class_ids.tolist() == [2, 1, -1, 2]


def test_polygons_where_there_are_any(photos: list[AnnotatedPhoto]) -> None:
    assert [len(rings) for rings in photos[0].outlines] == [2, 0, 0, 0]
    assert photos[0].outlines[0][1].tolist() == [[5, 5], [9, 5], [9, 8]]


def test_a_photo_without_objects(photos: list[AnnotatedPhoto]) -> None:
    assert photos[1].boxes.shape == (0, 4)
    assert (len(photos[1].class_ids), photos[1].outlines) == (0, [])


def with_shape(folder: Path, shape: Any) -> AnnotatedPhoto:
    """A photo with one object of that `segmentation`, 20 x 20 pixels at 10, 10 of 40 x 50."""
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 50}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "segmentation": shape}],
    }
    (folder / "a.png").touch()
    (folder / "a.json").write_text(json.dumps(content))
    return read_coco(folder, folder / "a.json")[0][0]


@pytest.mark.parametrize("packed", [False, True])
def test_the_outline_of_run_lengths_holds_the_same_cells(tmp_path: Path, packed: bool) -> None:
    bitmap = np.zeros((40, 50), np.uint8, order="F")
    bitmap[10:30, 10:20] = bitmap[10:20, 10:30] = 1  # an L
    coded = coco_mask.encode(bitmap)
    shape: dict[str, Any] = {"size": [40, 50], "counts": coded["counts"].decode()}
    if not packed:
        runs = np.flatnonzero(np.diff(np.concatenate([[0], bitmap.ravel(order="F"), [2]])))
        shape["counts"] = np.diff(np.concatenate([[0], runs])).tolist()
    photo = with_shape(tmp_path, shape)
    mask = CanvasObject(1, photo.boxes[0], photo.boxes[0], photo.outlines[0]).mask()
    expected = bitmap[10:30, 10:30][np.arange(56) * 20 // 56][:, np.arange(56) * 20 // 56]
    assert (mask != expected).mean() < 0.05


def test_rings_of_two_points_are_no_outline(tmp_path: Path) -> None:
    assert with_shape(tmp_path, [[1, 1, 2, 2]]).outlines == [[]]


class TestSeveralFiles:
    def test_classes_are_those_of_the_first(self, tmp_path: Path) -> None:
        one, two = draw_shapes(tmp_path / "a", 3), draw_shapes(tmp_path / "b", 3)
        content = json.loads(two[1].read_text())
        content["categories"].reverse()
        content["annotations"][0]["iscrowd"] = 1
        two[1].write_text(json.dumps(content))
        photos, names = read_all([one, two])
        assert names == ["background", "disc", "block"]
        first = np.concatenate([photo.class_ids for photo in photos[:3]])
        second = np.concatenate([photo.class_ids for photo in photos[3:]])
        assert abs(second).tolist() == first.tolist()
        assert np.flatnonzero(second < 0).tolist() == [0]

    def test_other_classes(self, tmp_path: Path) -> None:
        one, two = draw_shapes(tmp_path / "a", 1), draw_shapes(tmp_path / "b", 1)
        two[1].write_text(two[1].read_text().replace('"disc"', '"ring"'))
        with pytest.raises(SourceError, match=r"has the classes ring, block, but .* disc, block"):
            read_all([one, two])

    def test_without_objects(self, tmp_path: Path) -> None:
        photos, file = draw_shapes(tmp_path / "a", 1)
        file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))
        with pytest.raises(SourceError, match=r"no objects to train on in .*instances.json"):
            read_all([(photos, file)])


def test_photos_that_are_missing(tmp_path: Path) -> None:
    photos, file = draw_shapes(tmp_path / "a", 2)
    (photos / "2.png").unlink()
    with pytest.raises(SourceError, match=r"photos lacks 1 of the 2 photos in .*json, such as 2.png"):
        read_coco(photos, file)


@pytest.mark.parametrize(
    "text", ["[", "[]", '{"images": []}', '{"categories": [], "images": [], "annotations": [1]}']
)
def test_files_of_another_kind(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(SourceError, match=r"a.json.* Expected a COCO instances file"):
        read_coco(tmp_path, tmp_path / "a.json")


def test_objects_of_photos_that_are_not_listed_are_left_out(tmp_path: Path) -> None:
    photos, file = draw_shapes(tmp_path / "a", 3)
    whole, _ = read_coco(photos, file)
    content = json.loads(file.read_text())
    content["images"].pop()
    file.write_text(json.dumps(content))
    assert [len(one.boxes) for one in read_coco(photos, file)[0]] == [len(one.boxes) for one in whole[:2]]


def test_a_photo_of_another_size_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    photos, _ = read_coco(*draw_shapes(tmp_path / "a", 1))
    assert photos[0].read().shape[:2] == photos[0].size
    other = replace(photos[0], size=(1, 2))
    with pytest.raises(SourceError, match=r"png has \d+x\d+ pixels, upright, but its annotations say 2x1"):
        other.read()
