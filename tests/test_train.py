"""Training from photos to a model: the result, the files of a run, and resuming."""

import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.machinery import PathFinder
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import live_seg
from live_seg.choices import Layers
from live_seg.errors import LiveSegError, SinkError, SourceError, UsageError, WeightsError
from live_seg.evaluation.evaluate import evaluate
from live_seg.evaluation.ground_truth import GroundTruth
from live_seg.maskrcnn.backbone import build_backbone
from live_seg.maskrcnn.config import RESNET_BLOCKS
from live_seg.maskrcnn.model import MaskRCNN
from live_seg.training.batches import Batches, Columns
from live_seg.training.checkpoint import State, read_state, write_state
from live_seg.training.initial_weights import build, initial_network, set_trainable, transfer_weights
from live_seg.training.progress import ProgressBar, quality, read_table
from live_seg.training.settings import Settings, read_settings
from live_seg.training.train import resume, train
from live_seg.training.trainer import Trainer
from tests import matterport_weights
from tests.stand_ins import ROOT
from tests.tiny_world import CONFIG, EASY, assert_same_end, draw_shapes, small_backbone, untrained


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network of the family is small."""
    monkeypatch.setattr("live_seg.maskrcnn.model.build_backbone", small_backbone)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take steps without tracing, which would take as long as a dozen of them."""
    prepare = Trainer.compile
    monkeypatch.setattr(
        Trainer, "compile", lambda trainer, **options: prepare(trainer, run_eagerly=True, **options)
    )


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the initial weights once: building their network takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("live_seg.maskrcnn.model.build_backbone", small_backbone)
        return untrained(tmp_path_factory.mktemp("start"), "disc")


@pytest.fixture
def short(start: Path, tmp_path: Path) -> Settings:
    """Three epochs of two steps; the heads alone in the first."""
    data = draw_shapes(tmp_path / "data", 8)
    return Settings(data=(data,), start=str(start), epochs=3, batch=4, heads_first=1, **EASY)


@pytest.mark.usefixtures("eager", "untraced", "_built_once")
def test_files_of_a_run(short: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("live_seg.training.train.SAMPLE_ROUNDS", 1)
    data, val = draw_shapes(tmp_path / "few", 4), draw_shapes(tmp_path / "val", 2, seed=5)
    settings = replace(short, data=(data,), val=val, epochs=1, heads_first=0, val_every=1)
    run, lines = tmp_path / "run", list[str]()
    train(settings, run, report=lines.append, quiet=True)
    assert lines[0].endswith("random: box_head/logits, box_head/deltas, mask_head/logits for block.")
    assert lines[1] == "Compiling the training step, which can take some minutes."
    assert lines[-2].startswith("epoch 1/1: loss ")
    assert lines[-2].startswith(lines[-1].removeprefix("Best ").removesuffix("."))
    (row,) = read_table(run / "log.csv", 99)
    card = json.loads((run / "model.json").read_text())
    assert card["class_names"] == ["background", "disc", "block"]
    assert card["measured"]["mask"]["ap"] == pytest.approx(row["mask_ap"], abs=1e-6)
    assert len(list((run / "val").glob("001_*.jpg"))) == 2
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not list(run.rglob("*partial*"))


@pytest.mark.slow
def test_shapes_are_learnt_and_the_loaded_model_has_the_same_ap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("live_seg.training.train.SAMPLE_ROUNDS", 1)
    data, val = draw_shapes(tmp_path / "data", 96), draw_shapes(tmp_path / "val", 12, seed=5)
    settings = Settings(
        data=(data,),
        val=val,
        start=str(untrained(tmp_path, "disc")),
        epochs=6,
        learning_rate=3e-3,
        heads_first=0,
        val_every=6,
        **EASY,
    )
    run, lines = tmp_path / "run", list[str]()
    train(settings, run, report=lines.append, quiet=True)
    assert lines[0].endswith("random: box_head/logits, box_head/deltas, mask_head/logits for block.")
    assert lines[1] == "Compiling the training step, which can take some minutes."
    assert lines[-2].startswith("epoch 6/6: loss ")
    assert lines[-2].startswith(lines[-1].removeprefix("Best ").removesuffix("."))
    assert "mask AP 0." in lines[-1]
    rows = read_table(run / "log.csv", 99)
    assert len(rows) == 6
    assert rows[-1]["loss"] < rows[0]["loss"] / 2
    assert rows[-1]["mask_ap"] > 0.5
    card = json.loads((run / "model.json").read_text())
    assert card["class_names"] == ["background", "disc", "block"]
    assert 0.05 < card["config"]["min_score"] < 1
    assert "best mask F1" in card["threshold"]
    assert len(list((run / "val").glob("006_*.jpg"))) == 6
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not list(run.rglob("*partial*"))
    segment = live_seg.load(run, min_score=0.05)
    again = evaluate(segment, GroundTruth(*val), quiet=True)
    assert again.mask == pytest.approx(card["measured"]["mask"], abs=1e-6)
    assert again.box["ap"] == pytest.approx(rows[-1]["box_ap"], abs=1e-6)
    assert live_seg.load(run / "model.weights.h5").config.min_score == card["config"]["min_score"]


class TestResume:
    @pytest.mark.slow
    @pytest.mark.usefixtures("eager")
    def test_the_result_equals_that_of_an_uninterrupted_run(
        self, short: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Stopped before the first epoch was over, then in the middle of the second."""
        settings = replace(short, epochs=2, heads_first=0)
        whole, broken = tmp_path / "whole", tmp_path / "broken"
        train(settings, whole, quiet=True)
        make = Batches.make

        def stop_in(epoch: int) -> None:
            def breaking(batches: Batches, number: int, index: int) -> Columns:
                if (number, index) == (epoch, epoch):
                    raise KeyboardInterrupt
                return make(batches, number, index)

            monkeypatch.setattr(Batches, "make", breaking)

        stop_in(0)
        with pytest.raises(KeyboardInterrupt):
            train(settings, broken, quiet=True)
        assert [path.name for path in broken.iterdir()] == ["settings.json"]
        stop_in(1)
        with pytest.raises(KeyboardInterrupt):
            resume(broken, quiet=True)
        assert live_seg.load(broken / "model.weights.h5").class_names[1:] == ("disc", "block")
        assert [row["epoch"] for row in read_table(broken / "log.csv", 99)] == [1]
        before = read_state(broken / "state.npz")
        monkeypatch.setattr(Batches, "make", make)
        lines: list[str] = []
        resume(broken, report=lines.append, quiet=True)
        assert lines[0] == "Resuming after epoch 1 of 2."
        assert_same_end(whole, broken, before)
        assert json.loads((broken / "model.json").read_text())["sha256"]
        assert not list(broken.glob("*partial*"))

    @pytest.mark.slow
    def test_after_a_kill(self, short: Settings, tmp_path: Path) -> None:
        if sys.platform == "win32":
            pytest.skip("needs SIGKILL")
        whole, killed = tmp_path / "whole", tmp_path / "killed"
        train(short, whole, quiet=True)
        program = f"""
            import os, signal, sys
            from pathlib import Path
            from tests.tiny_world import small_backbone  # before TensorFlow: see `tests`
            import live_seg.maskrcnn.model
            from live_seg.training.batches import Batches
            from live_seg.training.settings import read_settings
            from live_seg.training.train import train
            live_seg.maskrcnn.model.build_backbone = small_backbone
            make = Batches.make
            def deadly(batches, epoch, index):
                if (epoch, index) == (2, 1):
                    os.kill(os.getpid(), signal.SIGKILL)
                return make(batches, epoch, index)
            Batches.make = deadly
            train(read_settings(Path({str(whole / "settings.json")!r})), Path({str(killed)!r}), quiet=True)
        """
        lines = [line[12:] for line in program.splitlines()]
        done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, check=False)
        assert done.returncode == -signal.SIGKILL
        before = read_state(killed / "state.npz")
        resume(killed, quiet=True)
        assert_same_end(whole, killed, before)

    def test_a_state_is_written_atomically(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "state.npz"
        arrays: list[np.ndarray] = [np.arange(12, dtype=np.float32), np.zeros((), np.int64)]
        state = State(1, CONFIG, ("background", "disc"), arrays, arrays[:1] * 11)
        write_state(state, path)
        savez = np.savez

        def half(file: Path, **content: Any) -> None:
            savez(file, **content)
            os.truncate(file, 100)
            raise KeyboardInterrupt

        monkeypatch.setattr(np, "savez", half)
        with pytest.raises(KeyboardInterrupt):
            write_state(state._replace(epoch=2), path)
        found = read_state(path)
        assert found[:3] == state[:3]
        for one, other in zip(found.network + found.trainer, state.network + state.trainer, strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(SourceError, match="Cannot resume from"):
            read_state(path)

    @pytest.mark.slow
    @pytest.mark.usefixtures("eager")
    def test_more_epochs_are_a_stage_of_their_own(self, short: Settings, tmp_path: Path) -> None:
        settings = replace(short, epochs=1, heads_first=0)
        whole, extended = tmp_path / "whole", tmp_path / "extended"
        train(settings.extended(2), whole, quiet=True)
        train(settings, extended, quiet=True)
        before = read_state(extended / "state.npz")
        lines: list[str] = []
        resume(extended, report=lines.append, quiet=True)
        assert lines == ["The run is complete: epoch 1 of 1. Give more epochs to extend it."]
        with pytest.raises(UsageError, match=r"lasts to epoch 1: give more epochs to extend it\. Got 0"):
            resume(extended, epochs=0)
        before = read_state(extended / "state.npz")
        resume(extended, epochs=2, report=lines.append, quiet=True)
        assert lines[1] == "Resuming after epoch 1 of 2."
        assert lines[-1].startswith("epoch 2/2: loss ")
        assert_same_end(whole, extended, before)
        assert read_settings(extended / "settings.json") == read_settings(whole / "settings.json")
        resume(extended, epochs=2, report=lines.append, quiet=True)
        assert lines[-1] == "The run is complete: epoch 2 of 2. Give more epochs to extend it."

    def test_without_a_run(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="holds no training to resume"):
            resume(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_the_best_epoch_is_the_model_and_the_last_one_lies_beside(
    short: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([0.5, 0.3])

    def evaluation(*_: Any, **__: Any) -> Any:
        metrics = {"ap": next(found)}
        return SimpleNamespace(box=metrics, mask=metrics)

    monkeypatch.setattr("live_seg.training.train.evaluate", evaluation)
    monkeypatch.setattr("live_seg.training.train.best_threshold", lambda *_: None)
    monkeypatch.setattr("live_seg.training.train.draw_samples", lambda *_: None)
    run, lines = tmp_path / "run", list[str]()
    few = draw_shapes(tmp_path / "few", 4)
    settings = replace(short, data=(few,), val=few, epochs=2, heads_first=0)
    train(settings, run, report=lines.append, quiet=True)
    cards = [json.loads((run / f"{name}.json").read_text()) for name in ("model", "last")]
    assert [card["measured"]["mask"]["ap"] for card in cards] == [0.5, 0.3]
    assert [card["origin"].rpartition("json, ")[2] for card in cards] == ["1 of 2 epochs", "2 of 2 epochs"]
    assert lines[-1].startswith("Best epoch 1/2: loss ")
    assert live_seg.load(run, engine="keras").class_names[1:] == ("disc", "block")
    assert cards[0]["sha256"] != cards[1]["sha256"]


def test_epochs_are_compared_by_mask_ap() -> None:
    assert quality({"box_ap": 0.4, "mask_ap": 0.3}) == 0.3
    assert quality({"box_ap": 0.4, "mask_ap": -1.0}) == 0.4  # no mask is annotated
    assert quality({"loss": 2.0}) == -1


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no model\.weights\.h5\. Expected a weights file, or"):
        live_seg.load(tmp_path)


def test_the_progress_bar_counts_the_steps_of_the_whole_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for quiet in (False, True):
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        bar = ProgressBar(40, quiet=quiet)
        for done in range(11, 21):
            bar.update(done, "epoch 2/4", 1.25)
        assert quiet or (bar._bar is not None and bar._bar.n == 20)
        shown = screen.getvalue()
        bar.close()
        assert ("epoch 2/4:  28%" in shown and "| 11/40 [00:00<" in shown) != quiet


@pytest.mark.usefixtures("eager", "_built_once")
@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_loss_that_is_not_finite_stops_the_run(
    short: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real: bool
) -> None:
    """Of a `real` step with an absurd learning rate, or of a stand-in."""
    run = tmp_path / "run"
    if not real:
        monkeypatch.setattr(Trainer, "step", lambda *_: {"loss": float("nan")})
    with pytest.raises(LiveSegError, match=r"epoch 1, step \d of 2 is not finite"):
        train(replace(short, learning_rate=1e25), run, quiet=True)
    assert sorted(path.name for path in run.iterdir()) == ["bad_batch.npz", "settings.json"]
    with np.load(run / "bad_batch.npz") as file:
        assert sorted(file.files) == ["boxes", "class_ids", "images", "masked", "masks"]
        assert file["images"].shape == (4, 64, 64, 3)


def test_a_folder_in_use(short: Settings, tmp_path: Path, start: Path) -> None:
    with pytest.raises(SinkError, match=r"is not empty. Choose another folder, or pass --resume"):
        train(short, tmp_path)
    with pytest.raises(SinkError, match="is a file"):
        train(short, start)


def test_val_photos_of_something_else(short: Settings, tmp_path: Path) -> None:
    photos, file = draw_shapes(tmp_path / "val", 1)
    file.write_text(file.read_text().replace('"disc"', '"zebra"').replace('"block"', '"giraffe"'))
    with pytest.raises(UsageError, match="none of the classes in the training data: disc, block"):
        train(replace(short, val=(photos, file)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 100}, "multiple of 64 up to 4096. Got 100"),
        ({"size": 0}, "multiple of 64 up to 4096. Got 0"),
        ({"learning_rate": float("nan")}, "must be above 0"),
        ({"epochs": 0}, "epochs must be at least 1. Got 0"),
        ({"layers": "some"}, "Unknown layers 'some'"),
        ({"data": ()}, "no training data"),
    ],
)
def test_settings_that_cannot_be_used(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"data": ((Path("photos"), Path("file")),)}
    with pytest.raises(UsageError, match=message):
        Settings(**given | change)


def test_stages() -> None:
    settings = Settings(data=((Path("photos"), Path("file")),), epochs=30, heads_first=5, layers="4+")
    assert settings.stages() == [(0, 5, "heads"), (5, 30, "4+")]
    longer = settings.extended(40).extended(40).extended(45)
    assert longer.stages() == [(0, 5, "heads"), (5, 30, "4+"), (30, 40, "4+"), (40, 45, "4+")]
    assert replace(settings, heads_first=99).extended(31).stages() == [(0, 30, "heads"), (30, 31, "4+")]


def test_settings_come_back_from_their_file(short: Settings, tmp_path: Path) -> None:
    from live_seg.training.settings import write_settings

    for settings in (short, replace(short, val=(tmp_path / "a", tmp_path / "b")), short.extended(9)):
        write_settings(settings, tmp_path / "settings.json")
        assert read_settings(tmp_path / "settings.json") == settings


@pytest.fixture(scope="module")
def pair() -> tuple[MaskRCNN, MaskRCNN]:
    """Build two networks for two classes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("live_seg.maskrcnn.model.build_backbone", small_backbone)
        config = replace(CONFIG, num_classes=3)
        return MaskRCNN(config), MaskRCNN(config)


@pytest.fixture
def networks(pair: tuple[MaskRCNN, MaskRCNN]) -> tuple[MaskRCNN, MaskRCNN]:
    """Return the two networks with weights of their own."""
    rng = np.random.default_rng(0)
    for network in pair:
        network.trainable = True
        network.set_weights([rng.random(weights.shape, np.float32) for weights in network.get_weights()])
    return pair


class TestStarts:
    def test_last_layers_keep_the_classes_both_know(self, networks: tuple[MaskRCNN, MaskRCNN]) -> None:
        old, new = networks
        fresh = [np.array(v) for v in new.box_head.deltas.weights]
        message = transfer_weights(old, ("background", "disc", "ring"), new, ("background", "Cube", "Disc"))
        assert message == "box_head/logits, box_head/deltas, mask_head/logits for Cube"
        for one, other in (
            (old.box_head.logits, new.box_head.logits),
            (old.mask_head.logits, new.mask_head.logits),
        ):
            kernel, taken = (np.array(layer.kernel) for layer in (one, other))
            np.testing.assert_array_equal(taken[..., [0, 2]], kernel[..., [0, 1]])
            assert np.any(taken[..., 1] != kernel[..., 2])
        kernel, taken = np.array(old.box_head.deltas.kernel), np.array(new.box_head.deltas.kernel)
        np.testing.assert_array_equal(taken[:, 8:], kernel[:, 4:8])
        np.testing.assert_array_equal(taken[:, 4:8], fresh[0][:, 4:8])
        for one, other in zip(old.pyramid.weights, new.pyramid.weights, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_nothing_starts_fresh_with_the_same_classes_in_any_order(
        self, networks: tuple[MaskRCNN, MaskRCNN]
    ) -> None:
        old, new = networks
        assert transfer_weights(old, ("background", "a", "b"), new, ("background", "b", "a")) == ""
        kernel, taken = np.array(old.box_head.logits.kernel), np.array(new.box_head.logits.kernel)
        np.testing.assert_array_equal(taken, kernel[:, [0, 2, 1]])

    def test_the_background_is_matched_by_its_place_whatever_its_name(
        self, networks: tuple[MaskRCNN, MaskRCNN]
    ) -> None:
        old, new = networks
        assert transfer_weights(old, ("BG", "disc", "ring"), new, ("background", "disc", "ring")) == ""
        np.testing.assert_array_equal(new.box_head.logits.kernel, old.box_head.logits.kernel)

    @pytest.mark.parametrize(
        ("layers", "stages"),
        [("heads", 0), ("5+", 1), ("4+", 2), ("3+", 3), ("all", 5)],
    )
    def test_layers_that_learn(self, networks: tuple[MaskRCNN, MaskRCNN], layers: Any, stages: int) -> None:
        model, _ = networks
        heads = len(model.trainable_variables) - len(model.backbone.trainable_variables)
        for first in ("heads", "all"):  # whatever learnt before
            set_trainable(model, first)
            set_trainable(model, layers)
            assert len(model.backbone.trainable_variables) == 2 * stages
            assert len(model.trainable_variables) == heads + 2 * stages
            assert not any("norm" in variable.path for variable in model.backbone.trainable_variables)

    def test_matterports_weights(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """In a ResNet of few blocks, which is quick to build."""
        monkeypatch.setattr("live_seg.maskrcnn.model.build_backbone", build_backbone)
        for blocks in (RESNET_BLOCKS, matterport_weights.BLOCKS):
            monkeypatch.setitem(blocks, "resnet50", (1, 1, 1, 1))
        path = matterport_weights.write(tmp_path / "theirs.h5", seed=0, classes=81, backbone="resnet50")
        model, fresh = initial_network(str(path), ("background", "disc", "person"), 128, "float32")
        assert fresh == "box_head/logits, box_head/deltas, mask_head/logits for disc"
        config = model.config
        assert (config.backbone, config.size, config.num_classes) == ("resnet50", 128, 3)
        with h5py.File(path) as file:
            stem = np.asarray(file["conv1/conv1/kernel:0"])
            logits = np.asarray(file["mrcnn_class_logits/mrcnn_class_logits/kernel:0"])
        np.testing.assert_array_equal(model.backbone.get_layer("stem_conv").kernel, stem)
        np.testing.assert_array_equal(np.array(model.box_head.logits.kernel)[:, [0, 2]], logits[:, :2])
        learnt: dict[Layers, int] = {"heads": 0, "5+": 4, "4+": 8, "3+": 12, "all": 17}
        for layers, convolutions in learnt.items():
            set_trainable(model, layers)
            assert len(model.backbone.trainable_variables) == 2 * convolutions

    @pytest.mark.slow
    def test_a_size_of_its_own(self, tmp_path: Path) -> None:
        path = untrained(tmp_path, "disc")
        assert initial_network(str(path), ("background", "disc"), None, "float32").model.config.size == 64
        config = initial_network(str(path), ("background", "disc"), 128, "float32").model.config
        assert (config.size, config.min_side, config.min_score) == (128, 64, 0.05)


@pytest.mark.slow
def test_mixed_precision_keeps_weights_and_outputs_in_float32(short: Settings) -> None:
    from live_seg.training.photos import read_all
    from tests.train_step import batches_of

    columns = batches_of(read_all(short.data)[0]).make(0, 0)
    found = []
    for precision in ("float32", "mixed_bfloat16"):
        keras.utils.set_random_seed(1)
        model = build(replace(CONFIG, num_classes=3), precision)
        assert isinstance(model, MaskRCNN)
        assert keras.config.dtype_policy().name == "float32"
        pyramid = model.features(model.normalized(columns["images"]))
        outputs = [*model.rpn_outputs(pyramid), *model.box_outputs(pyramid[:-1], columns["boxes"])]
        assert {keras.backend.standardize_dtype(output.dtype) for output in outputs} == {"float32"}
        assert {variable.dtype for variable in model.variables if "seed" not in variable.path} == {"float32"}
        trainer = Trainer(model, short.sampling, seed=0)
        trainer.prepare(10, 1e-3)
        found.append([trainer.step(columns)["loss"] for _ in range(3)])
    assert keras.backend.standardize_dtype(pyramid[0].dtype) == "bfloat16"
    assert found[1] == pytest.approx(found[0], rel=0.05)
    assert found[1] != found[0]


@pytest.mark.slow
class TestStep:
    """The same step on either backend."""

    def test_on_tensorflow(self, tmp_path: Path) -> None:
        from tests.train_step import steps

        self.check(steps(tmp_path))

    @pytest.mark.skipif(PathFinder.find_spec("jax") is None, reason="JAX is not installed")
    def test_on_jax(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "tests.train_step", str(tmp_path)]
        # Most of the time goes into compiling: better little than well.
        quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"} | quick
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        message = json.loads(done.stdout.splitlines()[-1])
        assert message["backend"] == "jax"
        self.check(message)

    def check(self, message: dict[str, Any]) -> None:
        assert np.isfinite(message["losses"]).all()
        assert message["losses"][-1] < 0.7 * message["losses"][0]
        assert message["finite"]
        assert message["empty"]["box"] == message["empty"]["mask"] == message["empty"]["anchor_box"] == 0
        assert 0 < message["empty"]["loss"] < 100
