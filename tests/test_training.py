"""Training targets and losses of Mask R-CNN, compared with values calculated by hand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray

from live_seg.maskrcnn import training
from live_seg.maskrcnn.model import MaskRCNN
from live_seg.maskrcnn.training import (
    ProposalTargets,
    Sampling,
    Truth,
    anchor_box_loss,
    anchor_class_loss,
    anchor_targets,
    box_loss,
    class_loss,
    losses,
    mask_loss,
    proposal_targets,
    sample,
    smooth_l1,
)
from tests.conftest import is_quick
from tests.stand_ins import TINY

FEW = Sampling(anchors=30, positive_anchors=10, proposals=12, positive_proposals=4, masks=4)
NOTHING = [0.0, 0.0, 0.0, 0.0]


def numpy(tensor: Any) -> NDArray[Any]:
    return np.asarray(ops.convert_to_numpy(tensor))


def floats(*values: Any) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(shape, np.float32)


def make_truth(
    *objects: tuple[int, Sequence[float]], masks: NDArray[np.float32] | None = None, masked: bool = True
) -> Truth:
    """One picture with objects of these class ids and boxes; their masks are full unless given."""
    class_ids = np.array([[class_id for class_id, _ in objects]], np.int32)
    boxes = floats([box for _, box in objects])
    masks = np.ones((1, len(objects), 28, 28), np.float32) if masks is None else masks
    truth = Truth(class_ids, boxes, masks, np.full((1, len(objects)), masked))
    return Truth(*(ops.convert_to_tensor(part) for part in truth))


EMPTY = make_truth((0, NOTHING), (0, NOTHING))

LEFT, RIGHT = [0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]
CROWD = [0.0, 0.5, 0.25, 1.0]


def test_sample_takes_exactly_as_many_as_asked() -> None:
    members = np.zeros((3, 40), bool)
    members[0, :30] = members[1, :4] = True
    limit = np.array([[7], [7], [7]], np.int32)
    chosen = numpy(sample(members, noise(3, 40), limit, 9))
    assert chosen.sum(axis=1).tolist() == [7, 4, 0]
    assert not (chosen & ~members).any()
    assert not numpy(sample(members, noise(3, 40), limit * 0, 9)).any()
    other = numpy(sample(members, noise(3, 40, seed=1), limit, 9))
    assert (other[0] != chosen[0]).any()
    assert (other[1] == chosen[1]).all()


def matched(anchors: Sequence[Sequence[float]], truth: Truth, sampling: Sampling = FEW) -> tuple[Any, Any]:
    match, deltas = anchor_targets(floats(*anchors), truth, noise(1, len(anchors)), sampling)
    return numpy(match)[0], numpy(deltas)[0]


def test_anchors_are_matched_by_overlap() -> None:
    anchors = {
        "the object": (LEFT, 1),
        "IoU 0.75": ([0, 0, 0.5, 0.375], 1),
        "IoU 0.5": ([0, 0, 0.5, 0.25], 0),
        "IoU 0.25": ([0, 0, 0.125, 0.5], -1),
        "IoU 0.4375, but the best the other object has": ([0.5, 0.5, 0.75, 0.9375], 1),
        "IoU 0.375 with it, not the best": ([0.5, 0.5, 0.75, 0.875], 0),
        "the crowd": (CROWD, 0),
        "touches the crowd": ([0.0, 0.9, 0.5, 1.4], 0),
        "nothing there": ([0.75, 0, 1, 0.25], -1),
    }
    # The last object is no object but filling: it lies where nothing is.
    truth = make_truth((1, LEFT), (2, RIGHT), (-1, CROWD), (0, [0.75, 0, 1, 0.25]))
    match, deltas = matched([box for box, _ in anchors.values()], truth)
    assert dict(zip(anchors, match.tolist(), strict=True)) == {k: v for k, (_, v) in anchors.items()}
    np.testing.assert_allclose(deltas[0], 0, atol=1e-6)
    # Moved right by 1/6 of its width and stretched by 4/3, in units of 0.1 and 0.2.
    np.testing.assert_allclose(deltas[1], [0, (0.0625 / 0.375) / 0.1, 0, np.log(4 / 3) / 0.2], atol=1e-5)
    assert not deltas[match != 1].any()


def test_the_best_anchors_of_an_object_are_positive_together() -> None:
    match, _ = matched([[0, 0, 0.125, 0.5], [0.375, 0, 0.5, 0.5], RIGHT], make_truth((1, LEFT)))
    assert match.tolist() == [1, 1, -1]


def test_anchors_are_sampled_to_the_exact_numbers() -> None:
    anchors = [LEFT] * 50 + [RIGHT] * 60
    match, _ = matched(anchors, make_truth((1, LEFT)))
    assert (match == 1).sum() == 10
    assert (match == -1).sum() == 20
    match, _ = matched([LEFT] * 3 + [RIGHT] * 60, make_truth((1, LEFT)))
    assert (match == 1).sum() == 3
    assert (match == -1).sum() == 27


def test_a_picture_without_objects_teaches_background() -> None:
    match, deltas = matched([LEFT, RIGHT, CROWD] * 20, EMPTY)
    assert (match == 1).sum() == 0
    assert (match == -1).sum() == 30
    assert not deltas.any()


def targets(proposals: Sequence[Sequence[float]], truth: Truth, sampling: Sampling = FEW) -> ProposalTargets:
    found = proposal_targets(floats(proposals), truth, noise(1, len(proposals)), sampling)
    return ProposalTargets(*(numpy(part)[0] for part in found))


def test_proposals_are_matched_by_overlap() -> None:
    proposals = {
        "the object": (LEFT, 1),
        "IoU 0.75 with the other": ([0.5, 0.5, 1, 0.875], 2),
        "IoU 0.5": ([0, 0, 0.5, 0.25], 1),
        "IoU 0.25": ([0, 0, 0.25, 0.25], 0),
        "the crowd": (CROWD, None),
        "nothing there": ([0.75, 0, 1, 0.25], 0),
        "no proposal": (NOTHING, None),
    }
    truth = make_truth((1, LEFT), (2, RIGHT), (-1, CROWD), (0, [0.75, 0, 1, 0.25]))
    found = targets([box for box, _ in proposals.values()], truth)
    filled = found.class_ids >= 0
    learnt = {tuple(b): c for b, c in zip(found.boxes[filled].tolist(), found.class_ids[filled], strict=True)}
    assert learnt == {tuple(b): c for b, c in proposals.values() if c is not None}
    assert filled.sum() == 5
    assert (found.class_ids[:4] > 0).sum() == 3
    assert found.masked.tolist() == (found.class_ids[:4] > 0).tolist()
    (other,) = np.flatnonzero(found.class_ids == 2)
    expected = [0, (0.0625 / 0.375) / 0.1, 0, np.log(4 / 3) / 0.2]
    np.testing.assert_allclose(found.deltas[other], expected, atol=1e-5)
    assert not found.deltas[found.class_ids <= 0].any()


def test_proposals_are_sampled_to_the_exact_numbers() -> None:
    found = targets([LEFT] * 20 + [RIGHT] * 30, make_truth((3, LEFT)))
    assert found.class_ids.tolist() == [3] * 4 + [0] * 8
    few = targets([LEFT] * 2 + [RIGHT] * 30, make_truth((3, LEFT)))
    assert sorted(few.class_ids[:4].tolist()) == [-1, -1, 3, 3]
    assert few.class_ids[4:].tolist() == [0] * 8


def test_fewer_proposals_than_places_leave_places_empty() -> None:
    found = targets([LEFT, RIGHT], make_truth((3, LEFT)))
    assert found.class_ids.tolist() == [3, -1, -1, -1, 0] + [-1] * 7
    assert found.boxes[4].tolist() == RIGHT


def test_proposals_in_a_picture_without_objects_are_all_background() -> None:
    found = targets([LEFT, RIGHT, CROWD] * 4, EMPTY)
    assert found.class_ids.tolist() == [-1] * 4 + [0] * 8
    assert not found.masked.any()
    assert not found.deltas.any()
    assert np.isfinite(found.masks).all()


def test_masks_are_cut_to_the_proposal() -> None:
    half = np.zeros((1, 1, 28, 28), np.float32)
    half[..., :14] = 1
    # The proposal lies a quarter of the object's width further right: it samples columns 6.75, 7.75, ...
    proposal, owner = [0, 0.375, 1, 0.875], [0, 0.25, 1, 0.75]
    found = targets([proposal], make_truth((1, owner), masks=half))
    assert found.masked.tolist() == [True, False, False, False]
    expected = np.zeros((28, 28))
    expected[:, :7] = 1  # column 12.75 is the last that lies on the mask
    np.testing.assert_array_equal(found.masks[0], expected)


def test_each_positive_gets_the_mask_of_its_own_object() -> None:
    masks = np.zeros((1, 2, 28, 28), np.float32)
    masks[0, 0, :14], masks[0, 1, :, 14:] = 1, 1
    found = targets([RIGHT, LEFT], make_truth((1, LEFT), (2, RIGHT), masks=masks))
    for place, class_id in enumerate(found.class_ids[:2]):
        np.testing.assert_array_equal(found.masks[place], masks[0, class_id - 1])


def test_objects_known_by_their_box_alone_teach_no_mask() -> None:
    found = targets([LEFT, RIGHT], make_truth((1, LEFT), masked=False))
    assert found.class_ids[0] == 1
    assert not found.masked.any()


def test_smooth_l1() -> None:
    values = numpy(smooth_l1(floats(0, 0.5, -0.5, 1, -3)))
    np.testing.assert_allclose(values, [0, 0.125, 0.125, 0.5, 2.5])


def test_anchor_losses_by_hand() -> None:
    match = np.array([[1, -1, 0]], np.int32)
    logits = floats([[0, 0], [np.log(3), 0], [9, -9]])
    expected = (np.log(2) - np.log(0.75)) / 2
    assert float(anchor_class_loss(match, logits)) == pytest.approx(expected, rel=1e-5)
    match = np.array([[1, -1, 1, 0]], np.int32)
    wanted = floats([[0, 0, 0, 0], [9, 9, 9, 9], [1, 1, 1, 1], [9, 9, 9, 9]])
    given = floats([[0.5, 0, 0, -2], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    assert float(anchor_box_loss(match, wanted, given)) == pytest.approx((0.125 + 1.5) / 4 / 2)


def test_class_loss_by_hand() -> None:
    class_ids = np.array([[0, 2, -1]], np.int32)
    logits = floats([[0, 0, 0], [0, 0, np.log(2)], [50, 0, 0]])
    expected = (np.log(3) - np.log(0.5)) / 2
    assert float(class_loss(class_ids, logits)) == pytest.approx(expected, rel=1e-5)


def test_box_loss_looks_at_the_own_class_of_positives() -> None:
    class_ids = np.array([[2, 0, -1]], np.int32)
    given = np.full((1, 3, 3, 4), 7, np.float32)
    given[0, 0, 2] = [1, 0, 0, -3]
    wanted = np.zeros((1, 3, 4), np.float32)
    assert float(box_loss(class_ids, wanted, given)) == pytest.approx((0.5 + 2.5) / 4)


def test_mask_loss_by_hand() -> None:
    wanted = np.zeros((1, 3, 28, 28), np.float32)
    wanted[0, 1] = 1
    logits = np.zeros((1, 3, 28, 28), np.float32)
    logits[0, 1] = 100  # right, and far beyond what a naive logarithm bears
    logits[0, 2] = 100  # wrong, but does not count
    masked = np.array([[True, True, False]])
    assert float(mask_loss(wanted, masked, logits)) == pytest.approx(np.log(2) / 2, rel=1e-5)
    logits[0, 1] = -100
    assert float(mask_loss(wanted, masked, logits)) == pytest.approx((np.log(2) + 100) / 2, rel=1e-5)


def test_losses_without_examples_are_zero() -> None:
    none = np.zeros((2, 5), np.int32)
    four = np.ones((2, 5, 4), np.float32)
    assert float(anchor_class_loss(none, np.ones((2, 5, 2), np.float32))) == 0
    assert float(anchor_box_loss(-np.ones((2, 5), np.int32), four, four * 0)) == 0
    assert float(class_loss(none - 1, np.ones((2, 5, 3), np.float32))) == 0
    assert float(box_loss(none, four, np.ones((2, 5, 3, 4), np.float32))) == 0
    cells = np.ones((2, 5, 28, 28), np.float32)
    assert float(mask_loss(cells, np.zeros((2, 5), bool), cells)) == 0


SIDE = TINY.size
ALL = Sampling(anchors=1000, positive_anchors=500, proposals=32, positive_proposals=8)
"""Sampling of more anchors than the tiny network has, which makes the losses deterministic."""


@pytest.fixture(scope="module")
def tiny(light_mobile: None) -> MaskRCNN:  # noqa: ARG001
    keras.utils.set_random_seed(7)
    return MaskRCNN(replace(TINY, num_classes=3))


def batch() -> tuple[Any, Truth]:
    """Two pictures: noise with a bright and a dark square, and noise alone."""
    pictures = np.random.default_rng(0).normal(127.5, 20, (2, SIDE, SIDE, 3)).astype(np.float32)
    pictures[0, 8:32, 8:32], pictures[0, 36:60, 30:62] = 237.5, 17.5
    boxes = floats([[8, 8, 31, 31], [36, 30, 59, 61]], [NOTHING, NOTHING]) / (SIDE - 1)
    masks = np.ones((2, 2, 28, 28), np.float32)
    masks[0, 0, :, :10] = 0
    class_ids = np.array([[1, 2], [0, 0]], np.int32)
    truth = Truth(class_ids, boxes, masks, class_ids > 0)
    return ops.convert_to_tensor(pictures), Truth(*(ops.convert_to_tensor(part) for part in truth))


def find_losses(model: MaskRCNN, pictures: Any, truth: Truth, sampling: Sampling = ALL) -> dict[str, Any]:
    return losses(model, pictures, truth, sampling, keras.random.SeedGenerator(0))


def test_images_are_normalized(tiny: MaskRCNN, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(tiny.config, mean_pixel=(10, 20, 30), pixel_deviation=(2, 4, 8))
    monkeypatch.setattr(tiny, "config", config)
    seen: list[Any] = []
    compute = tiny.features

    def spy(images: Any) -> list[Any]:
        seen.append(numpy(images))
        return compute(images)

    monkeypatch.setattr(tiny, "features", spy)
    pictures, truth = batch()
    find_losses(tiny, pictures, truth)
    np.testing.assert_allclose(seen[0], (numpy(pictures) - [10, 20, 30]) / [2, 4, 8], rtol=1e-5)


def test_a_batch_without_objects_teaches_background_alone(tiny: MaskRCNN) -> None:
    pictures, truth = batch()
    found = find_losses(tiny, pictures, truth._replace(class_ids=ops.zeros_like(truth.class_ids)))
    values = {name: float(value) for name, value in found.items()}
    assert values["anchor_box"] == values["box"] == values["mask"] == 0
    assert 0 < values["anchor_class"] < 100
    assert 0 < values["class"] < 100


def test_objects_themselves_join_the_proposals(tiny: MaskRCNN, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def spy(proposals: Any, *rest: Any) -> ProposalTargets:
        seen.append(numpy(proposals))
        return proposal_targets(proposals, *rest)

    monkeypatch.setattr(training, "proposal_targets", spy)
    pictures, truth = batch()
    values = {name: float(value) for name, value in find_losses(tiny, pictures, truth).items()}
    np.testing.assert_array_equal(seen[0][:, TINY.proposals :], numpy(truth.boxes))
    assert all(0 < value < 100 for value in values.values()), values
    box_alone = find_losses(tiny, pictures, truth._replace(masked=ops.zeros_like(truth.masked)))
    assert float(box_alone["mask"]) == 0
    assert float(box_alone["box"]) > 0


def test_default_sampling_fits_a_network_of_few_proposals(tiny: MaskRCNN) -> None:
    pictures, truth = batch()
    values = find_losses(tiny, pictures, truth, Sampling())
    assert all(np.isfinite(float(value)) for value in values.values())


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs a gradient tape")
def test_gradients_reach_every_part_and_the_loss_falls(tiny: MaskRCNN, pytestconfig: pytest.Config) -> None:
    import tensorflow as tf

    steps, least = (2, 1.0) if is_quick(pytestconfig) else (8, 0.7)
    pictures, truth = batch()
    optimizer = keras.optimizers.Adam(1e-2)
    optimizer.build(tiny.trainable_variables)
    seeds = keras.random.SeedGenerator(0)

    def step() -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            found = losses(tiny, pictures, truth, ALL, seeds)
            total = ops.sum(ops.stack(list(found.values())))
        gradients = tape.gradient(total, tiny.trainable_variables)
        optimizer.apply_gradients(zip(gradients, tiny.trainable_variables, strict=True))
        return total, gradients

    total, gradients = step()
    parts, first = set(), tiny.trainable_variables[0].path
    for variable, gradient in zip(tiny.trainable_variables, gradients, strict=True):
        values = numpy(ops.convert_to_tensor(gradient))
        assert np.isfinite(values).all(), variable.path
        parts |= {variable.path.split("/")[0]} if values.any() else set()
    assert parts >= {first.split("/")[0], "pyramid", "rpn", "box_head", "mask_head"}
    history = [float(total)] + [float(step()[0]) for _ in range(steps)]
    assert np.isfinite(history).all()
    assert history[-1] < least * history[0], history
