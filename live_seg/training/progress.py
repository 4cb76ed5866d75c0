"""Progress of a training run: a table, curves, and validation photos with detections."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from tqdm import tqdm

from live_seg.drawing.annotate import draw
from live_seg.errors import SourceError
from live_seg.evaluation.ground_truth import GroundTruth
from live_seg.files import replacing, write_image
from live_seg.types import Segment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSS_COLUMNS = ("loss", "anchor_class", "anchor_box", "objectness", "class", "box", "mask")
AP_COLUMNS = ("box_ap", "mask_ap")
COLUMNS = ("epoch", *LOSS_COLUMNS, "learning_rate", "seconds", *AP_COLUMNS)
"""Columns of the table: mean losses of an epoch, learning rate at its end, duration, and AP if measured."""

Row = dict[str, float]
"""Values of an epoch by COLUMNS; values that were not measured are missing."""

SAMPLE_PHOTOS = 6
"""Number of validation photos that `draw_samples` draws."""


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write `rows` as CSV. Raises SinkError."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def read_table(path: Path, epochs: int) -> list[Row]:
    """Read the rows of the first `epochs` epochs; none if `path` does not exist. Raises SourceError."""
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{key: float(text) for key, text in row.items() if text} for row in csv.DictReader(file)]
        return [row for row in rows if row["epoch"] <= epochs]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"Cannot read the table {path}: {error}. Delete it to resume without it."
        ) from error


def quality(row: Row) -> float:
    """Return the AP by which epochs are compared: of masks, or of boxes if no mask is annotated.

    It is -1 for an epoch that was not evaluated, as COCO's metrics are without ground truth.
    """
    mask_ap = row.get("mask_ap", -1.0)
    return mask_ap if mask_ap >= 0 else row.get("box_ap", -1.0)


def summary(row: Row, epochs: int) -> str:
    """Summarize loss and AP of an epoch in one line."""
    parts = [f"epoch {row['epoch']:.0f}/{epochs}: loss {row['loss']:.3f}"]
    parts += [f"{name.replace('_ap', ' AP')} {row[name]:.3f}" for name in AP_COLUMNS if name in row]
    return ", ".join(parts)


class ProgressBar:
    """Progress bar of a whole run of `total` steps on stderr, hidden unless that is a terminal.

    It appears with the first step, which includes compilation, so that the remaining time is estimated from
    the other steps. Evaluations between them count.
    """

    def __init__(self, total: int, *, quiet: bool) -> None:
        self._total, self._quiet = total, quiet
        self._bar: tqdm[NoReturn] | None = None

    def update(self, done: int, title: str, loss: float) -> None:
        """Show that `done` steps of the run are taken."""
        if self._bar is None:
            hidden = True if self._quiet else None  # None: hidden unless stderr is a terminal
            self._bar = tqdm(
                desc=title,
                total=self._total,
                initial=done,
                unit=" steps",
                smoothing=0,
                leave=False,
                disable=hidden,
            )
        self._bar.set_description(title, refresh=False)
        self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


def draw_curves(rows: Sequence[Row], path: Path) -> None:
    """Plot losses and AP over epochs as a PNG. Raises SinkError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for axes, names, title in (
        (left, LOSS_COLUMNS, "losses"),
        (right, AP_COLUMNS, "average precision on val"),
    ):
        _plot(axes, rows, names)
        axes.set(xlabel="epoch", title=title)
    left.set_ylim(bottom=0)
    right.set_ylim(0, 1)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120)


def _plot(axes: "Axes", rows: Sequence[Row], names: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    for name in names:
        known = [row for row in rows if row.get(name, -1.0) >= 0]
        if known:
            axes.plot([row["epoch"] for row in known], [row[name] for row in known], ".-", label=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.lines:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


def draw_samples(
    segment: Segment,
    class_names: Sequence[str],
    truth: GroundTruth,
    min_score: float,
    folder: Path,
    epoch: int,
) -> None:
    """Draw the detections on SAMPLE_PHOTOS photos of `truth` and write them as EPOCH_NAME.jpg to `folder`.

    The photos are the same in every call. Raises SinkError, and SourceError for an unreadable photo.
    """
    for i in (
        np.linspace(0, len(truth.photos) - 1, min(SAMPLE_PHOTOS, len(truth.photos))).astype(int).tolist()
    ):
        photo = truth.photos[i]
        pixels = truth.read(photo)
        (found,) = segment([pixels])
        image = draw(pixels, found[found.scores >= min_score], class_names)
        write_image(image, folder / f"{epoch:03d}_{Path(photo['file_name']).stem}.jpg")
