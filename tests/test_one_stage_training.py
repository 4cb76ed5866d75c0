"""Targets, losses and training of the one-stage network, on worlds small enough to check by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray
from typer.testing import CliRunner

from live_seg.cli.main import app
from live_seg.maskrcnn.one_stage import DenseOutputs, OneStageMaskRCNN
from live_seg.maskrcnn.one_stage_losses import (
    CENTER_CELLS,
    JITTER,
    LOSSES,
    assign,
    cell_centers,
    detection_losses,
    dice_loss,
    in_crowds,
    mask_examples,
)
from live_seg.maskrcnn.training import Truth
from live_seg.training.batches import Batches, Columns
from live_seg.training.checkpoint import read_state, save
from live_seg.training.photos import read_all
from live_seg.training.progress import read_table
from live_seg.training.train import resume
from live_seg.training.trainer import Trainer
from tests.tiny_one_stage import CONFIG, SIDE, use_few_layers
from tests.tiny_world import EASY, assert_same_end, draw_shapes

SIZE = (SIDE, SIDE)
CLASSES = 3
CELLS = 8 * 8 + 4 * 4 + 2 * 2

Object = tuple[int, Sequence[float]]
"""Class id, negative for a crowd, and y1 x1 y2 x2 in pixels."""

LEFT: Object = (1, (8, 4, 56, 28))
RIGHT: Object = (3, (8, 36, 56, 60))
NOTHING: Object = (0, (0, 0, 0, 0))


def numpy(tensor: Any) -> NDArray[Any]:
    return np.asarray(ops.convert_to_numpy(tensor))


def truth_of(*objects: Object, masks: NDArray[np.float32] | None = None) -> Truth:
    """Return one image's objects, their boxes normalized, their masks full unless given."""
    class_ids = np.array([[class_id for class_id, _ in objects]], np.int32)
    pixels = np.array([[box for _, box in objects]], np.float32)
    boxes = np.where(class_ids[..., None] != 0, (pixels - [0, 0, 1, 1]) / (SIDE - 1), 0)
    masks = np.ones((1, len(objects), 28, 28), np.float32) if masks is None else masks
    parts = (class_ids, boxes.astype(np.float32), masks, class_ids > 0)
    return Truth(*(ops.convert_to_tensor(part) for part in parts))


def pixel_boxes(*objects: Object) -> Any:
    return ops.convert_to_tensor(np.array([[box for _, box in objects]], np.float32))


def outputs_for(*predictions: Object, objectness: float = 0.0, spread: float = 0.1) -> DenseOutputs:
    """Return outputs whose cells predict the box and the class of the nearest of `predictions`."""
    centers, _ = cell_centers(SIZE)
    boxes = np.array([box for _, box in predictions], np.float32)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    nearest = np.linalg.norm(centers[:, None] - middles[None], axis=2).argmin(axis=1)
    # With a `spread`, no two cells have equal costs, which would be assigned together.
    classes = np.full((1, CELLS, CLASSES), -4.0, np.float32) + np.linspace(0, spread, CELLS)[:, None]
    classes = classes.astype(np.float32)
    classes[0, np.arange(CELLS), np.array([class_id for class_id, _ in predictions])[nearest] - 1] = 4.0
    parts = (classes, np.full((1, CELLS), objectness, np.float32), boxes[nearest][None])
    return DenseOutputs(*(ops.convert_to_tensor(part) for part in parts))


def assigned(outputs: DenseOutputs, *objects: Object) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    owner, chosen, overlap = assign(outputs, truth_of(*objects), pixel_boxes(*objects), SIZE)
    return numpy(owner)[0], numpy(chosen)[0], numpy(overlap)[0]


class TestAssignment:
    def test_one_object_gets_as_many_cells_as_its_ten_best_overlaps_add_up_to(self) -> None:
        moved = (1, (8, 9, 56, 33))  # 19 of 29 columns are shared: ten overlaps of 0.655
        owner, chosen, overlap = assigned(outputs_for(moved), LEFT, NOTHING)
        assert chosen.sum() == 6
        assert set(owner[chosen]) == {0}
        np.testing.assert_allclose(overlap[chosen], 19 / 29, atol=1e-5)
        centers, strides = cell_centers(SIZE)
        assert (abs(centers - (32, 16)).max(axis=1) < CENTER_CELLS * strides)[chosen].all()
        assert ((centers > LEFT[1][:2]) & (centers < LEFT[1][2:]))[chosen].all()

    def test_poor_boxes_leave_an_object_one_cell(self) -> None:
        far = (1, (0, 62, 2, 64))
        _, chosen, _ = assigned(outputs_for(far), LEFT)
        centers, _ = cell_centers(SIZE)
        assert chosen.sum() >= 1  # equal costs are assigned together
        assert (np.abs(centers[chosen] - (32, 16)) < (24, 12)).all()

    def test_a_cell_in_two_objects_belongs_to_the_one_it_predicts(self) -> None:
        one, other = (1, (4, 4, 44, 44)), (2, (20, 20, 60, 60))
        owner, chosen, _ = assigned(outputs_for(one, other), one, other)
        centers, _ = cell_centers(SIZE)
        shared = ((centers > 20) & (centers < 44)).all(axis=1)
        assert (chosen & shared).any()
        nearer = np.where(centers.sum(axis=1) < 64, 0, 1)
        off_the_middle = centers.sum(axis=1) != 64
        np.testing.assert_array_equal(owner[chosen & off_the_middle], nearer[chosen & off_the_middle])
        assert set(owner[chosen]) == {0, 1}

    def test_the_class_decides_between_equal_boxes(self) -> None:
        twin = (2, LEFT[1])
        owner, chosen, _ = assigned(outputs_for(twin, spread=0.0), LEFT, twin)
        assert set(owner[chosen]) == {1}

    @pytest.mark.parametrize("nothing", [NOTHING, (-1, LEFT[1])], ids=["padding", "crowd"])
    def test_padding_and_crowds_get_no_cells(self, nothing: Object) -> None:
        _, chosen, _ = assigned(outputs_for(LEFT), nothing, nothing)
        assert not chosen.any()
        _, chosen, _ = assigned(outputs_for(LEFT, RIGHT), nothing, RIGHT)
        centers, _ = cell_centers(SIZE)
        assert (centers[chosen][:, 1] > 32 - CENTER_CELLS).all()


def losses_of_dense_head(outputs: DenseOutputs, *objects: Object) -> dict[str, float]:
    found = detection_losses(outputs, truth_of(*objects), SIZE)
    return {name: float(value) for name, value in found.items()}


class TestDetectionLosses:
    def test_without_objects_only_objectness_is_trained(self) -> None:
        found = losses_of_dense_head(outputs_for(LEFT), NOTHING, NOTHING)
        assert found["class"] == found["box"] == 0.0
        assert found["objectness"] == pytest.approx(CELLS * np.log(2), rel=1e-5)

    @pytest.mark.parametrize("objectness", [-1e4, 1e4])
    def test_extreme_logits_give_finite_losses(self, objectness: float) -> None:
        found = losses_of_dense_head(outputs_for(LEFT, objectness=objectness), LEFT, NOTHING)
        assert np.isfinite(list(found.values())).all()

    def test_exact_boxes_have_no_box_loss(self) -> None:
        assert losses_of_dense_head(outputs_for(LEFT), LEFT)["box"] == pytest.approx(0.0, abs=1e-4)
        moved = (1, (8, 10, 56, 34))
        # 18 of 30 columns are shared.
        expected = 5 * (1 - (18 / 30) ** 2)
        assert losses_of_dense_head(outputs_for(moved), LEFT)["box"] == pytest.approx(expected, rel=1e-3)

    def test_crowds_are_excluded_from_the_objectness_loss(self) -> None:
        crowd = (-1, RIGHT[1])
        centers, _ = cell_centers(SIZE)
        low, high = np.array(RIGHT[1][:2]), np.array(RIGHT[1][2:])
        inside = ((centers > low) & (centers < high)).all(axis=1)
        found = numpy(in_crowds(truth_of(crowd, LEFT), pixel_boxes(crowd, LEFT), SIZE))[0]
        np.testing.assert_array_equal(found, inside)
        values = losses_of_dense_head(outputs_for(LEFT), crowd, NOTHING)
        assert values["objectness"] == pytest.approx((CELLS - inside.sum()) * np.log(2), rel=1e-5)
        confident = numpy(outputs_for(LEFT).objectness).copy()
        confident[0, inside] = 50.0
        louder = outputs_for(LEFT)._replace(objectness=ops.convert_to_tensor(confident))
        assert losses_of_dense_head(louder, crowd, NOTHING) == pytest.approx(values)

    def test_an_object_within_a_crowd_is_still_trained(self) -> None:
        values = losses_of_dense_head(outputs_for(LEFT), (-1, (0, 0, SIDE, SIDE)), LEFT)
        # Only the assigned cells count, each with a logit of 0.
        assert values["objectness"] == pytest.approx(np.log(2), rel=1e-5)


def examples(truth: Truth, most: int = 4, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    boxes, rows, masks, known = mask_examples(truth, most, keras.random.SeedGenerator(seed))
    assert not numpy(rows).any()
    return numpy(boxes), numpy(masks), numpy(known)


class TestDiceLoss:
    @pytest.mark.parametrize(("logit", "expected"), [(30.0, 0.0), (-30.0, 1 - 1 / 33), (0.0, 1 - 33 / 41)])
    def test_half_full_mask(self, logit: float, expected: float) -> None:
        targets = np.zeros((2, 8, 8), np.float32)
        targets[0, :4] = 1
        targets[1] = 1  # not an object: must not count
        logits = np.where(targets > 0, logit, -30.0).astype(np.float32)
        known = np.array([True, False])
        assert float(dice_loss(targets, known, logits)) == pytest.approx(expected, abs=1e-6)

    def test_no_objects(self) -> None:
        nothing = np.zeros((2, 8, 8), np.float32)
        assert float(dice_loss(nothing, np.array([False, False]), nothing)) == 0


class TestMaskExamples:
    def test_edges_move_by_at_most_the_jitter(self) -> None:
        truth = truth_of(LEFT)
        own = numpy(truth.boxes)[0]
        limits = JITTER * np.tile(own[:, 2:] - own[:, :2], 2)
        moves = np.concatenate([examples(truth, seed=seed)[0] - own for seed in range(40)])
        assert (abs(moves) <= limits + 1e-6).all()
        assert (abs(moves).max(axis=0) > 0.7 * limits[0]).all()
        assert (moves.min(axis=0) < 0).all()
        assert (moves.max(axis=0) > 0).all()

    def test_boxes_stay_on_the_canvas(self) -> None:
        for seed in range(20):
            boxes, _, _ = examples(truth_of((1, (0, 0, SIDE, SIDE))), seed=seed)
            assert boxes.min() >= 0
            assert boxes.max() <= 1

    def test_targets_are_the_mask_cut_to_the_moved_box(self) -> None:
        left_half = np.zeros((1, 1, 28, 28), np.float32)
        left_half[..., :14] = 1
        own = numpy(truth_of(LEFT).boxes)[0, 0]
        edge = (own[1] + own[3]) / 2  # where the mask ends
        margin = (own[2:] - own[:2]) / 56 + 1e-4  # half a cell, within which sampling decides
        for seed in range(10):
            (box,), (mask,), _ = examples(truth_of(LEFT, masks=left_half), most=1, seed=seed)
            columns = box[1] + (np.arange(28) + 0.5) / 28 * (box[3] - box[1])
            sure = (abs(columns - edge) > margin[1]) & (columns > own[1] + margin[1])
            rows = box[0] + (np.arange(28) + 0.5) / 28 * (box[2] - box[0])
            inside = (rows > own[0] + margin[0]) & (rows < own[2] - margin[0])
            expected = np.broadcast_to(columns < edge, (inside.sum(), 28))
            np.testing.assert_array_equal(mask[inside][:, sure], expected[:, sure])

    def test_only_objects_with_a_known_mask_are_chosen(self) -> None:
        truth = truth_of(LEFT, (-1, RIGHT[1]), RIGHT, NOTHING)
        unknown = truth._replace(masked=ops.convert_to_tensor(np.array([[False, False, True, False]])))
        boxes, _, known = examples(unknown)
        assert known.tolist() == [True] * 4
        np.testing.assert_allclose(boxes, np.tile(numpy(truth.boxes)[0, 2], (4, 1)), atol=JITTER)
        assert len(np.unique(boxes[:, 0])) == 4, "each repetition has a box of its own"

    def test_objects_repeat_equally_often(self) -> None:
        boxes, _, known = examples(truth_of(LEFT, (-1, RIGHT[1]), RIGHT, NOTHING))
        assert known.all()
        assert (boxes[:, 1] > 0.4).sum() == 2

    def test_each_box_keeps_its_image(self) -> None:
        left, right = truth_of(LEFT), truth_of(RIGHT)
        both = Truth(*(ops.concatenate(parts, axis=0) for parts in zip(left, right, strict=True)))
        boxes, rows, _, _ = map(numpy, mask_examples(both, 3, keras.random.SeedGenerator(0)))
        assert sorted(rows) == [0, 0, 0, 1, 1, 1]
        np.testing.assert_array_equal(boxes[:, 1] > 0.4, rows == 1)

    def test_no_masks(self) -> None:
        boxes, masks, known = examples(truth_of((-1, RIGHT[1]), NOTHING))
        assert not known.any()
        assert np.isfinite(boxes).all()
        assert np.isfinite(masks).all()

    def test_at_most_as_many_as_asked(self) -> None:
        chosen = set()
        for seed in range(12):
            boxes, masks, known = examples(truth_of(LEFT, RIGHT), most=1, seed=seed)
            assert (boxes.shape, masks.shape, known.tolist()) == ((1, 4), (1, 28, 28), [True])
            chosen.add(bool(boxes[0, 1] > 0.4))
        assert chosen == {False, True}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use few layers, and take steps without tracing, which would take longer than the steps."""
    use_few_layers(monkeypatch)
    compile_ = Trainer.compile
    monkeypatch.setattr(
        Trainer, "compile", lambda trainer, **options: compile_(trainer, run_eagerly=True, **options)
    )


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_steps_on_one_batch_reduce_the_loss_and_one_without_objects_is_finite(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    photos = read_all([draw_shapes(tmp_path, 4)])[0]
    columns = Batches(photos, side=SIDE, batch=4, seed=0, augmentation=EASY["augmentation"]).make(0, 0)
    trainer = Trainer(OneStageMaskRCNN(CONFIG), EASY["sampling"], seed=0)
    trainer.prepare(12, 3e-3)
    found = [trainer.step(columns) for _ in range(12)]
    assert set(found[0]) == {"loss", *LOSSES}
    assert np.isfinite([one["loss"] for one in found]).all()
    assert found[-1]["loss"] < 0.8 * found[0]["loss"]
    empty = {name: values if name == "images" else np.zeros_like(values) for name, values in columns.items()}
    values = trainer.step(empty)
    assert values["class"] == values["box"] == values["mask"] == 0
    assert 0 < values["objectness"] < np.inf


def write_start(folder: Path) -> Path:
    """Write a network with one class and few layers to start from."""
    keras.utils.set_random_seed(3)
    start = folder / "start.weights.h5"
    save(OneStageMaskRCNN(replace(CONFIG, num_classes=2)), ("background", "disc"), start, {})
    return start


@pytest.mark.usefixtures("quick")
def test_the_command_trains_from_a_one_stage_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("live_seg.training.settings.AUGMENTATION", EASY["augmentation"])
    photos, file = draw_shapes(tmp_path / "data", 2)
    words = ["train", "--images", photos, "--annotations", file, "--from", write_start(tmp_path)]
    words += ["-o", tmp_path / "run", "--epochs", 1, "--batch", 2, "--size", SIDE, "--heads-first", 0]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert "_classes for block" in result.stdout
    assert read_state(tmp_path / "run" / "state.npz").config.first_stage == "yolox"
    (row,) = read_table(tmp_path / "run" / "log.csv", 99)
    assert set(row) == {"epoch", "loss", *LOSSES, "learning_rate", "seconds"}


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_command_trains_from_a_one_stage_model_and_resumes_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("live_seg.training.settings.AUGMENTATION", EASY["augmentation"])
    start = write_start(tmp_path)
    photos, file = draw_shapes(tmp_path / "data", 4)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"

    def command(folder: Path) -> list[str]:
        words = ["train", "--images", photos, "--annotations", file, "--from", start, "-o", folder]
        words += ["--epochs", 2, "--batch", 2, "--size", SIDE, "--heads-first", 0]
        return [str(word) for word in words]

    result = CliRunner().invoke(app, command(whole))
    assert result.exit_code == 0, result.output
    assert "_classes for block" in result.stdout
    make = Batches.make

    def stop_in_the_second(batches: Batches, epoch: int, index: int) -> Columns:
        if (epoch, index) == (1, 1):
            raise KeyboardInterrupt
        return make(batches, epoch, index)

    monkeypatch.setattr(Batches, "make", stop_in_the_second)
    assert CliRunner().invoke(app, command(stopped)).exit_code == 130
    before = read_state(stopped / "state.npz")
    assert before.epoch == 1
    monkeypatch.setattr(Batches, "make", make)
    resume(stopped, quiet=True)
    assert_same_end(whole, stopped, before)
    assert before.config.first_stage == "yolox"
    rows = read_table(whole / "log.csv", 99)
    assert [set(row) for row in rows] == 2 * [{"epoch", "loss", *LOSSES, "learning_rate", "seconds"}]
