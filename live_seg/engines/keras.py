"""The network as it is: Keras on TensorFlow or JAX."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from live_seg.engines.engine import Engine, Found
from live_seg.maskrcnn.model import MaskRCNN
from live_seg.maskrcnn.ops import compiled, devices, grow_memory, out_of_memory


class KerasEngine(Engine):
    """Runs `model` in a graph of each stage for each size of its input, traced when first met."""

    def __init__(self, model: MaskRCNN) -> None:
        grow_memory()
        self.config = model.config
        self._dtype = model.compute_dtype
        self._trunk = compiled(model.trunk, model)
        self._detect = compiled(model.detect, model)
        self._masks = compiled(model.masks, model)

    @property
    def device(self) -> str:
        """Keras, its precision and backend, and what that computes on."""
        return f"Keras {self._dtype} on {keras.backend.backend()}, {devices()}"

    def detect(self, pictures: NDArray[np.uint8], windows: NDArray[np.float32]) -> tuple[Any, Found]:
        """Find instances: see Engine. Raises MemoryError when the device has too little for the batch."""
        with out_of_memory(), self.timer("trunk"):
            maps, scores, deltas = self._trunk(pictures)
        with out_of_memory(), self.timer("heads"):  # on a GPU it waits for the trunk, which goes on by itself
            detections = self._detect(maps, scores, deltas, windows)
            boxes, class_ids, scores = (np.asarray(ops.convert_to_numpy(part)) for part in detections)
        found = class_ids > 0
        rows = np.nonzero(found)[0].astype(np.int32)
        return maps, Found(rows, boxes[found], class_ids[found], scores[found])

    def masks(self, maps: Any, found: Found) -> NDArray[np.float32]:
        """Masks of what was found: see Engine. Raises MemoryError as `detect` does."""
        with out_of_memory(), self.timer("masks"):
            return np.asarray(
                ops.convert_to_numpy(self._masks(maps, found.boxes, found.rows, found.class_ids))
            )
