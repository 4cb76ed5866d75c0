"""Dense optical flow between consecutive frames, on a reduced image."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from live_seg.types import Image

LONG_SIDE = 320
"""Longest side of the reduced image in pixels. 480 improved the mean mask IoU on real clips by 0.002 only."""

SHORT_SIDE = 32
"""Minimum side of the reduced image, and of the flow, in pixels: required by the pyramid of DIS."""

TOLERANCE = 1.0
"""Disagreement of forward and backward flow, in reduced pixels, at which the confidence is 0.5."""

MOTION_TOLERANCE = 0.05
"""Fraction of the squared motion added to TOLERANCE squared. Sundaram et al. 2010, section 3, use 0.01 of the
sum of both squared flows on full frames; motion blur requires more."""

SCENE_CUT = 0.4
"""Mean confidence of the flow of a frame below which the frame starts a new scene."""


@dataclass(frozen=True, eq=False)
class Step:
    """The reduced image of a frame and the flow from the previous frame."""

    image: Image
    """(h, w, 3) uint8 BGR, slightly blurred."""
    flow: NDArray[np.float32] | None
    """(h / 2, w / 2, 3): x and y motion from the previous frame in reduced pixels, at every second pixel, and
    confidence, 0..1, from the agreement of forward and backward flow. None for the first frame of a scene."""
    back: NDArray[np.float32] | None = None
    """The same from this frame to the previous one, if `Flow` computes both."""


class Flow:
    """Compute the Steps of a sequence of frames with OpenCV's DIS optical flow (Kroeger et al. 2016).

    With `both`, each Step also has the flow back to the previous frame.
    """

    def __init__(self, *, both: bool = False) -> None:
        self._both = both
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._dis.setFinestScale(0)  # half the reduced resolution: a quarter misses arms and legs
        self._grey: Image | None = None

    def step(self, image: Image) -> Step:
        """Return the Step to the next frame `image` (H, W, 3) uint8 BGR.

        It has no flow if the shape of the image changed or it shows a new scene.
        """
        reduced = _bytes(cv2.resize(image, reduced_size(image.shape), interpolation=cv2.INTER_LINEAR))
        before, grey = self._grey, _halved(_bytes(cv2.cvtColor(reduced, cv2.COLOR_BGR2GRAY)))
        self._grey = grey
        reduced = _bytes(cv2.blur(reduced, (3, 3)))
        if before is None or before.shape != grey.shape:
            return Step(reduced, None)
        scale = np.divide(reduced.shape[1::-1], grey.shape[::-1], dtype=np.float32)
        forward, backward = self._between(before, grey), self._between(grey, before)
        confidence = _confidence(forward, backward, scale)
        if confidence.mean() < SCENE_CUT:
            return Step(reduced, None)
        flow = np.dstack([forward * scale, confidence])
        if not self._both:
            return Step(reduced, flow)
        return Step(reduced, flow, np.dstack([backward * scale, _confidence(backward, forward, scale)]))

    def _between(self, first: Image, second: Image) -> NDArray[np.float32]:
        start = np.zeros((*first.shape, 2), np.float32)
        return np.asarray(self._dis.calc(first, second, start), np.float32)


def reduced_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (width, height) of the reduced image for a `shape` (H, W, ...); small ones keep their size."""
    scale = min(1.0, LONG_SIDE / max(shape[:2]))
    return max(SHORT_SIDE, round(shape[1] * scale)), max(SHORT_SIDE, round(shape[0] * scale))


def sample(field: NDArray[Any], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sample a `field` (h, w[, C]), uint8 or float32, bilinearly at `points` (N, M, M, 2): (N, M, M[, C]).

    Points are x y in pixels with the centre of the first pixel at 0.5; the border is replicated.
    """
    n, side = points.shape[:2]
    if not n:
        return np.zeros((*points.shape[:3], *field.shape[2:]), np.float32)
    places = points.reshape(n * side, side, 2) - np.float32(0.5)
    x, y = places[..., 0], places[..., 1]
    read = cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(read.reshape(n, side, side, *field.shape[2:]), np.float32)


def _bytes(values: NDArray[Any]) -> Image:
    return values.astype(np.uint8, copy=False)


def _halved(grey: Image) -> Image:
    """Reduce (h, w) to half its width and height, but not below SHORT_SIDE."""
    sides = max(SHORT_SIDE, grey.shape[1] // 2), max(SHORT_SIDE, grey.shape[0] // 2)
    return _bytes(cv2.resize(grey, sides, interpolation=cv2.INTER_AREA))


def _confidence(
    forward: NDArray[np.float32], backward: NDArray[np.float32], scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the forward-backward consistency, 0..1, of two flows (h, w, 2): (h, w).

    `scale` (2,) converts pixels of the flow to reduced pixels.
    """
    ends = forward + _pixels(*forward.shape[:2])
    x, y = ends[..., 0], ends[..., 1]
    back = cv2.remap(backward, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    gap, motion = _squared((forward + back) * scale), _squared(forward * scale)
    return np.asarray(1 / (1 + gap / (TOLERANCE**2 + MOTION_TOLERANCE * motion)), np.float32)


@lru_cache(maxsize=1)
def _pixels(height: int, width: int) -> NDArray[np.float32]:
    """Return the integer x y of every pixel: (height, width, 2) float32."""
    return np.asarray(np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=2), np.float32)


def _squared(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Return the squared lengths (...) of vectors (..., 2); np.sum is slow along such a short axis."""
    x, y = vectors[..., 0], vectors[..., 1]
    return np.asarray(x * x + y * y)
