"""Threads: read ahead, segment in batches, hand back in order, stop cleanly.

    source --Frame--> Channel --up to a batch--> segment --(Frame, Instances)--> Channel --> the caller's loop
    reader thread                                worker thread                               main thread

Data, end and failure of a stage travel the same channel, in that order.
"""

from collections.abc import Iterable, Iterator
from functools import partial

from live_seg.choices import Policy
from live_seg.errors import UsageError
from live_seg.pipeline.channel import Channel, Idle
from live_seg.pipeline.stages import Stages, read, work
from live_seg.types import Frame, Instances, Segment

BATCHES_AHEAD = 2
"""Batches of frames kept ready under `all`: one to go on with, one being filled, so that one slow read (a
key frame) does not stall the model. Under `latest` it is one batch: what waits longer is no longer live."""

BATCHES_BEHIND = 1
"""Batches of results kept for the caller: the model starts the next batch while the caller draws this one."""


class Pipeline(Stages):
    """Segments the frames of `source` in two threads and hands them back in order.

        with Pipeline(source, segment) as results:
            for frame, instances in results:
                ...

    `source` is iterated by the reader thread alone, `segment` called by the worker thread alone, with 1 to
    `batch` images: as many as are ready, of whatever sizes they have. Policy `all` makes the source wait for
    the caller; `latest` reads on and drops the oldest waiting frame.

    Leaving the `with` block, for whatever reason, stops and joins both threads. A call of `source` or
    `segment` that is under way cannot be interrupted: it is waited for, so a source needs its own timeout.
    While no result comes, the loop calls `idle` now and then, if given, and ends when that returns False.
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
            raise UsageError(f"A batch needs at least 1 frame. Got {batch}.")
        self._idle = idle
        live = policy == "latest"
        self._frames: Channel[Frame] = Channel(batch if live else BATCHES_AHEAD * batch, drop_oldest=live)
        self._results: Channel[tuple[Frame, Instances]] = Channel(BATCHES_BEHIND * batch)
        super().__init__(
            (self._frames, self._results),
            reader=(partial(read, source, self._frames), self._frames),
            worker=(partial(work, self._frames, segment, self._results, batch=batch), self._results),
        )

    @property
    def dropped(self) -> int:
        """Frames read but never segmented because newer ones came: 0 unless the policy is `latest`."""
        return self._frames.dropped

    def __iter__(self) -> Iterator[tuple[Frame, Instances]]:
        """Yield (frame, its instances) in the order of the source.

        Raises the first error of the source or of `segment`, with its traceback, after every result finished
        before it; ValueError when `segment` returns another number of results than it was given images.
        """
        self._check_entered()
        while pair := self._results.take(idle=self._idle):
            yield from pair
