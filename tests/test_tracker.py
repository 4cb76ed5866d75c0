import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from live_seg.errors import UsageError
from live_seg.tracking.tracker import MAX_TRACKS, Tracker, closeness, mask_iou
from live_seg.types import MASK_SIDE, Instances

Box = tuple[float, float, float, float]


def found(*boxes: Box, classes: list[int] | None = None, side: int = MASK_SIDE) -> Instances:
    """Return instances with filled masks, of class 1 unless `classes` are given."""
    n = len(boxes)
    return Instances(
        boxes=np.array(boxes, np.float32).reshape(n, 4),
        masks=np.ones((n, side, side), np.float32),
        class_ids=np.array(classes or [1] * n, np.int32),
        scores=np.full(n, 0.9, np.float32),
    )


def ids(tracked: Instances) -> list[int]:
    assert tracked.track_ids is not None
    assert tracked.track_ids.dtype == np.int32
    assert tracked.track_ids.shape == (len(tracked),)
    return [int(track_id) for track_id in tracked.track_ids]


def confirmed(tracked: Instances) -> list[bool]:
    assert tracked.confirmed is not None
    assert tracked.confirmed.dtype == bool
    assert tracked.confirmed.shape == (len(tracked),)
    return [bool(flag) for flag in tracked.confirmed]


@st.composite
def blobs(draw: st.DrawFn) -> Instances:
    """Generate up to six soft-edged ellipses and bands in large boxes of a 400 x 400 frame."""
    n = draw(st.integers(1, 6))
    start = st.integers(0, 200)
    length = st.integers(100, 200)
    places = [(draw(start), draw(start), draw(length), draw(length)) for _ in range(n)]
    shapes = [
        (draw(st.floats(0.2, 0.8)), draw(st.floats(0.25, 0.6)), draw(st.floats(0.25, 0.6))) for _ in range(n)
    ]
    cells = (np.arange(MASK_SIDE) + 0.5) / MASK_SIDE
    masks = [
        np.clip((1 - np.hypot((cells[:, None] - middle) / tall, (cells - 0.5) / wide)) * 6 + 0.5, 0, 1)
        for middle, tall, wide in shapes
    ]
    instances = found(*[(x, y, x + width, y + height) for x, y, width, height in places])
    return Instances(**{**vars(instances), "masks": np.array(masks, np.float32)})


def full_size_iou(a: Instances, b: Instances) -> NDArray[np.float64]:
    one, other = (set_.bitmaps((400, 400)).reshape(len(set_), -1).astype(float) for set_ in (a, b))
    common = one @ other.T
    return np.asarray(common / np.maximum(one.sum(axis=1)[:, None] + other.sum(axis=1) - common, 1))


@given(a=blobs(), b=blobs())
@settings(max_examples=40, deadline=None)
def test_mask_iou_agrees_with_full_size_masks(a: Instances, b: Instances) -> None:
    overlap = mask_iou(a, b)
    assert overlap.dtype == np.float32
    assert overlap.shape == (len(a), len(b))
    assert ((overlap >= 0) & (overlap <= 1)).all()
    np.testing.assert_array_equal(overlap, mask_iou(b, a).T)
    np.testing.assert_array_equal(np.diag(mask_iou(a, a)), 1)
    np.testing.assert_allclose(overlap, full_size_iou(a, b), atol=0.05)


def test_mask_iou_of_simple_boxes() -> None:
    square = found((0, 0, 100, 100))
    others = found((50, 0, 150, 100), (0, 0, 50, 100), (100, 0, 200, 100), (0, 300, 9, 309), (5, 5, 5, 50))
    np.testing.assert_allclose(mask_iou(square, others), [[1 / 3, 1 / 2, 0, 0, 0]], atol=0.03)


def test_mask_iou_compares_masks_not_boxes() -> None:
    left, right = found((0, 0, 100, 100)), found((0, 0, 100, 100))
    left.masks[:, :, 14:] = 0
    right.masks[:, :, :14] = 0
    assert mask_iou(left, right) == 0
    left.masks[:] = 0
    assert mask_iou(left, left) == 0, "the IoU of empty masks is 0"


def test_mask_iou_uses_the_position_of_cells_in_their_box() -> None:
    left_half = found((0, 0, 100, 100), side=2)
    left_half.masks[:, :, 1] = 0
    narrow = found((0, 0, 50, 100))
    expected = full_size_iou(left_half, narrow)
    assert expected > 0.8  # less than 1, as the corners of so coarse a mask fade
    np.testing.assert_allclose(mask_iou(left_half, narrow), expected, atol=0.05)


def test_mask_iou_of_masks_of_different_resolutions() -> None:
    box = (10.5, 20.25, 90, 70)
    assert mask_iou(found(box, side=28), found(box, side=14)) > 0.95


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 2), (2, 0)])
def test_mask_iou_without_instances(n: int, m: int) -> None:
    box = (0.0, 0.0, 9.0, 9.0)
    assert mask_iou(found(*[box] * n), found(*[box] * m)).shape == (n, m)


def test_ids_count_from_one_and_other_columns_are_unchanged() -> None:
    instances = found((0, 0, 50, 50), (100, 0, 150, 50), classes=[3, 1])
    tracker = Tracker()
    tracked = tracker.update(instances, 0.0)
    assert ids(tracked) == [1, 2]
    assert ids(tracker.update(instances, 0.1)) == [1, 2]
    assert instances.track_ids is None
    assert instances.confirmed is None
    for name in ("boxes", "masks", "class_ids", "scores"):
        assert getattr(tracked, name) is getattr(instances, name)


def test_a_moving_instance_keeps_its_id_and_a_new_one_gets_the_next() -> None:
    tracker = Tracker()
    for step in range(10):
        tracked = tracker.update(found((step * 10, 0, step * 10 + 50, 80)), step / 10)
        assert ids(tracked) == [1]
    assert ids(tracker.update(found((300, 0, 350, 80), (95, 0, 145, 80)), 1.0)) == [2, 1]
    assert ids(tracker.update(found((301, 0, 351, 80)), 1.1)) == [2]


def test_the_best_overlap_is_matched_first() -> None:
    tracker = Tracker()
    tracker.update(found((0, 0, 100, 100), (40, 0, 140, 100)), 0.0)
    assert ids(tracker.update(found((38, 0, 138, 100), (20, 0, 120, 100)), 0.1)) == [2, 1]


def test_a_track_continues_only_in_its_own_class() -> None:
    tracker = Tracker()
    tracker.update(found((0, 0, 50, 50), classes=[1]), 0.0)
    assert ids(tracker.update(found((0, 0, 50, 50), (0, 0, 50, 50), classes=[2, 1]), 0.1)) == [2, 1]


def test_an_overlap_below_the_threshold_starts_a_new_track() -> None:
    moved = found((40, 0, 140, 100))  # IoU 60 / 140
    for min_iou, expected in ((0.4, 1), (0.46, 2)):
        tracker = Tracker(min_iou=min_iou)
        tracker.update(found((0, 0, 100, 100)), 0.0)
        tracked = tracker.update(moved, 0.05)
        assert ids(tracked) == [expected]
        assert confirmed(tracked) == [expected == 1]


@pytest.mark.parametrize(("away", "expected"), [(0.5, 1), (2.0, 1), (2.25, 2)])
def test_a_track_resumes_until_it_is_forgotten_and_its_id_is_not_reused(away: float, expected: int) -> None:
    tracker = Tracker(forget_after=2.0)
    person = found((0, 0, 50, 50))
    tracker.update(person, 10.0)
    assert ids(tracker.update(Instances.empty(), 10.125)) == []
    assert ids(tracker.update(person, 10.0 + away)) == [expected]
    assert ids(tracker.update(person, 10.0 + away)) == [expected]


def test_forgetting_counts_from_the_last_detection() -> None:
    tracker = Tracker(forget_after=1.0)
    tracker.update(found((0, 0, 50, 50)), 0.0)
    for step in range(1, 8):
        assert ids(tracker.update(found((0, 0, 50, 50)), step * 0.75)) == [1]


def test_a_slow_network_does_not_lose_tracks() -> None:
    tracker, person = Tracker(), found((0, 0, 50, 50))
    for step in range(6):
        assert ids(tracker.update(person, step * 2.6)) == [1]
    tracker.update(Instances.empty(), 6 * 2.6)
    tracker.update(Instances.empty(), 7 * 2.6)
    assert ids(tracker.update(person, 8 * 2.6)) == [1]
    for step in range(9, 12):
        tracker.update(Instances.empty(), step * 2.6)
    assert ids(tracker.update(person, 12 * 2.6)) == [2]


def test_one_long_gap_is_not_a_typical_interval() -> None:
    tracker, person = Tracker(), found((0, 0, 50, 50))
    for step in range(6):
        tracker.update(person, step / 10)
    assert ids(tracker.update(person, 60.0)) == [2]


def test_masks_of_another_resolution_than_those_of_an_empty_frame() -> None:
    tracker = Tracker()
    small = found((0, 0, 50, 50), side=14)
    assert [ids(tracker.update(seen, 0.0)) for seen in (Instances.empty(), small, small[:0], small)] == [
        [],
        [1],
        [],
        [1],
    ]


@given(instances=blobs(), data=st.data())
@settings(max_examples=30, deadline=None)
def test_identical_instances_keep_their_ids_in_any_order(instances: Instances, data: st.DataObject) -> None:
    assume((mask_iou(instances, instances) == 1).sum() == len(instances))  # all different
    order = data.draw(st.permutations(range(len(instances))))
    gap = data.draw(st.floats(0.01, 0.9))
    tracker = Tracker(forget_after=1.0)
    first = ids(tracker.update(instances, 5.0))
    assert first == list(range(1, len(instances) + 1))
    tracker.update(Instances.empty(), 5.0 + gap / 2)
    assert ids(tracker.update(instances[list(order)], 5.0 + gap)) == [first[position] for position in order]


@given(frames=st.lists(blobs(), max_size=5), gap=st.floats(0, 2))
@settings(max_examples=20, deadline=None)
def test_no_id_occurs_twice_in_a_frame(frames: list[Instances], gap: float) -> None:
    tracker = Tracker(min_iou=0.05)
    for number, instances in enumerate(frames):
        given_ids = ids(tracker.update(instances, number * gap))
        assert len(set(given_ids)) == len(instances)
        assert all(track_id > 0 for track_id in given_ids)


def moved(step: float, speed: float = 60.0) -> Box:
    """Return the 40 x 100 box of a person who walks to the right, `speed` pixels per step."""
    return (speed * step, 0, speed * step + 40, 100)


def test_a_track_is_confirmed_by_its_second_detection() -> None:
    tracker = Tracker()
    here, there, elsewhere = (0, 0, 50, 80), (300, 0, 350, 80), (0, 300, 50, 380)
    first, second, third = (
        tracker.update(found(*boxes), step / 10)
        for step, boxes in enumerate([(here, there), (here, elsewhere), (elsewhere,)])
    )
    assert (ids(first), confirmed(first)) == ([1, 2], [False, False])
    assert (ids(second), confirmed(second)) == ([1, 3], [True, False])
    assert (ids(third), confirmed(third)) == ([3], [True])
    assert confirmed(tracker.update(found(elsewhere), 0.3)) == [True]


def test_fast_motion_without_mask_overlap_keeps_its_id() -> None:
    tracker = Tracker()
    seen = [ids(tracker.update(found(moved(step)), step / 2)) for step in range(6)]
    assert seen == [[1]] * 6


@pytest.mark.parametrize(("back_at", "expected"), [(moved(9, 25), 1), (moved(2, 25), 2), (moved(15, 25), 2)])
def test_an_occluded_track_is_predicted_from_its_velocity(back_at: Box, expected: int) -> None:
    tracker = Tracker()
    for step in range(5):
        tracker.update(found(moved(step, 25)), step * 0.25)
    for step in range(5, 9):
        tracker.update(Instances.empty(), step * 0.25)
    assert ids(tracker.update(found(back_at), 9 * 0.25)) == [expected]


def test_two_crossing_tracks_keep_their_ids() -> None:
    tracker = Tracker()
    for step in range(11):
        right, left = moved(step, 20), (200 - 20 * step, 0, 240 - 20 * step, 100)
        hidden = 4 <= step <= 6
        given_ids = ids(tracker.update(found(right) if hidden else found(right, left), step / 10))
        assert given_ids == ([1] if hidden else [1, 2])


def test_an_empty_mask_keeps_its_id() -> None:
    tracker = Tracker()
    blank = found((0, 0, 40, 100), (100, 0, 140, 100))
    blank.masks[:] = 0
    assert [ids(tracker.update(blank, step / 10)) for step in range(3)] == [[1, 2]] * 3


def test_boxes_of_different_shapes_are_not_matched_by_distance() -> None:
    tracker = Tracker()
    tracker.update(found((0, 0, 100, 30)), 0.0)
    assert ids(tracker.update(found((35, -35, 65, 65)), 0.01)) == [2]


def test_without_overlap_confirmed_tracks_take_precedence() -> None:
    tracker = Tracker()
    tracker.update(found((0, 0, 40, 100)), 0.0)
    tracker.update(found((0, 0, 40, 100)), 0.5)
    tracker.update(found((90, 0, 130, 100)), 0.6)
    assert ids(tracker.update(found((45, 0, 85, 100)), 1.1)) == [1]


def test_of_two_overlapping_instances_the_higher_score_continues_the_track() -> None:
    tracker = Tracker()
    tracker.update(found((0, 0, 100, 100)), 0.0)
    pair = found((0, 0, 98, 100), (0, 0, 95, 100))
    pair.scores[:] = 0.3, 0.9
    assert ids(tracker.update(pair, 0.1)) == [2, 1]


def test_memory_is_bounded_when_time_stands_still() -> None:
    tracker = Tracker()
    for row in range(0, 2 * MAX_TRACKS, 100):
        crowd = found(*[(x * 20, row * 20, x * 20 + 9, row * 20 + 9) for x in range(100)])
        assert min(ids(tracker.update(crowd, 0.0))) == row + 1
    assert max(ids(tracker.update(crowd, 0.0))) == 2 * MAX_TRACKS, "the newest tracks are still known"
    first = found((0, 0, 9, 9))
    assert ids(tracker.update(first, 0.0)) == [2 * MAX_TRACKS + 1], "the oldest tracks are forgotten"


def test_closeness_of_simple_boxes() -> None:
    others = np.array([(0, 0, 100, 100), (0, 25, 100, 75), (200, 0, 300, 100)], np.float32)
    near = closeness(np.array([(25, 0, 125, 100)], np.float32), others, np.array([0.5, 1, 1]))
    np.testing.assert_allclose(near, [[0.5, 1 - 25 / np.sqrt(5000), 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("min_iou", "forget_after"),
    [(0, 1), (-0.1, 1), (1.1, 1), (float("nan"), 1), (0.3, -1), (0.3, float("nan"))],
)
def test_invalid_arguments_are_rejected(min_iou: float, forget_after: float) -> None:
    with pytest.raises(UsageError, match="expected"):
        Tracker(min_iou, forget_after)
