"""The engine that runs a converted network with OpenVINO: no Keras, and faster on CPUs."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_seg.engines.engine import Engine, Found, Pixels
from live_seg.engines.openvino.cache import Precision, compiled_folder
from live_seg.engines.openvino.forms import form_of
from live_seg.engines.openvino.nms import best_first
from live_seg.engines.openvino.one_stage import OneStage
from live_seg.engines.openvino.runtime import core, inputs_of, out_of_memory
from live_seg.engines.openvino.two_stage import TwoStage
from live_seg.engines.spec import ModelSpec
from live_seg.errors import WeightsError
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.recent import Recent

PROPERTIES = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
"""One image at a time on all cores. Half precision is off, so that results do not depend on the CPU."""

LARGEST_KEPT = 32 * 2**20
"""Bytes of weights up to which compiled models are cached: each input size takes as much again."""

SIZES_OF_SMALL, SIZES_OF_LARGE = 12, 3
"""Input sizes for which a network stays compiled, up to and above LARGEST_KEPT. One of a ResNet takes half a
gigabyte."""


def create(spec: ModelSpec, precision: Precision) -> "OpenVINOEngine":
    """Create the engine for `spec`, converted first if necessary. Raises WeightsError."""
    return OpenVINOEngine(form_of(spec, precision), spec.config, cache=compiled_folder())


class OpenVINOEngine(Engine):
    """Run the converted network in `folder`, one image after the other.

    It is compiled for each size of image on first use, which takes about half a second; those used most
    recently stay compiled. Compiled models of small networks are kept in the folder `cache` if it is given.
    Raises WeightsError when a model is damaged, MemoryError when memory runs out.
    """

    def __init__(self, folder: Path, config: MaskRCNNConfig, *, cache: Path | None = None) -> None:
        self.config = config
        small = sum(file.stat().st_size for file in folder.glob("*.bin")) <= LARGEST_KEPT
        kept = {"CACHE_DIR": str(cache)} if cache is not None and small else {}
        self._properties = PROPERTIES | kept
        self._kind = OneStage if config.first_stage == "yolox" else TwoStage
        runtime = core()
        try:
            with out_of_memory():
                self._models = {part: runtime.read_model(folder / f"{part}.xml") for part in self.parts}
        except RuntimeError as error:
            raise WeightsError(
                f"The converted network in {folder} is damaged. Delete that folder, and it is converted "
                "again on next use. If it came with live_seg, reinstall live_seg."
            ) from error
        self._sizes: Recent[tuple[int, int, str], tuple[OneStage | TwoStage, list[Any]]]
        self._sizes = Recent(SIZES_OF_SMALL if small else SIZES_OF_LARGE)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the models that make up the network: see `convert`."""
        return self._kind.PARTS

    @property
    def device(self) -> str:
        """Return OpenVINO with its precision and the processor."""
        operations = {operation.get_type_name() for operation in self._models["trunk"].get_ops()}
        precision = "int8" if "FakeQuantize" in operations else "float32"
        return f"OpenVINO {precision}, {core().get_property('CPU', 'FULL_DEVICE_NAME')}"

    def detect(self, images: Pixels, windows: NDArray[np.float32]) -> tuple[Any, Found]:
        """Find instances: see Engine."""
        runs = self._runs(images.shape[1:3], str(images.dtype), len(images))
        found = []
        for row, (run, image, window) in enumerate(zip(runs, images, windows, strict=True)):
            boxes, class_ids, scores = run.detect(image, window, self.timer)
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
        """Compute masks: see Engine."""
        with self.timer("masks"):
            return np.concatenate(
                [maps[row].masks(found.only(found.rows == row)) for row in np.unique(found.rows)]
            )

    def given(self, maps: Any, part: str) -> list[NDArray[Any]]:
        """Return copies of the inputs of `part` for the first image of the batch that `maps` belong to."""
        return inputs_of(maps[0].requests[part])

    def _runs(self, size: tuple[int, int], image_type: str, count: int) -> list[Any]:
        """Return what `count` images of `size` need: the maps of each are in use until its masks are made."""
        network, runs = self._sizes.get(
            (*size, image_type),
            lambda: (self._kind(self._models, self.config, size, self._properties, image_type), []),
        )
        runs += [network.run() for _ in range(count - len(runs))]
        return runs[:count]
