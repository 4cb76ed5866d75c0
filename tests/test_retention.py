"""Missed instances are held for a while, and memory is bounded."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_seg.errors import UsageError
from live_seg.tracking.retention import Retention
from live_seg.tracking.tracker import MAX_TRACKS
from live_seg.types import Instances


def detected(*ids: int, at: float = 0.0) -> Instances:
    n = len(ids)
    return Instances(
        boxes=np.array([[at, track, at + 10, track + 10] for track in ids], np.float32).reshape(-1, 4),
        masks=np.full((n, 4, 4), 0.5, np.float32),
        class_ids=np.ones(n, np.int32),
        scores=np.full(n, 0.9, np.float32),
        track_ids=np.array(ids, np.int32),
        confirmed=np.ones(n, bool),
    )


def ids(instances: Instances) -> list[int]:
    return [] if instances.track_ids is None else instances.track_ids.tolist()


def test_a_missing_track_stays_at_its_last_position_and_then_disappears() -> None:
    retention = Retention(hold=0.5)
    assert ids(retention.update(detected(1, 2, at=0), 0.0)) == [1, 2]
    assert ids(retention.update(detected(2, 1, at=3), 0.1)) == [2, 1]
    both = retention.update(detected(2, at=5), 0.4)
    assert ids(both) == [2, 1]
    np.testing.assert_array_equal(both.boxes[:, 0], [5, 3])
    assert ids(retention.update(detected(2), 0.6)) == [2, 1]
    assert ids(retention.update(detected(2), 0.61)) == [2]


def test_an_empty_frame_shows_the_previous_tracks() -> None:
    retention = Retention()
    assert ids(retention.update(Instances.empty(), 0.0)) == []
    retention.update(detected(4), 1.0)
    shown = retention.update(Instances.empty(), 1.5)
    assert ids(shown) == [4]
    np.testing.assert_array_equal(shown.masks, detected(4).masks)
    assert len(retention.update(Instances.empty(), 1.51)) == 0
    assert ids(retention.update(detected(5), 9.0)) == [5]


def test_a_track_that_returns_occurs_once_and_is_held_again() -> None:
    retention = Retention(hold=1)
    retention.update(detected(1), 0.0)
    retention.update(Instances.empty(), 0.9)
    assert ids(retention.update(detected(1), 1.0)) == [1]
    assert ids(retention.update(Instances.empty(), 2.0)) == [1]


@given(st.lists(st.tuples(st.sets(st.integers(1, 6)), st.integers(0, 4)), max_size=30))
@settings(max_examples=60, deadline=None)
def test_exactly_the_tracks_seen_within_the_time_are_shown(frames: list[tuple[set[int], int]]) -> None:
    retention, now = Retention(hold=5), 0
    last: dict[int, int] = {}
    for present, pause in frames:
        now += pause
        last |= dict.fromkeys(present, now)
        shown = ids(retention.update(detected(*present), float(now)))
        assert set(shown[: len(present)]) == present
        assert sorted(shown) == sorted(track for track, at in last.items() if now - at <= 5)


def test_memory_is_bounded_when_time_stands_still() -> None:
    retention = Retention()
    for start in range(1, 2 * MAX_TRACKS, 50):
        shown = ids(retention.update(detected(*range(start, start + 50)), 0.0))
        assert shown[:50] == list(range(start, start + 50))
        assert len(shown) <= MAX_TRACKS + 50
    assert len(shown) == MAX_TRACKS + 50


def test_missing_ids_and_an_invalid_time_are_rejected() -> None:
    untracked = replace(detected(1), track_ids=None, confirmed=None)
    with pytest.raises(UsageError, match="Tracker"):
        Retention().update(untracked, 0.0)
    for hold in (-1, float("nan")):
        with pytest.raises(UsageError, match="hold"):
            Retention(hold)
