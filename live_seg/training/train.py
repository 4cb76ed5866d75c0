"""Fitting a Mask R-CNN to photos annotated in COCO's format."""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from tqdm import tqdm

from live_seg.engines.keras import KerasEngine
from live_seg.errors import LiveSegError, SinkError, SourceError, UsageError
from live_seg.evaluation.evaluate import evaluate
from live_seg.evaluation.ground_truth import GroundTruth
from live_seg.evaluation.threshold import best_threshold
from live_seg.files import replacing
from live_seg.maskrcnn.config import USUAL_THRESHOLD
from live_seg.maskrcnn.model import MaskRCNN
from live_seg.segmenter import Segmenter
from live_seg.training.batches import Batches, Columns
from live_seg.training.checkpoint import State, read_state, save, write_state
from live_seg.training.initial_weights import begin, build, set_trainable
from live_seg.training.photos import Annotated, read_all
from live_seg.training.precision import best_precision
from live_seg.training.progress import LOSSES, Row, draw_curves, draw_pictures, read_table, write_table
from live_seg.training.settings import Settings, Stage, read_settings, write_settings
from live_seg.training.trainer import Trainer, arrays_of, assign

logger = logging.getLogger(__name__)

MOST_THREADS = 6
"""Threads that make batches: more would wait for each other, and each keeps batches in memory."""

PICTURE_ROUNDS = 10
"""How often in a run pictures are drawn, at most."""

Report = Callable[[str], None]
"""Takes lines of text for the user: what starts fresh, one line an epoch."""


def train(settings: Settings, folder: Path, *, report: Report = logger.info, quiet: bool = False) -> None:
    """Train a model; all that comes of it lies in `folder`, which is new or empty.

    After each epoch: model.weights.h5 and its card model.json, of averaged weights, ready for
    `live_seg.load`; log.csv, curves.png, now and then pictures in val/; settings.json and state.npz, for
    `resume`. `report` gets lines for the user, `quiet` shows no progress bars. Fresh layers draw on Keras'
    global seed, which is set.

    Raises UsageError, SourceError, SinkError, WeightsError, and LiveSegError when a loss is no finite number.
    """
    _check_free(folder)
    data = _read(settings)
    settings = replace(settings, precision=settings.precision or best_precision())
    model, fresh = _begin(settings, data)
    if fresh:
        report(f"From {settings.start}; fresh: {fresh}.")
    alone = settings.epochs // 6 if fresh and settings.layers != "heads" else 0
    heads_first = alone if settings.heads_first is None else settings.heads_first
    settings = replace(settings, size=model.config.size, heads_first=heads_first)
    _make(folder)
    write_settings(settings, folder / "settings.json")
    _Run(settings, folder, data, model, report, quiet).go()


def resume(folder: Path, *, report: Report = logger.info, quiet: bool = False) -> None:
    """Go on with the training in `folder`: the outcome is as if it had never stopped.

    Raises as `train` does.
    """
    settings = read_settings(folder / "settings.json")
    data = _read(settings)
    path = folder / "state.npz"
    if not path.exists():
        model, _ = _begin(settings, data)
        _Run(settings, folder, data, model, report, quiet).go()
        return
    state = read_state(path)
    if state.class_names != data.class_names:
        raise SourceError(f"The annotations name other classes than when {folder} began. Begin a new run.")
    model = build(state.config, str(settings.precision))
    assign(model.variables, state.network)
    report(f"Going on after epoch {state.epoch} of {settings.epochs}.")
    _Run(settings, folder, data, model, report, quiet).go(state)


def _check_free(folder: Path) -> None:
    """A run has a folder of its own; asked before the weights load, which takes seconds."""
    if folder.exists() and not folder.is_dir():
        raise SinkError(f"{folder} is a file; a folder was expected.")
    if folder.exists() and any(folder.iterdir()):
        raise SinkError(f"{folder} is not empty. Choose another folder, or go on with --resume {folder}.")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"Cannot make the folder {folder}: {error.strerror}.") from error


class _Data(NamedTuple):
    photos: list[Annotated]
    class_names: tuple[str, ...]
    truth: GroundTruth | None


def _read(settings: Settings) -> _Data:
    photos, names = read_all(settings.data)
    truth = GroundTruth(*settings.val) if settings.val else None
    if truth:
        known = {name.lower() for name in names[1:]}
        if not known & {name.lower() for name in truth.categories.values()}:
            raise UsageError(f"{truth.path} has none of the classes that are learnt: {', '.join(names[1:])}.")
    return _Data(photos, tuple(names), truth)


def _begin(settings: Settings, data: _Data) -> tuple[MaskRCNN, str]:
    keras.utils.set_random_seed(settings.seed)
    return begin(settings.start, data.class_names, settings.size, str(settings.precision))


class _Run:
    """A training in its folder."""

    def __init__(
        self, settings: Settings, folder: Path, data: _Data, model: MaskRCNN, report: Report, quiet: bool
    ) -> None:
        self.settings, self.folder, self.data = settings, folder, data
        self.model, self.report, self.quiet = model, report, quiet
        self.batches = Batches(
            data.photos,
            model.config.mean_pixel,
            side=model.config.size,
            batch=settings.batch,
            seed=settings.seed,
            augmentation=settings.augmentation,
        )
        self.rows: list[Row] = []

    def go(self, state: State | None = None) -> None:
        """Run all epochs, or those that `state` leaves."""
        done = state.epoch if state else 0
        self.rows = read_table(self.folder / "log.csv", done)
        for stage in self.settings.stages():
            if done >= stage.end:
                continue
            set_trainable(self.model, stage.layers)
            trainer = Trainer(self.model, self.settings.sampling, self.settings.seed + stage.first)
            trainer.prepare((stage.end - stage.first) * len(self.batches), self.settings.learning_rate)
            if state and done > stage.first:
                trainer.restore(state.trainer)
            for epoch in range(max(done, stage.first), stage.end):
                self._finish(trainer, stage, self._epoch(trainer, epoch))

    def _epoch(self, trainer: Trainer, epoch: int) -> Row:
        """Take all steps of an epoch; returns the row of the table, as far as known."""
        begun, taken = time.monotonic(), []
        threads = max(1, min(MOST_THREADS, (os.cpu_count() or 1) - 1))
        silent = True if self.quiet else None  # None: also where stderr is no terminal
        title = f"epoch {epoch + 1}/{self.settings.epochs}"
        with (
            contextlib.closing(self.batches.epoch(epoch, threads)) as batches,
            tqdm(batches, title, len(self.batches), leave=False, unit=" steps", disable=silent) as bar,
        ):
            for columns in bar:
                taken.append(trainer.learn(columns))
                if not np.isfinite(taken[-1]["loss"]):
                    self._give_up(columns, epoch, len(taken))
                bar.set_postfix(loss=f"{taken[-1]['loss']:.3f}", refresh=False)
        return {
            "epoch": epoch + 1,
            **{n: float(np.mean([losses[n] for losses in taken])) for n in LOSSES if n in taken[0]},
            "learning_rate": float(trainer.optimizer.learning_rate),
            "seconds": round(time.monotonic() - begun, 1),
        }

    def _give_up(self, columns: Columns, epoch: int, step: int) -> None:
        path = self.folder / "bad_batch.npz"
        with replacing(path) as partial:
            np.savez(partial, allow_pickle=False, **columns)
        raise LiveSegError(
            f"The loss of epoch {epoch + 1}, step {step} of {len(self.batches)} is no finite number. The "
            f"batch is in {path}. Look at its boxes, or try a lower learning rate."
        )

    def _finish(self, trainer: Trainer, stage: Stage, row: Row) -> None:
        """End an epoch: measure, publish and draw with the averages; the state, last, makes it count."""
        epoch = int(row["epoch"])
        last = epoch == stage.end  # the next stage goes on from the averages
        with trainer.averaged(keep=last):
            # Anew each time: a Segmenter keeps the weights of its first call.
            segment = Segmenter(KerasEngine(self.model), self.data.class_names)
            facts, min_score = self._measure(segment, row)
            path = self.folder / "model.weights.h5"
            save(self.model, self.data.class_names, path, facts, min_score)
            if self.data.truth and self._due(epoch, -(-self.settings.epochs // PICTURE_ROUNDS)):
                names, folder = self.data.class_names, self.folder / "val"
                draw_pictures(segment, names, self.data.truth, min_score, folder, epoch)
        self.rows.append(row)
        write_table(self.rows, self.folder / "log.csv")
        draw_curves(self.rows, self.folder / "curves.png")
        network, own = arrays_of(self.model.variables), [] if last else trainer.state()
        state = State(epoch, self.model.config, self.data.class_names, network, own)
        write_state(state, self.folder / "state.npz")
        self.report(_line(row, self.settings.epochs))

    def _measure(self, segment: Segmenter, row: Row) -> tuple[dict[str, Any], float]:
        """Complete the row with AP where it is due. Returns facts for the card, and its least score."""
        files = ", ".join(file.name for _, file in self.settings.data)
        facts: dict[str, Any] = {
            "origin": f"live-seg train from {self.settings.start}: {len(self.data.photos)} photos of "
            f"{files}, {row['epoch']} of {self.settings.epochs} epochs"
        }
        if not self.data.truth or not self._due(int(row["epoch"]), self.settings.val_every):
            return {**facts, "threshold": "not measured"}, USUAL_THRESHOLD
        found = evaluate(segment, self.data.truth, quiet=self.quiet)
        row |= {"box_ap": found.box["ap"], "mask_ap": found.mask["ap"]}
        facts["measured"] = {"data": str(self.data.truth.path), "box": found.box, "mask": found.mask}
        best = best_threshold(self.data.truth, found)
        if best is None:
            return {**facts, "threshold": "nothing found on val"}, USUAL_THRESHOLD
        return {**facts, "threshold": f"best mask F1 at IoU 0.5 on val, {best[1]:.3f}"}, best[0]

    def _due(self, epoch: int, every: int) -> bool:
        return epoch % every == 0 or epoch == self.settings.epochs


def _line(row: Row, epochs: int) -> str:
    """Sum an epoch up for the user."""
    parts = [f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.3f}"]
    parts += [
        f"{name.replace('_ap', ' AP')} {row[name]:.3f}" for name in ("box_ap", "mask_ap") if name in row
    ]
    return ", ".join([*parts, f"{row['seconds']:.0f} s"])
