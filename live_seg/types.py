"""The data passed between all parts, Frame and Instances, and the protocols Source, Sink and Segment."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from live_seg.errors import SinkError
from live_seg.masks import Region, paste, png, silhouettes
from live_seg.sound import Sound

Image = NDArray[np.uint8]
"""(height, width, 3) uint8, BGR as OpenCV delivers it."""

MASK_SIDE = 28
"""Resolution of the masks predicted by Mask R-CNN's mask head (He et al. 2017, figure 4)."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a source, with its position and time."""

    index: int
    """0-based position in its source."""
    seconds: float
    """Time since the first frame of the source: container time of a file, capture time when live."""
    image: Image

    def _repr_png_(self) -> bytes:
        """Return the image as PNG, which notebooks show."""
        return png(self.image)


@dataclass(frozen=True, eq=False)
class Instance:
    """One object detected in a frame, as a row of Instances. `print` shows it on one line."""

    box: NDArray[np.float32]
    """(4,): x1 y1 x2 y2 in pixels, x2 and y2 exclusive."""
    mask: NDArray[np.float32]
    """(M, M): probability, 0..1, that a cell of the box belongs to the instance."""
    class_id: int
    class_name: str | None
    """None where the detector has not named its classes."""
    score: float
    track_id: int | None
    """The identity across frames; None if untracked or not yet confirmed."""

    def __str__(self) -> str:
        name = self.class_name or f"class {self.class_id}"
        track = "" if self.track_id is None else f" #{self.track_id}"
        left, top, right, bottom = np.rint(self.box).astype(int).tolist()
        return f"{name} {self.score:.2f}{track} at x {left}..{right}, y {top}..{bottom}"


@dataclass(frozen=True, eq=False)
class Instances:
    """The N objects detected in one frame, best first, as columns of equal length.

    Boxes are in frame pixels; each mask is a small grid that spans its box. Iterating, or indexing with one
    integer, gives single instances; `print` shows one line per instance. Raises ValueError when the shapes of
    the columns do not match.
    """

    boxes: NDArray[np.float32]
    """(N, 4): x1 y1 x2 y2 in pixels, x2 and y2 exclusive."""
    masks: NDArray[np.float32]
    """(N, M, M): probability, 0..1, that a cell of the box belongs to the instance; M is usually 28."""
    class_ids: NDArray[np.int32]
    """(N,): class ids of the network, from 1; 0 is the background and never occurs."""
    scores: NDArray[np.float32]
    """(N,): 0..1."""
    track_ids: NDArray[np.int32] | None = None
    """(N,) from 1: the identity of each instance across frames; None when untracked."""
    confirmed: NDArray[np.bool_] | None = None
    """(N,): True from a track's second detection on; None exactly when `track_ids` is None."""
    class_names: Sequence[str] | None = None
    """Names indexed by class id, for all instances together; None where the detector has not named them."""
    padded: bool = False
    """How masks are pasted at full resolution: see `masks.paste`."""

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
            shapes = {name: np.shape(column) for name, column in self._columns().items()}
            raise ValueError(
                "Instances: expected boxes (N, 4), masks (N, M, M), the rest (N,); track_ids and confirmed "
                f"together or not at all. Got {shapes}."
            )

    @classmethod
    def empty(cls) -> "Instances":
        """Return zero instances, untracked."""
        return cls(
            boxes=np.zeros((0, 4), np.float32),
            masks=np.zeros((0, MASK_SIDE, MASK_SIDE), np.float32),
            class_ids=np.zeros(0, np.int32),
            scores=np.zeros(0, np.float32),
        )

    def __len__(self) -> int:
        return len(self.boxes)

    def _columns(self) -> dict[str, Any]:
        """Return the columns that are set, by name."""
        shared = {"class_names", "padded"}
        return {
            name: column for name, column in vars(self).items() if column is not None and name not in shared
        }

    @overload
    def __getitem__(self, index: int | np.integer) -> Instance: ...
    @overload
    def __getitem__(self, index: slice | NDArray[Any] | list[int]) -> "Instances": ...
    def __getitem__(
        self, index: int | np.integer | slice | NDArray[Any] | list[int]
    ) -> "Instance | Instances":
        """Return one instance for an integer; Instances for a slice, a bool mask (N,) or positions."""
        if isinstance(index, int | np.integer):
            return self._single(int(index))
        return replace(self, **{name: column[index] for name, column in self._columns().items()})

    def __iter__(self) -> Iterator[Instance]:
        return (self._single(position) for position in range(len(self)))

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "no instances"

    def _repr_png_(self) -> bytes:
        """Return the masks, each in its own grey, on a canvas that holds all boxes as PNG, for notebooks."""
        return png(silhouettes(self.boxes, self.masks))

    def _single(self, position: int) -> Instance:
        class_id = int(self.class_ids[position])
        return Instance(
            box=self.boxes[position],
            mask=self.masks[position],
            class_id=class_id,
            class_name=None if self.class_names is None else self.class_names[class_id],
            score=float(self.scores[position]),
            track_id=self.confirmed_id(position),
        )

    def confirmed_id(self, position: int) -> int | None:
        """Return the track id of one instance, or None if it is untracked or not yet confirmed."""
        if self.track_ids is None or self.confirmed is None or not self.confirmed[position]:
            return None
        return int(self.track_ids[position])

    def joined(self, other: "Instances") -> "Instances":
        """Return these instances followed by `other`. If one of the two is empty, return the other one.

        Raises ValueError when neither is empty and only one has track ids, or their masks differ in size.
        """
        if not len(self) or not len(other):
            return self if len(self) else other
        if (self.track_ids is None) != (other.track_ids is None):
            raise ValueError("Instances: expected track ids in both or in neither to join them.")
        theirs = other._columns()
        both = {name: np.concatenate([column, theirs[name]]) for name, column in self._columns().items()}
        return Instances(**both, class_names=self.class_names or other.class_names, padded=self.padded)

    def soft_masks(self, size: tuple[int, int]) -> Iterator[tuple[Region, NDArray[np.float32]]]:
        """Yield each instance's region of a frame of `size` (height, width) and the probabilities in it.

        The probabilities are float32, 0..1, at full resolution; see `masks.paste`.
        """
        return (
            paste(box, mask, size, padded=self.padded)
            for box, mask in zip(self.boxes, self.masks, strict=True)
        )

    def pasted(self, size: tuple[int, int]) -> Iterator[tuple[Region, NDArray[np.bool_]]]:
        """Yield each instance's region of a frame of `size` (height, width) and the bool mask in it."""
        for region, mask in self.soft_masks(size):
            yield region, mask >= 0.5

    def bitmaps(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return bool masks (N, height, width). 100 of them at full HD take 207 MB: prefer `pasted`."""
        bitmaps = np.zeros((len(self), *size), bool)
        for bitmap, (region, bits) in zip(bitmaps, self.pasted(size), strict=True):
            bitmap[region] = bits
        return bitmaps

    def rles(self, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
        """Yield masks at `size` (height, width) as compressed COCO RLE: {"size": [h, w], "counts": str}."""
        for region, bits in self.pasted(size):
            bitmap = np.zeros(size, np.uint8, order="F")
            bitmap[region] = bits
            rle = coco_mask.encode(bitmap)
            yield {"size": list(size), "counts": rle["counts"].decode("ascii")}


Segment = Callable[[list[Image]], list[Instances]]
"""The interface of a model to the rest of the package: images to one Instances each."""


@runtime_checkable
class Source(Protocol):
    """A sequence of frames, read once from start to end by a `for` loop, in any thread.

    Iterating yields Frames: `index` from 0, `image` (height, width, 3) uint8 BGR, upright, `seconds` never
    decreasing and 0.0 for the first of a whole file: container time, or capture time when live. Raises
    SourceError when reading fails, and when the source is iterated a second time (still images may be).
    """

    name: str
    """Name for messages, without credentials."""
    fps: float
    """Declared frames per second: positive and finite; actual frame times may differ."""
    size: tuple[int, int]
    """(width, height) of the frames, after rotation; of the first one where still images differ."""
    live: bool = False
    """True if frames arrive in real time and are lost when not read in time."""
    started_at: float | None = None
    """`time.monotonic()` when a live source captured its first frame; None before, and for others."""
    frames: int | None = None
    """Declared number of frames, often off by a few; None when unknown or endless."""
    audio: Path | None = None
    """The file with the audio of these frames, if it has any; 0.0 s is its first video frame."""
    sound: Sound | None = None
    """The sound of a network stream, on the clock of its frames, if it has any and it is kept."""
    skipped: Sequence[Path] = ()
    """Still images that could not be read so far. Their indices are missing among the frames."""

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Stop reading and release the device or file; waits for a read in progress. May be called again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


logger = logging.getLogger(__name__)


class Sink(Protocol):
    """A destination of finished frames, in order. Subclasses are context managers that close themselves."""

    outputs: Sequence[Path] = ()
    """Files and folders completed so far."""

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:
        """Write one frame: its drawn image (H, W, 3 or 4) uint8 BGR(A) and its instances.

        Returns False when the user asked to stop. Raises SinkError.
        """

    def close(self, complete: bool = True) -> None:
        """Finish the output, once. `complete` is False after a failure. Raises SinkError."""

    def __enter__(self) -> Self:
        """Return the sink itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the sink, as complete unless an exception other than KeyboardInterrupt was raised.

        A SinkError while closing after such an exception is logged, so that it does not hide the first one.
        """
        complete = kind is None or issubclass(kind, KeyboardInterrupt)
        try:
            self.close(complete)
        except SinkError as second:
            if complete:
                raise
            logger.warning("%s", second)
