"""A converted two-stage network: trunk, heads and masks, for one size of image."""

import functools
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from live_seg.engines.engine import Found, Pixels
from live_seg.engines.openvino.boxes import Refined, by_level, propose, refine
from live_seg.engines.openvino.runtime import compiled, infer
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.timing import Timer

REGIONS_AT_ONCE = 128
"""Regions of a head's inference: their activations then stay in the processor's cache."""


class TwoStage:
    """The three models compiled for images of one size (height, width)."""

    PARTS = ("trunk", "heads", "masks")

    def __init__(
        self,
        models: dict[str, openvino.Model],
        config: MaskRCNNConfig,
        size: tuple[int, int],
        properties: dict[str, str],
        image_type: str,
    ) -> None:
        self.config, self.size = config, size
        # Images in float32 come from the exact layout: no rounding error is added for the sake of speed.
        compile_for = functools.partial(compiled, properties=properties, rewrite=image_type != "float32")
        trunk = compile_for(models["trunk"], [[1, *size, 3]], first_type=image_type)
        maps = [list(output.shape) for output in trunk.outputs[:-2]]
        boxes = [[-1, 4]] * len(maps)
        heads = compile_for(models["heads"], [*maps, *boxes])
        masks = compile_for(models["masks"], [*maps, *boxes, [-1]])
        self.models = {"trunk": trunk, "heads": heads, "masks": masks}

    def run(self) -> "TwoStageRun":
        """Return what one image of a batch needs."""
        return TwoStageRun(self)


class TwoStageRun:
    """The requests of one image. Feature maps pass from model to model without being copied."""

    def __init__(self, network: TwoStage) -> None:
        self._config, self._size = network.config, network.size
        self.requests = {part: network.models[part].create_infer_request() for part in TwoStage.PARTS}
        self._trunk, self._heads, self._masks = self.requests.values()
        self._levels = len(self._trunk.output_tensors) - 2
        for level in range(self._levels):
            for request in (self._heads, self._masks):
                request.set_input_tensor(level, self._trunk.get_output_tensor(level))

    def detect(self, image: Pixels, window: NDArray[np.float32], timer: Timer) -> Refined:
        """Return candidates for detections. image (H, W, 3), window (4,)."""
        with timer("trunk"):
            infer(self._trunk, 0, [image[None]])
        with timer("proposals"):
            scores, deltas = (self._trunk.get_output_tensor(self._levels + i).data[0] for i in range(2))
            anchors = self._config.anchors(self._size)
            proposals = propose(scores, deltas, anchors, window, self._config)
        with timer("heads"):
            probabilities, deltas = self._on_regions(self._heads, proposals)
        with timer("proposals"):
            return refine(proposals, probabilities, deltas, window, self._config)

    def masks(self, found: Found) -> NDArray[np.float32]:
        """Return masks (N, 28, 28), 0..1, of detections in this image."""
        return self._on_regions(self._masks, found.boxes, found.class_ids)[0]

    def _on_regions(
        self, request: openvino.InferRequest, boxes: NDArray[np.float32], *columns: NDArray[Any]
    ) -> list[NDArray[np.float32]]:
        """Run a head on boxes (K, 4) with other `columns` (K,); return its outputs in the order of boxes."""
        parts = [slice(i, i + REGIONS_AT_ONCE) for i in range(0, max(1, len(boxes)), REGIONS_AT_ONCE)]
        outputs = [self._on_some(request, *(one[part] for one in (boxes, *columns))) for part in parts]
        return [np.concatenate(column) for column in zip(*outputs, strict=True)]

    def _on_some(
        self, request: openvino.InferRequest, boxes: NDArray[np.float32], *columns: NDArray[Any]
    ) -> list[NDArray[np.float32]]:
        """Run a head on boxes (K, 4) in one inference."""
        groups, order = by_level(boxes, self._size, self._levels, self._config)
        infer(request, self._levels, [*groups, *(column[order] for column in columns)])
        outputs = []
        for tensor in request.output_tensors:
            values = np.empty(tensor.data.shape, np.float32)
            values[order] = tensor.data
            outputs.append(values)
        return outputs
