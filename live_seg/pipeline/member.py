"""One of several sources that share a model."""

from collections import deque
from dataclasses import dataclass, field

from live_seg.channel import Channel
from live_seg.pipeline.keyframes import Identify, Propagation
from live_seg.sources.lane import SourceLane
from live_seg.types import Frame, Instances


@dataclass(eq=False)
class Member:
    """A source with a tracker and a propagator of its own."""

    lane: SourceLane
    propagator: Propagation
    identify: Identify
    segmented: int = 0
    """Frames segmented so far."""
    keyframe: Channel[Frame] = field(default_factory=lambda: Channel(1, drop_oldest=True))
    """The frame that the loop has moved on to, until the model takes it."""
    results: deque[tuple[Frame, Instances]] = field(default_factory=deque)

    def advance(self, frame: Frame) -> Instances:
        """Use the results so far, offer `frame` to the model, and return the instances propagated to it."""
        while self.results:
            past, detected = self.results.popleft()
            self.propagator.correct(past.index, self.identify(detected, past.seconds))
        self.keyframe.put(frame)
        return self.propagator.advance(frame)
