"""A converted two-stage network: trunk, heads and masks, for one size of image."""

from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from live_seg.engines.engine import Found
from live_seg.engines.openvino.nms import top_k
from live_seg.engines.openvino.runtime import compiled, infer
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.timing import Timer


class TwoStage:
    """The three models compiled for images of one size (height, width)."""

    PARTS = ("trunk", "heads", "masks")

    def __init__(
        self,
        models: dict[str, openvino.Model],
        config: MaskRCNNConfig,
        size: tuple[int, int],
        properties: dict[str, str],
    ) -> None:
        self.anchors = config.anchors(size)
        self.candidates = count = min(config.candidates, len(self.anchors))
        trunk = compiled(models["trunk"], [[1, *size, 3]], properties)
        maps = [list(output.shape) for output in trunk.outputs[:-2]]
        boxes = [[1, count], [1, count, 4], [1, count, 4], [1, 4]]
        heads = compiled(models["heads"], [*maps, *boxes], properties)
        masks = compiled(models["masks"], [*maps, [-1, 4], [-1]], properties)
        self.models = {"trunk": trunk, "heads": heads, "masks": masks}

    def run(self) -> "TwoStageRun":
        """Return what one image of a batch needs."""
        return TwoStageRun(self)


class TwoStageRun:
    """The requests of one image. Feature maps pass from model to model without being copied."""

    def __init__(self, network: TwoStage) -> None:
        self._anchors, self._candidates = network.anchors, network.candidates
        self.requests = {part: network.models[part].create_infer_request() for part in TwoStage.PARTS}
        self._trunk, self._heads, self._masks = self.requests.values()
        self._levels = len(self._trunk.output_tensors) - 2
        for level in range(self._levels):
            for request in (self._heads, self._masks):
                request.set_input_tensor(level, self._trunk.get_output_tensor(level))

    def detect(
        self, image: NDArray[np.uint8], window: NDArray[np.float32], timer: Timer
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return candidates for detections: boxes (M, 4), class ids (M,) and scores (M,).

        image (H, W, 3), window (4,).
        """
        with timer("trunk"):
            infer(self._trunk, 0, [image[None]])
        with timer("proposals"):
            scores, deltas = (self._trunk.get_output_tensor(self._levels + i).data[0] for i in range(2))
            chosen = top_k(scores, self._candidates)
            inputs = [scores[None, chosen], deltas[None, chosen], self._anchors[None, chosen], window[None]]
        with timer("heads"):
            infer(self._heads, self._levels, inputs)
        boxes, class_ids, scores = (self._heads.get_output_tensor(i).data[0] for i in range(3))
        return boxes, class_ids, scores

    def masks(self, found: Found) -> NDArray[np.float32]:
        """Return masks (N, 28, 28), 0..1, of detections in this image."""
        infer(self._masks, self._levels, [found.boxes, found.class_ids])
        return np.array(self._masks.get_output_tensor(0).data)
