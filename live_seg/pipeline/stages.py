"""Worker threads connected by channels, with a clean shutdown."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Thread
from typing import Any, Protocol, Self, runtime_checkable

from live_seg.channel import Channel
from live_seg.types import Frame, Instances, Segment


@runtime_checkable
class Feeding(Protocol):
    """Source with a reading thread of its own, which can write frames to a channel directly."""

    def feed(self, frames: Channel[Frame], /) -> None:
        """Start writing frames to `frames`, until the source ends or `frames` is abandoned."""


class Stages:
    """Reader and worker threads of a pipeline. A `with` block starts them; leaving it stops and joins them.

    The reader writes the frames of `source` to `frames`; a Feeding source does that itself, without another
    thread. `worker` is the function of the worker thread and the channel that it closes. `channels` are all
    channels that a thread may wait for. A call that cannot be interrupted is waited for.
    """

    def __init__(
        self,
        channels: Sequence[Channel[Any]],
        *,
        source: Iterable[Frame],
        frames: Channel[Frame],
        worker: tuple[Callable[[], None], Channel[Any]],
    ) -> None:
        self._channels = channels
        self._entered = False
        self._feed: Callable[[], None] | None = None
        self._threads = [Thread(target=_run, args=worker, name="live_seg worker")]
        if isinstance(source, Feeding):
            self._feed = partial(source.feed, frames)
        else:
            reader = (partial(read, source, frames), frames)
            self._threads.insert(0, Thread(target=_run, args=reader, name="live_seg reader"))

    def __enter__(self) -> Self:
        self._entered = True
        try:
            for thread in self._threads:
                thread.start()
            if self._feed is not None:
                self._feed()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _check_entered(self) -> None:
        if not self._entered:
            name = type(self).__name__
            raise RuntimeError(f"A pipeline runs inside a with block: with {name}(...) as results.")

    def _stop(self) -> None:
        for channel in self._channels:
            channel.abandon()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()


def read(source: Iterable[Frame], frames: Channel[Frame]) -> None:
    """Write the frames of `source` to `frames` until it ends or is abandoned. Runs in the reader thread."""
    for frame in source:
        if not frames.put(frame):
            return


def work(
    frames: Channel[Frame], segment: Segment, results: Channel[tuple[Frame, Instances]], *, batch: int
) -> None:
    """Segment `frames` in batches of 1 to `batch` and write to `results`. Runs in the worker thread.

    Raises ValueError when `segment` does not return one result per image.
    """
    while taken := frames.take(batch):
        instances = segment([frame.image for frame in taken])
        if len(instances) != len(taken):
            raise ValueError(f"segment returned {len(instances)} results for {len(taken)} images.")
        for pair in zip(taken, instances, strict=True):
            if not results.put(pair):
                return


def _run(stage: Callable[[], None], output: Channel[Any]) -> None:
    """Run `stage` in its thread, then close `output`, with the error if any (SystemExit included)."""
    try:
        stage()
    except BaseException as error:
        output.close(error)
    else:
        output.close()
