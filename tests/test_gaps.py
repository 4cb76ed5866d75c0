"""Tracks are propagated to the frames in which they were missed: a square moves over a still background."""

from collections.abc import Iterable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live_seg.errors import UsageError
from live_seg.propagation import open_frame
from live_seg.propagation.gaps import MAX_FRAMES, GapFiller
from live_seg.propagation.open_frame import Filled
from live_seg.types import Image, Instances

HEIGHT, WIDTH, SIDE = 120, 240, 48
FPS = 10
SPEED = 4
"""Pixels per frame."""


def texture(seed: int, height: int, width: int) -> Image:
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return np.asarray(np.clip((smooth - 127) * 4 + 127, 0, 255), np.uint8)


BACK, SQUARE = texture(1, HEIGHT, WIDTH), texture(2, SIDE, SIDE)


def box_at(index: float, top: int = 36) -> tuple[float, float, float, float]:
    left = 24 + SPEED * index
    return left, top, left + SIDE, top + SIDE


def image_at(index: int, *, visible: bool = True) -> Image:
    image = BACK.copy()
    left, top, right, bottom = map(round, box_at(index))
    if visible:
        image[top:bottom, left:right] = SQUARE[:, : max(0, WIDTH - left)]
    return image


def found(
    *boxes: tuple[float, float, float, float], ids: Iterable[int] = (7,), confirmed: bool = True
) -> Instances:
    n = len(boxes)
    return Instances(
        boxes=np.array(boxes, np.float32).reshape(n, 4),
        masks=np.ones((n, 28, 28), np.float32),
        class_ids=np.ones(n, np.int32),
        scores=np.full(n, 0.8, np.float32),
        track_ids=np.array(list(ids)[:n], np.int32),
        confirmed=np.full(n, confirmed),
    )


def fill(detected: Iterable[int], count: int = 12, *, delay: float = 2.0, **options: float) -> list[Filled]:
    """Fill `count` frames, in which the square is found in those `detected`, at first unconfirmed."""
    filler, filled = GapFiller(delay, **options), list[Filled]()
    detected = sorted(detected)
    for index in range(count):
        instances = Instances.empty()
        if index in detected:
            instances = found(box_at(index), confirmed=index != detected[0])
        filled += filler.update(image_at(index), index / FPS, instances)
    return filled + filler.finish()


def ids(instances: Instances) -> list[int]:
    return [] if instances.track_ids is None else instances.track_ids.tolist()


def propagated(filled: list[Filled]) -> list[int]:
    return [index for index, one in enumerate(filled) if len(one.missed)]


def visible_share(filled: Filled, index: int) -> float:
    """Return the share of the square in frame `index` that the instances' masks leave visible."""
    truth = found(box_at(index)).bitmaps((HEIGHT, WIDTH)).any(axis=0)
    hidden = np.any(filled.all.bitmaps((HEIGHT, WIDTH)), axis=0)
    return float(np.mean(np.logical_not(hidden[truth])))


@pytest.mark.parametrize(
    ("detected", "missed"),
    [
        ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7]),
        (range(4, 12), [0, 1, 2, 3]),
        (range(9), [9, 10, 11]),
        ([3, 4, 7], [0, 1, 2, 5, 6, 8, 9, 10, 11]),
        (range(12), []),
        ([], []),
    ],
    ids=["middle", "start", "end", "everywhere", "nowhere", "nothing"],
)
def test_a_missed_square_is_hidden(detected: Iterable[int], missed: list[int]) -> None:
    filled = fill(detected)
    assert propagated(filled) == missed
    for index in missed:
        assert ids(filled[index].missed) == [7]
        assert visible_share(filled[index], index) < 0.1
    for index in set(range(12)) - set(missed):
        assert len(filled[index].found) == (index in detected)


def test_a_track_is_propagated_half_a_second_past_its_ends() -> None:
    assert propagated(fill([10, 11], 24)) == [5, 6, 7, 8, 9, 12, 13, 14, 15, 16]
    assert propagated(fill([10, 11], 24, hold=0.2)) == [8, 9, 12, 13]


def test_a_gap_longer_than_that_is_closed_from_behind() -> None:
    filled = fill([0, 1, 13, 14], 15)
    assert propagated(filled) == list(range(2, 13))
    assert max(visible_share(filled[index], index) for index in range(2, 13)) < 0.1


def test_both_directions_are_united() -> None:
    filler, filled = GapFiller(2.0), list[Filled]()
    still = image_at(0)
    places = {0: box_at(0), 1: box_at(0), 3: box_at(3)}  # the second detection is 12 pixels further right
    for index in range(4):
        instances = found(places[index]) if index in places else Instances.empty()
        filled += filler.update(still, index / FPS, instances)
    filled += filler.finish()
    left, top, right, bottom = box_at(0)
    np.testing.assert_allclose(filled[2].missed.boxes, [[left, top, right + 12, bottom]], atol=2)
    assert filled[2].missed.masks.min() > 0.4


def test_without_delay_tracks_are_propagated_forwards_at_once() -> None:
    filler = GapFiller(0.0)
    for index in range(6):
        instances = found(box_at(index)) if index in (1, 2, 5) else Instances.empty()
        (filled,) = filler.update(image_at(index), index / FPS, instances)
        assert len(filled.missed) == (index in (3, 4))
    assert filler.finish() == []


def test_a_frame_is_completed_after_the_delay() -> None:
    filler = GapFiller(0.25)
    counts = [len(filler.update(image_at(i), i / FPS, Instances.empty())) for i in range(6)]
    assert counts == [0, 0, 0, 1, 1, 1]
    assert len(filler.finish()) == 3


def test_a_delay_that_is_too_short_reaches_back_as_far_as_it_can() -> None:
    assert propagated(fill(range(6, 12), delay=0.3)) == [4, 5]  # confirmed at 7, when 3 was completed


def test_an_instance_found_once_is_not_propagated() -> None:
    assert propagated(fill([5])) == []


def test_instances_that_are_found_stay_as_they_are() -> None:
    filler = GapFiller(0.0)
    instances = found(box_at(0), box_at(20), ids=(3, 4))
    (filled,) = filler.update(image_at(0), 0.0, instances)
    assert filled.found is instances
    assert filled.all is instances


@given(st.sets(st.integers(0, 19)), st.sampled_from([0.0, 0.35, 2.0]))
def test_every_frame_is_completed_once_and_gaps_are_hidden(detected: set[int], delay: float) -> None:
    filled = fill(detected, 20, delay=delay)
    assert [len(one.found) for one in filled] == [index in detected for index in range(20)]
    for index, one in enumerate(filled):
        assert not set(ids(one.missed)) & set(ids(one.found))
        assert len(set(ids(one.missed))) == len(one.missed)
        since = [index - before for before in detected if before < index and before != min(detected)]
        until = [after - index for after in detected if after > index]
        near = min(since, default=99) <= 5 or (
            len(detected) > 1 and delay == 2 and min(until, default=99) <= 5
        )
        if near and index not in detected:
            assert ids(one.missed) == [7]
        if len(one.missed):
            assert visible_share(one, index) < 0.2  # the flow drifts over long gaps


def disappearing(*, at: int, left: float = 80.0, other: int | None = None) -> list[Filled]:
    """Fill frames in which a still square is there and found before frame `at` only."""
    filler, filled = GapFiller(2.0), list[Filled]()
    box = (left, 36.0, left + SIDE, 36.0 + SIDE)
    there = BACK.copy()
    there[36 : 36 + SIDE, int(left) : int(left) + SIDE] = SQUARE[:, : WIDTH - int(left)]
    for index in range(30):
        instances = found(box) if index < at else Instances.empty()
        if index >= at and other is not None:
            instances = found(box, ids=(other,))
        filled += filler.update(there if index < at else BACK, index / FPS, instances)
    return filled + filler.finish()


def uncertain(filled: list[Filled]) -> list[int]:
    return [index for index, one in enumerate(filled) if len(one.uncertain)]


def test_a_track_lost_inside_the_picture_is_uncertain_until_it_would_be_forgotten() -> None:
    filled = disappearing(at=5)
    assert uncertain(filled) == list(range(5, 20))  # 1.5 s after its last detection in frame 4
    assert propagated(filled) == list(range(5, 10))
    assert ids(filled[12].uncertain) == [7]
    np.testing.assert_allclose(filled[12].uncertain.boxes, [[80, 36, 128, 84]], atol=3)


def test_a_track_that_stays_in_sight_is_uncertain_once_it_is_not_propagated_any_more() -> None:
    assert uncertain(fill(range(5), 24)) == list(range(10, 20))


def test_a_track_lost_at_the_edge_is_not_uncertain() -> None:
    assert uncertain(disappearing(at=5, left=WIDTH - SIDE)) == []


def test_a_track_found_again_under_another_id_is_not_uncertain() -> None:
    assert uncertain(disappearing(at=5, other=8)) == []


def test_a_track_that_was_never_sure_is_not_uncertain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_frame, "SURE_SCORE", 0.9)
    assert uncertain(disappearing(at=5)) == []


def test_a_gap_that_is_closed_is_certain() -> None:
    assert uncertain(fill([*range(5), *range(12, 15)], 15)) == []


def test_in_the_dark_a_track_stays_hidden_in_its_full_size_and_is_uncertain() -> None:
    filler, filled = GapFiller(2.0), list[Filled]()
    dark = range(5, 9)
    for index in range(14):
        instances = Instances.empty() if index in dark else found(box_at(index))
        image = np.full_like(BACK, 8) if index in dark else image_at(index)
        filled += filler.update(image, index / FPS, instances)
    filled += filler.finish()
    assert propagated(filled) == uncertain(filled) == list(dark)
    assert max(visible_share(filled[index], index) for index in dark) < 0.05


def test_tracks_are_not_propagated_to_frames_of_another_size() -> None:
    filler, filled = GapFiller(2.0), list[Filled]()
    for index in range(8):
        image = image_at(index) if index < 4 else texture(3, 100, 200)
        instances = found(box_at(index)) if index in (1, 2, 6, 7) else Instances.empty()
        filled += filler.update(image, index / FPS, instances)
    assert propagated(filled + filler.finish()) == [0, 3, 4, 5]


def test_the_number_of_waiting_frames_is_limited() -> None:
    filler, small = GapFiller(1e9), np.zeros((32, 32, 3), np.uint8)
    completed = [len(filler.update(small, i / FPS, Instances.empty())) for i in range(MAX_FRAMES + 5)]
    assert completed == [0] * MAX_FRAMES + [1] * 5


def test_ids_are_required() -> None:
    instances = replace(found(box_at(0)), track_ids=None, confirmed=None)
    with pytest.raises(UsageError, match="Tracker first"):
        GapFiller(1.0).update(image_at(0), 0.0, instances)


@pytest.mark.parametrize("values", [(-1.0, 0.5), (1.0, -0.5), (float("nan"), 0.5)])
def test_negative_times_are_refused(values: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="0 or more"):
        GapFiller(values[0], hold=values[1])
