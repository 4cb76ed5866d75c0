"""The cache of recently used values, and the engines that use it."""

import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from live_seg.engines.engine import Engine
from live_seg.engines.keras import KerasEngine
from live_seg.engines.openvino import engine as openvino_engine
from live_seg.engines.openvino.engine import OpenVINOEngine
from live_seg.engines.openvino.two_stage import TwoStage
from live_seg.maskrcnn import ops
from live_seg.recent import Recent
from live_seg.segmenter import Segmenter

if TYPE_CHECKING:
    from live_seg.maskrcnn.model import MaskRCNN

NAMES = ("background", "cat", "dog")


def test_what_was_used_least_recently_is_dropped() -> None:
    recent: Recent[str, list[str]] = Recent(2)
    made: list[str] = []

    def get(key: str) -> list[str]:
        return recent.get(key, lambda: made.append(key) or [key])  # type: ignore[func-returns-value]

    first = get("a")
    get("b")
    assert get("a") is first
    get("c")
    assert get("a") is first
    get("b")
    assert made == ["a", "b", "c", "b"]


def test_one_is_dropped_before_the_next_is_made() -> None:
    recent: Recent[int, set[int]] = Recent(1)
    alive: list[weakref.ref[set[int]]] = []

    def make() -> set[int]:
        assert not any(one() for one in alive)
        made = {1}
        alive.append(weakref.ref(made))
        return made

    for key in range(3):
        recent.get(key, make)


def test_a_failure_is_not_kept() -> None:
    recent: Recent[int, int] = Recent(1)
    with pytest.raises(ZeroDivisionError):
        recent.get(1, lambda: 1 // 0)
    assert recent.get(1, lambda: 5) == 5


def test_openvino_drops_the_networks_of_other_sizes(
    tiny: "MaskRCNN", tiny_converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[TwoStage] = weakref.WeakSet()

    class Counted(TwoStage):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            alive.add(self)

    monkeypatch.setattr(openvino_engine, "TwoStage", Counted)
    monkeypatch.setattr(openvino_engine, "SIZES_OF_SMALL", 2)
    segment = Segmenter(OpenVINOEngine(tiny_converted, tiny.config), NAMES)
    found = [len(segment([np.full((64, width, 3), 99, np.uint8)])[0]) for width in (64, 32, 64, 16)]
    assert len(alive) == 2
    assert found[0] == found[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "count"), [("openvino", 63), ("keras", 30)])
def test_memory_stays_flat_over_many_canvases(
    tiny: "MaskRCNN", tiny_converted: Path, kind: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras has fewer canvases: tracing graphs for one takes several seconds."""
    for module in (openvino_engine, ops):
        monkeypatch.setattr(module, "SIZES_OF_SMALL", 3)
    engine: Engine = OpenVINOEngine(tiny_converted, tiny.config) if kind == "openvino" else KerasEngine(tiny)
    sizes = [(32 * height, 32 * width) for height in range(1, 9) for width in range(1, 9)][1:]
    np.random.default_rng(0).shuffle(sizes)
    assert len(sizes) == 63
    used = []
    for size in sizes[:count]:
        images = np.full((1, *size, 3), 99, np.uint8)
        maps, found = engine.detect(images, np.array([[0, 0, 1, 1]], np.float32))
        engine.masks(maps, found)
        used.append(psutil.Process().memory_info().rss / 2**20)
    print(kind, *(round(one) for one in used))
    # After a third, every allocator has taken what it keeps. TensorFlow keeps about
    # 1 MiB for each graph that it ever had; a whole canvas would be 100 MiB.
    third = count // 3
    assert max(used[2 * third :]) < max(used[third : 2 * third]) + 1.9 * count
