"""Augmentation: mosaics, pasted objects and occlusion."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_seg.training.augment import (
    MIN_SIDE,
    NO_AUGMENTATION,
    Augmentation,
    Canvas,
    CanvasObject,
    compose,
    jitter_colour,
)
from live_seg.training.photos import AnnotatedPhoto

SIDE = 96


def ring(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)


def photo(
    path: Path, *objects: tuple[int, int, int, int], level: int = 200, size: tuple[int, int] = (SIDE, SIDE)
) -> AnnotatedPhoto:
    """A dark photo of `size` (height, width) with bright rectangles, all of class 1."""
    pixels = np.full((*size, 3), 20, np.uint8)
    for x1, y1, x2, y2 in objects:
        pixels[y1:y2, x1:x2] = level
    cv2.imwrite(str(path), pixels)
    boxes = np.array(objects, np.float32).reshape(-1, 4)
    return AnnotatedPhoto(path, boxes, np.ones(len(objects), np.int32), [[ring(*box)] for box in objects])


def placed(*box: float, outline: bool = True, occluders: list[np.ndarray] | None = None) -> CanvasObject:
    corners = np.array(box, np.float32)
    return CanvasObject(
        1, corners, corners.copy(), [ring(*box)] if outline else [], [occluders] if occluders else []
    )


class TestSettle:
    def test_what_nothing_hides_stays(self) -> None:
        one = placed(10, 20, 40, 60)
        one.update_visibility()
        assert (one.class_id, one.box.tolist()) == (1, [10, 20, 40, 60])

    @pytest.mark.parametrize("outline", [True, False])
    @pytest.mark.parametrize(("share", "class_id"), [(0.6, 1), (0.9, -1)])
    def test_too_much_hidden_makes_a_crowd(self, outline: bool, share: float, class_id: int) -> None:
        one = placed(0, 0, 40, 40, outline=outline, occluders=[ring(0, 0, 40 * share, 40)])
        one.update_visibility()
        assert one.class_id == class_id

    def test_the_box_shrinks_to_what_is_seen(self) -> None:
        one = placed(0, 0, 56, 56, occluders=[ring(-5, -5, 28, 70)])
        assert one.mask()[:, 30:].all()
        assert not one.mask()[:, :27].any()
        one.update_visibility()
        assert one.box.tolist() == pytest.approx([28, 0, 56, 56], abs=1)
        assert one.mask()[:, 3:].all()

    def test_a_little_of_a_large_one_makes_a_crowd(self) -> None:
        one = CanvasObject(
            2, np.array([-300, 0, 40, 40], np.float32), np.array([0, 0, 40, 40], np.float32), []
        )
        one.update_visibility()
        assert one.class_id == -2

    def test_tiny_ones_and_crowds(self) -> None:
        tiny, empty = placed(5, 5, 5 + MIN_SIDE - 1, 50), placed(5, 5, 5, 5)
        crowd = placed(0, 0, 50, 50)
        crowd.class_id = -1
        for one in (tiny, empty, crowd):
            one.update_visibility()
            assert one.class_id == -1


def with_pasted(
    donor: AnnotatedPhoto, times: int, *, seed: int, on: AnnotatedPhoto | None = None
) -> Iterator[Canvas]:
    """Canvases, empty or with the photo `on`, onto which the first object of `donor` was to be pasted."""
    rng = np.random.default_rng(seed)
    for _ in range(times):
        canvas = Canvas(SIDE)
        if on is not None:
            canvas.place(on, (0, 0, SIDE, SIDE), NO_AUGMENTATION, rng)
        canvas.paste(donor, 0, NO_AUGMENTATION, rng)
        yield canvas


class TestPaste:
    def test_pixels_box_and_mask_agree(self, tmp_path: Path) -> None:
        donor = photo(tmp_path / "a.png", (30, 20, 60, 80))
        pasted = 0
        for canvas in with_pasted(donor, 30, seed=0):
            for one in canvas.objects:
                pasted += 1
                bright = canvas.pixels[..., 0] > 100
                rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
                extent = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
                assert one.box.tolist() == pytest.approx(extent, abs=1.1)
                assert one.mask().all()
        assert pasted > 20

    def test_what_lies_behind_is_hidden(self, tmp_path: Path) -> None:
        donor = photo(tmp_path / "a.png", (10, 10, 80, 80))
        behind = photo(tmp_path / "b.png", (20, 20, 70, 70), level=90)
        below = 0
        for canvas in with_pasted(donor, 20, seed=1, on=behind):
            back = canvas.objects[0]
            if len(canvas.objects) == 2 and back.occluders:
                seen = (canvas.pixels[20:70, 20:70, 0] == 90).mean()
                assert back.mask().mean() == pytest.approx(seen, abs=0.06)
                below += seen < 0.9
        assert below > 2

    def test_objects_without_a_size_or_outside_their_photo_are_not_pasted(self, tmp_path: Path) -> None:
        whole = photo(tmp_path / "a.png", (30, 20, 60, 80))
        for box in ([5, 5, 5, 5], [200, 10, 260, 60], [-80, -80, -10, -10]):
            odd = replace(whole, boxes=np.array([box], np.float32), outlines=[[ring(*box)]])
            for canvas in with_pasted(odd, 5, seed=2):
                assert not canvas.objects
                assert not canvas.pixels.any()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_pictures_of_any_seed_hold_their_objects(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    names = [folder / f"augment{i}.png" for i in range(3)]
    photos = [
        photo(names[0], (5, 5, 60, 40), (50, 30, 90, 90), size=(100, 140)),
        photo(names[1], (-10, 2, 30, 300), size=(96, 40)),
        photo(names[2]),
    ]
    rng = np.random.default_rng(seed)
    canvas = compose(photos[seed % 3], photos, SIDE, Augmentation(), rng)
    assert (canvas.pixels.shape, canvas.pixels.dtype.name) == ((SIDE, SIDE, 3), "uint8")
    for one in canvas.objects:
        assert np.isfinite(one.box).all()
        if one.class_id > 0:
            assert (one.box >= -1e-3).all()
            assert (one.box <= SIDE + 1e-3).all()
            assert (one.box[2:] - one.box[:2]).min() >= MIN_SIDE
            assert one.mask().any()


def test_a_mosaic_has_four_photos(tmp_path: Path) -> None:
    levels = (60, 120, 180, 240)
    photos = [photo(tmp_path / f"{n}.png", (0, 0, SIDE, SIDE), level=n) for n in levels]
    how = replace(NO_AUGMENTATION, mosaic=1.0)
    canvas = compose(photos[0], photos, SIDE, how, np.random.default_rng(0))
    assert len(canvas.objects) == 4
    assert set(np.unique(canvas.pixels)) <= {0, *levels}
    for one in canvas.objects:
        x1, y1, x2, y2 = one.box.astype(int).tolist()
        assert len(np.unique(canvas.pixels[y1:y2, x1:x2])) == 1


def test_without_augmentation_a_photo_is_as_it_is(tmp_path: Path) -> None:
    one = photo(tmp_path / "a.png", (10, 20, 50, 60))
    canvas = compose(one, [one], SIDE, NO_AUGMENTATION, np.random.default_rng(0))
    np.testing.assert_array_equal(canvas.pixels, cv2.imread(str(one.path)))
    assert canvas.objects[0].box.tolist() == [10, 20, 50, 60]


def test_colours_change_and_stay_in_range() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(jitter_colour(pixels, 0.0, rng), pixels)
    changed = jitter_colour(pixels, 0.5, rng)
    assert (changed.shape, changed.dtype.name) == (pixels.shape, "uint8")
    assert (changed != pixels).mean() > 0.5
