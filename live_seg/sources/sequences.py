"""Frames that the program already has: any iterable of images or Frames as a source."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sized

from live_seg.errors import SourceError, UsageError
from live_seg.images import checked, described
from live_seg.sources.captures import DEFAULT_FPS
from live_seg.types import Frame, Image, Source


class FrameSequence(Source):
    """Read a list, generator or other iterable of BGR images (H, W, 3) uint8, or of Frames.

    Images are shown at `fps` per second, from 0.0 s on. Frames keep their own times and indices. The first
    item is taken at once, to learn the size; the others when they are needed, in the thread that reads.

    Raises UsageError if `items` is not iterable, an item is neither image nor Frame, or `fps` is not above 0;
    SourceError if there are no items, or the source is read twice.
    """

    def __init__(self, items: Iterable[Image | Frame], fps: float = DEFAULT_FPS) -> None:
        if not isinstance(items, Iterable):
            raise UsageError(f"Expected a source or an iterable of images. Got {described(items)}.")
        if not 0 < fps < math.inf:
            raise UsageError(f"Expected frames per second, above 0. Got {fps:g}.")
        self.name = f"the {type(items).__name__}"
        self.fps = fps
        self.frames = len(items) if isinstance(items, Sized) else None
        self._items = iter(items)
        self._first = list(itertools.islice(self._items, 1))
        if not self._first:
            raise SourceError(f"{self.name} holds no frames.")
        height, width = self._frame(0, self._first[0]).image.shape[:2]
        self.size = (width, height)
        self._iterated = self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        if self._iterated:
            raise SourceError(f"{self.name} was read already. Pass the images again to read them again.")
        self._iterated = True
        for index, item in enumerate(itertools.chain(self._first, self._items)):
            if self._closed:
                return
            self._first.clear()
            yield self._frame(index, item)

    def close(self) -> None:
        """Stop before the next frame. The iterable is not closed."""
        self._closed = True

    def _frame(self, index: int, item: Image | Frame) -> Frame:
        if isinstance(item, Frame):
            checked(item.image, f" in {self.name}")
            return item
        return Frame(index, index / self.fps, checked(item, f" or Frames in {self.name}"))
