"""One model for several threads: common batches, equal shares, and errors that reach only their cause."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import numpy as np
import pytest

from live_seg.errors import LiveSegError
from live_seg.pipeline.shared import SharedModel
from live_seg.types import Image, Instances


def image_of(level: int) -> Image:
    return np.full((4, 4, 3), level, np.uint8)


def marked(level: int) -> Instances:
    """Return one instance whose score names the image."""
    return Instances(
        boxes=np.zeros((1, 4), np.float32),
        masks=np.zeros((1, 2, 2), np.float32),
        class_ids=np.ones(1, np.int32),
        scores=np.array([level], np.float32),
    )


class Model:
    """Stand-in that records its batches, waits for `go` before the first, and refuses images of level 99."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.go = Event(), Event()

    def __call__(self, images: list[Image]) -> list[Instances]:
        levels = [int(image[0, 0, 0]) for image in images]
        self.batches.append(levels)
        self.begun.set()
        assert self.go.wait(20)
        if 99 in levels:
            raise ValueError("level 99")
        return [marked(level) for level in levels]


def test_images_that_wait_are_segmented_in_one_batch_and_each_caller_gets_its_own() -> None:
    model = Model()
    with SharedModel(model, batch=4) as shared, ThreadPoolExecutor(6) as pool:
        first = pool.submit(shared, [image_of(1)])
        assert model.begun.wait(20)
        others = [pool.submit(shared, [image_of(level)]) for level in (2, 3, 4, 5)]
        while shared._requests.qsize() < 4:
            pass
        model.go.set()
        levels = [future.result(20)[0].scores[0] for future in [first, *others]]
    assert levels == [1, 2, 3, 4, 5]
    assert model.batches[0] == [1]
    assert sorted(model.batches[1]) == [2, 3, 4, 5]


def test_a_caller_with_several_images_gets_them_in_order_and_none_needs_none() -> None:
    model = Model()
    model.go.set()
    with SharedModel(model) as shared:
        found = shared([image_of(7), image_of(8), image_of(9)])
        assert [float(one.scores[0]) for one in found] == [7, 8, 9]


def test_an_error_reaches_the_caller_whose_image_caused_it() -> None:
    model = Model()
    with SharedModel(model, batch=3) as shared, ThreadPoolExecutor(4) as pool:
        first = pool.submit(shared, [image_of(1)])
        assert model.begun.wait(20)
        good, bad = pool.submit(shared, [image_of(2)]), pool.submit(shared, [image_of(99)])
        while shared._requests.qsize() < 2:
            pass
        model.go.set()
        assert first.result(20)[0].scores[0] == 1
        assert good.result(20)[0].scores[0] == 2
        with pytest.raises(ValueError, match="level 99"):
            bad.result(20)


def test_a_model_that_returns_too_few_results_is_refused() -> None:
    with SharedModel(lambda _: []) as shared, pytest.raises(ValueError, match="0 results for 1 images"):
        shared([image_of(1)])


def test_requests_that_wait_at_the_end_and_later_ones_raise_an_error() -> None:
    model, failed = Model(), list[BaseException]()

    def ask(shared: SharedModel) -> None:
        try:
            shared([image_of(2)])
        except LiveSegError as error:
            failed.append(error)

    shared = SharedModel(model, batch=1)
    with shared:
        busy = Thread(target=shared, args=([image_of(1)],))
        busy.start()
        assert model.begun.wait(20)
        waiting = Thread(target=ask, args=(shared,))
        waiting.start()
        while not shared._requests.qsize():
            pass
        shared._closed = True  # as at the start of leaving the block, while the model still works
        model.go.set()
    for thread in (busy, waiting):
        thread.join(20)
    ask(shared)
    assert len(failed) == 2
    assert "closed" in str(failed[0])


def test_a_request_takes_its_images_when_its_turn_comes() -> None:
    model, newest = Model(), [image_of(2)]
    with SharedModel(model, batch=4) as shared, ThreadPoolExecutor(1) as pool:
        pool.submit(shared, [image_of(1)])
        assert model.begun.wait(20)
        later, empty = shared.submit(lambda: newest), shared.submit(list)
        newest[0] = image_of(3)
        model.go.set()
        assert later.result(20)[0].scores[0] == 3
        assert empty.result(20) == []


def test_a_request_whose_images_cannot_be_taken_fails_alone() -> None:
    model = Model()
    model.go.set()

    def fails() -> list[Image]:
        raise OSError("no image")

    with SharedModel(model) as shared:
        with pytest.raises(OSError, match="no image"):
            shared.submit(fails).result(20)
        assert shared([image_of(1)])[0].scores[0] == 1


def test_requests_are_answered_in_the_order_of_their_arrival() -> None:
    model, futures = Model(), []
    with SharedModel(model, batch=2) as shared, ThreadPoolExecutor(6) as pool:
        for waiting, level in enumerate((1, 2, 3, 4, 5, 6), start=-1):
            futures.append(pool.submit(shared, [image_of(level)]))
            assert model.begun.wait(20)
            while shared._requests.qsize() <= waiting:
                pass
        model.go.set()
        assert [future.result(20)[0].scores[0] for future in futures] == [1, 2, 3, 4, 5, 6]
    assert model.batches == [[1], [2, 3], [4, 5], [6]]
