from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from live_seg.types import MASK_SIDE, Instances

FRAME = (30, 40)
corners = st.tuples(*[st.floats(-60, 90, width=32)] * 4)


def found(boxes: list[tuple[float, ...]], side: int = MASK_SIDE, seed: int = 0) -> Instances:
    """Return instances with these boxes and random masks."""
    n = len(boxes)
    masks = np.random.default_rng(seed).random((n, side, side), np.float32)
    return Instances(
        boxes=np.array(boxes, np.float32).reshape(n, 4),
        masks=masks,
        class_ids=np.arange(1, n + 1, dtype=np.int32),
        scores=np.linspace(1, 0.5, n, dtype=np.float32),
    )


def columns(n: int = 2) -> dict[str, Any]:
    return {
        "boxes": np.zeros((n, 4), np.float32),
        "masks": np.zeros((n, 28, 28), np.float32),
        "class_ids": np.ones(n, np.int32),
        "scores": np.ones(n, np.float32),
        "track_ids": np.arange(n, dtype=np.int32) + 1,
        "confirmed": np.ones(n, bool),
    }


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("boxes", (2, 5)),
        ("boxes", (3, 4)),
        ("boxes", (2,)),
        ("masks", (2, 28)),
        ("masks", (2, 28, 27)),
        ("masks", (1, 28, 28)),
        ("masks", (2, 28, 28, 1)),
        ("class_ids", (1,)),
        ("class_ids", (2, 1)),
        ("scores", (3,)),
        ("track_ids", (1,)),
        ("confirmed", (3,)),
    ],
)
def test_columns_whose_shapes_do_not_match_are_rejected(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected boxes"):
        Instances(**{**columns(), name: np.zeros(shape)})


@pytest.mark.parametrize("name", ["track_ids", "confirmed"])
def test_track_ids_and_confirmed_come_together(name: str) -> None:
    others = {column: value for column, value in columns().items() if column != name}
    with pytest.raises(ValueError, match="together or not at all"):
        Instances(**others)


def test_masks_may_have_any_resolution() -> None:
    assert len(found([(0, 0, 4, 4)], side=14)) == 1


def test_only_a_confirmed_track_has_a_confirmed_id() -> None:
    untracked = found([(0, 0, 5, 5), (1, 2, 3, 4)])
    assert untracked.confirmed_id(1) is None
    tracked = replace(untracked, track_ids=np.array([7, 8], np.int32), confirmed=np.array([False, True]))
    assert [tracked.confirmed_id(position) for position in range(2)] == [None, 8]


def test_empty_instances() -> None:
    nothing = Instances.empty()
    assert len(nothing) == 0
    assert nothing.track_ids is None
    assert nothing.confirmed is None
    assert nothing.bitmaps(FRAME).shape == (0, *FRAME)
    for masks in (nothing.soft_masks, nothing.pasted, nothing.rles):
        assert list(masks(FRAME)) == []
    assert len(nothing[np.zeros(0, bool)]) == 0
    assert len(nothing[:5]) == 0


@pytest.mark.parametrize(
    ("index", "positions"),
    [
        (slice(1, None), [1, 2]),
        (slice(0, 0), []),
        (np.array([True, False, True]), [0, 2]),
        ([2, 0], [2, 0]),
        (np.array([1]), [1]),
        (np.zeros(0, int), []),
    ],
)
@pytest.mark.parametrize("tracked", [False, True])
def test_every_column_is_indexed(index: Any, positions: list[int], tracked: bool) -> None:
    whole = found([(0, 0, 5, 5), (1, 2, 3, 4), (9, 9, 20, 20)])
    if tracked:
        whole = replace(
            whole, track_ids=np.array([7, 8, 9], np.int32), confirmed=np.array([True, False, True])
        )
    part = whole[index]
    assert len(part) == len(positions)
    for name, column in vars(whole).items():
        if not isinstance(column, np.ndarray):
            assert getattr(part, name) == column
        else:
            np.testing.assert_array_equal(getattr(part, name), column[np.array(positions, int)])


@pytest.mark.parametrize("tracked", [False, True])
def test_joined_concatenates_every_column(tracked: bool) -> None:
    one, other = found([(0, 0, 5, 5), (1, 2, 3, 4)]), found([(9, 9, 20, 20)], seed=1)
    if tracked:
        one = replace(one, track_ids=np.array([7, 8], np.int32), confirmed=np.array([True, True]))
        other = replace(other, track_ids=np.array([9], np.int32), confirmed=np.array([False]))
    both = one.joined(other)
    for name in columns():
        column = getattr(both, name)
        if column is None:
            assert not tracked
            continue
        np.testing.assert_array_equal(column, [*getattr(one, name), *getattr(other, name)])
        assert column.dtype == getattr(one, name).dtype


def test_joined_with_empty_instances_is_the_other() -> None:
    some = found([(0, 0, 5, 5)], side=14)
    some = replace(some, track_ids=np.array([7], np.int32), confirmed=np.array([True]))
    assert some.joined(Instances.empty()) is some
    assert Instances.empty().joined(some) is some
    assert len(Instances.empty().joined(Instances.empty())) == 0


def test_instances_that_do_not_match_cannot_be_joined() -> None:
    some = found([(0, 0, 5, 5)])
    with pytest.raises(ValueError, match="in both or in neither"):
        some.joined(replace(some, track_ids=np.array([7], np.int32), confirmed=np.array([True])))
    with pytest.raises(ValueError, match="must match"):
        some.joined(found([(0, 0, 5, 5)], side=14))


@given(boxes=st.lists(corners, max_size=4), side=st.sampled_from([1, 7, 28]), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_all_forms_of_masks_agree(boxes: list[tuple[float, ...]], side: int, seed: int) -> None:
    instances = found(boxes, side, seed)
    bitmaps = instances.bitmaps(FRAME)
    assert bitmaps.shape == (len(instances), *FRAME)
    soft_masks, pasted = instances.soft_masks(FRAME), instances.pasted(FRAME)
    forms = zip(bitmaps, soft_masks, pasted, instances.rles(FRAME), strict=True)
    for bitmap, (soft_region, soft), (region, bits), rle in forms:
        assert soft_region == region
        assert soft.dtype == np.float32
        assert soft.shape == bits.shape == bitmap[region].shape
        assert ((soft >= 0) & (soft <= 1 + 1e-6)).all()
        np.testing.assert_array_equal(bits, soft >= 0.5)
        np.testing.assert_array_equal(bitmap[region], bits)
        assert bitmap.sum() == bits.sum()
        assert rle["size"] == list(FRAME)
        assert isinstance(rle["counts"], str)
        np.testing.assert_array_equal(coco_mask.decode(rle), bitmap)


@given(
    corner=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    size=st.tuples(st.floats(1, 60), st.floats(1, 60)),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
@example(corner=(-10, -20), size=(30, 40), seed=0)
@example(corner=(25, 15), size=(50, 60), seed=0)
def test_a_mask_is_clipped_to_the_frame(
    corner: tuple[float, float], size: tuple[float, float], seed: int
) -> None:
    around = 128  # wide enough for the whole box; even, as halves are rounded to even
    whole = found([(*np.add(corner, around), *np.add(np.add(corner, size), around))], seed=seed)
    [roomy] = whole.bitmaps((FRAME[0] + 2 * around, FRAME[1] + 2 * around))
    shifted = Instances(**{**vars(whole), "boxes": whole.boxes - np.float32(around)})
    [cut] = shifted.bitmaps(FRAME)
    np.testing.assert_array_equal(cut, roomy[around : around + FRAME[0], around : around + FRAME[1]])


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((-9, 3, -1, 20), id="left of the frame"),
        pytest.param((40, 3, 50, 20), id="right, touching"),
        pytest.param((3, -9, 20, 0), id="above, touching"),
        pytest.param((3, 31, 20, 50), id="below"),
        pytest.param((5, 5, 5, 9), id="no width"),
        pytest.param((5, 5, 9, 5), id="no height"),
        pytest.param((9, 9, 5, 5), id="inverted"),
        pytest.param((5, 5, 5.4, 9), id="no width once rounded"),
    ],
)
def test_an_empty_or_outside_box_has_no_pixels(box: tuple[float, ...]) -> None:
    instances = found([box])
    [(region, soft)] = instances.soft_masks(FRAME)
    assert region == (slice(0, 0), slice(0, 0))
    assert soft.shape == (0, 0)
    assert not instances.bitmaps(FRAME).any()
    [rle] = instances.rles(FRAME)
    assert coco_mask.area(rle) == 0


def test_a_box_is_rounded_to_whole_pixels_right_and_bottom_exclusive() -> None:
    instances = found([(2.4, 3.6, 10.4, 12.6)])
    [(region, _)] = instances.soft_masks(FRAME)
    assert region == (slice(4, 13), slice(2, 10))


@given(height=st.integers(1, 120), width=st.integers(1, 120), side=st.sampled_from([2, 14, 28]))
@settings(max_examples=60, deadline=None)
def test_a_mask_of_ones_fills_its_box_except_the_corners(height: int, width: int, side: int) -> None:
    box = np.array([[0, 0, width, height]], np.float32)
    ones = Instances(**{**columns(1), "boxes": box, "masks": np.ones((1, side, side), np.float32)})
    [(_, bits)] = ones.pasted((height, width))
    # A pixel's centre is this many cells inside the nearest border; the mask fades to 0 from half a cell
    # within to half a cell beyond, so along one border it is at least half, and at a corner half of a half.
    rows, columns_ = (
        np.minimum(1, 0.5 + (np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5) * side / n)
        for n in (height, width)
    )
    expected = np.outer(rows, columns_)
    clear = np.abs(expected - 0.5) > 1e-5  # what rounding cannot tip
    np.testing.assert_array_equal(bits[clear], (expected >= 0.5)[clear])
    assert bits[height // 2].all()
    assert bits[:, width // 2].all()
