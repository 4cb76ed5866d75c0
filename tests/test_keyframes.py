"""Keyframe pipelines, tested with a network and a propagator that only identify frames."""

import itertools
import random
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator
from threading import Event, Semaphore

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_seg.errors import UsageError
from live_seg.pipeline import keyframes
from live_seg.pipeline.keyframes import LatestKeyframe, PeriodicKeyframes
from live_seg.types import Frame, Image, Instances
from tests.interrupts import assert_interrupts_leave_nothing

pytestmark = pytest.mark.timeout(60, method="thread")  # hypothesis would retry a timeout that is an exception


PATIENCE = 50
"""Seconds to wait for an event before the test fails."""


class BoomError(Exception):
    pass


def frame(index: int) -> Frame:
    """Return a frame of one pixel, whose value is its index."""
    return Frame(index, index / 25, np.array([[[index & 255, index >> 8 & 255, index >> 16]]], np.uint8))


def endless() -> Iterator[Frame]:
    return map(frame, itertools.count())


def segment(images: list[Image]) -> list[Instances]:
    """Return one instance per image, whose class id identifies the image."""
    return [found_in(int(image[0, 0] @ [1, 256, 65536])) for image in images]


def found_in(index: int) -> Instances:
    return Instances(
        boxes=np.zeros((1, 4), np.float32),
        masks=np.zeros((1, 28, 28), np.float32),
        class_ids=np.array([index], np.int32),
        scores=np.ones(1, np.float32),
    )


def origin(instances: Instances) -> int | None:
    """Return the index of the frame in which `instances` were detected, or None if there are none."""
    return int(instances.class_ids[0]) if len(instances) else None


class LastSeen:
    """Propagator that does not move instances. Checks the guarantees given to a propagator."""

    def __init__(self) -> None:
        self.now = -1
        self.skipped: set[int] = set()
        self.corrected = -1
        self.instances = Instances.empty()

    def advance(self, shown: Frame) -> Instances:
        assert shown.index > self.now
        self.skipped |= set(range(self.now + 1, shown.index))
        self.now = shown.index
        return self.instances

    def correct(self, index: int, instances: Instances) -> None:
        assert index <= self.now
        assert index not in self.skipped
        assert index > self.corrected
        assert origin(instances) == index
        self.skipped = {
            later for later in self.skipped if later > index
        }  # keeps the memory of the soak test constant
        self.corrected = index
        self.instances = instances


def as_found(instances: Instances, seconds: float) -> Instances:
    """Return `instances` unchanged. Checks that `seconds` is the time of their frame."""
    assert seconds == (origin(instances) or 0) / 25
    return instances


def newest(
    source: Iterable[Frame], model: Callable[[list[Image]], list[Instances]] = segment
) -> LatestKeyframe:
    return LatestKeyframe(source, model, LastSeen(), as_found)


def every_nth(
    source: Iterable[Frame],
    model: Callable[[list[Image]], list[Instances]] = segment,
    *,
    every: int = 3,
    batch: int = 2,
) -> PeriodicKeyframes:
    return PeriodicKeyframes(source, model, LastSeen(), as_found, every=every, batch=batch)


BOTH = pytest.mark.parametrize("kind", [newest, every_nth])
Kind = Callable[..., LatestKeyframe | PeriodicKeyframes]


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("live_seg")]


def wait_for(event: Event) -> None:
    assert event.wait(PATIENCE), "what was waited for never happened"


class Paced:
    """Camera that delivers the next frame when `take` is called, so that none is dropped."""

    def __init__(self) -> None:
        self._wanted = Semaphore(1)

    def __iter__(self) -> Iterator[Frame]:
        for one in endless():
            assert self._wanted.acquire(timeout=PATIENCE)
            yield one

    def take(self) -> None:
        self._wanted.release()


class Stuck:
    """Network that blocks on each image until `go_on` is released."""

    def __init__(self) -> None:
        self.begun = Semaphore(0)
        self.go_on = Semaphore(0)
        self.seen: list[int] = []

    def __call__(self, images: list[Image]) -> list[Instances]:
        results = segment(images)
        self.seen += [origin(result) or 0 for result in results]
        self.begun.release()
        assert self.go_on.acquire(timeout=PATIENCE)
        return results


def test_every_frame_is_returned_while_the_network_is_blocked() -> None:
    camera, model = Paced(), Stuck()
    shown = []
    with newest(camera, model) as results:
        for one, instances in itertools.islice(results, 50):
            shown.append((one.index, origin(instances)))
            if one.index == 0:
                assert model.begun.acquire(timeout=PATIENCE)  # otherwise a newer frame would replace 0
            camera.take()
        model.go_on.release()
        camera.take()  # the reader waits for it
    assert shown == [(index, None) for index in range(50)]
    assert results.dropped == 0
    assert model.seen == [0]


def test_a_result_is_propagated_from_its_frame_and_the_newest_is_segmented_next() -> None:
    camera, model = Paced(), Stuck()
    origins: list[int | None] = []
    with newest(camera, model) as results:
        for one, instances in results:
            if one.index == 0:
                assert model.begun.acquire(timeout=PATIENCE)  # otherwise a newer frame would replace 0
            if one.index == 9:
                model.go_on.release()  # with frame 0
                assert model.begun.acquire(timeout=PATIENCE)  # with the next
            origins.append(origin(instances))
            if origins[-1] is not None:
                break
            camera.take()
        model.go_on.release()
        camera.take()
    assert origins == [None] * 10 + [0]
    assert model.seen[:2] == [0, 9]


def test_a_slow_caller_misses_the_oldest_frames_only() -> None:
    everything_read = Event()

    def camera() -> Iterator[Frame]:
        yield from map(frame, range(10))
        everything_read.set()

    shown = []
    with newest(camera()) as results:
        for one, _ in results:
            wait_for(everything_read)
            shown.append(one.index)
    assert shown[-2:] == [8, 9]
    assert len(shown) <= 3
    assert len(shown) + results.dropped == 10


@given(count=st.integers(0, 40), behind=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_every_frame_is_returned_or_counted_as_dropped(count: int, behind: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keyframes, "FRAMES_BEHIND", behind)
        with newest(map(frame, range(count))) as results:
            shown = [one.index for one, _ in results]
    assert shown == sorted(set(shown))
    assert len(shown) + results.dropped == count
    assert count == 0 or shown[-1] == count - 1


def test_an_error_of_the_network_is_raised_before_the_next_frame() -> None:
    noticed = Event()

    def silent_camera() -> Iterator[Frame]:
        yield frame(0)
        wait_for(noticed)

    def fail(_: list[Image]) -> list[Instances]:
        raise BoomError("out of memory on the card")

    with newest(silent_camera(), fail) as results:
        with pytest.raises(BoomError, match="card") as caught:
            list(results)
        noticed.set()
    assert "fail" in "".join(traceback.format_tb(caught.value.__traceback__))


def test_a_result_after_the_end_is_discarded() -> None:
    model = Stuck()
    with newest(map(frame, range(2)), model) as results:
        assert [origin(instances) for _, instances in results] == [None, None]
        model.go_on.release(2)


def soak(frames: int, patience: float) -> tuple[int, LatestKeyframe, list[float]]:
    """Run `frames` frames with random delays. Return frames shown, the pipeline, and MB at each tenth."""
    rng = random.Random(0)
    memory: list[float] = []
    shown = 0

    def delayed(one: Frame) -> Frame:
        if rng.random() < 0.1:
            time.sleep(rng.random() * patience)
        return one

    def slow(images: list[Image]) -> list[Instances]:
        time.sleep(rng.random() * 10 * patience)
        return segment(images)

    with newest(map(delayed, map(frame, range(frames))), slow) as results:
        for one, _ in results:
            shown += 1
            if rng.random() < 0.02:
                time.sleep(rng.random() * 2 * patience)
            if one.index * 10 // frames >= len(memory):
                memory.append(psutil.Process().memory_info().rss / 1e6)
            waiting = [channel._items.qsize() for channel in results._channels]
            assert all(found <= most for found, most in zip(waiting, (3, 2, 2), strict=True)), waiting
    return shown, results, memory


def test_a_short_soak() -> None:
    shown, results, _ = soak(4000, 0.002)
    assert shown + results.dropped == 4000
    assert not running()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_soak() -> None:
    shown, results, memory = soak(100_000, 0.004)
    print(f"\n{shown} shown, {results.dropped} dropped; MB: {[round(used, 1) for used in memory]}")
    assert shown + results.dropped == 100_000
    assert memory[-1] - memory[0] < 5


@given(count=st.integers(0, 40), every=st.integers(1, 9), batch=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_every_nth_frame_is_segmented_and_propagated_to_later_ones(
    count: int, every: int, batch: int
) -> None:
    sizes: list[int] = []
    seen: list[int | None] = []

    def noting(images: list[Image]) -> list[Instances]:
        sizes.append(len(images))
        results = segment(images)
        seen.extend(map(origin, results))
        return results

    with every_nth(map(frame, range(count)), noting, every=every, batch=batch) as results:
        shown = [(one.index, origin(instances)) for one, instances in results]

    assert shown == [(index, index - index % every) for index in range(count)]
    assert seen == list(range(0, count, every))
    assert all(1 <= size <= batch for size in sizes)


def test_waiting_keyframes_are_segmented_as_a_batch() -> None:
    first, everything_read = Event(), Event()
    sizes = []

    def source() -> Iterator[Frame]:
        yield frame(0)
        wait_for(first)
        yield from map(frame, range(1, 7))
        everything_read.set()

    def slow(images: list[Image]) -> list[Instances]:
        first.set()
        wait_for(everything_read)
        sizes.append(len(images))
        return segment(images)

    with every_nth(source(), slow, every=2, batch=2) as results:
        assert len(list(results)) == 7
    assert sizes == [1, 2, 1]


def test_the_number_of_frames_read_ahead_is_limited_for_any_n() -> None:
    reads = 0
    model = Stuck()

    def source() -> Iterator[Frame]:
        nonlocal reads
        for one in endless():
            reads += 1
            yield one

    with every_nth(source(), model, every=1000, batch=8):
        assert model.begun.acquire(timeout=PATIENCE)
        model.go_on.release(2)
    assert reads <= keyframes.FRAMES_AHEAD + 2


def test_an_error_of_the_network_is_raised_after_all_earlier_frames() -> None:
    def fail_at_six(images: list[Image]) -> list[Instances]:
        if origin(segment(images)[0]) == 6:
            raise BoomError("out of memory on the card")
        return segment(images)

    with every_nth(endless(), fail_at_six, batch=1) as results:
        handed_on = iter(results)
        assert [next(handed_on)[0].index for _ in range(6)] == [0, 1, 2, 3, 4, 5]
        with pytest.raises(BoomError, match="card"):
            next(handed_on)


@pytest.mark.parametrize(("every", "batch"), [(0, 1), (-1, 1), (1, 0)])
def test_every_and_batch_below_one_are_rejected(every: int, batch: int) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        every_nth([], every=every, batch=batch)


@BOTH
def test_an_error_of_the_source_is_raised_after_waiting_frames(kind: Kind) -> None:
    def broken() -> Iterator[Frame]:
        yield from map(frame, range(2))  # both may wait for the caller
        raise BoomError("the cable was pulled")

    shown: list[int] = []
    with kind(broken()) as results:
        handed_on = iter(results)
        shown.extend(next(handed_on)[0].index for _ in range(2))
        with pytest.raises(BoomError, match="cable") as caught:
            next(handed_on)
    assert shown == [0, 1]
    assert "broken" in "".join(traceback.format_tb(caught.value.__traceback__))


@BOTH
@pytest.mark.parametrize("error", [BoomError, SystemExit, MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("stage", ["source", "segment"])
def test_errors_of_every_kind_are_raised(kind: Kind, error: type[BaseException], stage: str) -> None:
    def fail(_: object) -> list[Instances]:
        raise error

    results = kind(map(fail, [0])) if stage == "source" else kind(endless(), fail)
    with pytest.raises(error), results:
        for _ in results:
            pass
    assert not running()


@BOTH
@pytest.mark.parametrize("surplus", [-1, 1])
def test_a_wrong_number_of_results_is_an_error(kind: Kind, surplus: int) -> None:
    def miscounting(images: list[Image]) -> list[Instances]:
        return [found_in(0)] * (len(images) + surplus)

    with (
        pytest.raises(ValueError, match=r"returned \d results for \d"),
        kind(endless(), miscounting) as results,
    ):
        for _ in results:
            pass


@BOTH
@pytest.mark.parametrize("step", ["advance", "correct", "identify"])
def test_an_error_in_the_callers_loop_stops_both_threads(kind: Kind, step: str) -> None:
    class Broken(LastSeen):
        def advance(self, shown: Frame) -> Instances:
            if step == "advance" and shown.index >= 4:
                raise BoomError(step)
            return super().advance(shown)

        def correct(self, index: int, instances: Instances) -> None:
            if step == "correct" and index >= 4:
                raise BoomError(step)
            super().correct(index, instances)

    def identify(instances: Instances, seconds: float) -> Instances:
        if step == "identify" and seconds > 0.1:
            raise BoomError(step)
        return instances

    results = kind(endless())
    results._propagator, results._identify = Broken(), identify
    with pytest.raises(BoomError, match=step), results:
        for _ in results:
            pass
    assert not running()


@BOTH
@pytest.mark.parametrize("taken", [0, 1, 20])
def test_leaving_early_stops_both_threads_and_ends_iteration(kind: Kind, taken: int) -> None:
    with kind(endless()) as results:
        assert len(list(itertools.islice(results, taken))) == taken
    assert not running()
    assert list(results) == []


@BOTH
def test_iterating_outside_a_with_block_is_an_error(kind: Kind) -> None:
    results = kind([])
    with pytest.raises(RuntimeError, match=f"with {type(results).__name__}"):
        next(iter(results))


@BOTH
def test_returned_frames_are_released(kind: Kind) -> None:
    read: list[weakref.ref[Frame]] = []

    def source() -> Iterator[Frame]:
        for one in itertools.islice(endless(), 400):
            read.append(weakref.ref(one))
            yield one

    with kind(source()) as results:
        alive = [sum(reference() is not None for reference in list(read)) for _ in results]
    # Frames in the channels, in the reader, the worker (two batches) and the loop, and in waiting results.
    assert max(alive) <= (12 + 4 + 4 if kind is every_nth else keyframes.FRAMES_BEHIND + 8)


def test_an_interrupt_at_any_moment_leaves_no_lock() -> None:
    assert_interrupts_leave_nothing(
        "(newest if count % 2 else every_nth)(endless())",
        imports="from tests.test_keyframes import endless, every_nth, newest",
        rounds=100,
        patience=PATIENCE,
    )
