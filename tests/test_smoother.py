"""Smoothing removes flicker from boxes, masks and scores and does not delay motion."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from live_seg.errors import UsageError
from live_seg.tracking.smoother import FORGET_AFTER, HYSTERESIS, Smoother, one_euro
from live_seg.tracking.tracker import MAX_TRACKS
from live_seg.types import Instances

SIDE = 14
BOX = (100.0, 50.0, 200.0, 350.0)


def detected(*ids: int, box: tuple[float, ...] = BOX, score: float = 0.9, seed: int = 0) -> Instances:
    """Return a person for each id, 500 pixels apart, with random masks."""
    n = len(ids)
    apart = np.array([[500 * track, 0] * 2 for track in ids]).reshape(n, 4)
    return Instances(
        boxes=np.asarray(np.array(box) + apart, np.float32),
        masks=np.random.default_rng(seed).random((n, SIDE, SIDE), np.float32),
        class_ids=np.ones(n, np.int32),
        scores=np.full(n, score, np.float32),
        track_ids=np.array(ids, np.int32),
        confirmed=np.ones(n, bool),
    )


def half(edge: float | NDArray[np.float64]) -> Instances:
    """Return a person who fills the box up to column `edge`, 0..SIDE, of all rows or of each (SIDE, 1)."""
    mask = np.clip(edge - np.arange(SIDE), 0, 1)
    return replace(detected(1), masks=np.broadcast_to(mask, (1, SIDE, SIDE)).astype(np.float32))


def columns(instances: Instances) -> dict[str, NDArray[Any]]:
    return {name: value for name, value in vars(instances).items() if isinstance(value, np.ndarray)}


def changes(values: list[NDArray[np.float32]]) -> float:
    return float(np.abs(np.diff(np.array(values), axis=0)).mean())


def test_the_first_detection_is_unchanged() -> None:
    instances = detected(1, 2)
    assert instances.track_ids is not None
    smooth = Smoother().update(instances, 3.0)
    for name, column in columns(instances).items():
        np.testing.assert_array_equal(getattr(smooth, name), column)
        assert getattr(smooth, name).dtype == column.dtype


@given(pauses=st.lists(st.floats(0, 2), min_size=1, max_size=5), scale=st.floats(0.01, 30))
@settings(max_examples=30, deadline=None)
def test_constant_values_are_unchanged(pauses: list[float], scale: float) -> None:
    smoother, now = Smoother(), 0.0
    instances = detected(1, 2, box=tuple(np.array(BOX) * scale))
    for pause in pauses:
        now += pause
        smooth = smoother.update(instances, now)
    for name, column in columns(instances).items():
        np.testing.assert_allclose(getattr(smooth, name), column, rtol=1e-5, atol=2e-3)
        assert getattr(smooth, name).dtype == column.dtype


def test_jitter_of_a_still_box_is_removed() -> None:
    noise = np.random.default_rng(1).normal(0, 2, (60, 4))
    smoother = Smoother()
    raw = [np.asarray(np.array([BOX]) + shift, np.float32) for shift in noise]
    smooth = [
        smoother.update(replace(detected(1), boxes=boxes), frame / 30).boxes
        for frame, boxes in enumerate(raw)
    ]
    assert changes(smooth) < changes(raw) / 10
    np.testing.assert_allclose(smooth[-1], [BOX], atol=1.5)


def test_a_still_mask_flickers_less() -> None:
    edges = np.random.default_rng(2).uniform(6, 8, (60, SIDE, 1))
    smoother = Smoother()
    raw = [half(edge).masks for edge in edges]
    smooth = [smoother.update(half(edge), frame / 30).masks for frame, edge in enumerate(edges)]
    assert changes(smooth[20:]) < changes(raw[20:]) / 3
    assert abs(smooth[-1].sum() / SIDE - 7) < 0.3


def test_a_walk_does_not_lag() -> None:
    smoother = Smoother()
    for frame in range(30):
        box = tuple(np.array(BOX) + [200 * frame / 30, 0] * 2)  # two widths a second
        smooth = smoother.update(detected(1, box=box), frame / 30)
    assert np.abs(smooth.boxes - detected(1, box=box).boxes).max() < 7  # its motion in one frame


def test_a_part_that_moves_does_not_lag() -> None:
    smoother = Smoother()
    for frame in range(30):
        edge = 2 + frame / 3  # three quarters of the box in a second
        smooth = smoother.update(half(edge), frame / 30)
    column = smooth.masks[0, SIDE // 2]
    assert abs(column.sum() - edge) < 1


def test_a_box_that_grows_does_not_stretch_the_mask() -> None:
    body = (100.0, 50.0, 200.0, 350.0)
    smoother = Smoother()
    for frame in range(15):
        smoother.update(replace(half(14), boxes=np.array([body], np.float32)), frame / 30)
    wide = replace(half(7), boxes=np.array([[100, 50, 300, 350]], np.float32))
    smooth = smoother.update(wide, 0.5)
    [(region, bits)] = smooth.pasted((400, 400))
    assert region[1].stop > 210, "the box has started to grow"
    assert not bits[:, 215 - region[1].start :].any()
    assert bits[20:-20, 10:90].all()


def test_smoothing_depends_on_seconds_not_on_frames() -> None:
    results = []
    for rate in (15, 60):
        smoother = Smoother()
        smoother.update(detected(1), 0.0)
        for frame in range(1, rate + 1):
            box = tuple(np.array(BOX) + [0.2, 0] * 2)
            smooth = smoother.update(detected(1, box=box, score=0.5), frame / rate)
        results.append((smooth.boxes[0, 0] - detected(1).boxes[0, 0], smooth.scores[0] - 0.5))
    np.testing.assert_allclose(results[0], results[1], rtol=0.1)
    assert 0.1 < results[0][0] < 0.16, "a second is about the time constant"


def test_after_a_long_gap_the_latest_values_are_used() -> None:
    smoother = Smoother()
    smoother.update(detected(1), 0.0)
    away = tuple(np.array(BOX) + 3)
    smooth = smoother.update(detected(1, box=away, seed=5), FORGET_AFTER + 0.1)
    np.testing.assert_array_equal(smooth.boxes, detected(1, box=away).boxes)
    np.testing.assert_array_equal(smooth.masks, detected(1, seed=5).masks)


def test_tracks_are_matched_by_id_in_any_order() -> None:
    smoother = Smoother()
    smoother.update(detected(1, 2), 0.0)
    shifted = tuple(np.array(BOX) + 4)
    smooth = smoother.update(detected(2, 3, 1, box=shifted), 0.1)
    assert smooth.track_ids is not None
    assert smooth.track_ids.tolist() == [2, 3, 1]
    late = (detected(2, 3, 1, box=shifted).boxes - smooth.boxes)[:, 0]
    assert late[1] == 0
    assert (late[[0, 2]] > 1).all()


def test_a_missed_frame_changes_nothing() -> None:
    smoother = Smoother()
    smoother.update(detected(1), 0.0)
    assert len(smoother.update(Instances.empty(), 0.1)) == 0
    smooth = smoother.update(detected(1, box=tuple(np.array(BOX) + 4)), 0.2)
    assert 0 < smooth.boxes[0, 0] - detected(1).boxes[0, 0] < 3


def shown(scores: list[float], min_score: float, step: float = 0.5) -> list[bool]:
    smoother = Smoother(min_score)
    return [len(smoother.update(detected(1, score=score), i * step)) == 1 for i, score in enumerate(scores)]


def test_a_score_around_the_threshold_does_not_blink() -> None:
    around = [0.55, 0.65] * 6
    assert shown(around, 0.6, 1 / 30)[0] is False
    assert shown([0.65, *around], 0.6, 1 / 30) == [True] * 13


def test_a_track_disappears_when_its_score_is_well_below_the_threshold() -> None:
    low = 0.6 * HYSTERESIS - 0.05
    assert shown([0.7, *[0.6 * HYSTERESIS + 0.02] * 20], 0.6) == [True] * 21
    assert shown([0.7, *[low] * 20], 0.6)[-1] is False
    assert shown([low, *[0.59] * 20], 0.6) == [False] * 21, "it was never above"


def test_the_threshold_can_be_changed() -> None:
    smoother = Smoother(0.8)
    assert len(smoother.update(detected(1, score=0.7), 0.0)) == 0
    smoother.min_score = 0.6
    assert len(smoother.update(detected(1, score=0.7), 0.1)) == 1


def test_masks_of_another_resolution_reset_the_filter() -> None:
    smoother = Smoother()
    smoother.update(detected(1), 0.0)
    coarse = replace(detected(1), masks=np.ones((1, 7, 7), np.float32))
    np.testing.assert_array_equal(smoother.update(coarse, 0.1).masks, coarse.masks)
    assert len(smoother.update(detected(1), 0.2)) == 1


def test_empty_boxes_give_finite_values() -> None:
    smoother = Smoother()
    for frame, box in enumerate([(5, 5, 5, 9), (5, 5, 5, 9), (0, 0, 9, 9), (5, 5, 5, 5)]):
        smooth = smoother.update(detected(1, box=box), frame / 30)
        assert np.isfinite(smooth.boxes).all()
        assert np.isfinite(smooth.masks).all()


def test_memory_is_bounded_when_time_stands_still() -> None:
    smoother = Smoother()
    smoother.update(detected(1), 0.0)
    for start in range(2, MAX_TRACKS + 2, 50):
        smoother.update(detected(*range(start, start + 50)), 0.0)
    away = tuple(np.array(BOX) + 4)
    smooth = smoother.update(detected(1, MAX_TRACKS, box=away), 0.0)
    late = (detected(1, MAX_TRACKS, box=away).boxes - smooth.boxes)[:, 0]
    assert late[0] == 0, "the oldest is forgotten"
    assert late[1] > 1


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=4), st.floats(1e-3, 5))
@settings(max_examples=50, deadline=None)
def test_a_filtered_value_is_between_the_previous_and_the_latest(ahead: list[float], elapsed: float) -> None:
    latest = np.array([ahead], np.float32)
    start = np.zeros_like(latest)
    values, speed = one_euro(start, start, latest, np.array([elapsed], np.float32), np.float32(100))
    assert values.shape == speed.shape == latest.shape
    assert (np.abs(values) <= np.abs(latest)).all()
    assert (values * latest >= 0).all()


def test_missing_ids_and_an_invalid_score_are_rejected() -> None:
    with pytest.raises(UsageError, match="Tracker"):
        Smoother().update(replace(detected(1), track_ids=None, confirmed=None), 0.0)
    for min_score in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="min_score"):
            Smoother(min_score)
