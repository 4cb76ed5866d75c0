import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from live_seg.errors import UsageError
from live_seg.masks import cell_centres
from live_seg.propagation.flow import LONG_SIDE, Flow, reduced_size, sample
from live_seg.propagation.motion import fit_motion, invert
from live_seg.propagation.propagator import FADE_SECONDS, MAX_STEPS, Propagator, blend
from live_seg.tracking.tracker import mask_iou
from live_seg.types import MASK_SIDE, Frame, Image, Instances

HEIGHT, WIDTH = 180, 320
CENTRE = (150.0, 90.0)


def texture(seed: int, tint: tuple[int, int, int]) -> Image:
    """Return random blotches of a few pixels, so that every place differs from its neighbours."""
    noise = np.random.default_rng(seed).uniform(0, 255, (HEIGHT, WIDTH, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return np.asarray(np.clip((smooth - 127) * 4 + np.array(tint), 0, 255), np.uint8)


FRONT, BACK = texture(1, (90, 110, 190)), texture(2, (150, 130, 80))


def ellipse() -> NDArray[np.float32]:
    cells = (np.arange(MASK_SIDE) + 0.5) / MASK_SIDE * 2 - 1
    return np.clip((1 - np.hypot(cells[:, None], cells)) * 6 + 0.5, 0, 1).astype(np.float32)


def found(*boxes: tuple[float, float, float, float], ids: list[int] | None = None) -> Instances:
    n = len(boxes)
    return Instances(
        boxes=np.array(boxes, np.float32).reshape(n, 4),
        masks=np.stack([ellipse()] * n) if n else np.zeros((0, MASK_SIDE, MASK_SIDE), np.float32),
        class_ids=np.ones(n, np.int32),
        scores=np.full(n, 0.8, np.float32),
        track_ids=None if ids is None else np.array(ids, np.int32),
        confirmed=None if ids is None else np.ones(n, bool),
    )


KEY = found((120, 50, 180, 130), ids=[7])


def moved(x: float = 0, y: float = 0, scale: float = 1.0, degrees: float = 0) -> NDArray[np.float64]:
    """Return an affine matrix (2, 3): rotation and scale about the centre of the instance, then a shift."""
    matrix = np.asarray(cv2.getRotationMatrix2D(CENTRE, degrees, scale), np.float64)
    matrix[:, 2] += x, y
    return matrix


def scene(index: int, matrix: NDArray[np.float64]) -> tuple[Frame, NDArray[np.bool_]]:
    """Move the patch under KEY's mask by `matrix` over a still background; also return its bitmap (H, W)."""
    alone = KEY.bitmaps((HEIGHT, WIDTH))[0].astype(np.float32)
    there = cv2.warpAffine(alone, matrix, (WIDTH, HEIGHT)) >= 0.5
    front = cv2.warpAffine(FRONT, matrix, (WIDTH, HEIGHT))
    return Frame(index, index / 30, np.where(there[..., None], front, BACK).astype(np.uint8)), there


def overlap(instances: Instances, truth: NDArray[np.bool_]) -> float:
    bits = instances.bitmaps((HEIGHT, WIDTH))[0]
    return float(np.sum(bits & truth) / np.sum(bits | truth))


def still(count: int) -> list[Frame]:
    return [scene(i, moved())[0] for i in range(count)]


MOTIONS = {
    "right": {"x": 4.0, "y": 1.0},
    "towards": {"scale": 1.03},
    "away": {"scale": 0.97},
    "turning": {"degrees": 3.0},
}


def at(motion: str, step: int) -> NDArray[np.float64]:
    change = MOTIONS[motion]
    return moved(
        change.get("x", 0) * step,
        change.get("y", 0) * step,
        change.get("scale", 1.0) ** step,
        change.get("degrees", 0) * step,
    )


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_mask_follows_its_patch(motion: str) -> None:
    propagator = Propagator()
    propagator.advance(scene(0, at(motion, 0))[0])
    propagator.correct(0, KEY)
    for step in range(1, 9):
        frame, truth = scene(step, at(motion, step))
        propagated = propagator.advance(frame)
        assert propagated.track_ids is not None
        assert propagated.track_ids.tolist() == [7]
        assert overlap(propagated, truth) > 0.93
    without = overlap(KEY, truth)
    assert overlap(propagated, truth) > without + (0.05 if motion == "turning" else 0.2)


def test_a_box_moves_with_its_mask() -> None:
    propagator = Propagator()
    for step in range(7):
        propagated = propagator.advance(scene(step, at("right", step))[0])
        if step == 0:
            propagator.correct(0, KEY)
    np.testing.assert_allclose(propagated.boxes, KEY.boxes + np.array([24, 6, 24, 6]), atol=5)


def test_a_still_scene_does_not_change_instances() -> None:
    propagator = Propagator()
    frames = still(6)
    propagator.advance(frames[0])
    propagator.correct(0, KEY)
    for frame in frames[1:]:
        propagated = propagator.advance(frame)
    np.testing.assert_allclose(propagated.boxes, KEY.boxes, atol=0.05)
    np.testing.assert_allclose(propagated.masks, KEY.masks, atol=0.02)
    np.testing.assert_allclose(propagated.scores, KEY.scores)


def test_a_late_result_is_propagated_to_the_newest_frame() -> None:
    propagator = Propagator()
    for step in range(7):
        frame, truth = scene(step, at("right", step))
        assert len(propagator.advance(frame)) == 0
    propagator.correct(0, KEY)
    assert overlap(propagator.instances, truth) > 0.93


def test_a_late_result_gives_the_same_as_a_timely_one() -> None:
    late, timely = Propagator(), Propagator()
    for step in range(5):
        frame, _ = scene(step, at("towards", step))
        late.advance(frame)
        timely.advance(frame)
        if step == 1:
            timely.correct(1, KEY)
    late.correct(1, KEY)
    np.testing.assert_allclose(late.instances.boxes, timely.instances.boxes, atol=1e-3)
    np.testing.assert_allclose(late.instances.masks, timely.instances.masks, atol=1e-3)


def test_a_new_result_is_blended_in_without_a_jump() -> None:
    propagator = Propagator(blend_frames=4)
    frames = still(9)
    propagator.advance(frames[0])
    propagator.correct(0, KEY)
    propagator.advance(frames[1])
    propagator.correct(1, replace(KEY, boxes=KEY.boxes + np.float32(8)))
    edges = [float(propagator.instances.boxes[0, 0])]
    edges += [float(propagator.advance(frame).boxes[0, 0]) for frame in frames[2:7]]
    np.testing.assert_allclose(np.array(edges) - 120, [2, 4, 6, 8, 8, 8], atol=0.3)


def test_a_new_result_is_used_immediately_on_request() -> None:
    propagator = Propagator(blend_frames=1)
    propagator.advance(still(1)[0])
    for shift in (0, 8):
        propagator.correct(0, replace(KEY, boxes=KEY.boxes + np.float32(shift)))
    np.testing.assert_allclose(propagator.instances.boxes, KEY.boxes + 8, atol=0.01)


def test_missing_instances_fade_and_new_ones_appear() -> None:
    propagator = Propagator(blend_frames=4)
    frames = still(6)
    propagator.advance(frames[0])
    propagator.correct(0, KEY)
    propagator.correct(0, found((20, 20, 70, 90), ids=[9]))
    seen = [propagator.instances] + [propagator.advance(frame) for frame in frames[1:5]]
    ids = [instances.track_ids.tolist() for instances in seen if instances.track_ids is not None]
    assert ids == [[9, 7], [9, 7], [9, 7], [9], [9]]
    np.testing.assert_allclose([i.scores[1] for i in seen[:3]], [0.6, 0.4, 0.2], atol=1e-5)
    np.testing.assert_allclose([i.scores[0] for i in seen], 0.8)


def test_results_without_track_ids_are_matched_by_overlap() -> None:
    propagator = Propagator(blend_frames=2)
    frames = still(2)
    propagator.advance(frames[0])
    untracked = replace(KEY, track_ids=None, confirmed=None)
    propagator.correct(0, untracked)
    propagator.correct(0, replace(untracked, boxes=KEY.boxes + np.float32(8)))
    assert len(propagator.instances) == 1
    np.testing.assert_allclose(propagator.instances.boxes, KEY.boxes + 4, atol=0.3)


def test_an_empty_result_removes_all_instances() -> None:
    propagator = Propagator(blend_frames=2)
    frames = still(3)
    propagator.advance(frames[0])
    propagator.correct(0, KEY)
    propagator.correct(0, Instances.empty())
    assert len(propagator.advance(frames[1])) == 0


def test_an_occluded_instance_fades_out() -> None:
    propagator = Propagator()
    frames = still(2)
    propagator.advance(frames[0])
    propagator.correct(0, KEY)
    whole = propagator.advance(frames[1])
    scores = []
    for index in range(2, 2 + round(FADE_SECONDS * 30) + 3):
        image = frames[0].image.copy()
        image[40:140, 110:190] = texture(3, (60, 200, 60))[40:140, 110:190]
        now = propagator.advance(Frame(index, index / 30, image))
        scores.append(float(now.scores[0]) if len(now) else 0.0)
    assert whole.scores[0] == pytest.approx(0.8)
    assert scores[-1] == 0
    assert 0 < scores[len(scores) // 2] < 0.8
    assert all(a >= b for a, b in itertools.pairwise(scores))


def test_an_instance_that_leaves_the_frame_is_removed() -> None:
    propagator = Propagator()
    for step in range(60):
        shown = propagator.advance(scene(step, moved(x=5.0 * step))[0])
        if step == 0:
            propagator.correct(0, KEY)
        if step == 10:
            assert len(shown) == 1
    assert len(shown) == 0


@pytest.mark.parametrize("change", ["size", "scene"])
def test_a_new_scene_discards_the_instances(change: str) -> None:
    propagator = Propagator()
    for frame in still(3):
        propagator.advance(frame)
    propagator.correct(0, KEY)
    assert len(propagator.instances) == 1
    other = {"size": np.zeros((90, 160, 3), np.uint8), "scene": texture(5, (20, 40, 220))}[change]
    assert len(propagator.advance(Frame(3, 0.1, other))) == 0
    propagator.correct(2, KEY)
    assert len(propagator.instances) == 0, "a result of the previous scene is ignored"
    propagator.correct(3, found((10, 10, 50, 50)))
    assert len(propagator.instances) == 1


def test_the_number_of_frames_kept_is_limited() -> None:
    propagator = Propagator()
    small = [cv2.resize(frame.image, (64, 36)) for frame in still(1)] * (MAX_STEPS + 1)
    for index, image in enumerate(small):
        propagator.advance(Frame(index, index / 30, np.asarray(image, np.uint8)))
    propagator.correct(0, found((10, 5, 30, 25)))
    assert len(propagator.instances) == 0
    propagator.correct(1, found((10, 5, 30, 25)))
    assert len(propagator.instances) == 1


def test_without_frames_and_results_there_are_no_instances() -> None:
    propagator = Propagator()
    assert len(propagator.instances) == 0
    propagator.correct(0, KEY)
    assert len(propagator.instances) == 0
    with pytest.raises(UsageError, match="1 or more"):
        Propagator(blend_frames=0)


@pytest.mark.parametrize("size", [(16, 16), (8, 500), (700, 400)])
def test_images_of_any_size(size: tuple[int, int]) -> None:
    propagator = Propagator()
    image = cv2.resize(BACK, size[::-1])
    for index in range(3):
        propagator.advance(Frame(index, index / 30, np.asarray(image, np.uint8)))
    box = (size[1] * 0.2, size[0] * 0.2, size[1] * 0.8, size[0] * 0.8)
    propagator.correct(0, found(box))
    np.testing.assert_allclose(propagator.instances.boxes, [box], atol=0.02 * max(size))


def test_an_empty_mask_and_a_flat_box_give_finite_boxes() -> None:
    propagator = Propagator()
    frames = still(3)
    propagator.advance(frames[0])
    odd = found((20, 20, 60, 60), (50, 50, 50, 90))
    odd.masks[0] = 0
    propagator.correct(0, odd)
    for frame in frames[1:]:
        assert np.all(np.isfinite(propagator.advance(frame).boxes))


@given(shift=st.tuples(st.floats(-50, 50), st.floats(-50, 50)), scale=st.floats(0.5, 2.0))
@settings(max_examples=20, deadline=None)
def test_a_fit_recovers_an_affine_motion_despite_outliers(shift: tuple[float, float], scale: float) -> None:
    points = cell_centres(np.array([[10, 20, 66, 76]], np.float32), 28)
    values = points * np.float32(scale) + np.array(shift, np.float32)
    weights = np.ones((1, 28, 28), np.float32)
    expected = values[0, 14, 14].copy()
    values[0, :3] += 300
    weights[0, :3] = 0
    matrix, residual = fit_motion(values, weights)
    at_cell = np.array([1 / 28, 1 / 28, 1]) @ matrix[0] + residual[0, 14, 14]
    np.testing.assert_allclose(at_cell, expected, atol=0.05)


def test_a_field_is_sampled_at_pixel_centres() -> None:
    field = np.arange(40, dtype=np.float32).reshape(5, 8)
    points = np.array([[[[0.5, 0.5], [1.0, 0.5]], [[7.5, 4.5], [99, 99]]]], np.float32)
    np.testing.assert_allclose(sample(field, points)[0], np.array([[0, 0.5], [39, 39]]), atol=1e-4)
    assert sample(field, points[:0]).shape == (0, 2, 2)


def test_blending_keeps_columns_consistent() -> None:
    old, new = found((0, 0, 10, 10), (50, 50, 90, 90), ids=[1, 2]), found((54, 50, 94, 90), ids=[2])
    both = blend(old, new, 0.25)
    assert both.track_ids is not None
    assert both.track_ids.tolist() == [2, 1]
    np.testing.assert_allclose(both.boxes, [[51, 50, 91, 90], [0, 0, 10, 10]])
    assert blend(old, new, 1.0) is new
    assert mask_iou(blend(Instances.empty(), new, 0.1), new)[0, 0] == 1


def test_the_flow_has_half_the_reduced_resolution() -> None:
    flow = Flow()
    wide = np.asarray(cv2.resize(BACK, (1280, 720)), np.uint8)
    assert flow.step(wide).flow is None
    step = flow.step(np.roll(wide, 8, axis=1))
    assert step.flow is not None
    assert step.image.shape[:2] == reduced_size(wide.shape)[::-1] == (180, LONG_SIDE)
    assert step.flow.shape == (90, LONG_SIDE // 2, 3)
    np.testing.assert_allclose(np.median(step.flow, axis=(0, 1)), [2, 0, 1], atol=0.1)


def test_a_track_is_matched_when_it_becomes_confirmed() -> None:
    confirmed = found((50, 50, 90, 90), ids=[2])
    both = blend(replace(confirmed, confirmed=np.zeros(1, bool)), confirmed, 0.5)
    assert both.confirmed is not None
    assert both.confirmed.tolist() == [True]


@pytest.mark.parametrize("new", [Instances.empty(), found((0, 0, 10, 10), ids=[1])], ids=["empty", "another"])
def test_unmatched_instances_disappear_even_with_a_result_every_frame(new: Instances) -> None:
    shown = found((50, 50, 90, 90), ids=[2])
    for _ in range(6):
        shown = blend(shown, new, 0.5)
    assert len(shown) == len(new)


@pytest.mark.parametrize(("replaced", "cut"), [(0, False), (0.5, False), (0.75, False), (1, True)])
@pytest.mark.parametrize("other", [FRONT, texture(9, (150, 130, 80))], ids=["other colours", "same colours"])
def test_only_a_frame_that_is_entirely_new_is_a_scene_cut(other: Image, replaced: float, cut: bool) -> None:
    flow, columns = Flow(), round(WIDTH * replaced)
    flow.step(BACK)
    assert (flow.step(np.hstack([other[:, :columns], BACK[:, columns:]])).flow is None) == cut


def test_a_smooth_motion_is_inverted_to_a_tenth_of_a_cell() -> None:
    """Stretching by up to a half of the affine motion needs all rounds of the inversion."""
    grid = cell_centres(np.array([[0, 0, MASK_SIDE, MASK_SIDE]], np.float32), MASK_SIDE)  # a pixel to a cell
    values = np.asarray(2 * grid + 4 * np.sin(2 * np.pi * grid / MASK_SIDE), np.float32)
    matrix, residual = fit_motion(values, np.ones((1, MASK_SIDE, MASK_SIDE), np.float32))
    steps = (np.arange(MASK_SIDE) + 0.5) / MASK_SIDE * 2 - 1
    x, y = np.meshgrid(steps, steps)
    ends = np.stack([x, y, np.ones_like(x)], axis=-1) @ matrix[0] + residual[0]
    cells = invert(np.asarray(ends[None], np.float32), matrix, residual)
    inner = np.s_[:, 3:-3, 3:-3]  # the filter of the residual is less accurate at the border
    np.testing.assert_allclose(cells[inner], (grid - 0.5)[inner], atol=0.1)
