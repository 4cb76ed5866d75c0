"""ThreadedSink: order, what is left out when a sink is slow, and whose error it is."""

import itertools
import threading

import numpy as np
import pytest

from live_seg.errors import SinkError
from live_seg.sinks import threaded
from live_seg.sinks.threaded import ThreadedSink
from live_seg.types import Frame, Image, Instances, Sink

NOTHING = Instances.empty()
IMAGE = np.zeros((4, 4, 3), np.uint8)
SIZE = 2 * IMAGE.nbytes  # of a frame and its drawn picture


class Slow(Sink):
    """Takes frames only while its gate is open, and tells when one came; fails at `fails_at`."""

    def __init__(self, fails_at: int | None = None, stops_at: int | None = None) -> None:
        self.gate, self.came = threading.Event(), threading.Event()
        self.gate.set()
        self.fails_at, self.stops_at = fails_at, stops_at
        self.told: list[int | str] = []
        self.threads: set[threading.Thread] = set()
        self.closings: list[bool] = []

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
        self.came.set()
        self.gate.wait()
        self.threads.add(threading.current_thread())
        if frame.index == self.fails_at:
            raise SinkError("boom")
        self.told.append(int(image[0, 0, 0]))
        return frame.index != self.stops_at

    def close(self, complete: bool = True) -> None:
        self.closings.append(complete)


def put(sink: Sink, *indices: int) -> list[bool]:
    """Draw each number into one and the same picture and write it."""
    canvas = IMAGE.copy()
    wanted = []
    for index in indices:
        canvas[:] = index
        wanted.append(sink.write(Frame(index, float(index), IMAGE), canvas, NOTHING))
    return wanted


def wait_for(sink: ThreadedSink) -> None:
    done = threading.Event()
    sink.call(done.set)
    done.wait()


def test_frames_and_acts_come_in_order_in_one_other_thread() -> None:
    slow = Slow()
    with ThreadedSink(slow) as sink:
        put(sink, 0, 1)
        sink.call(lambda: slow.told.append("start"))
        put(sink, 2, 3)
    assert slow.told == [0, 1, "start", 2, 3]
    assert len(slow.threads) == 1
    assert threading.current_thread() not in slow.threads
    assert (slow.closings, sink.dropped) == ([True], 0)


def test_the_caller_does_not_wait_and_what_is_too_much_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threaded, "MAX_QUEUED_BYTES", 3 * SIZE)
    slow = Slow()
    with ThreadedSink(slow) as sink:
        slow.gate.clear()
        put(sink, 0)
        slow.came.wait()
        put(sink, 1, 2, 3, 4)
        assert sink.dropped == 2
        slow.gate.set()
        wait_for(sink)
        put(sink, 5)
    assert slow.told == [0, 1, 2, 5]
    assert sink.dropped == 2


def test_a_picture_larger_than_all_that_may_wait_is_taken_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threaded, "MAX_QUEUED_BYTES", 1)
    slow = Slow()
    with ThreadedSink(slow) as sink:
        put(sink, 0)
    assert slow.told == [0]


def test_an_error_is_raised_once_by_the_next_write_and_nothing_is_written_after_it() -> None:
    slow = Slow(fails_at=1)
    sink = ThreadedSink(slow)
    put(sink, 0, 1)
    with pytest.raises(SinkError, match="boom"):
        put(sink, *itertools.repeat(2, 1_000_000))  # until the thread has come to frame 1
    put(sink, 3)
    sink.close()
    assert (slow.told, slow.closings) == ([0], [False])


def test_an_error_at_the_end_is_raised_by_closing() -> None:
    slow = Slow(fails_at=0)
    sink = ThreadedSink(slow)
    put(sink, 0)
    with pytest.raises(SinkError, match="boom"):
        sink.close()
    sink.close()
    assert slow.closings == [False]


def test_a_sink_that_asks_to_stop() -> None:
    slow = Slow(stops_at=0)
    with ThreadedSink(slow) as sink:
        put(sink, 0)
        wait_for(sink)
        assert put(sink, 1) == [False]


def test_a_failed_run_is_passed_on_and_no_thread_is_needed_without_frames() -> None:
    slow = Slow()
    with pytest.raises(ZeroDivisionError), ThreadedSink(slow):
        raise ZeroDivisionError
    assert (slow.told, slow.closings) == ([], [False])
