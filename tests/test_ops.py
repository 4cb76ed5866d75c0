"""Operations with two implementations, compared with each other and with slow, obvious ones."""

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops as keras_ops
from numpy.typing import NDArray

from live_seg.maskrcnn import ops
from live_seg.maskrcnn.boxes import iou
from live_seg.maskrcnn.ops import LOWEST, compiled, crop, greedy_nms, nms, nms_within_class

seeds = st.integers(0, 2**32 - 1)

only_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="compares a form with TensorFlow's own"
)


def numpy(tensor: Any) -> NDArray[Any]:
    return np.asarray(keras_ops.convert_to_numpy(tensor))


def tensors(*arrays: NDArray[Any]) -> tuple[Any, ...]:
    return tuple(keras_ops.convert_to_tensor(array) for array in arrays)


def random_boxes(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    corner, sides = rng.uniform(0, 0.7, (*shape, 2)), rng.uniform(0.05, 0.6, (*shape, 2))
    return np.concatenate([corner, corner + sides], axis=-1).astype(np.float32)


def distinct_scores(rng: np.random.Generator, batch: int, count: int) -> NDArray[np.float32]:
    order = np.stack([rng.permutation(count) for _ in range(batch)])
    return ((order + 1) / (count + 1)).astype(np.float32)


def slow_nms(overlaps: NDArray[Any], scores: NDArray[Any], limit: int, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in np.argsort(-scores):
        free = all(overlaps[i, j] <= threshold for j in kept)
        if scores[i] > LOWEST and free and len(kept) < limit:
            kept.append(int(i))
    return kept


def chosen(result: tuple[Any, Any]) -> list[list[int]]:
    """The indices that count, picture by picture; those that do not must point at box 0."""
    kept, valid = numpy(result[0]), numpy(result[1])
    assert kept.dtype == np.int32
    assert kept.shape == valid.shape
    assert not kept[~valid].any()
    return [row[counts].tolist() for row, counts in zip(kept, valid, strict=True)]


@given(seed=seeds, count=st.integers(1, 20), limit=st.integers(1, 25), threshold=st.floats(0.05, 0.9))
def test_nms_keeps_what_the_slow_form_keeps(seed: int, count: int, limit: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, 2, count), distinct_scores(rng, 2, count)
    scores[rng.random((2, count)) < 0.2] = -np.inf
    overlaps = numpy(iou(boxes, boxes))
    expected = [slow_nms(o, s, limit, threshold) for o, s in zip(overlaps, scores, strict=True)]
    b, s, one = tensors(boxes, scores, np.ones((2, count), np.int32))
    for result in (
        nms(b, s, limit, threshold),
        nms_within_class(b, one, s, limit, threshold),
        greedy_nms(b, s, limit, threshold),
    ):
        assert numpy(result[0]).shape == (2, limit)
        assert chosen(result) == expected


def greedily(boxes: Any, class_ids: Any, scores: Any, limit: int, threshold: float) -> tuple[Any, Any]:
    return greedy_nms(boxes, scores, limit, threshold, class_ids)


@pytest.mark.parametrize("form", [nms_within_class, greedily])
def test_only_boxes_of_one_class_compete(form: Any) -> None:
    rng = np.random.default_rng(5)
    boxes, scores, group = random_boxes(rng, 1, 30), distinct_scores(rng, 1, 30), rng.integers(0, 3, 30)
    overlaps = numpy(iou(boxes, boxes))[0]
    separate = [
        slow_nms(overlaps[np.ix_(m, m)], scores[0, m], 30, 0.2) for m in (group == g for g in range(3))
    ]
    expected = {int(np.flatnonzero(group == g)[i]) for g, kept in enumerate(separate) for i in kept}
    (found,) = chosen(form(*tensors(boxes, group[None].astype(np.int32), scores), 30, 0.2))
    assert set(found) == expected
    assert found == sorted(found, key=lambda i: -scores[0, i])
    assert len(found) > len(slow_nms(overlaps, scores[0], 30, 0.2))


@only_tensorflow
def test_more_boxes_than_overlaps_fit_in_memory_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    boxes, scores = tensors(random_boxes(rng, 2, 30), distinct_scores(rng, 2, 30))
    classes = rng.integers(0, 3, (2, 30)).astype(np.int32)
    expected = chosen(nms_within_class(boxes, classes, scores, 10, 0.3))
    monkeypatch.setattr(ops, "MOST_OVERLAPS", 29)
    assert chosen(nms_within_class(boxes, classes, scores, 10, 0.3)) == expected


@pytest.mark.parametrize("form", [nms_within_class, greedily])
@pytest.mark.parametrize("nothing", [-np.inf, 2 * LOWEST, LOWEST])
def test_the_lowest_scores_take_no_part(form: Any, nothing: float) -> None:
    boxes = random_boxes(np.random.default_rng(0), 1, 6)
    given = tensors(boxes, np.ones((1, 6), np.int32), np.full((1, 6), nothing, np.float32))
    assert chosen(form(*given, 4, 0.5)) == [[]]
    assert chosen(nms(given[0], given[2], 4, 0.5)) == [[]]


@pytest.mark.parametrize("side", [7, 14, 28])
@pytest.mark.parametrize("cut", [True, False], ids=["cut to the picture", "partly outside"])
@only_tensorflow
def test_both_crops_agree(side: int, cut: bool) -> None:
    rng = np.random.default_rng(side)
    pyramid = tensors(
        *(rng.standard_normal((3, h, w, 4), np.float32) for h, w in ((32, 24), (16, 12), (8, 6), (1, 5)))
    )
    boxes = np.sort(rng.uniform(-0.3, 1.3, (300, 2, 2)), axis=1).reshape(-1, 4).astype(np.float32)
    boxes = boxes.clip(0, 1) if cut else boxes
    level, rows = (rng.integers(0, most, 300).astype(np.int32) for most in (4, 3))
    where = tensors(level, boxes, rows)
    crops, order = (numpy(part) for part in crop(pyramid, where[0], where[1], where[2], side))
    assert crops.shape == (300, side, side, 4)
    np.testing.assert_array_equal(order, np.argsort(level, kind="stable"))
    expected = np.empty_like(crops)
    expected[order] = crops
    crops, order = (numpy(part) for part in ops._gathered_crop(pyramid, where[0], where[1], where[2], side))
    np.testing.assert_allclose(crops, expected[order], atol=1e-5)
    outside = (expected == 0).all(axis=-1)
    assert outside.any()
    assert not outside.all()


@pytest.mark.parametrize("form", [crop, ops._gathered_crop])
def test_crop_samples_from_edge_to_edge(form: Any) -> None:
    ramp = np.arange(5, dtype=np.float32)[None, None, :, None] + 10 * np.arange(3)[None, :, None, None]
    box = np.array([[0, 0, 1, 1], [0, 0.25, 0.5, 0.5]], np.float32)
    zeros = np.zeros(2, np.int32)
    crops = numpy(form(tensors(ramp.astype(np.float32)), *tensors(zeros, box, zeros), 3)[0])[..., 0]
    np.testing.assert_allclose(crops[0], [[0, 2, 4], [10, 12, 14], [20, 22, 24]], atol=1e-5)
    np.testing.assert_allclose(crops[1], [[1, 1.5, 2], [6, 6.5, 7], [11, 11.5, 12]], atol=1e-5)


@pytest.mark.parametrize("form", [crop, ops._gathered_crop])
def test_crop_goes_on_in_the_repeated_row_and_column(form: Any) -> None:
    ramp = np.arange(4, dtype=np.float32)[None, None, :, None] + 10 * np.arange(2)[None, :, None, None]
    box, zeros = np.array([[0, 0.5, 1, 1]], np.float32), np.zeros(1, np.int32)
    crops = form(tensors(ramp.astype(np.float32)), *tensors(zeros, box, zeros), 3, repeated=1)[0]
    np.testing.assert_allclose(numpy(crops)[0, ..., 0], [[2, 3, 3], [12, 13, 13], [12, 13, 13]], atol=1e-5)


@pytest.mark.parametrize("form", [crop, ops._gathered_crop])
def test_no_boxes_give_no_crops(form: Any) -> None:
    none = tensors(np.zeros(0, np.int32), np.zeros((0, 4), np.float32), np.zeros(0, np.int32))
    crops, order = form(tensors(np.ones((2, 4, 4, 3), np.float32)), *none, 7)
    assert (numpy(crops).shape, numpy(order).shape) == ((0, 7, 7, 3), (0,))


def test_one_graph_serves_every_number_of_pictures() -> None:
    calls: list[tuple[Any, ...]] = []

    def double(pair: tuple[Any, Any], other: Any) -> tuple[Any, Any]:
        calls.append(tuple(pair[0].shape))
        return pair[0] * 2, pair[1] + other

    graph = compiled(double, keras.Sequential())

    def check(count: int, side: int) -> None:
        pictures = np.full((count, side, side, 3), 3, np.float32)
        numbers = np.arange(count, dtype=np.int32)
        doubled, sums = graph((pictures, numbers), numbers)
        np.testing.assert_array_equal(numpy(doubled), pictures * 2)
        np.testing.assert_array_equal(numpy(sums), numbers * 2)

    for count in (3, 1, 7, 4, 3):
        check(count, 8)
    sizes_traced = 1 if keras.backend.backend() == "tensorflow" else 3
    assert len(calls) == sizes_traced
    check(2, 16)
    assert len(calls) == sizes_traced + 1
    check(5, 8)
    assert len(calls) == sizes_traced + 1
