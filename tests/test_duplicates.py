"""One object has one instance: duplicates of other classes are removed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_seg.tracking.duplicates import MIN_IOU, without_duplicates
from live_seg.types import Instances

Row = tuple[int, int, float, int]
"""Left edge of a box that is 100 pixels wide, class id, score, track id."""


def instances_of(*rows: Row, tracked: bool = True) -> Instances:
    n = len(rows)
    return Instances(
        boxes=np.array([[left, 0, left + 100, 50] for left, *_ in rows], np.float32).reshape(-1, 4),
        masks=np.ones((n, 4, 4), np.float32),
        class_ids=np.array([row[1] for row in rows], np.int32),
        scores=np.array([row[2] for row in rows], np.float32),
        track_ids=np.array([row[3] for row in rows], np.int32) if tracked else None,
        confirmed=np.ones(n, bool) if tracked else None,
    )


@pytest.mark.parametrize(
    ("rows", "tracked", "kept"),
    [
        ([], True, []),
        ([(0, 3, 0.9, 1)], True, [3]),
        ([(0, 3, 0.9, 7), (1, 8, 0.6, 9)], True, [3]),
        ([(0, 3, 0.9, 9), (1, 8, 0.6, 7)], True, [8]),
        ([(0, 3, 0.9, 9), (1, 8, 0.6, 7)], False, [3]),
        ([(0, 3, 0.9, 1), (1, 3, 0.6, 2)], True, [3, 3]),
        ([(0, 3, 0.9, 1), (20, 8, 0.6, 2)], True, [3, 8]),
        ([(0, 3, 0.9, 1), (6, 8, 0.6, 2), (12, 6, 0.5, 3)], True, [3, 6]),
    ],
    ids=["none", "one", "older", "older, lower score", "untracked", "same class", "beside", "chain"],
)
def test_the_preferred_instance_of_each_object_is_kept(
    rows: list[Row], tracked: bool, kept: list[int]
) -> None:
    assert without_duplicates(instances_of(*rows, tracked=tracked)).class_ids.tolist() == kept


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(1, 3), st.floats(0, 1), st.integers(1, 99)), max_size=8
    )
)
def test_what_is_left_has_no_duplicates_and_keeps_its_order(rows: list[Row]) -> None:
    found = instances_of(*rows)
    left = without_duplicates(found)
    assert without_duplicates(left) is left
    shared = np.maximum(100 - np.abs(left.boxes[:, None, 0] - left.boxes[:, 0]), 0)
    same = shared / (200 - shared) >= MIN_IOU + 1e-6
    assert not (same & (left.class_ids[:, None] != left.class_ids)).any()
    positions = [int(np.flatnonzero((found.boxes == box).all(axis=1))[0]) for box in left.boxes]
    assert len(positions) == len(left) <= len(found)
    if len({row[0] for row in rows}) == len(rows):
        assert positions == sorted(positions)
    assert bool(len(left)) == bool(rows)
