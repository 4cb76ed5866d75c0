"""Class names, and their ids in a network."""

from collections.abc import Iterable, Sequence

from live_seg.errors import UsageError, nearest

BACKGROUND = "background"

COCO_CLASSES: tuple[str, ...] = (
    BACKGROUND,
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog"),
    *("horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella"),
    *("handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite"),
    *("baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle"),
    *("wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich"),
    *("orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote"),
    *("keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book"),
    *("clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
"""Background and COCO's 80 classes, in the order of Matterport's `mask_rcnn_coco.h5`."""

_UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
_names = iter(COCO_CLASSES)
COCO_CATEGORIES = tuple(f"unused category {i}" if i in _UNUSED else next(_names) for i in range(91))
"""COCO's names by category id, 0 for the background, as in torchvision's weights.

The dataset has no objects of ten of the ids.
"""


LONGEST_NAME = 100
"""Characters of a class name."""


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError for a class name that cannot be shown or chosen, or that occurs twice."""
    seen = set()
    for name in names:
        if not name or len(name) > LONGEST_NAME:
            raise ValueError(f"a class name has 1 to {LONGEST_NAME} characters, got {name[:LONGEST_NAME]!r}")
        if not name.isprintable() or name != name.strip():
            raise ValueError(f"the class name {name!r} has control characters or spaces at its ends")
        if name.lower() in seen:
            raise ValueError(f"the class name {name!r} occurs twice")
        seen.add(name.lower())


def choose(
    names: Iterable[str], class_names: Sequence[str], available: Iterable[str] | None = None
) -> frozenset[int]:
    """Return the ids of the classes called `names`, case-insensitive.

    `class_names` are those of the network, background first; only the `available` may be chosen, by default
    all. Raises UsageError, with the nearest names, for any other.
    """
    allowed = {name.lower() for name in (class_names[1:] if available is None else available)}
    ids = {name.lower(): i for i, name in enumerate(class_names) if i > 0 and name.lower() in allowed}
    chosen = set()
    for name in names:
        if name.strip().lower() not in ids:
            raise UsageError(f"This model has no class {name!r}. {nearest(name.strip(), ids)}")
        chosen.add(ids[name.strip().lower()])
    return frozenset(chosen)
