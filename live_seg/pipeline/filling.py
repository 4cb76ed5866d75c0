"""Results in which missed tracks are filled in from earlier and later frames."""

from collections import deque
from collections.abc import Iterable, Iterator

from live_seg.errors import SourceError
from live_seg.propagation.gaps import GapFiller
from live_seg.propagation.open_frame import Filled
from live_seg.types import Frame, Instances

LOOKAHEAD = 2.0
"""Seconds by which a file is read ahead: as long as a track is remembered, and half a second past its end."""


class Filling:
    """Propagate tracks to the frames of a run in which they were missed; see `GapFiller`.

        filling = Filling(GapFiller(LOOKAHEAD))
        for frame, instances in filling.fill(run(path, segment), open_source(path)):
            hidden = live_seg.blur(frame.image, filling.latest.all)

    This delays the results by the filler's delay.
    """

    def __init__(self, filler: GapFiller) -> None:
        self.latest = Filled.empty()
        """The instances found in, and propagated to, the frame that was yielded last."""
        self._filler = filler

    def fill(
        self, results: Iterable[tuple[Frame, Instances]], again: Iterable[Frame] | None = None
    ) -> Iterator[tuple[Frame, Instances]]:
        """Yield the `results` of a run, in order. Each frame is yielded once `latest` is complete for it.

        Frames that wait are kept in memory; with `again`, a second reader of the same file, they are read
        from it instead. Raises SourceError if `again` lacks a frame.
        """
        waiting: deque[Frame | int] = deque()
        reader = None if again is None else iter(again)
        for filled in self._filled(results, waiting, keep=reader is None):
            frame = _frame(waiting.popleft(), reader)
            self.latest = filled
            yield frame, filled.found

    def _filled(
        self, results: Iterable[tuple[Frame, Instances]], waiting: deque[Frame | int], *, keep: bool
    ) -> Iterator[Filled]:
        """Add the `results` to `waiting`, by index unless they are kept; yield those completed."""
        for frame, instances in results:
            waiting.append(frame if keep else frame.index)
            yield from self._filler.update(frame.image, frame.seconds, instances)
        yield from self._filler.finish()


def _frame(waiting: Frame | int, reader: Iterator[Frame] | None) -> Frame:
    """Return a frame that waited, read from `reader` if only its index is known."""
    if isinstance(waiting, Frame):
        return waiting
    for frame in reader or ():
        if frame.index == waiting:
            return frame
    raise SourceError(f"The second reading ends before frame {waiting}. Was the file changed meanwhile?")
