"""Instances propagated from the frame they were found in to the frame shown now, until newer ones arrive."""

import logging
from collections import deque
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from live_seg.errors import UsageError
from live_seg.propagation.flow import Flow, Step, reduced_size
from live_seg.propagation.motion import Moving
from live_seg.tracking.tracker import mask_iou
from live_seg.types import Frame, Instances

logger = logging.getLogger(__name__)

TAKEOVER = 4
"""Frames over which a new result takes the place of what was propagated: short, but no jump."""

KEPT = 160
"""Frames for which a result may still come: 2.5 seconds at 60 a second. At 16:9 0.35 MB each, 0.6 at most."""

FADE = 0.4
"""Seconds an instance is still shown, ever fainter, once it is no longer found by its flow."""

LOST = 0.3
"""Trusted share of a mask below which its instance counts as not found."""

GONE = 0.05
"""Score below which an instance that no new result continues is gone, however quickly results come."""

SAME = 0.3
"""Least mask IoU of a new instance and a propagated one without track ids that are one and the same."""


class Propagator:
    """Follows a source frame by frame and tells where its instances are now. Not for two threads at once.

    Results take over within `takeover` frames, 1 or more (1: at once). Raises UsageError for fewer.
    """

    def __init__(self, takeover: int = TAKEOVER) -> None:
        if takeover < 1:
            raise UsageError(f"takeover is {takeover}: give a number of frames, 1 or more.")
        self._takeover = takeover
        self._begin_scene((0, 0))

    def _begin_scene(self, shape: tuple[int, ...]) -> None:
        """Forget every frame and instance; frames are of `shape` (H, W, ...) from here on."""
        self._shape = shape
        self._flow = Flow()
        self._steps: deque[tuple[int, Step]] = deque(maxlen=KEPT)
        self._seconds = 0.0
        self._new: _Propagated | None = None
        self._old: _Propagated | None = None
        self._age = 0

    def advance(self, frame: Frame) -> Instances:
        """Take the next frame of the source; return the instances as they are on it, in its pixels.

        Frames come in order, some may be missing; they are not kept. A new scene and a change of size forget
        all before. Empty before the first result.
        """
        if frame.image.shape != self._shape:
            self._begin_scene(frame.image.shape)
        elapsed = frame.seconds - self._seconds if self._steps else 0.0
        step = self._flow.step(frame.image)
        if step.flow is None and self._steps:
            logger.debug("Frame %d shows a new scene: nothing is propagated into it.", frame.index)
            self._steps.clear()
            self._new = self._old = None
        self._steps.append((frame.index, step))
        self._seconds = frame.seconds
        self._age += 1
        if self._old is not None:
            self._old = self._old.along(step, elapsed) if self._age < self._takeover else None
        if self._new is not None:
            self._new = self._new.along(step, elapsed)
        return self.instances

    def correct(self, index: int, instances: Instances) -> None:
        """Take the network's `instances` of the frame `index`, caught up from there to the newest frame.

        Their `track_ids`, if any, tell which propagated ones they continue; else their overlap does. A result
        for a frame that is forgotten (another scene, more than KEPT frames ago) is left out.
        """
        steps = [(number, step) for number, step in self._steps if number >= index]
        if not steps or steps[0][0] != index:
            logger.debug("The result of frame %d is too late to be propagated.", index)
            return
        caught = _Propagated.begin(_scaled(instances, self._to_reduced()), steps[0][1])
        for _, step in steps[1:]:
            caught = caught.along(step, 0.0)
        newest = self._steps[-1][1]
        if self._new is not None and self._takeover > 1:
            self._old = _Propagated.begin(self._shown(newest), newest)
        self._new, self._age = caught, 0

    @property
    def instances(self) -> Instances:
        """The instances as they are on the newest frame, in its pixels; empty before the first result."""
        if self._new is None:
            return Instances.empty()
        return _scaled(self._shown(self._steps[-1][1]), np.reciprocal(self._to_reduced()))

    def _shown(self, step: Step) -> Instances:
        assert self._new is not None
        new = self._new.now(step)
        if self._old is None:
            return new
        return blended(self._old.now(step), new, (self._age + 1) / self._takeover)

    def _to_reduced(self) -> NDArray[np.float32]:
        width, height = reduced_size(self._shape)
        return np.array([width / self._shape[1], height / self._shape[0]] * 2, np.float32)


class _Propagated:
    """Moving instances, and how long each has been out of sight."""

    def __init__(self, moving: Moving, unseen: NDArray[np.float32]) -> None:
        self._moving = moving
        self._unseen = unseen  # seconds (N,)

    @classmethod
    def begin(cls, instances: Instances, step: Step) -> "_Propagated":
        return cls(Moving.begin(instances, step), np.zeros(len(instances), np.float32))

    def along(self, step: Step, elapsed: float) -> "_Propagated":
        moving = self._moving.along(step)
        unseen = np.where(moving.trusted < LOST, self._unseen + np.float32(elapsed), np.float32(0))
        kept = unseen < FADE
        return _Propagated(moving[kept], unseen[kept])

    def now(self, step: Step) -> Instances:
        instances = self._moving.now(step)
        return replace(instances, scores=instances.scores * (1 - self._unseen / FADE))


def blended(old: Instances, new: Instances, share: float) -> Instances:
    """Mix two views of one frame, `share` of the new one, 0..1: boxes and masks between the two.

    The new instances come first, at full score. Old ones that no new one continues follow, their scores
    lowered by `share`; at a share of 1, or a score below GONE, they are gone.
    """
    if share >= 1 or not len(old):
        return new
    if not len(new):
        left = replace(old, scores=old.scores * np.float32(1 - share))
        return left[left.scores >= GONE]
    if old.masks.shape[1:] != new.masks.shape[1:] or (old.track_ids is None) != (new.track_ids is None):
        return new
    after, before = np.nonzero(_pairs(new, old))
    boxes, masks = new.boxes.copy(), new.masks.copy()
    boxes[after] += (1 - np.float32(share)) * (old.boxes[before] - boxes[after])
    masks[after] += (1 - np.float32(share)) * (old.masks[before] - masks[after])
    leaving = old[np.setdiff1d(np.arange(len(old)), before)]
    leaving = replace(leaving, scores=leaving.scores * np.float32(1 - share))
    return replace(new, boxes=boxes, masks=masks).joined(leaving[leaving.scores >= GONE])


def _pairs(new: Instances, old: Instances) -> NDArray[np.bool_]:
    """Which new instance continues which old one: (N, M), at most one in each row and column."""
    if new.track_ids is not None and old.track_ids is not None:
        return np.asarray(new.track_ids[:, None] == old.track_ids)
    overlap = mask_iou(new, old) * (new.class_ids[:, None] == old.class_ids)
    best = np.full(overlap.shape, SAME, np.float32)
    best = np.maximum(best, overlap.max(axis=0, initial=0)[None])
    best = np.maximum(best, overlap.max(axis=1, initial=0)[:, None])
    return np.asarray(overlap >= best)


def _scaled(instances: Instances, factors: NDArray[np.float32]) -> Instances:
    return replace(instances, boxes=np.asarray(instances.boxes * factors, np.float32))
