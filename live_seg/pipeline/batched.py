"""Batched pipeline: read ahead, segment in batches, return results in order, stop cleanly.

    source --Frame--> Channel --up to a batch--> segment --(Frame, Instances)--> Channel --> the caller's loop
    reader thread                                worker thread                               main thread

The data, end and error of a stage pass through the same channel, in that order.
"""

from collections.abc import Iterable, Iterator
from functools import partial

from live_seg.channel import Channel, Idle
from live_seg.choices import Policy
from live_seg.errors import UsageError
from live_seg.pipeline.stages import Stages, work
from live_seg.types import Frame, Instances, Segment

BATCHES_AHEAD = 2
"""Batches of frames read ahead under `all`: one to segment next and one being filled, so that a slow read (a
video keyframe) does not stall the network. Under `latest` it is 1: older frames would only add latency."""

BATCHES_BEHIND = 1
"""Batches of results kept for the caller: the worker segments a batch while the caller draws the previous."""


class Pipeline(Stages):
    """Segment the frames of `source` in background threads and return the results in order.

        with Pipeline(source, segment) as results:
            for frame, instances in results:
                ...

    `source` is read in one thread and `segment` is called in another, with 1 to `batch` images, which may
    differ in size. Policy `all` makes the source wait for the caller; `latest` keeps reading and drops the
    oldest waiting frame.

    Leaving the `with` block stops and joins the threads. A call of `segment`, or a read of a source without a
    thread of its own, cannot be interrupted and is waited for, so a source needs its own timeout. While no
    result is available, the loop calls `idle` periodically, if given, and ends when it returns False.
    Raises UsageError when `batch` is below 1.
    """

    def __init__(
        self,
        source: Iterable[Frame],
        segment: Segment,
        *,
        batch: int = 4,
        policy: Policy = "all",
        idle: Idle | None = None,
    ) -> None:
        if batch < 1:
            raise UsageError(f"Expected a batch of at least 1 frame. Got {batch}.")
        self._idle = idle
        live = policy == "latest"
        self._frames: Channel[Frame] = Channel(batch if live else BATCHES_AHEAD * batch, drop_oldest=live)
        self._results: Channel[tuple[Frame, Instances]] = Channel(BATCHES_BEHIND * batch)
        super().__init__(
            (self._frames, self._results),
            source=source,
            frames=self._frames,
            worker=(partial(work, self._frames, segment, self._results, batch=batch), self._results),
        )

    @property
    def dropped(self) -> int:
        """Number of frames read but not segmented because newer ones arrived. 0 under policy `all`."""
        return self._frames.dropped

    def __iter__(self) -> Iterator[tuple[Frame, Instances]]:
        """Yield (frame, its instances) in the order of the source.

        After all earlier results, raises the first error of the source or of `segment`, with its traceback;
        ValueError when `segment` does not return one result per image.
        """
        self._check_entered()
        while pair := self._results.take(idle=self._idle):
            yield from pair
