"""What every test relies on: no thread left behind, no file in the user's cache."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from live_seg.maskrcnn.model import MaskRCNN


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in threading.enumerate() if thread not in before and not thread.daemon]
    assert not left, f"threads still running after the test: {left}"


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache folder for all tests and the processes they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIVE_SEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny() -> "MaskRCNN":
    """A tiny network for tests that leave it as it is: building one takes seconds."""
    from tests.stand_ins import tiny_network

    return tiny_network()


@pytest.fixture(scope="session")
def tiny_converted(tiny: "MaskRCNN", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It as OpenVINO reads it, in float32."""
    from live_seg.engines.openvino.convert import convert

    folder = tmp_path_factory.mktemp("converted")
    convert(tiny, folder)
    return folder
