"""ThreadedSink: order, dropped frames when a sink is slow, and errors."""

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
SIZE = 2 * IMAGE.nbytes  # of a frame and its drawn image


class Slow(Sink):
    """A sink that blocks while its gate is closed, sets `came` per frame, and fails at frame `fails_at`."""

    def __init__(self, fails_at: int | None = None, stops_at: int | None = None) -> None:
        self.gate, self.came = threading.Event(), threading.Event()
        self.gate.set()
        self.fails_at, self.stops_at = fails_at, stops_at
        self.written: list[int | str] = []
        self.threads: set[threading.Thread] = set()
        self.closings: list[bool] = []

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
        self.came.set()
        self.gate.wait()
        self.threads.add(threading.current_thread())
        if frame.index == self.fails_at:
            raise SinkError("boom")
        self.written.append(int(image[0, 0, 0]))
        return frame.index != self.stops_at

    def close(self, complete: bool = True) -> None:
        self.closings.append(complete)


def write_numbers(sink: Sink, *indices: int) -> list[bool]:
    """Write one frame per number, all drawn into the same image."""
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


def test_frames_and_calls_run_in_order_in_one_other_thread() -> None:
    slow = Slow()
    with ThreadedSink(slow) as sink:
        write_numbers(sink, 0, 1)
        sink.call(lambda: slow.written.append("start"))
        write_numbers(sink, 2, 3)
    assert slow.written == [0, 1, "start", 2, 3]
    assert len(slow.threads) == 1
    assert threading.current_thread() not in slow.threads
    assert (slow.closings, sink.dropped) == ([True], 0)


def test_write_does_not_wait_and_drops_frames_when_the_queue_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threaded, "MAX_QUEUED_BYTES", 3 * SIZE)
    slow = Slow()
    with ThreadedSink(slow) as sink:
        slow.gate.clear()
        write_numbers(sink, 0)
        slow.came.wait()
        write_numbers(sink, 1, 2, 3, 4)
        assert sink.dropped == 2
        slow.gate.set()
        wait_for(sink)
        write_numbers(sink, 5)
    assert slow.written == [0, 1, 2, 5]
    assert sink.dropped == 2


def test_an_image_larger_than_the_queue_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threaded, "MAX_QUEUED_BYTES", 1)
    slow = Slow()
    with ThreadedSink(slow) as sink:
        write_numbers(sink, 0)
    assert slow.written == [0]


def test_an_error_is_raised_once_by_the_next_write_and_stops_writing() -> None:
    slow = Slow(fails_at=1)
    sink = ThreadedSink(slow)
    write_numbers(sink, 0, 1)
    with pytest.raises(SinkError, match="boom"):
        write_numbers(sink, *itertools.repeat(2, 1_000_000))  # until the thread reaches frame 1
    write_numbers(sink, 3)
    sink.close()
    assert (slow.written, slow.closings) == ([0], [False])


def test_an_error_at_the_end_is_raised_by_close() -> None:
    slow = Slow(fails_at=0)
    sink = ThreadedSink(slow)
    write_numbers(sink, 0)
    with pytest.raises(SinkError, match="boom"):
        sink.close()
    sink.close()
    assert slow.closings == [False]


def test_a_request_to_stop_is_returned() -> None:
    slow = Slow(stops_at=0)
    with ThreadedSink(slow) as sink:
        write_numbers(sink, 0)
        wait_for(sink)
        assert write_numbers(sink, 1) == [False]


def test_failure_is_passed_on_and_no_thread_starts_without_frames() -> None:
    slow = Slow()
    with pytest.raises(ZeroDivisionError), ThreadedSink(slow):
        raise ZeroDivisionError
    assert (slow.written, slow.closings) == ([], [False])
