"""Propagation of the latest instances to the current frame until newer ones arrive."""

import logging
from collections import deque
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from live_seg.errors import UsageError
from live_seg.propagation.flow import Flow, Step, reduced_size
from live_seg.propagation.motion import MovingInstances
from live_seg.tracking.tracker import mask_iou
from live_seg.types import Frame, Instances

logger = logging.getLogger(__name__)

BLEND_FRAMES = 4
"""Frames over which a new result replaces the propagated instances, to avoid a jump."""

MAX_STEPS = 160
"""Maximum age of a result in frames: 2.5 seconds at 60 fps. A step takes 0.35 MB at 16:9, at most 0.6 MB."""

FADE_SECONDS = 0.4
"""Time over which the score of an instance that is no longer visible falls to 0."""

MIN_VISIBLE = 0.3
"""Visible fraction of a mask below which its instance fades out."""

MIN_FADING_SCORE = 0.05
"""Score below which an instance that is missing from new results is removed, however often results arrive."""

MIN_IOU = 0.3
"""Minimum mask IoU by which new and propagated instances without track ids are matched."""


class Propagator:
    """Propagate instances frame by frame through a source. Not thread-safe.

    New results replace propagated instances over `blend_frames` frames; with 1 they do so immediately. Raises
    UsageError for less than 1.
    """

    def __init__(self, blend_frames: int = BLEND_FRAMES) -> None:
        if blend_frames < 1:
            raise UsageError(f"blend_frames is {blend_frames}: expected 1 or more.")
        self._blend_frames = blend_frames
        self._begin_scene((0, 0))

    def _begin_scene(self, shape: tuple[int, ...]) -> None:
        """Discard all frames and instances; the following frames have `shape` (H, W, ...)."""
        self._shape = shape
        self._flow = Flow()
        self._steps: deque[tuple[int, Step]] = deque(maxlen=MAX_STEPS)
        self._seconds = 0.0
        self._new: _FadingInstances | None = None
        self._old: _FadingInstances | None = None
        self._age = 0

    def advance(self, frame: Frame) -> Instances:
        """Return the instances propagated to the next frame of the source, in its pixels.

        Frames must be in order; some may be missing. A new scene or a change of size discards all instances.
        The result is empty before the first call of `correct`. The frame's image is not kept.
        """
        if frame.image.shape != self._shape:
            self._begin_scene(frame.image.shape)
        elapsed = frame.seconds - self._seconds if self._steps else 0.0
        step = self._flow.step(frame.image)
        if step.flow is None and self._steps:
            logger.debug("Frame %d starts a new scene; propagated instances are discarded.", frame.index)
            self._steps.clear()
            self._new = self._old = None
        self._steps.append((frame.index, step))
        self._seconds = frame.seconds
        self._age += 1
        if self._old is not None:
            self._old = self._old.follow(step, elapsed) if self._age < self._blend_frames else None
        if self._new is not None:
            self._new = self._new.follow(step, elapsed)
        return self.instances

    def correct(self, index: int, instances: Instances) -> None:
        """Propagate the network's `instances` of frame `index` to the newest frame, and continue from them.

        They are matched with the propagated instances by track id, if they have any, else by mask overlap. A
        result of a previous scene, or of a frame more than MAX_STEPS ago, is ignored.
        """
        steps = [(number, step) for number, step in self._steps if number >= index]
        if not steps or steps[0][0] != index:
            logger.debug("The result of frame %d arrived too late and is ignored.", index)
            return
        caught = _FadingInstances.begin(_scale_boxes(instances, self._to_reduced()), steps[0][1])
        for _, step in steps[1:]:
            caught = caught.follow(step, 0.0)
        newest = self._steps[-1][1]
        if self._new is not None and self._blend_frames > 1:
            self._old = _FadingInstances.begin(self._shown(newest), newest)
        self._new, self._age = caught, 0

    @property
    def instances(self) -> Instances:
        """The instances in the newest frame, in its pixels; empty before the first result."""
        if self._new is None:
            return Instances.empty()
        return _scale_boxes(self._shown(self._steps[-1][1]), np.reciprocal(self._to_reduced()))

    def _shown(self, step: Step) -> Instances:
        assert self._new is not None
        new = self._new.instances_at(step)
        if self._old is None:
            return new
        return blend(self._old.instances_at(step), new, (self._age + 1) / self._blend_frames)

    def _to_reduced(self) -> NDArray[np.float32]:
        width, height = reduced_size(self._shape)
        return np.array([width / self._shape[1], height / self._shape[0]] * 2, np.float32)


class _FadingInstances:
    """Moving instances, and for how long each has not been visible."""

    def __init__(self, moving: MovingInstances, hidden: NDArray[np.float32]) -> None:
        self._moving = moving
        self._hidden = hidden  # seconds (N,)

    @classmethod
    def begin(cls, instances: Instances, step: Step) -> "_FadingInstances":
        return cls(MovingInstances.begin(instances, step), np.zeros(len(instances), np.float32))

    def follow(self, step: Step, elapsed: float) -> "_FadingInstances":
        moving = self._moving.follow(step)
        hidden = np.where(moving.visible < MIN_VISIBLE, self._hidden + np.float32(elapsed), np.float32(0))
        kept = hidden < FADE_SECONDS
        return _FadingInstances(moving[kept], hidden[kept])

    def instances_at(self, step: Step) -> Instances:
        instances = self._moving.instances_at(step)
        return replace(instances, scores=instances.scores * (1 - self._hidden / FADE_SECONDS))


def blend(old: Instances, new: Instances, share: float) -> Instances:
    """Interpolate boxes and masks of matching instances, with the weight `share`, 0..1, of the new ones.

    The new instances come first, with their scores. Unmatched old ones follow with scores multiplied by
    1 - `share`; those below MIN_FADING_SCORE are removed, and all of them at a share of 1.
    """
    if share >= 1 or not len(old):
        return new
    if not len(new):
        leaving = replace(old, scores=old.scores * np.float32(1 - share))
        return leaving[leaving.scores >= MIN_FADING_SCORE]
    if old.masks.shape[1:] != new.masks.shape[1:] or (old.track_ids is None) != (new.track_ids is None):
        return new
    after, before = np.nonzero(_matches(new, old))
    boxes, masks = new.boxes.copy(), new.masks.copy()
    boxes[after] += (1 - np.float32(share)) * (old.boxes[before] - boxes[after])
    masks[after] += (1 - np.float32(share)) * (old.masks[before] - masks[after])
    leaving = old[np.setdiff1d(np.arange(len(old)), before)]
    leaving = replace(leaving, scores=leaving.scores * np.float32(1 - share))
    return replace(new, boxes=boxes, masks=masks).joined(leaving[leaving.scores >= MIN_FADING_SCORE])


def _matches(new: Instances, old: Instances) -> NDArray[np.bool_]:
    """Return True where a new instance matches an old one: (N, M), at most once in each row and column."""
    if new.track_ids is not None and old.track_ids is not None:
        return np.asarray(new.track_ids[:, None] == old.track_ids)
    overlap = mask_iou(new, old) * (new.class_ids[:, None] == old.class_ids)
    best = np.full(overlap.shape, MIN_IOU, np.float32)
    best = np.maximum(best, overlap.max(axis=0, initial=0)[None])
    best = np.maximum(best, overlap.max(axis=1, initial=0)[:, None])
    return np.asarray(overlap >= best)


def _scale_boxes(instances: Instances, factors: NDArray[np.float32]) -> Instances:
    return replace(instances, boxes=np.asarray(instances.boxes * factors, np.float32))
