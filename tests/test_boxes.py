"""Box arithmetic and anchors, on cases worked out by hand and on many random ones."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from numpy.typing import NDArray

from live_seg.maskrcnn.anchors import pyramid_anchors, to_normalized, to_pixels
from live_seg.maskrcnn.boxes import apply_deltas, area, clip, deltas_between, iou, overlap

seeds = st.integers(0, 2**32 - 1)


def random_boxes(seed: int, count: int, least: float = 0.01) -> NDArray[np.float32]:
    """Boxes of sides `least`..1, that may stick out of the picture."""
    rng = np.random.default_rng(seed)
    corner, sides = rng.uniform(-0.2, 0.9, (count, 2)), rng.uniform(least, 1, (count, 2))
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def numpy(tensor: Any) -> NDArray[Any]:
    return np.asarray(ops.convert_to_numpy(tensor))


def test_the_last_pixel_lies_at_one() -> None:
    whole = to_normalized(np.array([0, 0, 101, 201]), (101, 201))
    np.testing.assert_array_equal(whole, [0, 0, 1, 1])
    inner = to_normalized(np.array([[10, 50, 31, 151]]), (101, 201))
    np.testing.assert_allclose(inner, [[0.1, 0.25, 0.3, 0.75]], rtol=1e-6)
    assert whole.dtype == inner.dtype == np.float32


@given(seed=seeds, height=st.integers(2, 2000), width=st.integers(2, 2000))
def test_pixels_and_normalized_invert_each_other(seed: int, height: int, width: int) -> None:
    boxes = random_boxes(seed, 5)
    pixels = to_pixels(boxes, (height, width))
    np.testing.assert_allclose(to_normalized(pixels, (height, width)), boxes, atol=1e-5)
    assert pixels.dtype == np.float32


def test_deltas_move_in_sides_and_stretch_by_powers_of_e() -> None:
    box = np.array([[0.2, 0.2, 0.6, 0.4]], np.float32)  # 0.4 high, 0.2 wide
    moved = numpy(apply_deltas(box, np.array([[5, -10, 0, 0]], np.float32)))
    np.testing.assert_allclose(moved, [[0.4, 0.0, 0.8, 0.2]], atol=1e-6)
    stretched = numpy(apply_deltas(box, 5 * np.log([[1, 1, 2, 0.5]]).astype(np.float32)))
    np.testing.assert_allclose(stretched, [[0.0, 0.25, 0.8, 0.35]], atol=1e-6)
    back = numpy(deltas_between(box, np.array([[0.0, 0.25, 0.8, 0.35]], np.float32)))
    np.testing.assert_allclose(back, 5 * np.log([[1, 1, 2, 0.5]]), atol=5e-5)


@given(seed=seeds)
def test_deltas_invert_each_other(seed: int) -> None:
    # Sides differ by a factor of 50 at most, less than the largest stretch.
    boxes, targets = random_boxes(seed, 6, 0.02), random_boxes(seed + 1, 6, 0.02)
    deltas = deltas_between(boxes, targets)
    np.testing.assert_allclose(numpy(apply_deltas(boxes, deltas)), targets, atol=2e-5)
    known = np.random.default_rng(seed).normal(0, 2, (6, 4)).astype(np.float32)
    found = numpy(deltas_between(boxes, apply_deltas(boxes, known)))
    np.testing.assert_allclose(found, known, atol=2e-3)


def test_no_box_grows_more_than_the_largest_stretch() -> None:
    box = np.array([[0.4, 0.4, 0.6, 0.5]], np.float32)
    grown = numpy(apply_deltas(box, np.array([[0, 0, 1e6, 5 * np.log(62.0)]], np.float32)))[0]
    np.testing.assert_allclose(grown[2] - grown[0], 0.2 * 1000 / 16, rtol=1e-5)
    np.testing.assert_allclose(grown[3] - grown[1], 0.1 * 62, rtol=1e-5)


def test_iou_by_hand() -> None:
    boxes = np.array([[0, 0, 4, 4], [0, 0, 0, 0]], np.float32)
    others = np.array([[0, 0, 4, 4], [0, 0, 4, 2], [2, 2, 6, 6], [4, 0, 8, 4], [5, 5, 6, 6]], np.float32)
    expected = np.array([[1, 0.5, 4 / 28, 0, 0], [0] * 5])
    np.testing.assert_allclose(numpy(iou(boxes, others)), expected, atol=1e-6)
    np.testing.assert_array_equal(numpy(overlap(boxes, others)), [[16, 8, 4, 0, 0], [0] * 5])
    np.testing.assert_array_equal(numpy(area(others)), [16, 8, 16, 16, 1])


@given(seed=seeds)
def test_iou_is_a_symmetric_share(seed: int) -> None:
    boxes, others = random_boxes(seed, 5), random_boxes(seed + 1, 7)
    table = numpy(iou(boxes, others))
    assert table.shape == (5, 7)
    assert table.min() >= 0
    assert table.max() <= 1 + 1e-6
    np.testing.assert_allclose(table, numpy(iou(others, boxes)).T, atol=1e-6)
    np.testing.assert_allclose(np.diag(numpy(iou(boxes, boxes))), 1, atol=1e-5)
    beyond = boxes + np.float32(5)
    np.testing.assert_array_equal(numpy(iou(boxes, beyond)), np.zeros((5, 5)))


def test_iou_pairs_boxes_within_each_picture_of_a_batch() -> None:
    batch = np.stack([random_boxes(0, 4), random_boxes(1, 4)])
    others = np.stack([random_boxes(2, 3), random_boxes(3, 3)])
    expected = [numpy(iou(b, o)) for b, o in zip(batch, others, strict=True)]
    np.testing.assert_allclose(numpy(iou(batch, others)), expected, atol=1e-6)


def test_clip_cuts_each_box_to_its_window() -> None:
    boxes = np.array([[[-1, -1, 2, 2], [0.3, 0.4, 0.5, 0.6]], [[0.9, 0.9, 3, 3], [0, 0, 1, 1]]], np.float32)
    windows = np.array([[[0, 0.25, 1, 0.75]], [[0.1, 0.2, 0.8, 0.7]]], np.float32)
    first = [[0, 0.25, 1, 0.75], [0.3, 0.4, 0.5, 0.6]]
    second = [[0.8, 0.7, 0.8, 0.7], [0.1, 0.2, 0.8, 0.7]]
    np.testing.assert_allclose(numpy(clip(boxes, windows)), np.array([first, second]), atol=1e-7)


def anchors_in_pixels(size: tuple[int, int], **pyramid: Any) -> NDArray[np.float32]:
    strides = tuple(int(stride) for stride in pyramid["strides"])
    levels = pyramid_anchors(size, strides, pyramid["scales"], pyramid["ratios"])
    return to_pixels(np.concatenate(levels), size)


def test_anchors_come_by_level_row_column_ratio() -> None:
    pixels = anchors_in_pixels((64, 96), strides=(32, 64), scales=((20,), (40,)), ratios=(0.25, 1, 4))
    assert pixels.shape == ((2 * 3 + 1 * 2) * 3, 4)
    expected: dict[int, list[float]] = {
        0: [-20, -5, 20, 5],  # ratio 0.25: 40 high, 10 wide, centred on the cell's corner
        1: [-10, -10, 10, 10],
        2: [-5, -20, 5, 20],
        4: [-10, 22, 10, 42],  # the next column
        10: [22, -10, 42, 10],  # the next row
        18: [-40, -10, 40, 10],  # the next level, twice the size
        22: [-20, 44, 20, 84],
    }
    for place, box in expected.items():
        np.testing.assert_allclose(pixels[place], np.array(box), atol=1e-4, err_msg=str(place))


def test_anchors_keep_their_area_whatever_the_ratio() -> None:
    pixels = anchors_in_pixels((128, 128), strides=(64,), scales=((48,),), ratios=(0.5, 1, 2))
    sides = pixels[:, 2:] - pixels[:, :2]
    np.testing.assert_allclose(sides.prod(axis=1), 48**2, rtol=1e-4)
    np.testing.assert_allclose(sides[:3, 1] / sides[:3, 0], [0.5, 1, 2], rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "cells"), [((96, 160), 3 * 5 + 2 * 3), ((64, 64), 2 * 2 + 1), ((32, 32), 1 + 1)]
)
def test_cells_are_counted_up_where_a_size_is_no_multiple_of_the_stride(
    size: tuple[int, int], cells: int
) -> None:
    pixels = anchors_in_pixels(size, strides=(32, 64), scales=((32,), (64,)), ratios=(1,))
    assert len(pixels) == cells
