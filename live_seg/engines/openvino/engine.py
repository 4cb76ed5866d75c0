"""A converted network run by OpenVINO: without Keras, and faster on CPUs."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from live_seg.engines.engine import Engine, Found
from live_seg.engines.openvino.nms import best_first, top_k
from live_seg.engines.openvino.passes.rewrite import rewritten
from live_seg.engines.openvino.signals import own_signal_stack
from live_seg.errors import WeightsError
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.timing import Timer

PARTS = ("trunk", "heads", "masks")
"""What a converted network consists of: see `conversion.convert`."""

HOW = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
"""One picture at a time on all cores. Nothing in half precision, where a CPU has that: results are the same
everywhere. What is int8 stays int8."""

LARGEST_KEPT = 32 * 2**20
"""Bytes of weights up to which compiled models are kept on disk: as much again for each size of picture."""


@functools.cache
def core() -> openvino.Core:
    """OpenVINO with its CPU plugin: one for the life of the process."""
    with own_signal_stack():
        core = openvino.Core()
        core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin
    return core


class OpenVINOEngine(Engine):
    """Runs the three models in `folder` one picture after the other.

    They are compiled for each size of picture when it is first met, which takes about half a second; `cache`,
    if given, keeps what was compiled for the next time, of small networks. Raises WeightsError when models
    are damaged.
    """

    def __init__(self, folder: Path, config: MaskRCNNConfig, *, cache: Path | None = None) -> None:
        self.config = config
        size = sum(file.stat().st_size for file in folder.glob("*.bin"))
        kept = {"CACHE_DIR": str(cache)} if cache is not None and size <= LARGEST_KEPT else {}
        self._how = HOW | kept
        try:
            self._models = {part: core().read_model(folder / f"{part}.xml") for part in PARTS}
        except RuntimeError as error:
            raise WeightsError(
                f"The converted network in {folder} is damaged. Delete that folder, and it is made anew."
            ) from error
        self._sizes: dict[tuple[int, int], _Compiled] = {}

    @property
    def device(self) -> str:
        """OpenVINO, its precision, and the processor."""
        operations = {operation.get_type_name() for operation in self._models["trunk"].get_ops()}
        precision = "int8" if "FakeQuantize" in operations else "float32"
        return f"OpenVINO {precision}, {core().get_property('CPU', 'FULL_DEVICE_NAME')}"

    def detect(self, pictures: NDArray[np.uint8], windows: NDArray[np.float32]) -> tuple[Any, Found]:
        """Find instances: see Engine."""
        runs = self._compiled(pictures.shape[1:3]).runs(len(pictures))
        found = []
        for row, (run, picture, window) in enumerate(zip(runs, pictures, windows, strict=True)):
            boxes, class_ids, scores = run.detect(picture, window, self.timer)
            with self.timer("suppression"):
                kept = best_first(
                    boxes,
                    class_ids,
                    scores,
                    keep=self.config.detections,
                    min_score=self.config.min_score,
                    max_iou=self.config.detection_iou,
                )
            rows = np.full(len(kept), row, np.int32)
            found.append(Found(rows, boxes[kept], class_ids[kept], scores[kept]))
        return runs, Found(*(np.concatenate(column) for column in zip(*found, strict=True)))

    def masks(self, maps: Any, found: Found) -> NDArray[np.float32]:
        """Masks of what was found: see Engine."""
        with self.timer("masks"):
            return np.concatenate(
                [maps[row].masks(found.only(found.rows == row)) for row in np.unique(found.rows)]
            )

    def given(self, maps: Any, part: str) -> list[NDArray[Any]]:
        """Copies of what `part` of the network was given for the first picture of the batch of `maps`."""
        run: _Run = maps[0]
        return run.given(part)

    def _compiled(self, size: tuple[int, int]) -> "_Compiled":
        if size not in self._sizes:
            self._sizes[size] = _Compiled(self._models, self.config, size, self._how)
        return self._sizes[size]


class _Compiled:
    """The three models compiled for pictures of one size (height, width)."""

    def __init__(
        self,
        models: dict[str, openvino.Model],
        config: MaskRCNNConfig,
        size: tuple[int, int],
        how: dict[str, str],
    ) -> None:
        self.anchors = config.anchors(size)
        self.candidates = min(config.candidates, len(self.anchors))

        def compiled(part: str, shapes: list[list[int]]) -> openvino.CompiledModel:
            model = models[part].clone()
            model.reshape(dict(enumerate(shapes)))
            return core().compile_model(rewritten(model), "CPU", how)

        trunk = compiled("trunk", [[1, *size, 3]])
        maps = [list(output.shape) for output in trunk.outputs[:-2]]
        count = self.candidates
        heads = compiled("heads", [*maps, [1, count], [1, count, 4], [1, count, 4], [1, 4]])
        self.models = {"trunk": trunk, "heads": heads, "masks": compiled("masks", [*maps, [-1, 4], [-1]])}
        self._runs: list[_Run] = []

    def runs(self, count: int) -> list["_Run"]:
        """As many as there are pictures in a batch: the maps of each are needed until its masks are made."""
        while len(self._runs) < count:
            self._runs.append(_Run(self))
        return self._runs[:count]


class _Run:
    """What one picture goes through; the maps pass from model to model without being copied."""

    def __init__(self, compiled: _Compiled) -> None:
        self._anchors, self._candidates = compiled.anchors, compiled.candidates
        self._requests = {part: compiled.models[part].create_infer_request() for part in PARTS}
        self._trunk, self._heads, self._masks = self._requests.values()
        self._levels = len(self._trunk.output_tensors) - 2
        for level in range(self._levels):
            for request in (self._heads, self._masks):
                request.set_input_tensor(level, self._trunk.get_output_tensor(level))

    def detect(
        self, picture: NDArray[np.uint8], window: NDArray[np.float32], timer: Timer
    ) -> list[NDArray[Any]]:
        """picture (H, W, 3), window (4,) -> boxes (M, 4), class ids and scores (M,) of what may be found."""
        with timer("trunk"):
            _infer(self._trunk, 0, [picture[None]])
        with timer("proposals"):
            scores, deltas = (self._trunk.get_output_tensor(self._levels + i).data[0] for i in range(2))
            chosen = top_k(scores, self._candidates)
            inputs = [scores[None, chosen], deltas[None, chosen], self._anchors[None, chosen], window[None]]
        with timer("heads"):
            _infer(self._heads, self._levels, inputs)
        return [self._heads.get_output_tensor(i).data[0] for i in range(3)]

    def masks(self, found: Found) -> NDArray[np.float32]:
        """Masks (N, 28, 28) of what was found in this picture."""
        _infer(self._masks, self._levels, [found.boxes, found.class_ids])
        return np.array(self._masks.get_output_tensor(0).data)

    def given(self, part: str) -> list[NDArray[Any]]:
        """Copies of what a part of the network was given last."""
        return [np.array(tensor.data) for tensor in self._requests[part].input_tensors]


def _infer(request: openvino.InferRequest, first: int, inputs: list[NDArray[Any]]) -> None:
    """Run with copies of `inputs` as those from number `first` on: the request keeps no array alive."""
    for position, values in enumerate(inputs, start=first):
        request.set_input_tensor(position, openvino.Tensor(values))
    request.infer()
