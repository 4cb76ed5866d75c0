"""The interface of an engine."""

from typing import Any, NamedTuple, Protocol

from numpy import float32, int32, uint8
from numpy.typing import NDArray

from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.timing import NO_TIMER, Timer

Pixels = NDArray[uint8] | NDArray[float32]
"""RGB values from 0 to 255; float32 keeps the fractions that resizing gives."""

Prepared = tuple[Pixels, NDArray[float32]]
"""An image on its canvas, (H, W, 3) RGB, and its box there, the window (4,), normalized."""


class Found(NamedTuple):
    """The N detections in a batch, grouped by image, best first."""

    rows: NDArray[int32]  # (N,) index of the image in the batch, ascending
    boxes: NDArray[float32]  # (N, 4) normalized y1 x1 y2 x2 on the canvas
    class_ids: NDArray[int32]  # (N,), none of them background
    scores: NDArray[float32]  # (N,) 0..1

    def only(self, chosen: NDArray[Any]) -> "Found":
        """Return the detections that `chosen` (N,) bool selects."""
        return Found(*(column[chosen] for column in self))


class Engine(Protocol):
    """Run a network with the weights it had when the engine was created."""

    config: MaskRCNNConfig

    timer: Timer = NO_TIMER
    """Measures the stages; may be replaced."""

    @property
    def device(self) -> str:
        """Return runtime, precision and device, such as "OpenVINO int8, AMD EPYC"."""

    def detect(self, images: Pixels, windows: NDArray[float32]) -> tuple[Any, Found]:
        """Find instances in `images` (B, H, W, 3), RGB on canvases, sides multiples of 32.

        `windows` (B, 4) are the boxes of the images on their canvases, normalized y1 x1 y2 x2. Returns the
        maps that `masks` needs, valid until the next call, and the detections. Raises MemoryError when the
        batch is too large.
        """

    def masks(self, maps: Any, found: Found) -> NDArray[float32]:
        """Compute masks (N, 28, 28), probabilities 0..1, of one or more detections.

        `maps` and detections are from the same call of `detect`.
        """
