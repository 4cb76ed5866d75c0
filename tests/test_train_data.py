"""What the network is fed: photos cut and mirrored together with their objects; and a short fit."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from live_seg.maskrcnn.training import Sampling
from live_seg.structures import Image
from live_seg.train import MASK_GRID, Annotated, Batches, Jitter, fit, read_coco, save
from tests.stand_ins import tiny_network

# keras.src converts TensorFlow's variables in NumPy 1's way.
SIDE = 64
MEAN = (127.5, 127.5, 127.5)
STILL = Jitter(scale=(1.0, 1.0), colour=0.0)

Box = tuple[float, float, float, float]


def rectangle(box: Box) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def annotated(
    path: Path, *objects: Box, size: tuple[int, int] = (SIDE, SIDE), white: bool = True
) -> Annotated:
    """Make a black photo of `size` (height, width) with white rectangles for its objects, all of class 1."""
    pixels = np.zeros((*size, 3), np.uint8)
    for x1, y1, x2, y2 in objects:
        pixels[int(y1) : int(y2), int(x1) : int(x2)] = 255 if white else 0
    cv2.imwrite(str(path), pixels)
    rings = [[np.array(rectangle(box), np.float32).reshape(4, 2)] for box in objects]
    boxes = np.array(objects, np.float32).reshape(-1, 4)
    return Annotated(path, boxes, np.ones(len(objects), np.int32), rings)


def batches_of(photos: list[Annotated], *, jitter: Jitter = STILL, batch: int = 1, seed: int = 0) -> Batches:
    batches = Batches(photos, MEAN, side=SIDE, batch=batch, seed=seed)
    batches.jitter = jitter
    return batches


def epochs(batches: Batches, count: int) -> Iterator[dict[str, NDArray[Any]]]:
    """The first batch of each of `count` epochs."""
    for _ in range(count):
        yield batches[0][0]
        batches.on_epoch_end()


def pixel_boxes(columns: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """The boxes of the only photo, y1 x1 y2 x2 in pixels of the canvas; by Matterport's rule x2, y2 + 1."""
    boxes = columns["boxes"][0][columns["class_ids"][0] != 0]
    return np.asarray(boxes * (SIDE - 1) + [0, 0, 1, 1], np.float32)


class TestReadCoco:
    @pytest.fixture
    def photos(self, tmp_path: Path) -> list[Annotated]:
        base = {"iscrowd": 0, "category_id": 18, "image_id": 7}
        counts = {"counts": [0, 5], "size": [1, 5]}
        two_rings = [rectangle((1, 2, 3, 4)), [5, 5, 9, 5, 9, 8]]
        data = {
            "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 3, "file_name": "b.jpg"}],
            "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
            "annotations": [
                {**base, "bbox": [1, 2, 8, 6], "segmentation": two_rings},
                {**base, "bbox": [10, 20, 30, 40], "category_id": 1},
                {**base, "bbox": [0, 0, 5, 1], "category_id": 1, "iscrowd": 1, "segmentation": counts},
                {**base, "bbox": [2, 2, 4, 4], "segmentation": []},
            ],
        }
        (tmp_path / "instances.json").write_text(json.dumps(data))
        return read_coco(tmp_path / "photos", tmp_path / "instances.json")

    def test_photos_in_the_files_order(self, photos: list[Annotated], tmp_path: Path) -> None:
        assert [photo.path for photo in photos] == [tmp_path / "photos" / name for name in ("a.jpg", "b.jpg")]

    def test_boxes_as_corners(self, photos: list[Annotated]) -> None:
        expected = [[1, 2, 9, 8], [10, 20, 40, 60], [0, 0, 5, 1], [2, 2, 6, 6]]
        assert photos[0].boxes.tolist() == expected
        assert photos[0].boxes.dtype == np.float32

    def test_classes_by_their_place_in_the_file_negative_for_crowds(self, photos: list[Annotated]) -> None:
        assert photos[0].class_ids.tolist() == [2, 1, -1, 2]

    def test_polygons_where_there_are_any(self, photos: list[Annotated]) -> None:
        assert [len(rings) for rings in photos[0].polygons] == [2, 0, 0, 0]
        assert photos[0].polygons[0][1].tolist() == [[5, 5], [9, 5], [9, 8]]

    def test_a_photo_without_objects(self, photos: list[Annotated]) -> None:
        assert photos[1].boxes.shape == (0, 4)
        assert (len(photos[1].class_ids), photos[1].polygons) == (0, [])


class TestBatches:
    def test_shapes_types_and_ranges(self, tmp_path: Path) -> None:
        photos = [annotated(tmp_path / f"{i}.png", (8, 8, 56, 40), size=(90, 70)) for i in range(5)]
        batches = batches_of(photos, jitter=Jitter(), batch=2)
        assert len(batches) == 2
        columns, targets = batches[1]
        most = batches.most_objects
        assert {key: (value.shape, value.dtype.name) for key, value in columns.items()} == {
            "pictures": ((2, SIDE, SIDE, 3), "float32"),
            "class_ids": ((2, most), "int32"),
            "boxes": ((2, most, 4), "float32"),
            "masks": ((2, most, MASK_GRID, MASK_GRID), "float32"),
            "masked": ((2, most), "bool"),
        }
        assert targets.shape == (2,)
        assert np.abs(columns["pictures"]).max() <= 127.5

    def test_boxes_lie_on_the_canvas(self, tmp_path: Path) -> None:
        photo = annotated(tmp_path / "a.png", (0, 0, 64, 64), (30, 2, 64, 34), (2, 40, 20, 64))
        seen = 0
        for columns in epochs(batches_of([photo], jitter=Jitter((0.5, 2.0))), 20):
            boxes = columns["boxes"][columns["class_ids"] > 0]
            assert np.all((boxes >= 0) & (boxes <= 1))
            assert np.all(boxes[:, 2:] > boxes[:, :2])
            assert not columns["boxes"][columns["class_ids"] == 0].any()
            seen += len(boxes)
        assert seen > 20

    def test_the_order_depends_on_seed_and_epoch_alone(self, tmp_path: Path) -> None:
        photos = [annotated(tmp_path / f"{i}.png", (i, i, 40 + i, 50)) for i in range(6)]
        one, again, other = (batches_of(photos, jitter=Jitter(), batch=2, seed=seed) for seed in (1, 1, 2))
        seen = []
        for _ in range(3):
            assert sorted(one.order) == list(range(6))
            for index in (2, 0, 1):  # asked for in any order
                assert_equal(one[index][0], again[index][0])
            seen += [one[0][0]["pictures"], other[0][0]["pictures"]]
            for batches in (one, again, other):
                batches.on_epoch_end()
        assert len({picture.tobytes() for picture in seen}) == 6

    def test_a_photo_as_large_as_the_canvas_is_as_it_was_or_mirrored(self, tmp_path: Path) -> None:
        photo = annotated(tmp_path / "a.png", (8, 16, 24, 48))
        sides = set()
        for columns in epochs(batches_of([photo]), 12):
            bright = columns["pictures"][0, :, :, 0] > 0
            box = pixel_boxes(columns)[0]
            mirrored = bool(bright[32, 50])
            sides.add(mirrored)
            expected = [16, 40, 48, 56] if mirrored else [16, 8, 48, 24]
            assert box.tolist() == pytest.approx(expected, abs=1e-3)
        assert sides == {False, True}

    @pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
    def test_pixels_and_boxes_stay_together(self, tmp_path: Path, scale: float) -> None:
        photo = annotated(tmp_path / "a.png", (20, 20, 44, 36))
        seen = 0
        for columns in epochs(batches_of([photo], jitter=Jitter((scale, scale), 0.0)), 24):
            boxes = pixel_boxes(columns)
            if len(boxes):
                seen += 1
                bright = columns["pictures"][0, :, :, 0] > 0
                rows, cells = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
                extent = [rows[0], cells[0], rows[-1] + 1, cells[-1] + 1]
                assert boxes[0].tolist() == pytest.approx(extent, abs=0.75)
        assert seen > 5

    def test_the_mask_of_a_rectangle_is_full(self, tmp_path: Path) -> None:
        photo = annotated(tmp_path / "a.png", (8, 10, 30, 50), (32, 4, 60, 60))
        for columns in epochs(batches_of([photo], jitter=Jitter((0.6, 1.4))), 10):
            known = columns["masked"][0]
            assert known.tolist() == (columns["class_ids"][0] > 0).tolist()
            assert np.all(columns["masks"][0][known] == 1)
            assert not columns["masks"][0][~known].any()

    def test_masks_are_mirrored_with_their_photo(self, tmp_path: Path) -> None:
        photo = annotated(tmp_path / "a.png", (8, 8, 56, 56))
        corner = np.array([[8, 8], [56, 8], [8, 56]], np.float32)  # the upper left half of the box
        photo = Annotated(photo.path, photo.boxes, photo.class_ids, [[corner]])
        cv2.imwrite(
            str(photo.path), cv2.fillPoly(np.zeros((SIDE, SIDE, 3)), [corner.astype(np.int32)], (255,) * 3)
        )
        sides = set()
        for columns in epochs(batches_of([photo]), 12):
            mask, bright = columns["masks"][0, 0], columns["pictures"][0, :, :, 0] > 0
            mirrored = bool(bright[20, 50])
            sides.add(mirrored)
            half = np.fliplr(mask) if mirrored else mask
            assert mask.mean() == pytest.approx(0.5, abs=0.03)
            assert half[:20, :20].all()
            assert not half[-20:, -20:].any()
        assert sides == {False, True}

    def test_crowds_and_objects_known_by_their_box_alone(self, tmp_path: Path) -> None:
        photo = annotated(tmp_path / "a.png", (0, 0, 40, 40), (30, 30, 60, 60))
        crowd = Annotated(photo.path, photo.boxes, np.array([-1, 2], np.int32), [[], []])
        columns = batches_of([crowd])[0][0]
        assert columns["class_ids"][0, :3].tolist() == [-1, 2, 0]
        assert not columns["masked"].any()
        assert not columns["masks"].any()

    def test_what_is_cut_off_or_tiny_is_left_out(self, tmp_path: Path) -> None:
        photo = annotated(tmp_path / "a.png", (10, 10, 12, 40), (-90, 0, 10, 64), (60, 20, 64, 60))
        assert batches_of([photo])[0][0]["class_ids"][0].tolist().count(1) == 1

    def test_of_too_many_the_largest_are_kept(self, tmp_path: Path) -> None:
        boxes: list[Box] = [(0, 0, 4 + i, 4 + i) for i in range(30)]
        batches = batches_of([annotated(tmp_path / "a.png", *boxes)])
        columns = batches[0][0]
        assert np.all(columns["class_ids"] == 1)
        sides = columns["boxes"][0, :, 2] - columns["boxes"][0, :, 0]
        assert np.all(np.diff(sides) < 0)
        assert sides[0] == pytest.approx((33 - 1) / (SIDE - 1))

    def test_a_photo_without_objects(self, tmp_path: Path) -> None:
        columns = batches_of([annotated(tmp_path / "a.png")])[0][0]
        assert not any(columns[key].any() for key in ("class_ids", "boxes", "masks", "masked"))

    def test_pictures_are_rgb_less_the_mean(self, tmp_path: Path) -> None:
        red: Image = np.full((SIDE, SIDE, 3), (0, 0, 255), np.uint8)
        photo = annotated(tmp_path / "a.png")
        cv2.imwrite(str(photo.path), red)
        assert batches_of([photo])[0][0]["pictures"][0, 32, 32].tolist() == [127.5, -127.5, -127.5]


def assert_equal(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> None:
    for key, value in one.items():
        np.testing.assert_array_equal(value, other[key], err_msg=key)


def test_save_writes_the_card_beside_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "pet.weights.h5"
    network = tiny_network(num_classes=2)
    save(network, ("background", "pet"), path, {"origin": "a test", "licence": "MIT"})
    card = json.loads((tmp_path / "pet.json").read_text())
    assert card["class_names"] == ["background", "pet"]
    assert (card["origin"], card["licence"]) == ("a test", "MIT")
    assert card["config"]["num_classes"] == 2
    assert len(card["sha256"]) == 64


@pytest.mark.slow
def test_a_short_fit(tmp_path: Path) -> None:
    photos = [annotated(tmp_path / f"{i}.png", (10, 10, 30 + i, 40 + i)) for i in range(4)]
    batches = batches_of(photos, jitter=Jitter(), batch=2)
    network = tiny_network(num_classes=2)
    before = [np.array(v) for v in network.get_weights()]
    sampling = Sampling(anchors=16, positive_anchors=8, proposals=10, positive_proposals=4)
    run = tmp_path / "run"
    fit(network, batches, epochs=1, learning_rate=1e-3, sampling=sampling, run=run)
    (row,) = csv.DictReader((run / "log.csv").read_text().splitlines())
    losses = {"anchor_class", "anchor_box", "class", "box", "mask", "loss"}
    assert losses <= set(row)
    assert all(np.isfinite(float(row[name])) for name in losses)
    assert sorted(path.name for path in run.iterdir()) == ["averages.weights.h5", "log.csv"]
    after = network.get_weights()
    assert any(np.any(one != other) for one, other in zip(before, after, strict=True))
    averages = tiny_network(num_classes=2, seed=1)
    averages.load_weights(run / "averages.weights.h5")
    for average, left in zip(averages.get_weights(), after, strict=True):
        np.testing.assert_array_equal(average, left)  # Keras leaves the averages in the network
