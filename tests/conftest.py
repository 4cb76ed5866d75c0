"""Fixtures of all tests: default signal handling, no thread left running, a cache folder of their own."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from live_seg.maskrcnn.model import MaskRCNN

if "PYTEST_XDIST_WORKER" in os.environ:
    # The worker processes already use all cores.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

# As live_seg.engines.openvino does, here before a test module imports OpenVINO itself: its telemetry sends
# events from processes of their own, which takes seconds for each conversion.
cast(dict[str, Any], sys.modules).setdefault("openvino_telemetry", None)


settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


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
def tiny() -> "MaskRCNN":
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
    """Convert `tiny` to OpenVINO in float32, once for all tests; return its folder."""
    from live_seg.engines.openvino.convert import convert

    folder = tmp_path_factory.mktemp("converted")
    convert(tiny, folder)
    return folder
