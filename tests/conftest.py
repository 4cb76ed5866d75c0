"""Fixtures of all tests: default signal handling, no thread left running, a cache folder of their own."""

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from filelock import FileLock
from hypothesis import settings

if TYPE_CHECKING:
    from live_seg.maskrcnn.config import BackboneName
    from live_seg.maskrcnn.model import MaskRCNN
    from live_seg.maskrcnn.rules import Rules

if "PYTEST_XDIST_WORKER" in os.environ:
    # The worker processes already use all cores.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
    # Creating threads for NumPy takes longer than the rest of its import, in each program of a test.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# As live_seg.engines.openvino does, here before a test module imports OpenVINO itself: its telemetry sends
# events from processes of their own, which takes seconds for each conversion.
cast(dict[str, Any], sys.modules).setdefault("openvino_telemetry", None)


# Keras and TensorFlow Lite import these where they are installed, which takes seconds. No test needs them.
for name in ("sklearn", *(() if os.environ.get("KERAS_BACKEND") == "jax" else ("jax",))):
    cast(dict[str, Any], sys.modules).setdefault(name, None)

settings.register_profile("quick", deadline=None, max_examples=10)
settings.register_profile("thorough", deadline=None, max_examples=100)


def is_quick(config: pytest.Config) -> bool:
    """Return whether the slow tests are left out."""
    return bool(config.option.markexpr == "not slow")


def pytest_configure(config: pytest.Config) -> None:
    """Try few examples in the quick set, many with the slow tests."""
    settings.load_profile("quick" if is_quick(config) else "thorough")
    gc.disable()


def pytest_collection_finish() -> None:
    """Keep modules and collected tests out of later garbage collections, which they make slow."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in threading.enumerate() if thread not in before and not thread.daemon]
    assert not left, f"threads still running after the test: {left}"


IGNORED_BY_PYTHON = {getattr(signal, name, None) for name in ("SIGPIPE", "SIGXFSZ")}
"""Signals that the interpreter itself ignores at its start, on the systems that have them."""


@pytest.fixture(autouse=True, scope="session")
def _default_signals() -> Iterator[None]:
    """Unblock all signals and restore the default handlers, for the tests and the processes they start.

    A background job of a script ignores SIGINT, and so does each process that it starts.
    """
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    ignored = [
        number
        for number, handler in handlers.items()
        if handler is signal.SIG_IGN and number not in IGNORED_BY_PYTHON
    ]
    for number in ignored:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    blocked: set[int] = set()
    if sys.platform != "win32":
        blocked = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache folder for all tests and the processes they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIVE_SEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def light_mobile(request: pytest.FixtureRequest) -> Iterator[None]:
    """Replace MobileNetV2, which takes seconds to build and to convert, by five convolutions.

    Among the slow tests, the same tests run with MobileNetV2.
    """
    with pytest.MonkeyPatch.context() as patch:
        if is_quick(request.config):
            from live_seg.maskrcnn.backbone import build_backbone as real
            from tests.tiny_world import small_backbone

            def light(name: "BackboneName", *rules: "Rules") -> Any:
                return small_backbone() if name == "mobilenetv2" else real(name, *rules)

            patch.setattr("live_seg.maskrcnn.model.build_backbone", light)
        yield


@pytest.fixture(scope="module")
def light_resnet(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave most blocks of ResNet-50 out, also in weights files and in the reference in NumPy.

    Among the slow tests, the same tests run with all blocks.
    """
    with pytest.MonkeyPatch.context() as patch:
        if is_quick(request.config):
            from live_seg.maskrcnn.config import RESNET_BLOCKS
            from tests import matterport_weights, numpy_reference

            for blocks in (RESNET_BLOCKS, matterport_weights.BLOCKS, numpy_reference.BLOCKS):
                patch.setitem(blocks, "resnet50", (2, 1, 1, 1))
        yield


@pytest.fixture
def _built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the layers of equal two-stage networks once for all tests: see `stand_ins.built_once`."""
    from tests.stand_ins import built_once

    monkeypatch.setattr("live_seg.maskrcnn.family.MaskRCNN", built_once)
    monkeypatch.setattr("live_seg.maskrcnn.checkpoint.MaskRCNN", built_once)


@pytest.fixture(scope="session")
def tiny(light_mobile: None) -> "MaskRCNN":  # noqa: ARG001
    """Return a tiny network for tests that do not change it: building one takes seconds."""
    from tests.stand_ins import tiny_network

    return tiny_network()


@pytest.fixture(params=["untraced", pytest.param("traced", marks=pytest.mark.slow)])
def untraced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Keras engines run operation by operation: tracing a graph takes longer than a few images.

    Among the slow tests, the same test runs with a graph.
    """
    if request.param == "untraced":
        monkeypatch.setattr("live_seg.engines.keras.compiled", lambda function, _: function)


@pytest.fixture(scope="session")
def tiny_converted(tiny: "MaskRCNN", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert `tiny` to OpenVINO in float32, once for all tests and processes; return its folder."""
    from live_seg.engines.openvino.convert import convert

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny-converted"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = tmp_path_factory.mktemp("converted")
            convert(tiny, unfinished)
            unfinished.rename(folder)
    return folder
