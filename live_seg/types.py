"""What travels through the program, a Frame and the Instances found in it, and where it comes from."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from live_seg.errors import SinkError
from live_seg.masks import resize_on_black

Image = NDArray[np.uint8]
"""(height, width, 3) uint8, BGR as OpenCV delivers it."""

Region = tuple[slice, slice]
"""Rows and columns of a picture: `image[region]`."""

MASK_SIDE = 28
"""Cells along one side of a mask, as Mask R-CNN's mask head makes them (paper, figure 4)."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source, with its own identity."""

    index: int
    """0-based position in its source."""
    seconds: float
    """True time since the source began: container time of a file, capture time when live."""
    image: Image


@dataclass(frozen=True, eq=False)
class Instances:
    """The N objects found in one frame, best first. Boxes are frame pixels; masks stay small in their boxes.

    Raises ValueError when the columns do not fit together.
    """

    boxes: NDArray[np.float32]
    """(N, 4): x1 y1 x2 y2 in pixels, x2 and y2 exclusive."""
    masks: NDArray[np.float32]
    """(N, M, M): probability, 0..1, that a cell of the instance's own box belongs to it; M is usually 28."""
    class_ids: NDArray[np.int32]
    """(N,): the network's class ids; 0, the background, never occurs."""
    scores: NDArray[np.float32]
    """(N,): 0..1."""
    track_ids: NDArray[np.int32] | None = None
    """(N,) from 1: the identity of each instance across frames; None when untracked."""
    confirmed: NDArray[np.bool_] | None = None
    """(N,): True from a track's second detection on; None exactly when `track_ids` is None."""

    def __post_init__(self) -> None:
        n = len(self.boxes)
        fits = (
            self.boxes.shape == (n, 4)
            and self.masks.ndim == 3
            and self.masks.shape == (n, *self.masks.shape[1:2] * 2)
            and self.class_ids.shape == (n,)
            and self.scores.shape == (n,)
            and (self.track_ids is None) == (self.confirmed is None)
            and all(column is None or column.shape == (n,) for column in (self.track_ids, self.confirmed))
        )
        if not fits:
            shapes = {name: np.shape(value) for name, value in vars(self).items() if value is not None}
            raise ValueError(
                "Instances: expected boxes (N, 4), masks (N, M, M), the rest (N,); track_ids and confirmed "
                f"together or not at all. Got {shapes}."
            )

    @classmethod
    def empty(cls) -> "Instances":
        """Nothing found."""
        return cls(
            boxes=np.zeros((0, 4), np.float32),
            masks=np.zeros((0, MASK_SIDE, MASK_SIDE), np.float32),
            class_ids=np.zeros(0, np.int32),
            scores=np.zeros(0, np.float32),
        )

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: slice | NDArray[Any] | list[int]) -> "Instances":
        """Choose instances by slice, bool mask (N,) or positions; every column is cut alike."""
        return replace(
            self, **{name: value[index] for name, value in vars(self).items() if value is not None}
        )

    def confirmed_id(self, position: int) -> int | None:
        """Return the track id of one instance, or None if it is untracked or not yet confirmed."""
        if self.track_ids is None or self.confirmed is None or not self.confirmed[position]:
            return None
        return int(self.track_ids[position])

    def joined(self, other: "Instances") -> "Instances":
        """Every column of these, then of `other`; an empty one may lack ids and have masks of another size.

        Raises ValueError when neither is empty and only one has track ids, or their masks differ in size.
        """
        if not len(self) or not len(other):
            return self if len(self) else other
        if (self.track_ids is None) != (other.track_ids is None):
            raise ValueError("Instances: expected track ids of both or of neither to join them.")
        theirs = vars(other)
        return Instances(
            **{
                name: np.concatenate([value, theirs[name]])
                for name, value in vars(self).items()
                if value is not None
            }
        )

    def soft(self, size: tuple[int, int]) -> Iterator[tuple[Region, NDArray[np.float32]]]:
        """For each instance its box as a region of a frame of `size` (height, width) and the mask in it.

        The mask is float32, 0..1, resized to the box at full resolution and cut to the frame; both are empty
        for a box that is empty or outside. As in Matterport's code the box is rounded to whole pixels first,
        and cells outside the mask count as zero (`utils.unmold_mask`).
        """
        height, width = size
        for box, mask in zip(np.rint(self.boxes).astype(int).tolist(), self.masks, strict=True):
            x1, y1, x2, y2 = box
            left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
            if right <= left or bottom <= top:
                yield (slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.float32)
                continue
            whole = resize_on_black(mask, y2 - y1, x2 - x1)
            yield (
                (slice(top, bottom), slice(left, right)),
                whole[top - y1 : bottom - y1, left - x1 : right - x1],
            )

    def pasted(self, size: tuple[int, int]) -> Iterator[tuple[Region, NDArray[np.bool_]]]:
        """For each instance its region of a frame of `size` (height, width) and the bool mask in it."""
        for region, mask in self.soft(size):
            yield region, mask >= 0.5

    def bitmaps(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Full-size masks (N, height, width), bool. At full HD 100 of them are 207 MB: prefer `pasted`."""
        bitmaps = np.zeros((len(self), *size), bool)
        for bitmap, (region, bits) in zip(bitmaps, self.pasted(size), strict=True):
            bitmap[region] = bits
        return bitmaps

    def rles(self, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
        """Each mask at `size` (height, width) as COCO's compressed RLE: {"size": [h, w], "counts": str}."""
        for region, bits in self.pasted(size):
            bitmap = np.zeros(size, np.uint8, order="F")
            bitmap[region] = bits
            rle = coco_mask.encode(bitmap)
            yield {"size": list(size), "counts": rle["counts"].decode("ascii")}


Segment = Callable[[list[Image]], list[Instances]]
"""All the rest of the program knows of a model: pictures in, one Instances for each."""


class Source(Protocol):
    """A row of pictures, read from front to back by one `for` loop, in any thread.

    Iterating yields Frames: `index` from 0, `image` (height, width, 3) uint8 BGR, upright, `seconds` never
    decreasing and 0.0 for the first: the container's own time, or capture time when live. A source that
    breaks, and one that is iterated a second time (still images start again), raise SourceError.
    """

    name: str
    """For messages; holds no password."""
    fps: float
    """Declared frames per second: positive and finite, though the true times may differ."""
    size: tuple[int, int]
    """(width, height) as delivered, after rotation; of the first picture where still images differ."""
    live: bool = False
    """Whether pictures come at their own pace and are lost when not read in time."""
    begun: float | None = None
    """`time.monotonic()` when a live source captured its first frame; None before, and for others."""
    frames: int | None = None
    """Declared number of pictures, often off by a few; None when unknown or endless."""
    audio: Path | None = None
    """The file whose audio, if any, belongs to these pictures; 0.0 s is its first video frame."""

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """End the reading and let go of device or file; waits for a read in progress. May be repeated."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Takes finished frames in order. Inherit from it to be a context manager that closes itself."""

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:
        """Take one frame, its drawn picture (H, W, 3) uint8 BGR, and what was found in it.

        Returns False when the user asked to stop. Raises SinkError.
        """

    def close(self, complete: bool = True) -> None:
        """Finish, once; later calls do nothing. `complete` is False when the run failed. Raises SinkError."""

    def __enter__(self) -> Self:
        """Use in a `with` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close: complete without an exception or after Ctrl-C. An earlier error is never hidden by ours."""
        complete = kind is None or issubclass(kind, KeyboardInterrupt)
        try:
            self.close(complete)
        except SinkError as second:
            if complete:
                raise
            logger.warning("%s", second)
