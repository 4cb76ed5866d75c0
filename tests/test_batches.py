"""Training batches: photos scaled and mirrored with their objects, in a reproducible order."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from live_seg.errors import SourceError
from live_seg.training.augment import MASK_GRID, NO_AUGMENTATION, Augmentation
from live_seg.training.batches import MAX_OBJECTS, Batches
from live_seg.training.photos import AnnotatedPhoto
from live_seg.types import Image

SIDE = 64

Box = tuple[float, float, float, float]


def rectangle(box: Box) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def annotated(
    path: Path, *objects: Box, size: tuple[int, int] = (SIDE, SIDE), white: bool = True
) -> AnnotatedPhoto:
    """Make a black photo of `size` (height, width) with white rectangles for its objects, all of class 1."""
    pixels = np.zeros((*size, 3), np.uint8)
    for x1, y1, x2, y2 in objects:
        pixels[int(y1) : int(y2), int(x1) : int(x2)] = 255 if white else 0
    cv2.imwrite(str(path), pixels)
    rings = [[np.array(rectangle(box), np.float32).reshape(4, 2)] for box in objects]
    boxes = np.array(objects, np.float32).reshape(-1, 4)
    return AnnotatedPhoto(path, boxes, np.ones(len(objects), np.int32), rings)


def batches_of(
    photos: list[AnnotatedPhoto], *, how: Augmentation = NO_AUGMENTATION, batch: int = 1, seed: int = 0
) -> Batches:
    return Batches(photos, side=SIDE, batch=batch, seed=seed, augmentation=how)


def epochs(batches: Batches, count: int) -> Iterator[dict[str, NDArray[Any]]]:
    """The first batch of each of `count` epochs."""
    for number in range(count):
        yield batches.make(number, 0)


def pixel_boxes(columns: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """The boxes of the only photo, y1 x1 y2 x2 in pixels of the canvas; by Matterport's rule x2, y2 + 1."""
    boxes = columns["boxes"][0][columns["class_ids"][0] != 0]
    return np.asarray(boxes * (SIDE - 1) + [0, 0, 1, 1], np.float32)


class TestBatches:
    def test_shapes_types_and_ranges(self, tmp_path: Path) -> None:
        photos = [annotated(tmp_path / f"{i}.png", (8, 8, 56, 40), size=(90, 70)) for i in range(5)]
        batches = batches_of(photos, how=Augmentation(), batch=2)
        assert len(batches) == 2
        columns = batches.make(0, 1)
        most = MAX_OBJECTS
        assert {key: (value.shape, value.dtype.name) for key, value in columns.items()} == {
            "images": ((2, SIDE, SIDE, 3), "float32"),
            "class_ids": ((2, most), "int32"),
            "boxes": ((2, most, 4), "float32"),
            "masks": ((2, most, MASK_GRID, MASK_GRID), "float32"),
            "masked": ((2, most), "bool"),
        }
        assert columns["images"].min() == 0
        assert columns["images"].max() == 255

    def test_boxes_lie_on_the_canvas(self, tmp_path: Path) -> None:
        photo = annotated(tmp_path / "a.png", (0, 0, 64, 64), (30, 2, 64, 34), (2, 40, 20, 64))
        seen = 0
        for columns in epochs(
            batches_of([photo], how=replace(NO_AUGMENTATION, flip=0.5, scale=(0.5, 2.0))), 20
        ):
            boxes = columns["boxes"][columns["class_ids"] > 0]
            assert np.all((boxes >= 0) & (boxes <= 1))
            assert np.all(boxes[:, 2:] > boxes[:, :2])
            assert not columns["boxes"][columns["class_ids"] == 0].any()
            seen += len(boxes)
        assert seen > 20

    def test_a_batch_depends_on_seed_epoch_and_index_alone(self, tmp_path: Path) -> None:
        photos = [annotated(tmp_path / f"{i}.png", (i, i, 40 + i, 50)) for i in range(6)]
        one, again, other = (batches_of(photos, how=Augmentation(), batch=2, seed=seed) for seed in (1, 1, 2))
        seen = []
        for epoch in range(2):
            made = list(one.epoch(epoch, threads=3))
            assert len(made) == 3
            for index in (2, 0, 1):  # asked for in any order
                assert_equal(made[index], again.make(epoch, index))
            seen += [columns["images"] for columns in (*made, other.make(epoch, 0))]
        assert len({picture.tobytes() for picture in seen}) == 8

    def test_each_photo_once_an_epoch_in_a_new_order(self, tmp_path: Path) -> None:
        photos = [annotated(tmp_path / f"{i}.png", (0, 0, 10 + i, 64)) for i in range(6)]
        batches = batches_of(photos, how=replace(NO_AUGMENTATION, flip=0), batch=2)
        orders = [
            [
                round(float(box) * (SIDE - 1)) + 1
                for made in batches.epoch(n)
                for box in made["boxes"][:, 0, 3]
            ]
            for n in range(3)
        ]
        assert all(sorted(order) == [10, 11, 12, 13, 14, 15] for order in orders)
        assert len({tuple(order) for order in orders}) == 3

    def test_fewer_photos_than_places(self, tmp_path: Path) -> None:
        (made,) = batches_of([annotated(tmp_path / "a.png", (0, 0, 9, 9))], batch=8).epoch(0)
        assert made["images"].shape == (1, SIDE, SIDE, 3)

    def test_an_epoch_may_end_early_or_fail(self, tmp_path: Path) -> None:
        photos = [annotated(tmp_path / f"{i}.png", (0, 0, 9, 9)) for i in range(9)]
        epoch = batches_of(photos).epoch(0, threads=2)
        next(epoch)
        epoch.close()
        photos[3].path.write_text("no picture")
        with pytest.raises(SourceError, match=r"3.png"):
            list(batches_of(photos).epoch(0, threads=2))

    def test_a_photo_as_large_as_the_canvas_is_as_it_was_or_mirrored(self, tmp_path: Path) -> None:
        photo = annotated(tmp_path / "a.png", (8, 16, 24, 48))
        sides = set()
        for columns in epochs(batches_of([photo], how=replace(NO_AUGMENTATION, flip=0.5)), 12):
            bright = columns["images"][0, :, :, 0] > 127.5
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
        for columns in epochs(batches_of([photo], how=replace(NO_AUGMENTATION, scale=(scale, scale))), 24):
            boxes = pixel_boxes(columns)
            if len(boxes):
                seen += 1
                bright = columns["images"][0, :, :, 0] > 127.5
                rows, cells = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
                extent = [rows[0], cells[0], rows[-1] + 1, cells[-1] + 1]
                assert boxes[0].tolist() == pytest.approx(extent, abs=0.75)
        assert seen > 5

    def test_the_mask_of_a_rectangle_is_full(self, tmp_path: Path) -> None:
        photo = annotated(tmp_path / "a.png", (8, 10, 30, 50), (32, 4, 60, 60))
        for columns in epochs(batches_of([photo], how=replace(NO_AUGMENTATION, scale=(0.6, 1.4))), 10):
            known = columns["masked"][0]
            assert known.tolist() == (columns["class_ids"][0] > 0).tolist()
            assert np.all(columns["masks"][0][known] == 1)
            assert not columns["masks"][0][~known].any()

    def test_masks_are_mirrored_with_their_photo(self, tmp_path: Path) -> None:
        photo = annotated(tmp_path / "a.png", (8, 8, 56, 56))
        corner = np.array([[8, 8], [56, 8], [8, 56]], np.float32)  # the upper left half of the box
        photo = AnnotatedPhoto(photo.path, photo.boxes, photo.class_ids, [[corner]])
        cv2.imwrite(
            str(photo.path), cv2.fillPoly(np.zeros((SIDE, SIDE, 3)), [corner.astype(np.int32)], (255,) * 3)
        )
        sides = set()
        for columns in epochs(batches_of([photo], how=replace(NO_AUGMENTATION, flip=0.5)), 12):
            mask, bright = columns["masks"][0, 0], columns["images"][0, :, :, 0] > 127.5
            mirrored = bool(bright[20, 50])
            sides.add(mirrored)
            half = np.fliplr(mask) if mirrored else mask
            assert mask.mean() == pytest.approx(0.5, abs=0.03)
            assert half[:20, :20].all()
            assert not half[-20:, -20:].any()
        assert sides == {False, True}

    def test_crowds_and_objects_known_by_their_box_alone(self, tmp_path: Path) -> None:
        photo = annotated(tmp_path / "a.png", (0, 0, 40, 40), (30, 30, 60, 60))
        crowd = AnnotatedPhoto(photo.path, photo.boxes, np.array([-1, 2], np.int32), [[], []])
        columns = batches_of([crowd]).make(0, 0)
        assert columns["class_ids"][0, :3].tolist() == [2, -1, 0]  # crowds last
        assert not columns["masked"].any()
        assert not columns["masks"].any()

    def test_what_is_cut_off_or_tiny_is_neither_object_nor_background(self, tmp_path: Path) -> None:
        photo = annotated(tmp_path / "a.png", (10, 10, 12, 40), (20, 0, 30, 64), (60, 20, 64, 60))
        reaching_out = photo.boxes.copy()
        reaching_out[1] = [-90, 0, 10, 64]
        columns = batches_of([replace(photo, boxes=reaching_out)]).make(0, 0)
        assert columns["class_ids"][0, :4].tolist() == [1, -1, -1, 0]

    def test_of_too_many_the_largest_are_kept(self, tmp_path: Path) -> None:
        boxes: list[Box] = [(0, 0, 4 + i / 2, 4 + i / 2) for i in range(MAX_OBJECTS + 6)]
        batches = batches_of([annotated(tmp_path / "a.png", *boxes)])
        columns = batches.make(0, 0)
        assert np.all(columns["class_ids"] == 1)
        sides = columns["boxes"][0, :, 2] - columns["boxes"][0, :, 0]
        assert np.all(np.diff(sides) < 0)
        assert sides[0] == pytest.approx((4 + (MAX_OBJECTS + 5) / 2 - 1) / (SIDE - 1))

    def test_a_photo_without_objects(self, tmp_path: Path) -> None:
        columns = batches_of([annotated(tmp_path / "a.png")]).make(0, 0)
        assert not any(columns[key].any() for key in ("class_ids", "boxes", "masks", "masked"))

    def test_pictures_are_rgb(self, tmp_path: Path) -> None:
        red: Image = np.full((SIDE, SIDE, 3), (0, 0, 255), np.uint8)
        photo = annotated(tmp_path / "a.png")
        cv2.imwrite(str(photo.path), red)
        assert batches_of([photo]).make(0, 0)["images"][0, 32, 32].tolist() == [255, 0, 0]


def assert_equal(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> None:
    for key, value in one.items():
        np.testing.assert_array_equal(value, other[key], err_msg=key)
