import ast
import itertools
import signal
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_seg.channel import Channel
from live_seg.choices import Policy
from live_seg.errors import UsageError
from live_seg.pipeline import batched
from live_seg.pipeline.batched import Pipeline
from live_seg.types import Frame, Image, Instances
from tests.interrupts import assert_interrupts_leave_nothing

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parent.parent

PATIENCE = 50
"""Seconds to wait for an event before the test fails."""


class BoomError(Exception):
    pass


def frame(index: int) -> Frame:
    return Frame(index, index / 25, np.full((2, 3, 3), index % 256, np.uint8))


def frames(count: int) -> Iterator[Frame]:
    return map(frame, range(count))


def endless() -> Iterator[Frame]:
    return map(frame, itertools.count())


def segment(images: list[Image]) -> list[Instances]:
    """Return one instance per image, whose class id identifies the image."""
    return [
        Instances(
            boxes=np.zeros((1, 4), np.float32),
            masks=np.zeros((1, 28, 28), np.float32),
            class_ids=image[0, 0, :1].astype(np.int32),
            scores=np.ones(1, np.float32),
        )
        for image in images
    ]


def collect(results: Iterable[tuple[Frame, Instances]], into: list[int]) -> None:
    """Collect the index of each frame, after checking that the instances belong to it."""
    for shown, instances in results:
        assert instances.class_ids.tolist() == [shown.index % 256]
        into.append(shown.index)


def running() -> list[str]:
    """Return the names of running pipeline threads."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("live_seg")]


def wait_for(event: Event) -> None:
    assert event.wait(PATIENCE), "timeout"


@pytest.mark.timeout(60, method="thread")  # hypothesis would retry a timeout that is an exception
@given(count=st.integers(0, 30), batch=st.integers(1, 9), policy=st.sampled_from(["all", "latest"]))
@settings(max_examples=60, deadline=None)
def test_every_frame_is_returned_once_in_order_or_counted_as_dropped(
    count: int, batch: int, policy: Policy
) -> None:
    seen: list[int] = []
    sizes: list[int] = []

    def noting_sizes(images: list[Image]) -> list[Instances]:
        sizes.append(len(images))
        return segment(images)

    with Pipeline(frames(count), noting_sizes, batch=batch, policy=policy) as results:
        collect(results, seen)

    assert seen == sorted(set(seen))
    assert len(seen) + results.dropped == count
    assert policy == "latest" or results.dropped == 0
    assert sum(sizes) == len(seen)
    assert all(1 <= size <= batch for size in sizes)
    assert count == 0 or seen[-1] == count - 1


def test_each_stage_has_its_own_thread() -> None:
    readers, workers = set(), set()

    def source() -> Iterator[Frame]:
        for index in range(9):
            readers.add(threading.current_thread())
            yield frame(index)

    def noting_thread(images: list[Image]) -> list[Instances]:
        workers.add(threading.current_thread())
        return segment(images)

    with Pipeline(source(), noting_thread, batch=2) as results:
        collect(results, [])

    assert len(readers) == len(workers) == 1
    assert len(readers | workers | {threading.current_thread()}) == 3


def test_a_batch_is_not_delayed_by_a_slow_source() -> None:
    delivered = [Event() for _ in range(3)]
    sizes = []

    def source() -> Iterator[Frame]:
        for index, done in enumerate(delivered):
            yield frame(index)
            wait_for(done)

    def noting_sizes(images: list[Image]) -> list[Instances]:
        sizes.append(len(images))
        return segment(images)

    with Pipeline(source(), noting_sizes, batch=4) as results:
        for shown, _ in results:
            delivered[shown.index].set()

    assert sizes == [1, 1, 1]


def gated(count: int, started: Event, everything_read: Event) -> Iterator[Frame]:
    """Yield `count` frames: all but the first while the first is being segmented."""
    yield frame(0)
    wait_for(started)
    yield from map(frame, range(1, count))
    everything_read.set()


def test_waiting_frames_are_segmented_as_a_batch() -> None:
    started, everything_read = Event(), Event()
    sizes = []

    def slow(images: list[Image]) -> list[Instances]:
        started.set()
        wait_for(everything_read)
        sizes.append(len(images))
        return segment(images)

    with Pipeline(gated(6, started, everything_read), slow, batch=3) as results:
        collect(results, [])

    assert sizes == [1, 3, 2]


@pytest.mark.parametrize(("batch", "expected"), [(1, [0, 9]), (2, [0, 8, 9]), (20, list(range(10)))])
def test_latest_drops_the_oldest_waiting_frames_and_counts_them(batch: int, expected: list[int]) -> None:
    started, everything_read = Event(), Event()
    seen: list[int] = []

    def slow(images: list[Image]) -> list[Instances]:
        started.set()
        wait_for(everything_read)
        return segment(images)

    source = gated(10, started, everything_read)
    with Pipeline(source, slow, batch=batch, policy="latest") as results:
        collect(results, seen)

    assert seen == expected
    assert results.dropped == 10 - len(expected)


def test_a_batch_below_one_frame_is_rejected() -> None:
    with pytest.raises(UsageError, match="at least 1 frame"):
        Pipeline([], segment, batch=0)


def test_iterating_outside_a_with_block_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="with Pipeline"):
        next(iter(Pipeline([], segment)))


def test_iteration_ends_after_leaving() -> None:
    with Pipeline(endless(), segment) as results:
        next(iter(results))
    assert list(results) == []


def broken_source() -> Iterator[Frame]:
    yield from frames(5)
    raise BoomError("the cable was pulled")


def test_an_error_of_the_source_is_raised_after_earlier_results() -> None:
    seen: list[int] = []
    with (
        pytest.raises(BoomError, match="cable") as caught,
        Pipeline(broken_source(), segment, batch=2) as results,
    ):
        collect(results, seen)
    assert seen == [0, 1, 2, 3, 4]
    assert "broken_source" in "".join(traceback.format_tb(caught.value.__traceback__))


def test_an_error_of_opening_the_source_reaches_the_caller() -> None:
    class Unopenable:
        def __iter__(self) -> Iterator[Frame]:
            raise BoomError("no such camera")

    with pytest.raises(BoomError, match="camera"), Pipeline(Unopenable(), segment) as results:
        collect(results, [])


def test_an_error_of_the_source_while_the_worker_waits_for_the_caller() -> None:
    failing = Event()
    seen = []

    def source() -> Iterator[Frame]:
        yield from frames(4)  # one with the caller, one ready, one in the worker, one waiting
        failing.set()
        raise BoomError

    def slow_caller(results: Pipeline) -> None:
        for shown, _ in results:
            wait_for(failing)
            seen.append(shown.index)

    with pytest.raises(BoomError), Pipeline(source(), segment, batch=1) as results:
        slow_caller(results)
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize("policy", ["all", "latest"])
def test_an_error_of_segment_stops_an_endless_source(policy: Policy) -> None:
    seen: list[int] = []

    def broken_segment(images: list[Image]) -> list[Instances]:
        if len(seen_by_model) >= 3:
            raise BoomError("out of memory on the card")
        seen_by_model.extend(images)
        return segment(images)

    seen_by_model: list[Image] = []
    with (
        pytest.raises(BoomError, match="card") as caught,
        Pipeline(endless(), broken_segment, batch=1, policy=policy) as results,
    ):
        collect(results, seen)
    assert len(seen) == 3
    assert "broken_segment" in "".join(traceback.format_tb(caught.value.__traceback__))


def test_the_first_error_is_raised() -> None:
    segment_failed = Event()

    def source() -> Iterator[Frame]:
        yield frame(0)
        wait_for(segment_failed)
        raise BoomError("second")

    def broken_segment(_: list[Image]) -> list[Instances]:
        segment_failed.set()
        raise BoomError("first")

    with pytest.raises(BoomError, match="first"), Pipeline(source(), broken_segment) as results:
        collect(results, [])


@pytest.mark.parametrize("error", [SystemExit, MemoryError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("stage", ["source", "segment"])
def test_errors_that_are_no_exception_are_raised_too(error: type[BaseException], stage: str) -> None:
    def fail(_: object) -> list[Instances]:
        raise error

    source = map(fail, [0]) if stage == "source" else endless()
    with pytest.raises(error), Pipeline(source, fail) as results:  # type: ignore[arg-type]
        collect(results, [])


def test_a_stop_iteration_of_segment_is_an_error() -> None:
    def exhausted(_: list[Image]) -> list[Instances]:
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"), Pipeline(endless(), exhausted) as results:
        collect(results, [])


@pytest.mark.parametrize("given", [0, 2])
def test_a_wrong_number_of_results_is_an_error_with_both_numbers(given: int) -> None:
    def miscounting(_: list[Image]) -> list[Instances]:
        return [Instances.empty()] * given

    with (
        pytest.raises(ValueError, match=f"returned {given} results for 1 images"),
        Pipeline(endless(), miscounting, batch=1) as results,
    ):
        collect(results, [])


@pytest.mark.parametrize("policy", ["all", "latest"])
def test_an_error_of_the_caller_stops_both_threads(policy: Policy) -> None:
    def write(results: Pipeline) -> None:
        for shown, _ in results:
            if shown.index >= 7:
                raise BoomError("disk full")

    with pytest.raises(BoomError, match="disk full"), Pipeline(endless(), segment, policy=policy) as results:
        write(results)
    assert not running()


@pytest.mark.parametrize("policy", ["all", "latest"])
@pytest.mark.parametrize("taken", [0, 1, 13])
def test_leaving_early_stops_both_threads(policy: Policy, taken: int) -> None:
    with Pipeline(endless(), segment, policy=policy) as results:
        assert len(list(itertools.islice(results, taken))) == taken
    assert not running()


def test_leaving_waits_for_the_running_batch() -> None:
    at_work, left = Event(), Event()
    finished = []

    def slow(images: list[Image]) -> list[Instances]:
        at_work.set()
        wait_for(left)
        finished.append(len(images))
        return segment(images)

    with Pipeline(endless(), slow):
        wait_for(at_work)
        left.set()
    assert len(finished) == 1


def test_a_thread_that_cannot_start_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def start_readers_only(thread: threading.Thread) -> None:
        if thread.name == "live_seg worker":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_readers_only)
    with pytest.raises(RuntimeError, match="new thread"), Pipeline(endless(), segment):
        pass
    assert not running()


def test_delivered_frames_are_released() -> None:
    batch = 2
    read: list[weakref.ref[Frame]] = []

    def source() -> Iterator[Frame]:
        for index in range(300):
            one = frame(index)
            read.append(weakref.ref(one))
            yield one

    with Pipeline(source(), segment, batch=batch) as results:
        alive = [sum(reference() is not None for reference in list(read)) for _ in results]

    ahead, behind = batched.BATCHES_AHEAD * batch, batched.BATCHES_BEHIND * batch
    in_the_worker, in_the_reader, in_the_loop = 2 * batch, 1, 2
    assert max(alive) <= ahead + behind + in_the_worker + in_the_reader + in_the_loop
    assert len(alive) == 300


def test_the_number_of_frames_read_ahead_is_limited() -> None:
    reads = 0

    def source() -> Iterator[Frame]:
        nonlocal reads
        for one in endless():
            reads += 1
            yield one

    started, left = Event(), Event()

    def stuck(images: list[Image]) -> list[Instances]:
        started.set()
        wait_for(left)
        return segment(images)

    with Pipeline(source(), stuck, batch=3):
        wait_for(started)
        left.set()
    assert reads <= 2 * 3 + batched.BATCHES_AHEAD * 3 + batched.BATCHES_BEHIND * 3 + 1


def test_the_end_of_a_channel_is_repeated() -> None:
    channel: Channel[int] = Channel(2)
    assert channel.put(1)
    channel.close(BoomError())
    assert channel.take(5) == [1]
    for _ in range(2):
        with pytest.raises(BoomError):
            channel.take()

    channel.abandon()
    assert channel.take() == []
    assert not channel.put(2)
    assert not channel.put(3)


def test_take_without_waiting() -> None:
    channel: Channel[int] = Channel(3)
    assert channel.take(wait=False) == []
    for item in range(3):
        channel.put(item)
    assert channel.take(2, wait=False) == [0, 1]
    assert channel.take(2, wait=False) == [2]
    channel.close(BoomError())
    with pytest.raises(BoomError):
        channel.take(wait=False)


def test_watch_is_called_while_a_channel_is_empty_and_its_error_is_raised() -> None:
    channel: Channel[int] = Channel(1)

    def watch() -> None:
        raise BoomError

    channel.watch = watch
    channel.put(1)
    assert channel.take() == [1]
    with pytest.raises(BoomError):
        channel.take()


def test_the_writer_can_wait_for_a_free_slot_before_it_produces_an_item() -> None:
    channel: Channel[int] = Channel(1)
    assert channel.ready()
    channel.put(1)
    freed = threading.Thread(target=channel.ready)
    freed.start()
    freed.join(0.05)
    assert freed.is_alive()
    assert channel.take() == [1]
    freed.join()
    channel.abandon()
    assert not channel.ready()


def test_idle_is_called_while_a_channel_is_empty() -> None:
    channel: Channel[int] = Channel(3)
    looks: list[bool] = []

    def idle() -> bool:
        looks.append(channel.put(len(looks)) if len(looks) == 2 else True)
        return True

    assert channel.take(idle=idle) == [2]
    assert len(looks) == 3
    channel.put(4)
    assert channel.take(idle=idle) == [4]
    assert len(looks) == 3
    assert channel.take(idle=lambda: False) == []
    assert channel.take() == []  # idle ended the channel


def test_drop_oldest_never_drops_an_error() -> None:
    channel: Channel[int] = Channel(1, drop_oldest=True)
    channel.put(0)
    assert channel.take() == [0]
    channel.close(BoomError())
    writer = threading.Thread(target=lambda: [channel.put(item) for item in (1, 2, 3)])
    writer.start()
    try:
        with pytest.raises(BoomError):
            list(iter(channel.take, []))
    finally:
        channel.abandon()
        writer.join()


INTERRUPTED_WAIT = """
import threading
from tests.test_pipeline import endless, segment
from live_seg.pipeline.batched import Pipeline

first_shown, stopped = threading.Event(), threading.Event()

def stuck_after_the_first(images):
    if stuck_after_the_first.calls:
        first_shown.wait()
        print("stuck", flush=True)
        stopped.wait()
    stuck_after_the_first.calls += 1
    return segment(images)

stuck_after_the_first.calls = 0
try:
    with Pipeline(endless(), stuck_after_the_first, batch=1) as results:
        try:
            for frame, instances in results:
                first_shown.set()
        finally:
            stopped.set()
except KeyboardInterrupt:
    print("interrupted,", threading.active_count(), "thread left", flush=True)
"""


def test_ctrl_c_interrupts_a_waiting_caller() -> None:
    command = [sys.executable, "-c", INTERRUPTED_WAIT]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "stuck\n"
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert said == "interrupted, 1 thread left\n"
    assert process.returncode == 0


def test_an_interrupt_at_any_moment_leaves_no_lock() -> None:
    """A queue based on threading.Condition hangs here about once in 100 interrupts."""
    assert_interrupts_leave_nothing(
        "Pipeline(endless(), lambda images: [Instances.empty()] * len(images))",
        imports="from tests.test_pipeline import Instances, Pipeline, endless",
        rounds=300,
        patience=PATIENCE,
    )


def test_the_pipeline_imports_neither_keras_nor_opencv() -> None:
    stages = {"live_seg.channel"} | {
        f"live_seg.pipeline.{name}" for name in ("stages", "batched", "keyframes")
    }
    for stage in stages:
        tree = ast.parse(Path(str(import_module(stage).__file__)).read_text())
        modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} | {
            name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
        }
        ours = {module for module in modules if module.split(".")[0] not in sys.stdlib_module_names}
        assert ours <= stages | {"live_seg.choices", "live_seg.errors", "live_seg.types"}

    heavy = {"keras", "tensorflow", "jax", "cv2"}
    imported = ", ".join(sorted(stages))
    loaded = f"import sys, {imported}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
