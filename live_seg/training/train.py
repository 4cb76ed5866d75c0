"""Training of a Mask R-CNN on photos annotated in COCO's format."""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

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
from live_seg.maskrcnn.family import Network
from live_seg.models.card import RUN_MODEL
from live_seg.segmenter import Segmenter
from live_seg.training.batches import Batches, Columns
from live_seg.training.checkpoint import State, read_state, save, write_state
from live_seg.training.initial_weights import InitialNetwork, build, initial_network, set_trainable
from live_seg.training.photos import AnnotatedPhoto, read_all
from live_seg.training.precision import best_precision
from live_seg.training.progress import (
    LOSS_COLUMNS,
    ProgressBar,
    Row,
    draw_curves,
    draw_samples,
    quality,
    read_table,
    summary,
    write_table,
)
from live_seg.training.settings import Settings, Stage, read_settings, write_settings
from live_seg.training.trainer import Trainer, arrays_of, assign

logger = logging.getLogger(__name__)

MAX_THREADS = 6
"""Largest number of threads that make batches. Each keeps batches in memory."""

SAMPLE_ROUNDS = 10
"""Largest number of epochs of a run after which validation photos are drawn."""

LAST_MODEL = "last.weights.h5"
"""Name of the model of the last epoch, beside RUN_MODEL, which is that of the best one."""

Report = Callable[[str], None]
"""Callback for messages to the user: the initial weights, then one line an epoch, and the best epoch."""


def train(settings: Settings, folder: Path, *, report: Report = logger.info, quiet: bool = False) -> None:
    """Train a model and write the results to `folder`, which must be new or empty.

    Each epoch updates the models with averaged weights for `live_seg.load`, its progress (log.csv,
    curves.png, at times images in val/) and the state for `resume` (settings.json, state.npz). The models
    are those of the best epoch (model.weights.h5 and its card model.json) and of the last one
    (last.weights.h5, last.json). The best epoch is the evaluated one with the highest mask AP, or box AP if
    the validation set has no masks; without any evaluation, it is the last one. `report` receives messages
    to the user; `quiet` hides progress bars. Sets Keras' global random seed, from which random weights are
    drawn.

    Raises UsageError, SourceError, SinkError, WeightsError, and LiveSegError if a loss is not finite.
    """
    _check_folder(folder)
    data = _read(settings)
    settings = replace(settings, precision=settings.precision or best_precision())
    model, untrained = _initial_network(settings, data)
    if untrained:
        report(f"Initial weights from {settings.start}; random: {untrained}.")
    usual = settings.epochs // 6 if untrained and settings.layers != "heads" else 0
    heads_first = usual if settings.heads_first is None else settings.heads_first
    settings = replace(settings, size=model.config.size, heads_first=heads_first)
    _create(folder)
    write_settings(settings, folder / "settings.json")
    _Run(settings, folder, data, model, report, quiet).run()


def resume(
    folder: Path, *, epochs: int | None = None, report: Report = logger.info, quiet: bool = False
) -> None:
    """Resume the training in `folder` after its last finished epoch, as if it had not stopped.

    `epochs` extends the run to that many, as `Settings.extended` describes. Raises what `train` raises.
    """
    before = read_settings(folder / "settings.json")
    settings = before if epochs is None else before.extended(epochs)
    data = _read(settings)
    path = folder / "state.npz"
    state = read_state(path) if path.exists() else None
    if state is None:
        model = _initial_network(settings, data).model
    elif state.epoch >= settings.epochs:
        report(
            f"The run is complete: epoch {state.epoch} of {settings.epochs}. Give more epochs to extend it."
        )
        return
    else:
        model = _restored(state, settings, data, folder)
        report(f"Resuming after epoch {state.epoch} of {settings.epochs}.")
    if settings != before:
        write_settings(settings, folder / "settings.json")
    _Run(settings, folder, data, model, report, quiet).run(state)


def _restored(state: State, settings: Settings, data: "_Data", folder: Path) -> Network:
    """Return the network of `state`. Raises SourceError if the annotations have other classes."""
    if state.class_names != data.class_names:
        raise SourceError(
            f"The annotations name other classes than when the training in {folder} started. Train in a new "
            "folder."
        )
    model = build(state.config, str(settings.precision))
    assign(model.variables, state.network)
    return model


def _check_folder(folder: Path) -> None:
    """Raise SinkError unless `folder` is new or empty. Called before the slow loading of weights."""
    if folder.exists() and not folder.is_dir():
        raise SinkError(f"{folder} is a file; a folder was expected.")
    if folder.exists() and any(folder.iterdir()):
        raise SinkError(f"{folder} is not empty. Choose another folder, or pass --resume {folder}.")


def _create(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"Cannot make the folder {folder}: {error.strerror}.") from error


class _Data(NamedTuple):
    photos: list[AnnotatedPhoto]
    class_names: tuple[str, ...]
    truth: GroundTruth | None


def _read(settings: Settings) -> _Data:
    photos, names = read_all(settings.data)
    truth = GroundTruth(*settings.val) if settings.val else None
    if truth:
        known = {name.lower() for name in names[1:]}
        if not known & {name.lower() for name in truth.categories.values()}:
            raise UsageError(
                f"{truth.path} has none of the classes in the training data: {', '.join(names[1:])}."
            )
    return _Data(photos, tuple(names), truth)


def _initial_network(settings: Settings, data: _Data) -> InitialNetwork:
    keras.utils.set_random_seed(settings.seed)
    return initial_network(settings.start, data.class_names, settings.size, str(settings.precision))


class _Run:
    """A training run in its folder."""

    def __init__(
        self, settings: Settings, folder: Path, data: _Data, model: Network, report: Report, quiet: bool
    ) -> None:
        self.settings, self.folder, self.data = settings, folder, data
        self.model, self.report, self.quiet = model, report, quiet
        self.batches = Batches(
            data.photos,
            side=model.config.size,
            batch=settings.batch,
            seed=settings.seed,
            augmentation=settings.augmentation,
            last_pixel=model.config.rules.last_pixel,
        )
        self.rows: list[Row] = []
        self.bar = ProgressBar(settings.epochs * len(self.batches), quiet=quiet)

    def run(self, state: State | None = None) -> None:
        """Run all epochs, or those after `state`."""
        with contextlib.closing(self.bar):
            self._run_stages(state)
        best = max(self.rows, key=lambda row: (quality(row), row["epoch"]))
        if quality(best) >= 0:
            self.report(f"Best {summary(best, self.settings.epochs)}.")

    def _tell(self, message: str) -> None:
        """Report a message while the progress bar is shown."""
        with tqdm.external_write_mode():
            self.report(message)

    def _run_stages(self, state: State | None) -> None:
        done = state.epoch if state else 0
        self.rows = read_table(self.folder / "log.csv", done)
        for stage in self.settings.stages():
            if done >= stage.end:
                continue
            set_trainable(self.model, stage.layers)
            trainer = Trainer(self.model, self.settings.sampling, self.settings.seed + stage.first)
            steps = (stage.end - stage.first) * len(self.batches)
            trainer.prepare(steps, self.settings.learning_rate, self.settings.detector_rate)
            if state and done > stage.first:
                trainer.restore(state.trainer)
            self._tell("Compiling the training step, which can take some minutes.")
            for epoch in range(max(done, stage.first), stage.end):
                self._end_epoch(trainer, stage, self._epoch(trainer, epoch))

    def _epoch(self, trainer: Trainer, epoch: int) -> Row:
        """Take the steps of an epoch. Return its row of the table, without AP."""
        start, taken = time.monotonic(), []
        threads = max(1, min(MAX_THREADS, (os.cpu_count() or 1) - 1))
        title = f"epoch {epoch + 1}/{self.settings.epochs}"
        with contextlib.closing(self.batches.epoch(epoch, threads)) as batches:
            for columns in batches:
                taken.append(trainer.step(columns))
                if not np.isfinite(taken[-1]["loss"]):
                    self._abort(columns, epoch, len(taken))
                self.bar.update(epoch * len(self.batches) + len(taken), title, taken[-1]["loss"])
        return {
            "epoch": epoch + 1,
            **{n: float(np.mean([losses[n] for losses in taken])) for n in LOSS_COLUMNS if n in taken[0]},
            "learning_rate": float(trainer.optimizer.learning_rate),
            "seconds": round(time.monotonic() - start, 1),
        }

    def _abort(self, columns: Columns, epoch: int, step: int) -> NoReturn:
        """Save the batch whose loss is not finite, and raise LiveSegError."""
        path = self.folder / "bad_batch.npz"
        with replacing(path) as partial:
            np.savez(partial, allow_pickle=False, **columns)
        raise LiveSegError(
            f"The loss of epoch {epoch + 1}, step {step} of {len(self.batches)} is not finite. The batch "
            f"is saved in {path}. Check its boxes, or lower the learning rate."
        )

    def _end_epoch(self, trainer: Trainer, stage: Stage, row: Row) -> None:
        """Evaluate and save the averaged weights, then write the progress and, last, the state.

        An epoch counts as finished once its state is written.
        """
        epoch = int(row["epoch"])
        last = epoch == stage.end  # the next stage starts from the averages
        with trainer.averaged(keep=last):
            # A Segmenter keeps the weights of its first call, so each epoch needs a new one.
            segment = Segmenter(KerasEngine(self.model), self.data.class_names)
            facts, min_score = self._measure(segment, row)
            for name in (LAST_MODEL, *([RUN_MODEL] if self._is_best(row) else [])):
                save(self.model, self.data.class_names, self.folder / name, facts, min_score)
            if self.data.truth and self._due(epoch, -(-self.settings.epochs // SAMPLE_ROUNDS)):
                names, folder = self.data.class_names, self.folder / "val"
                draw_samples(segment, names, self.data.truth, min_score, folder, epoch)
        self.rows.append(row)
        write_table(self.rows, self.folder / "log.csv")
        draw_curves(self.rows, self.folder / "curves.png")
        network, own = arrays_of(self.model.variables), [] if last else trainer.state()
        state = State(epoch, self.model.config, self.data.class_names, network, own)
        write_state(state, self.folder / "state.npz")
        self._tell(f"{summary(row, self.settings.epochs)}, {row['seconds']:.0f} s")

    def _is_best(self, row: Row) -> bool:
        """Return whether no epoch before `row` was better."""
        return all(quality(row) >= quality(earlier) for earlier in self.rows)

    def _measure(self, segment: Segmenter, row: Row) -> tuple[dict[str, Any], float]:
        """Add AP to `row` if an evaluation is due. Return facts for the card, and its score threshold."""
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
        """Return whether `epoch`, from 1, is a multiple of `every` or the last."""
        return epoch % every == 0 or epoch == self.settings.epochs
