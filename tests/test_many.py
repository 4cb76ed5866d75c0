"""Several sources with one model: order, batches, fairness, ends and faults."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

import live_seg
from live_seg.errors import SourceError, UsageError
from live_seg.pipeline import many
from live_seg.pipeline.many import SharedKeyframes
from live_seg.pipeline.run_many import joined, run_many
from live_seg.sources import lane as lanes
from live_seg.types import Frame, Image, Instances, Source
from tests.live import FakeCapture, Sender, StuckCapture, put_captures
from tests.stand_ins import StandIn, left_half


class Clip(Source):
    """Frames of one grey level, live at `rate` per second; fails at frame `fails`."""

    live = True

    def __init__(self, level: int, frames: int = 40, rate: float = 100.0, fails: int = -1) -> None:
        self.name, self.fps, self.size = f"clip {level}", rate, (32, 24)
        self.level, self.count, self.fails = level, frames, fails
        self.closed = False
        self.sent = 0

    def __iter__(self) -> Iterator[Frame]:
        self.started_at = time.monotonic()
        for index in range(self.count):
            if index == self.fails:
                raise SourceError(f"{self.name} broke.")
            time.sleep(1 / self.fps)
            self.sent += 1
            yield Frame(index, index / self.fps, np.full((24, 32, 3), self.level, np.uint8))

    def close(self) -> None:
        self.closed = True


class Saturated(StandIn):
    """Returns once a new frame of each of `count` sources has been yielded, so that all wait for it again."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.levels: Counter[int] = Counter()
        self.count, self.fresh = count, Counter[int]()
        self.ready, self.lock, self.done = threading.Event(), threading.Lock(), False

    def __call__(self, images: list[Image]) -> list[Instances]:
        self.levels.update(int(image[0, 0, 0]) for image in images)
        with self.lock:
            self.fresh.clear()
            self.ready.clear()
        if not self.done:
            self.ready.wait()
        return super().__call__(images)

    def yielded(self, position: int) -> None:
        with self.lock:
            self.fresh[position] += 1
            # The first one may have been taken between its offer to the worker and here.
            if len(self.fresh) == self.count and min(self.fresh.values()) >= 2:
                self.ready.set()

    def end(self) -> None:
        self.done = True
        self.ready.set()


def test_every_source_is_yielded_in_order_with_its_own_instances() -> None:
    sources = [Clip(10), Clip(20), Clip(30)]
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    tracked = set()
    for position, frame, instances in run_many(sources, StandIn()):
        assert int(frame.image[0, 0, 0]) == 10 * (position + 1)
        seen[position].append(frame.index)
        tracked |= {(position, instances.confirmed_id(i)) for i in range(len(instances))}
    for indices in seen.values():
        assert indices == sorted(indices)
        assert indices[-1] == 39
    assert tracked >= {(0, 1), (1, 1), (2, 1)}
    assert all(source.closed for source in sources)


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_a_busy_network_serves_all_sources_equally(batch: int) -> None:
    """Also where a batch holds fewer frames than there are sources, and their rates differ."""
    segment = Saturated(3)
    sources = [Clip(10 * i, frames=10**6, rate=100.0 * i) for i in (1, 2, 3)]
    with contextlib.closing(run_many(sources, segment, batch=batch)) as results:
        for position, _, _ in results:
            segment.yielded(position)
            if len(segment.batches) == 7:
                break
        segment.end()
    assert max(segment.levels.values()) - min(segment.levels.values()) <= 2
    assert set(segment.batches[1:7]) == {min(batch, 3)}


def test_sources_that_share_little_time_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then only segmented frames are yielded, of all sources in turn."""
    monkeypatch.setattr(many, "LOOP_SHARE", 1e-6)
    shown = Counter[int]()
    sources = [Clip(10 * i, frames=10**6, rate=200.0) for i in (1, 2, 3)]
    with contextlib.closing(run_many(sources, StandIn())) as results:
        for position, _, _ in results:
            shown[position] += 1
            if shown.total() == 30:
                break
            before = [source.sent for source in sources]
            while any(source.sent < sent + 2 for source, sent in zip(sources, before, strict=True)):
                time.sleep(0.001)
    assert min(shown[position] for position in range(3)) >= 9


def test_frames_between_segmented_ones_are_left_out_when_time_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(many, "LOOP_SHARE", 1e-6)
    sources, answer = (
        [Clip(10, frames=10**6, rate=500.0), Clip(20, frames=10**6, rate=500.0)],
        threading.Event(),
    )

    def slow(images: list[Image]) -> list[Instances]:
        answer.wait()
        return left_halves(images)

    def idle() -> bool:
        enough = min(source.sent for source in sources) >= 50
        if enough:
            answer.set()
        return not enough

    shown = Counter(position for position, _, _ in run_many(sources, slow, idle=idle))
    assert max(shown.values()) <= 4


def test_a_file_that_is_read_too_slowly_plays_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames do not get later and later."""
    monkeypatch.setattr(lanes, "MAX_DELAY", 0.01)
    began = time.monotonic()

    def slow() -> Iterator[Frame]:
        for index in range(3):
            time.sleep(0.05)
            yield Frame(index, 0.0, np.zeros((24, 32, 3), np.uint8))

    (member,) = joined([slow()], live_seg.open_source)
    with SharedKeyframes([member], StandIn()) as results:
        assert len(list(results)) == 3
    assert member.lane.started_at is not None
    assert member.lane.started_at > began + 0.14


def test_a_source_that_fails_disturbs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    last: dict[int, int] = {}
    results = run_many([Clip(10), Clip(20, fails=3), Clip(30)], StandIn())
    with pytest.raises(SourceError, match="clip 20 broke"):
        last.update((position, frame.index) for position, frame, _ in results)
    assert last == {0: 39, 1: 2, 2: 39}
    assert caplog.messages == ["clip 20 ends. clip 20 broke."]


def test_a_source_that_cannot_be_opened_disturbs_no_other() -> None:
    seen: list[int] = []
    with pytest.raises(SourceError, match=r"nowhere.mp4"):
        seen.extend(position for position, _, _ in run_many(["nowhere.mp4", Clip(10)], StandIn()))
    assert set(seen) == {1}


def test_a_stream_that_comes_later_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "RETRY_DELAYS", (0.01,))
    attempts: list[object] = []

    def opening(spec: object) -> Source:
        attempts.append(spec)
        if len(attempts) < 4:
            raise SourceError("It is not there.")
        return Clip(10)

    positions = [position for position, _, _ in run_many(["tcp://host"], StandIn(), opening=opening)]
    assert positions
    assert attempts == ["tcp://host"] * 4


@pytest.mark.timeout(60)
def test_a_lost_stream_comes_back_and_a_stuck_camera_disturbs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("live_seg.sources.live.RETRY_DELAYS", (0.05,))
    monkeypatch.setattr("live_seg.sources.live.CLOSE_TIMEOUT", 0.05)
    stuck, sender = StuckCapture(), Sender(b"")
    monkeypatch.setattr("live_seg.sources.cameras.open_capture", lambda *_: stuck)
    frames: Counter[int] = Counter()
    with contextlib.closing(run_many([f"tcp://127.0.0.1:{sender.port}", 0], StandIn())) as results:
        for position, _, _ in results:
            frames[position] += 1
            if frames[0] == 5:
                sender.kill()
            if len(sender.senders) == 2 and frames[0] > 15:
                break
    stuck.ready.set()
    sender.end()
    assert frames[1] == 0


def test_an_error_of_the_model_is_raised_and_all_is_closed() -> None:
    def fails(_: list[Image]) -> list[Instances]:
        raise ZeroDivisionError("no such number")

    sources = [Clip(10, frames=10**6), Clip(20, frames=10**6)]
    with pytest.raises(ZeroDivisionError):
        list(run_many(sources, fails))
    assert all(source.closed for source in sources)
    assert "live_seg worker" not in [thread.name for thread in threading.enumerate()]


def test_a_wrong_number_of_results_is_an_error() -> None:
    with pytest.raises(ValueError, match="returned 0 results"):
        list(run_many([Clip(10, frames=10**6)], lambda _: []))


def test_idle_ends_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = StuckCapture()
    put_captures(monkeypatch, stuck)
    monkeypatch.setattr("live_seg.sources.live.CLOSE_TIMEOUT", 0.05)
    monkeypatch.setattr(lanes, "CLOSE_TIMEOUT", 0.05)
    calls: list[int] = []

    def idle() -> bool:
        calls.append(1)
        return len(calls) < 3

    assert list(run_many([0], StandIn(), idle=idle)) == []
    assert len(calls) == 3
    stuck.ready.set()


def test_cameras_and_images_may_be_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    put_captures(monkeypatch, FakeCapture(10))
    pictures = [np.full((24, 32, 3), 7, np.uint8)] * 5
    frames: Counter[int] = Counter()
    with pytest.raises(SourceError, match="stopped delivering"):
        frames.update(position for position, _, _ in live_seg.run_many([0, pictures], left_halves))
    assert set(frames) == {0, 1}


def left_halves(images: list[Image]) -> list[Instances]:
    return [left_half(image) for image in images]


def test_images_play_at_their_own_speed() -> None:
    frames = [Frame(i, i / 20, np.zeros((24, 32, 3), np.uint8)) for i in range(5)]
    began = time.monotonic()
    assert [frame.index for _, frame, _ in run_many([frames], StandIn())] == list(range(5))
    assert time.monotonic() - began >= 0.2


def test_usage() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        list(run_many([Clip(10)], StandIn(), batch=0))
    with pytest.raises(UsageError, match="a source"):
        SharedKeyframes([], StandIn())
