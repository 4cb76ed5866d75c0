"""The engine that runs the Keras network itself, on TensorFlow or JAX."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from live_seg.engines.engine import Engine, Found, Pixels
from live_seg.engines.spec import ModelSpec
from live_seg.maskrcnn.checkpoint import read_network
from live_seg.maskrcnn.family import Network
from live_seg.maskrcnn.ops import compiled, devices, grow_memory, out_of_memory


def create(spec: ModelSpec, precision: str) -> "KerasEngine":
    """Create the engine for `spec` with the Keras dtype policy `precision`. Raises WeightsError."""
    return KerasEngine(read_network(spec.weights, spec.config, precision))


class KerasEngine(Engine):
    """Run `model` with Keras, in one graph per stage and input size, traced on first use."""

    def __init__(self, model: Network) -> None:
        grow_memory()
        self.config = model.config
        self._dtype = model.compute_dtype
        self._trunk = compiled(model.trunk, model)
        self._detect = compiled(model.detect, model)
        self._masks = compiled(model.masks, model)

    @property
    def device(self) -> str:
        """Return Keras with its precision, backend and devices."""
        return f"Keras {self._dtype} on {keras.backend.backend()}, {devices()}"

    def detect(self, images: Pixels, windows: NDArray[np.float32]) -> tuple[Any, Found]:
        """Find instances: see Engine. Raises MemoryError when the batch does not fit on the device."""
        with out_of_memory(), self.timer("trunk"):
            maps, scores, deltas = self._trunk(images)
        with out_of_memory(), self.timer("heads"):  # on a GPU this includes waiting for the trunk
            detections = self._detect(maps, scores, deltas, windows)
            boxes, class_ids, scores = (np.asarray(ops.convert_to_numpy(part)) for part in detections)
        found = class_ids > 0
        rows = np.nonzero(found)[0].astype(np.int32)
        return maps, Found(rows, boxes[found], class_ids[found], scores[found])

    def masks(self, maps: Any, found: Found) -> NDArray[np.float32]:
        """Compute masks: see Engine. Raises MemoryError when the batch does not fit on the device."""
        with out_of_memory(), self.timer("masks"):
            return np.asarray(
                ops.convert_to_numpy(self._masks(maps, found.boxes, found.rows, found.class_ids))
            )
