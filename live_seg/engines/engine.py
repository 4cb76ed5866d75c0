"""What a Segmenter asks of an engine."""

from typing import Any, NamedTuple, Protocol

from numpy import float32, int32, uint8
from numpy.typing import NDArray

from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.timing import NO_TIMER, Timer

Prepared = tuple[NDArray[uint8], NDArray[float32]]
"""A picture on its black canvas, (H, W, 3) RGB, and its window on it (4,), normalized."""


class Found(NamedTuple):
    """What was found in a batch: N detections in all, those of one picture together, best first."""

    rows: NDArray[int32]  # (N,) which picture of the batch, rising
    boxes: NDArray[float32]  # (N, 4) normalized y1 x1 y2 x2 on the canvas
    class_ids: NDArray[int32]  # (N,), none of them background
    scores: NDArray[float32]  # (N,) 0..1

    def only(self, chosen: NDArray[Any]) -> "Found":
        """Those that `chosen` (N,) bool marks."""
        return Found(*(column[chosen] for column in self))


class Engine(Protocol):
    """Runs a network of which it has the weights as they were when it was made."""

    config: MaskRCNNConfig

    timer: Timer = NO_TIMER
    """Is told of the stages of a picture's way; another may be set in its place."""

    @property
    def device(self) -> str:
        """What it runs on, in words, such as "OpenVINO int8, 2 CPU cores"."""

    def detect(self, pictures: NDArray[uint8], windows: NDArray[float32]) -> tuple[Any, Found]:
        """Find instances in `pictures` (B, H, W, 3), RGB on black canvases, sides multiples of 32.

        `windows` (B, 4) tell where on its canvas each picture lies, normalized y1 x1 y2 x2. Returns the maps
        that `masks` needs, good until the next call, and the detections. Raises MemoryError for too large a
        batch.
        """

    def masks(self, maps: Any, found: Found) -> NDArray[float32]:
        """Masks of one or more of the detections that `detect` gave together with `maps`.

        (N, 28, 28) probabilities, 0..1.
        """
