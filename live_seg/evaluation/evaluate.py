"""Average precision on annotated photos, by COCO's own rules (pycocotools)."""

import json
import statistics
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from live_seg.errors import UsageError, nearest
from live_seg.evaluation.coco import Photo
from live_seg.evaluation.ground_truth import GroundTruth, silenced
from live_seg.files import replacing
from live_seg.models.classes import choose
from live_seg.types import Image, Instances

if TYPE_CHECKING:
    from live_seg.segmenter import Segmenter

METRICS = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
)
"""COCO's twelve metrics, in the order of `COCOeval.stats`."""


@dataclass(frozen=True)
class ClassMetrics:
    """Number of objects of a class, without crowds, and its average precision; -1 without objects."""

    objects: int
    box_ap: float
    mask_ap: float


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on annotated photos, 0..1; -1 without objects to measure on."""

    box: dict[str, float]
    """METRICS of the boxes."""
    mask: dict[str, float]
    """METRICS of the masks."""
    classes: dict[str, ClassMetrics]
    """Metrics of each evaluated class, by the file's class name."""
    unknown: tuple[str, ...]
    """Classes of the file that the model does not know. They are not evaluated."""
    photos: int
    seconds_per_image: float
    """Median time of the segmenter's calls, per photo, without calls that compile."""
    detections: list[dict[str, Any]] = field(repr=False)
    """COCO's results format: image_id, category_id, score, bbox (x y w h, pixels), segmentation (RLE)."""

    def metrics(self) -> dict[str, Any]:
        """Return everything except the detections, ready for JSON."""
        return {
            "box": self.box,
            "mask": self.mask,
            "classes": {name: asdict(own) for name, own in self.classes.items()},
            "unknown": list(self.unknown),
            "photos": self.photos,
            "seconds_per_image": self.seconds_per_image,
        }

    def report(self) -> str:
        """Return the metrics as a table of plain text, at most 79 columns wide if class names are short."""
        widest = max(len("Average precision"), *(len(name) + 2 for name in self.classes))
        heads = ("all", "IoU .50", "IoU .75"), ("best 1", "best 10", "best 100")
        lines = []
        for title, head, half in zip(("precision", "recall"), heads, (METRICS[:6], METRICS[6:]), strict=True):
            lines.append(_row(f"Average {title}", (*head, "small", "medium", "large"), widest))
            for kind, metrics in (("box", self.box), ("mask", self.mask)):
                lines.append(_row(f"  {kind}", (metrics[name] for name in half), widest))
            lines.append("")
        lines.append(_row("Class", ("objects", "box AP", "mask AP"), widest))
        for name, own in self.classes.items():
            lines.append(_row(f"  {name}", (str(own.objects), own.box_ap, own.mask_ap), widest))
        lines.append("")
        if self.unknown:
            names = textwrap.shorten(", ".join(self.unknown), 200, placeholder=" ...")
            lines.append(textwrap.fill(f"Not evaluated, unknown to the model: {names}", 79))
        spent = f"{self.seconds_per_image:.3f} s per image (segmentation only, median, without compilation)"
        return "\n".join([*lines, f"{self.photos} photos, {spent}"])


def evaluate(
    segment: "Segmenter",
    truth: GroundTruth,
    *,
    batch: int = 1,
    classes: Iterable[str] | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Segment the photos of `truth` in batches of `batch`, and compute COCO's metrics of the detections.

    Classes are matched by name regardless of case. Classes that only the model or only the file has are not
    evaluated, nor are those missing in `classes` if it is given. The score threshold is the segmenter's;
    COCO's metrics assume a low one, such as 0.01. At most 100 detections of a class in a photo count. Masks
    are kept as RLE, a few hundred bytes each. `quiet` hides the progress bar.

    Raises UsageError for an unknown class, or if no class of the file is evaluated; SourceError for a photo
    that is unreadable or differs in size from its annotations.
    """
    categories = _categories(segment.class_names, truth, classes)
    timed = _Timed(segment)
    detections = list(_detections(timed, truth, categories, batch, quiet))
    box, box_aps = _score(truth, detections, "bbox", categories.values())
    mask, mask_aps = _score(truth, detections, "segm", categories.values())
    counts = truth.counts()
    known = {name.lower() for name in segment.class_names[1:]}
    return Evaluation(
        box=box,
        mask=mask,
        classes={truth.categories[k]: ClassMetrics(counts[k], box_aps[k], mask_aps[k]) for k in box_aps},
        unknown=tuple(name for name in truth.categories.values() if name.lower() not in known),
        photos=len(truth.photos),
        seconds_per_image=timed.per_image(),
        detections=detections,
    )


def save(content: object, path: Path, *, indent: int | None = None) -> None:
    """Write `content` as JSON to `path`, atomically. Raises SinkError."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=indent)


class _Timed:
    """A segmenter that times its calls, except those that may compile."""

    def __init__(self, segment: "Segmenter") -> None:
        self._segment = segment
        self._seen: set[tuple[int, ...]] = set()
        self._last: list[Image] = []
        self._seconds: list[float] = []

    def __call__(self, images: list[Image]) -> list[Instances]:
        sizes = {image.shape for image in images}
        start = time.perf_counter()
        found = self._segment(images)
        spent = time.perf_counter() - start
        if sizes <= self._seen:  # only a new photo size can lead to a new input size
            self._seconds.append(spent / len(images))
        self._seen |= sizes
        self._last = images
        return found

    def per_image(self) -> float:
        """Return the median of seconds per image. If no call was timed, repeat the last one."""
        if not self._seconds:
            self(self._last)
        return statistics.median(self._seconds)


def _categories(names: Sequence[str], truth: GroundTruth, classes: Iterable[str] | None) -> dict[int, int]:
    """Map the class ids to evaluate to the file's category ids. Raises UsageError if there are none."""
    by_name = {name.lower(): category for category, name in truth.categories.items()}
    ids = range(1, len(names)) if classes is None else sorted(choose(classes, names))
    known = {i: by_name[names[i].lower()] for i in ids if names[i].lower() in by_name}
    if not known:
        listed = textwrap.shorten(", ".join(by_name), 200, placeholder=" ...")
        hint = nearest(next(iter(by_name)), [names[i] for i in ids])
        raise UsageError(f"The model knows no class of {truth.path} ({listed}). {hint}")
    return known


def _detections(
    segment: "_Timed", truth: GroundTruth, categories: dict[int, int], batch: int, quiet: bool
) -> Iterator[dict[str, Any]]:
    """Yield every detection in COCO's results format."""
    silent = True if quiet else None  # None: hidden unless stderr is a terminal
    with tqdm(total=len(truth.photos), unit=" photos", leave=None, disable=silent) as bar:
        for start in range(0, len(truth.photos), batch):
            photos = truth.photos[start : start + batch]
            images = [truth.read(photo) for photo in photos]
            for photo, found in zip(photos, segment(images), strict=True):
                yield from _rows(photo, found[np.isin(found.class_ids, list(categories))], categories)
            bar.update(len(photos))


def _rows(photo: Photo, found: Instances, categories: dict[int, int]) -> Iterator[dict[str, Any]]:
    for i, rle in enumerate(found.rles((photo["height"], photo["width"]))):
        x1, y1, x2, y2 = found.boxes[i].tolist()
        yield {
            "image_id": photo["id"],
            "category_id": categories[int(found.class_ids[i])],
            "score": float(found.scores[i]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "segmentation": rle,
        }


def _score(
    truth: GroundTruth, detections: list[dict[str, Any]], kind: str, categories: Iterable[int]
) -> tuple[dict[str, float], dict[int, float]]:
    """Return METRICS of all `categories` together, and the average precision of each, in order of ids."""
    boxes = kind == "bbox"
    results = truth.results(detections, boxes=boxes)
    with silenced():
        coco_eval = COCOeval(truth.boxes() if boxes else truth.masks(), results, kind)
        coco_eval.params.catIds = sorted(set(categories))
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    metrics = dict(zip(METRICS, (float(value) for value in coco_eval.stats), strict=True))
    # (IoU, recall, class, area, most detections), -1 for a class without objects: all areas, 100 detections.
    precision = coco_eval.eval["precision"][:, :, :, 0, -1]
    each = np.mean(precision, axis=(0, 1)).tolist()
    return metrics, dict(zip(coco_eval.params.catIds, each, strict=True))


def _row(title: str, cells: Iterable[str | float], width: int) -> str:
    """Format a line of the report: numbers with three decimals, "-" for -1."""
    texts = [cell if isinstance(cell, str) else f"{cell:.3f}" if cell >= 0 else "-" for cell in cells]
    return f"{title:{width}}" + "".join(f"{text:>10}" for text in texts)
