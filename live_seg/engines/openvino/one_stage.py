"""A converted one-stage network: trunk and masks, for one size of image."""

from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from live_seg.engines.engine import Found
from live_seg.engines.openvino.nms import top_k
from live_seg.engines.openvino.runtime import compiled, infer
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.timing import Timer


class OneStage:
    """The two models compiled for images of one size (height, width)."""

    PARTS = ("trunk", "masks")

    def __init__(
        self,
        models: dict[str, openvino.Model],
        config: MaskRCNNConfig,
        size: tuple[int, int],
        properties: dict[str, str],
        image_type: str,
    ) -> None:
        self.config = config
        trunk = compiled(models["trunk"], [[1, *size, 3]], properties, first_type=image_type)
        masks = compiled(models["masks"], [list(trunk.outputs[0].shape), [-1, 4]], properties)
        self.models = {"trunk": trunk, "masks": masks}

    def run(self) -> "OneStageRun":
        """Return what one image of a batch needs."""
        return OneStageRun(self)


class OneStageRun:
    """The requests of one image. The map for masks passes from model to model without being copied."""

    def __init__(self, network: OneStage) -> None:
        self._config = network.config
        self.requests = {part: network.models[part].create_infer_request() for part in OneStage.PARTS}
        self._trunk, self._masks = self.requests.values()
        self._masks.set_input_tensor(0, self._trunk.get_output_tensor(0))

    def detect(
        self, image: NDArray[np.uint8], window: NDArray[np.float32], timer: Timer
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return candidates for detections: boxes (M, 4), class ids (M,) and scores (M,).

        image (H, W, 3), window (4,).
        """
        with timer("trunk"):
            infer(self._trunk, 0, [image[None]])
        with timer("proposals"):
            scores, boxes = (self._trunk.get_output_tensor(i).data[0] for i in (1, 2))
            return candidates(scores, boxes, window, self._config)

    def masks(self, found: Found) -> NDArray[np.float32]:
        """Return masks (N, 28, 28), 0..1, of detections in this image."""
        infer(self._masks, 1, [found.boxes])
        return np.array(self._masks.get_output_tensor(0).data)


def candidates(
    scores: NDArray[np.float32],
    boxes: NDArray[np.float32],
    window: NDArray[np.float32],
    config: MaskRCNNConfig,
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Choose the best pairs of cell and class with at least the score threshold.

    scores (A, classes), background left out, boxes (A, 4), window (4,) -> boxes (M, 4) clipped to the window,
    class ids (M,), scores (M,), M <= `config.candidates`: the rule of `OneStageMaskRCNN.detect`.
    """
    flat = scores.reshape(-1)
    above = np.flatnonzero(flat >= config.min_score)
    chosen = above[top_k(flat[above], config.candidates)]
    cells, classes = np.divmod(chosen, scores.shape[1])
    low, high = np.tile(window[:2], 2), np.tile(window[2:], 2)
    return boxes[cells].clip(low, high), classes.astype(np.int32) + 1, flat[chosen]
