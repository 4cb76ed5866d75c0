"""Threads with channels between them, that stop cleanly."""

from collections.abc import Callable, Iterable, Sequence
from threading import Thread
from typing import Any, Self

from live_seg.pipeline.channel import Channel
from live_seg.types import Frame, Instances, Segment


class Stages:
    """Threads with channels between them; a `with` block starts them, leaving it stops and joins them.

    `stages` are the threads by name: what each does, and the channel that hears how it ended. `channels` are
    all that a thread may wait for. Of a call that cannot be interrupted the end is waited for.
    """

    def __init__(
        self, channels: Sequence[Channel[Any]], **stages: tuple[Callable[[], None], Channel[Any]]
    ) -> None:
        self._channels = channels
        self._threads = [
            Thread(target=_run, args=stage, name=f"live_seg {name}") for name, stage in stages.items()
        ]

    def __enter__(self) -> Self:
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _check_entered(self) -> None:
        if self._threads[0].ident is None:
            name = type(self).__name__
            raise RuntimeError(f"A pipeline runs inside a with block: with {name}(...) as results.")

    def _stop(self) -> None:
        for channel in self._channels:
            channel.abandon()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()


def read(source: Iterable[Frame], frames: Channel[Frame]) -> None:
    """Put what `source` gives into `frames`: the reader thread's stage."""
    for frame in source:
        if not frames.put(frame):
            return


def work(
    frames: Channel[Frame], segment: Segment, results: Channel[tuple[Frame, Instances]], *, batch: int
) -> None:
    """Segment what is in `frames`, up to `batch` at once, into `results`: the worker thread's stage.

    Raises ValueError when `segment` returns another number of results than it was given images.
    """
    while taken := frames.take(batch):
        instances = segment([frame.image for frame in taken])
        if len(instances) != len(taken):
            raise ValueError(f"segment returned {len(instances)} results for {len(taken)} images.")
        for pair in zip(taken, instances, strict=True):
            if not results.put(pair):
                return


def _run(stage: Callable[[], None], output: Channel[Any]) -> None:
    """Run one thread's `stage`; how it ended, SystemExit and MemoryError included, goes into its `output`."""
    try:
        stage()
    except BaseException as error:
        output.close(error)
    else:
        output.close()
