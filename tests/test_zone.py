"""Zones of the picture, and recordings that wait for an instance in one."""

import numpy as np
import pytest

from live_seg.errors import UsageError
from live_seg.events.trigger import Trigger
from live_seg.events.zone import Zone
from live_seg.types import Instances
from live_seg.ui.controls import Controls
from live_seg.ui.zone import ChosenZone

SIZE = (100, 200)
LOWER = "0,0.5,1,0.5,1,1,0,1"


def boxes(*given: tuple[float, float, float, float], mask: np.ndarray | None = None) -> Instances:
    full = np.ones((28, 28), np.float32) if mask is None else mask
    count = len(given)
    return Instances(
        boxes=np.array(given, np.float32).reshape(count, 4),
        masks=np.stack([full] * count) if count else np.zeros((0, 28, 28), np.float32),
        class_ids=np.arange(1, count + 1, dtype=np.int32),
        scores=np.full(count, 0.9, np.float32),
    )


def test_the_share_of_a_box_inside_decides() -> None:
    found = boxes((0, 0, 50, 40), (0, 20, 50, 90), (0, 45, 50, 95), (150, 60, 250, 99))
    assert Zone.parse(LOWER).contains(found, SIZE).tolist() == [False, True, True, True]
    assert Zone.parse(LOWER, 0.6).contains(found, SIZE).tolist() == [False, False, True, True]


def test_the_mask_counts_not_the_box() -> None:
    upper = np.zeros((28, 28), np.float32)
    upper[:7] = 1
    box = (0.0, 40.0, 50.0, 100.0)
    zone = Zone.parse(LOWER)
    assert zone.contains(boxes(box), SIZE).tolist() == [True]
    assert zone.contains(boxes(box, mask=upper), SIZE).tolist() == [False]
    assert zone.contains(boxes(box, mask=np.zeros_like(upper)), SIZE).tolist() == [False]


def test_triangles_and_crossing_edges() -> None:
    triangle = Zone.parse("0,0,1,0,0,1")
    assert triangle.contains(boxes((0, 0, 60, 30), (150, 70, 200, 100)), SIZE).tolist() == [True, False]
    hourglass = Zone.parse("0,0,1,0,0,1,1,1")
    corners = boxes((90, 5, 110, 25), (90, 75, 110, 95), (5, 40, 25, 60), (175, 40, 195, 60))
    assert hourglass.contains(corners, SIZE).tolist() == [True, True, False, False]


def test_no_instances() -> None:
    assert Zone.parse(LOWER).contains(Instances.empty(), SIZE).shape == (0,)


@pytest.mark.parametrize("text", ["", "0,0,1,1", "0,0,1,0,1", "0,0,1,0,x,1", "0,0,2,0,1,1", "-1,0,1,0,1,1"])
def test_invalid_zones(text: str) -> None:
    with pytest.raises(UsageError, match="at least 3 corners"):
        Zone.parse(text)


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_invalid_shares(share: float) -> None:
    with pytest.raises(UsageError, match="share of a mask"):
        Zone.parse(LOWER, share)


def test_a_trigger_waits_for_its_class_in_the_zone() -> None:
    trigger = Trigger(frozenset({2}), zone=Zone.parse(LOWER))
    above, below = (0.0, 0.0, 50.0, 40.0), (0.0, 60.0, 50.0, 90.0)
    assert not trigger.matches(boxes(below, above), SIZE)
    assert trigger.matches(boxes(above, below), SIZE)
    assert not trigger.matches(Instances.empty(), SIZE)


def test_a_chosen_zone_follows_the_controls() -> None:
    controls = Controls(zone=())
    zone = ChosenZone(controls, 0.5)
    trigger = Trigger(frozenset({1}), zone=zone)
    above = boxes((0.0, 0.0, 50.0, 40.0))
    assert trigger.matches(above, SIZE)
    assert zone.contains(Instances.empty(), SIZE).shape == (0,)
    controls.zone = Zone.parse(LOWER).corners
    assert not trigger.matches(above, SIZE)
    controls.zone = ()
    assert trigger.matches(above, SIZE)
