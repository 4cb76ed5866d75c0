"""Training step: losses, AdamW, learning rate schedule and averaged weights."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from live_seg.maskrcnn.boxes import Tensor
from live_seg.maskrcnn.family import Network, detector_variables, losses_of
from live_seg.maskrcnn.training import Sampling, Truth
from live_seg.training.batches import Columns
from live_seg.training.checkpoint import Arrays

WEIGHT_DECAY = 1e-4
"""Mask R-CNN, section 3.1."""

CLIP_NORM = 10.0
"""Largest norm of the gradient over all variables. Clipping protects the heads from rare batches."""

MAX_WARM_UP_STEPS = 300
"""Longest warm-up in steps; shorter runs warm up for a tenth of their steps."""

MAX_AVERAGED_STEPS = 500
"""Longest time constant of the averaged weights in steps; shorter runs use a twentieth of their steps."""


class TwoRateAdamW(keras.optimizers.AdamW):
    """AdamW with a learning rate of its own for some variables: `slow_rate` times that of the others.

    `slow` (V,) bool marks them among the variables that the optimizer is built with.
    """

    def __init__(self, learning_rate: Any, *, slow: list[bool], slow_rate: float, **options: Any) -> None:
        super().__init__(learning_rate, **options)
        self.slow, self.slow_rate = slow, slow_rate

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """Update one variable."""
        rate = self.slow_rate if self.slow[self._get_variable_index(variable)] else 1.0
        super().update_step(gradient, variable, learning_rate * rate)


class Trainer(keras.Model):
    """A network with its losses: takes a batch of `Batches`, returns the losses by name, which are summed."""

    def __init__(self, model: Network, sampling: Sampling, seed: int) -> None:
        # A mixed policy would round the boxes of the ground truth.
        super().__init__(name="trainer", dtype="float32")
        self.model, self.sampling = model, sampling
        self.seeds = keras.random.SeedGenerator(seed)
        names, self.compute_losses = losses_of(model)
        self.trackers = {name: keras.metrics.Mean(name=name) for name in names}

    def call(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of a batch by name, scalars."""
        truth = Truth(batch["class_ids"], batch["boxes"], batch["masks"], batch["masked"])
        return self.compute_losses(batch["images"], truth, self.sampling, self.seeds)

    def compute_loss(
        self,
        x: Any,  # noqa: ARG002
        y: Any,  # noqa: ARG002
        y_pred: dict[str, Tensor],
        *_: Any,
        **__: Any,
    ) -> Tensor:
        """Return the sum of the losses, each with weight 1 (Mask R-CNN, section 3), and log each of them."""
        for name, tracker in self.trackers.items():
            tracker.update_state(y_pred[name])
        return ops.sum(ops.stack(list(y_pred.values())))

    def prepare(self, steps: int, learning_rate: float, detector_rate: float = 1.0) -> None:
        """Create the optimizer for a run of `steps`.

        The learning rate rises linearly to `learning_rate`, then falls along a cosine to a hundredth of it.
        The `family.detector_variables` learn at `detector_rate` times that.
        """
        warm_up = min(MAX_WARM_UP_STEPS, 1 + steps // 10)
        schedule = keras.optimizers.schedules.CosineDecay(
            learning_rate / 100,
            max(1, steps - warm_up),
            alpha=0.01,
            warmup_target=learning_rate,
            warmup_steps=warm_up,
        )
        detector = {variable.path for variable in detector_variables(self.model)}
        optimizer = TwoRateAdamW(
            schedule,
            slow=[variable.path in detector for variable in self.trainable_variables],
            slow_rate=detector_rate,
            weight_decay=WEIGHT_DECAY,
            global_clipnorm=CLIP_NORM,
            use_ema=True,
            ema_momentum=1 - 1 / min(MAX_AVERAGED_STEPS, max(1.0, steps / 20)),
        )
        # XLA cannot compile TensorFlow's NMS; JAX is slow without XLA.
        self.compile(optimizer=optimizer, jit_compile=keras.backend.backend() == "jax")
        optimizer.build(self.trainable_variables)

    def step(self, columns: Columns) -> dict[str, float]:
        """Take one step on a batch. Return its total `loss` and each loss by name."""
        found = self.train_on_batch(columns, return_dict=True)
        return {name: float(value) for name, value in found.items()}

    @contextlib.contextmanager
    def averaged(self, *, keep: bool) -> Iterator[None]:
        """Replace the weights by their averages within the block, and after it if `keep`."""
        variables = self.trainable_variables
        current = arrays_of(variables)
        self.optimizer.finalize_variable_values(variables)
        yield
        if not keep:
            assign(variables, current)

    def state(self) -> Arrays:
        """Return all that a step depends on except the network's weights."""
        return arrays_of(self._own_variables())

    def restore(self, state: Arrays) -> None:
        """Restore the `state` of a Trainer that was prepared with the same arguments.

        Raises ValueError if it does not fit.
        """
        assign(self._own_variables(), state)

    def _own_variables(self) -> list[Any]:
        return [*self.optimizer.variables, self.seeds.state]


def arrays_of(variables: list[Any]) -> Arrays:
    """Return copies of the values of Keras variables."""
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables: list[Any], arrays: Arrays) -> None:
    """Assign `arrays` to Keras variables. Raises ValueError if their number or shapes differ."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
