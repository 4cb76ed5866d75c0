"""The optimizer of a training: its learning rates and its gradient clipping."""

from typing import Any, cast

import keras
import numpy as np
import pytest

from live_seg.maskrcnn.training import Sampling
from live_seg.training.trainer import CLIP_NORM, Trainer, arrays_of, assign


class TwoLayers(keras.Model):
    """A layer for the backbone, and one for the heads."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = keras.layers.Dense(3), keras.layers.Dense(2)
        self.head(self.backbone(keras.Input((4,))))
        self.built = True


def trainer_of(steps: int, learning_rate: float, detector_rate: float = 1.0) -> Trainer:
    """Return a Trainer of two layers, prepared for a run of `steps`."""
    trainer = Trainer(cast(Any, TwoLayers()), Sampling(), seed=0)
    trainer.prepare(steps, learning_rate, detector_rate)
    return trainer


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 1e-5), (50, 5.05e-4), (101, 1e-3), (550, 5.06e-4), (800, 1.27e-4), (1000, 1e-5)],
)
def test_the_learning_rate_rises_for_a_tenth_of_the_steps_and_then_falls_to_a_hundredth(
    step: int, rate: float
) -> None:
    trainer = trainer_of(1000, 1e-3)
    trainer.optimizer.iterations.assign(step)
    assert float(trainer.optimizer.learning_rate) == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize(("norm", "applied"), [(1e4, CLIP_NORM), (4.0, 4.0)])
def test_gradients_are_clipped_to_a_norm_over_all_variables(norm: float, applied: float) -> None:
    trainer = trainer_of(10, 1e-3)
    gradients = [np.ones(variable.shape, np.float32) for variable in trainer.trainable_variables]
    scale = norm / np.sqrt(sum(gradient.size for gradient in gradients))
    trainer.optimizer.apply([keras.ops.convert_to_tensor(scale * gradient) for gradient in gradients])
    moments = [np.array(v) for v in trainer.optimizer.variables if v.path.endswith("_momentum")]
    assert len(moments) == 4
    # The first moment is a tenth of the first gradient.
    assert 10 * np.sqrt(sum((moment**2).sum() for moment in moments)) == pytest.approx(applied, rel=1e-3)


@pytest.mark.parametrize("rate", [1.0, 0.1])
def test_the_detector_learns_at_a_rate_of_its_own(rate: float) -> None:
    trainer = trainer_of(10, 1e-3, rate)
    variables = trainer.trainable_variables
    for variable in variables:
        variable.assign(np.zeros(variable.shape))  # nothing to decay
    trainer.optimizer.apply([keras.ops.ones(variable.shape) for variable in variables])
    backbone, head = (
        np.concatenate([np.ravel(variable) for variable in layer.variables])
        for layer in (trainer.model.backbone, trainer.model.head)
    )
    # The first step of Adam is the learning rate, a hundredth of its peak, whatever the gradient.
    np.testing.assert_allclose(head, -1e-5, rtol=1e-3)
    np.testing.assert_allclose(backbone, -1e-5 * rate, rtol=1e-3)


def test_a_restored_trainer_has_the_same_averages_seeds_and_next_step() -> None:
    """Averages have a time constant of 50 steps here; in shorter runs they are the last weights."""
    trainer, other = trainer_of(1000, 1e-3), trainer_of(1000, 1e-3)
    variables = trainer.trainable_variables
    gradients = [np.random.default_rng(i).normal(size=v.shape) for i, v in enumerate(variables)]

    def take_step(of: Trainer) -> None:
        of.optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32") for gradient in gradients])

    take_step(trainer)
    trainer.seeds.next()
    assert any((one != two).any() for one, two in zip(trainer.state(), other.state(), strict=True))
    assign(other.trainable_variables, arrays_of(variables))
    other.restore(trainer.state())
    for one in (trainer, other):
        take_step(one)
    ends = []
    for one in (trainer, other):
        with one.averaged(keep=False):
            averages = arrays_of(one.trainable_variables)
        ends.append([*averages, *arrays_of(one.trainable_variables), *one.state()])
    assert any((average != last).any() for average, last in zip(averages, ends[0][4:8], strict=True))
    for expected, found in zip(*ends, strict=True):
        np.testing.assert_array_equal(found, expected)
