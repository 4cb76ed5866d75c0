"""The training step: five losses, AdamW, a schedule, averaged weights."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from live_seg.maskrcnn.boxes import Tensor
from live_seg.maskrcnn.family import Network, losses_of
from live_seg.maskrcnn.training import Sampling, Truth
from live_seg.training.batches import Columns
from live_seg.training.checkpoint import Arrays

WEIGHT_DECAY = 1e-4
"""Mask R-CNN, section 3.1."""

CLIP_NORM = 10.0
"""Longest gradient, all variables together: a rare batch that would throw the heads off."""

MOST_WARM_UP = 300
"""Steps until the learning rate is reached, or a tenth of all."""

LONGEST_MEMORY = 500
"""Steps that the averaged weights look back on, or a twentieth of all."""


class Trainer(keras.Model):
    """A MaskRCNN being fitted: inputs are a batch of `Batches`, outputs the five losses, which are summed."""

    def __init__(self, model: Network, sampling: Sampling, seed: int) -> None:
        # A mixed policy would round the boxes of the truth.
        super().__init__(name="trainer", dtype="float32")
        self.model, self.sampling = model, sampling
        self.seeds = keras.random.SeedGenerator(seed)
        names, self.compute_losses = losses_of(model)
        self.trackers = {name: keras.metrics.Mean(name=name) for name in names}

    def call(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Find the five losses of a batch: scalars."""
        truth = Truth(batch["class_ids"], batch["boxes"], batch["masks"], batch["masked"])
        return self.compute_losses(batch["pictures"], truth, self.sampling, self.seeds)

    def compute_loss(
        self,
        x: Any,  # noqa: ARG002
        y: Any,  # noqa: ARG002
        y_pred: dict[str, Tensor],
        *_: Any,
        **__: Any,
    ) -> Tensor:
        """Sum the losses, each with weight 1 (Mask R-CNN, section 3), and keep them for the log."""
        for name, tracker in self.trackers.items():
            tracker.update_state(y_pred[name])
        return ops.sum(ops.stack(list(y_pred.values())))

    def prepare(self, steps: int, learning_rate: float) -> None:
        """Make the optimizer for so many steps: warm-up, then a cosine down to a hundredth of the rate."""
        warm_up = min(MOST_WARM_UP, 1 + steps // 10)
        schedule = keras.optimizers.schedules.CosineDecay(
            learning_rate / 100,
            max(1, steps - warm_up),
            alpha=0.01,
            warmup_target=learning_rate,
            warmup_steps=warm_up,
        )
        optimizer = keras.optimizers.AdamW(
            schedule,
            weight_decay=WEIGHT_DECAY,
            global_clipnorm=CLIP_NORM,
            use_ema=True,
            ema_momentum=1 - 1 / min(LONGEST_MEMORY, max(1.0, steps / 20)),
        )
        # XLA cannot compile TensorFlow's NMS; JAX is nothing without it.
        self.compile(optimizer=optimizer, jit_compile=keras.backend.backend() == "jax")
        optimizer.build(self.trainable_variables)

    def learn(self, columns: Columns) -> dict[str, float]:
        """Take one step on a batch. Returns its `loss`, the sum, and the five losses by name."""
        found = self.train_on_batch(columns, return_dict=True)
        return {name: float(value) for name, value in found.items()}

    @contextlib.contextmanager
    def averaged(self, *, keep: bool) -> Iterator[None]:
        """Put the averages in place of the weights for the block; for good with `keep`."""
        variables = self.trainable_variables
        current = arrays_of(variables)
        self.optimizer.finalize_variable_values(variables)
        yield
        if not keep:
            assign(variables, current)

    def state(self) -> Arrays:
        """All that a step depends on, apart from the network's own weights."""
        return arrays_of(self._own_variables())

    def restore(self, state: Arrays) -> None:
        """Go back to a `state` of a Trainer that was prepared alike. Raises ValueError."""
        assign(self._own_variables(), state)

    def _own_variables(self) -> list[Any]:
        return [*self.optimizer.variables, self.seeds.state]


def arrays_of(variables: list[Any]) -> Arrays:
    """Copy the values of Keras variables."""
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables: list[Any], arrays: Arrays) -> None:
    """Give Keras variables their values. Raises ValueError when number or shapes differ."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
