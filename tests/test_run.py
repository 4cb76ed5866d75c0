"""The run loop, tested with stand-ins for sources, network and sinks."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_seg.errors import SinkError, SourceError, UsageError
from live_seg.pipeline import run as run_module
from live_seg.pipeline.run import run, show
from live_seg.pipeline.stats import Latency, Tally
from live_seg.sources import cameras
from live_seg.types import Frame, Image, Instances, Sink, Source
from tests.clips import clip, variable_clip
from tests.stand_ins import StandIn, left_half


def frame(index: int, seconds: float | None = None) -> Frame:
    return Frame(index, index / 10 if seconds is None else seconds, np.full((12, 16, 3), index, np.uint8))


class Row(Source):
    """Source of `count` frames that records whether it was closed."""

    name = "a row"
    fps = 10.0
    size = (16, 12)

    def __init__(self, count: int, *, live: bool = False) -> None:
        self.frames = count
        self.live = live
        self.closed = False
        self.given = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.frames or 0):
            yield frame(index)
        self.given.set()

    def close(self) -> None:
        self.closed = True


class Silent(Row):
    """Source that delivers one frame, then nothing until it is closed."""

    was_closed = False

    def __init__(self, *, live: bool = True) -> None:
        super().__init__(1, live=live)
        self.closing = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        yield frame(0)
        self.was_closed = self.closing.wait(20)

    def close(self) -> None:
        self.closing.set()


class WaitsFor(StandIn):
    """Network that finishes its first batch after `source` has delivered its last frame."""

    def __init__(self, source: Row) -> None:
        super().__init__()
        self.source = source

    def __call__(self, images: list[Image]) -> list[Instances]:
        assert self.source.given.wait(20)
        return super().__call__(images)


class Jittering(StandIn):
    """Network whose box is two pixels wider in every second image."""

    def __call__(self, images: list[Image]) -> list[Instances]:
        found = super().__call__(images)
        for image, instances in zip(images, found, strict=True):
            instances.boxes[0, 2] += 2 * (image[0, 0, 0] % 2)
        return found


class Notes(Sink):
    """Sink that records its frames and requests a stop at frame `until`."""

    def __init__(self, until: int = -1) -> None:
        self.until = until
        self.noted: list[tuple[int, int, int]] = []

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:
        self.noted.append((frame.index, int(image[0, 0, 0]), len(instances)))
        return frame.index != self.until

    def close(self, complete: bool = True) -> None:  # noqa: ARG002
        raise AssertionError("sinks are closed by their owner")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Source]:
    """Return the list of sources that `run` opens itself."""
    seen: list[Source] = []

    def open_source(spec: str | int | Path) -> Source:
        assert spec == "a row"
        seen.append(Row(5))
        return seen[-1]

    monkeypatch.setattr(run_module, "open_source", open_source)
    return seen


class TestRun:
    def test_every_frame_is_yielded_with_its_instances(self) -> None:
        results = list(run(Row(5), StandIn()))
        assert [f.index for f, _ in results] == [0, 1, 2, 3, 4]
        for f, instances in results:
            assert f.image[0, 0, 0] == f.index
            assert instances.boxes.tolist() == left_half(f.image).boxes.tolist()

    def test_track_ids_persist(self) -> None:
        tracked = [instances for _, instances in run(Row(3), StandIn())]
        assert [None if i.track_ids is None else i.track_ids.tolist() for i in tracked] == [[1], [1], [1]]
        assert [None if i.confirmed is None else i.confirmed.tolist() for i in tracked] == [
            [False],
            [True],
            [True],
        ]

    def test_smoothing_reduces_jitter(self) -> None:
        spans = []
        for smooth in (None, 0.5):
            edges = [found.boxes[0, 2] for _, found in run(Row(20), Jittering(), smooth=smooth)][10:]
            spans.append(max(edges) - min(edges))
        assert spans[0] == 2
        assert spans[1] < 1

    def test_without_tracking_there_are_no_ids(self) -> None:
        assert [instances.track_ids for _, instances in run(Row(2), StandIn(), track=False)] == [None, None]

    @pytest.mark.parametrize("batch", [1, 3])
    def test_batches_are_limited(self, batch: int) -> None:
        segment = StandIn()
        assert len(list(run(Row(10), segment, batch=batch))) == 10
        assert sum(segment.batches) == 10
        assert max(segment.batches) <= batch

    def test_a_source_it_opened_is_closed_at_the_end(self, opened: list[Source]) -> None:
        assert len(list(run("a row", StandIn()))) == 5
        assert [isinstance(source, Row) and source.closed for source in opened] == [True]

    def test_a_source_it_opened_is_closed_on_leaving_early(self, opened: list[Source]) -> None:
        results = run("a row", StandIn())
        next(results)
        results.close()
        assert [isinstance(source, Row) and source.closed for source in opened] == [True]

    def test_a_source_it_opened_is_closed_after_an_error(self, opened: list[Source]) -> None:
        def fail(images: list[Image]) -> list[Instances]:
            raise ZeroDivisionError(len(images))

        with pytest.raises(ZeroDivisionError):
            list(run("a row", fail))
        assert [isinstance(source, Row) and source.closed for source in opened] == [True]

    def test_an_open_source_is_left_open(self) -> None:
        source = Row(3)
        list(run(source, StandIn()))
        assert not source.closed

    @pytest.mark.parametrize("propagate", [True, False])
    def test_leaving_does_not_wait_for_a_silent_camera(self, propagate: bool) -> None:
        source = Silent()
        results = run(source, StandIn(), propagate=propagate)
        assert next(results)[0].index == 0
        results.close()
        assert source.was_closed

    @pytest.mark.parametrize("propagate", [True, False])
    def test_idle_can_end_the_wait_for_a_silent_camera(self, propagate: bool) -> None:
        source, looks = Silent(), itertools.count(1)
        seen = [
            one.index for one, _ in run(source, StandIn(), propagate=propagate, idle=lambda: next(looks) < 3)
        ]
        assert (seen, next(looks)) == ([0], 4)
        assert source.was_closed

    @pytest.mark.parametrize("every", [1, 2])
    def test_idle_can_end_the_wait_for_the_network(self, every: int) -> None:
        gate, looks = threading.Event(), itertools.count(1)

        def stuck(images: list[Image]) -> list[Instances]:
            gate.wait(20)
            return StandIn()(images)

        def idle() -> bool:
            if next(looks) < 3:
                return True
            gate.set()
            return False

        assert list(run(Row(6), stuck, every=every, idle=idle)) == []
        assert next(looks) == 4

    def test_an_error_of_idle_is_raised(self) -> None:
        def fail() -> bool:
            raise SinkError("The window is gone.")

        source = Silent()
        with pytest.raises(SinkError, match="window is gone"):
            list(run(source, StandIn(), idle=fail))
        assert source.was_closed

    def test_nothing_is_opened_before_the_first_frame_is_requested(self, opened: list[Source]) -> None:
        run("a row", StandIn())
        assert opened == []

    @pytest.mark.parametrize("kind", [str, Path])
    def test_a_real_file(self, tmp_path: Path, kind: Callable[[Path], str | Path]) -> None:
        path = variable_clip(tmp_path / "in.mp4")
        times = [f.seconds for f, _ in run(kind(path), StandIn())]
        assert len(times) == 40
        assert times[:3] == pytest.approx([0.0, 0.1, 0.2], abs=1e-3)

    def test_a_missing_source(self) -> None:
        with pytest.raises(SourceError, match=r"nowhere\.mp4"):
            next(run("nowhere.mp4", StandIn()))

    def test_a_number_is_a_camera(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[object] = []

        def none_there(target: object, *_: object) -> cv2.VideoCapture:
            asked.append(target)
            return cv2.VideoCapture()

        monkeypatch.setattr(cameras, "open_capture", none_there)
        with pytest.raises(SourceError, match="camera 3"):
            next(run(3, StandIn()))
        assert asked == [3]

    def test_a_file_waits_for_the_model(self) -> None:
        source = Row(30)
        assert [f.index for f, _ in run(source, StandIn())] == list(range(30))

    def test_a_live_source_drops_frames(self) -> None:
        source = Row(30, live=True)
        indices = [f.index for f, _ in run(source, WaitsFor(source), batch=2, propagate=False)]
        assert indices[-2:] == [28, 29]
        assert len(indices) <= 4  # at most two of the first batch, then the newest two

    def test_either_policy_can_be_chosen(self) -> None:
        source = Row(30)
        assert len(list(run(source, WaitsFor(source), batch=2, policy="latest"))) <= 4
        source = Row(30, live=True)
        assert len(list(run(source, StandIn(), policy="all"))) == 30


class TestPropagation:
    def test_every_frame_of_a_live_source_is_yielded_while_the_network_is_blocked(self) -> None:
        class Camera(Row):
            """Camera that delivers the next frame once the previous one was shown."""

            def __init__(self) -> None:
                super().__init__(30, live=True)
                self.shown = threading.Semaphore(1)

            def __iter__(self) -> Iterator[Frame]:
                for one in super().__iter__():
                    assert self.shown.acquire(timeout=20)
                    yield one

        source = Camera()
        seen = []
        for f, instances in run(source, WaitsFor(source)):
            seen.append((f.index, len(instances)))
            source.shown.release()
        assert seen[:-1] == [(index, 0) for index in range(29)]
        assert seen[-1][0] == 29  # the network may have finished by now

    def test_instances_are_propagated_with_their_ids(self) -> None:
        class Camera(Row):
            """Endless camera."""

            def __iter__(self) -> Iterator[Frame]:
                still = frame(0).image
                return (Frame(index, index / 10, still) for index in itertools.count())

        results = run(Camera(0, live=True), StandIn())
        found = next(instances for _, instances in results if len(instances))
        results.close()
        assert found.track_ids is not None
        assert found.track_ids.tolist() == [1]

    @pytest.mark.parametrize(("every", "segmented"), [(1, 10), (2, 5), (4, 3), (99, 1)])
    def test_every_nth_frame_of_a_file(self, every: int, segmented: int) -> None:
        segment, tally = StandIn(), Tally()
        results = list(run(Row(10), segment, every=every, tally=tally))
        assert [f.index for f, _ in results] == list(range(10))
        for f, found in results[::every]:
            assert found.boxes.tolist() == left_half(f.image).boxes.tolist()
            assert found.track_ids is not None
            assert found.track_ids.tolist() == [1]
        assert sum(segment.batches) == tally.segmented == segmented

    def test_results_of_a_file_are_reproducible(self, tmp_path: Path) -> None:
        path = variable_clip(tmp_path / "in.mp4")

        def boxes() -> list[object]:
            return [(f.index, f.seconds, i.boxes.tolist()) for f, i in run(path, StandIn(), every=3)]

        once = boxes()
        assert len(once) == 40
        assert once == boxes()

    @pytest.mark.parametrize("every", [0, -3])
    def test_every_below_one_is_rejected(self, every: int) -> None:
        with pytest.raises(UsageError, match="at least 1"):
            next(run(Row(3), StandIn(), every=every))

    def test_every_needs_policy_all_and_propagation(self) -> None:
        with pytest.raises(UsageError, match="policy 'all'"):
            next(run(Row(3, live=True), StandIn(), every=2))
        with pytest.raises(UsageError, match="propagation"):
            next(run(Row(3), StandIn(), every=2, propagate=False))
        assert len(list(run(Row(3, live=True), StandIn(), every=2, policy="all"))) == 3


def results_of(count: int) -> Iterator[tuple[Frame, Instances]]:
    for index in range(count):
        f = frame(index)
        yield f, left_half(f.image)


def brighter(f: Frame, instances: Instances) -> Image:
    assert len(instances) == 1
    return f.image + np.uint8(100)


class TestShow:
    def test_every_sink_gets_every_drawn_frame(self) -> None:
        sinks, tally = [Notes(), Notes()], Tally()
        shown = [f.index for f in show(results_of(3), brighter, sinks, tally)]
        assert shown == [0, 1, 2]
        assert [sink.noted for sink in sinks] == [[(0, 100, 1), (1, 101, 1), (2, 102, 1)]] * 2
        assert (tally.frames, tally.instances) == (3, 3)
        assert tally.seconds > 0
        assert tally.fps == pytest.approx(3 / tally.seconds)

    def test_no_frame(self) -> None:
        tally = Tally()
        assert list(show(results_of(0), brighter, [Notes()], tally)) == []
        assert (tally.frames, tally.instances, tally.seconds, tally.fps) == (0, 0, 0.0, 0.0)

    @pytest.mark.parametrize("asks", [0, 1])
    def test_it_ends_when_a_sink_requests_a_stop_after_all_got_the_frame(self, asks: int) -> None:
        sinks = [Notes(), Notes()]
        sinks[asks].until = 1
        tally = Tally()
        assert [f.index for f in show(results_of(5), brighter, sinks, tally)] == [0, 1]
        assert [len(sink.noted) for sink in sinks] == [2, 2]
        assert tally.frames == 2

    @pytest.mark.parametrize(("limit", "expected"), [(0.0, 0), (0.05, 1), (0.3, 3), (0.31, 4), (99.0, 5)])
    def test_the_limit_is_source_time(self, limit: float, expected: int) -> None:
        sink, tally = Notes(), Tally()
        assert len(list(show(results_of(5), brighter, [sink], tally, limit=limit))) == expected
        assert (len(sink.noted), tally.frames) == (expected, expected)

    def test_a_sink_that_fails(self) -> None:
        class Full(Notes):
            def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
                raise SinkError("No space left")

        tally = Tally()
        with pytest.raises(SinkError, match="No space"):
            list(show(results_of(2), brighter, [Full()], tally))
        assert tally.frames == 0

    def test_from_source_to_sink(self, tmp_path: Path) -> None:
        sink, tally = Notes(), Tally()
        results = run(clip(tmp_path / "in.mp4", rate="10"), StandIn())
        shown = list(show(results, lambda f, _: f.image, [sink], tally))
        assert len(shown) == len(sink.noted) == tally.frames == tally.instances == 10


@given(delays=st.lists(st.floats(0, 12), max_size=50), percent=st.floats(0.5, 100))
@settings(max_examples=60, deadline=None)
def test_latency_agrees_with_numpy(delays: list[float], percent: float) -> None:
    latency = Latency()
    for delay in delays:
        latency.add(delay)
    expected = np.percentile(delays, percent, method="inverted_cdf") if delays else 0.0
    assert latency.percentile(percent) == pytest.approx(min(expected, Latency.LONGEST), abs=0.00051)
    assert latency.last == (delays[-1] if delays else 0.0)
    assert latency.mean == pytest.approx(np.mean(delays) if delays else 0.0)


class TestTally:
    def test_frames_not_shown_are_counted_as_dropped(self) -> None:
        tally = Tally()
        some = ((f, instances) for f, instances in results_of(10) if f.index in (1, 2, 7))
        list(show(some, brighter, [], tally))
        assert (tally.frames, tally.dropped) == (3, 5)

    def test_every_frame_of_a_live_source_is_shown_or_dropped(self) -> None:
        for propagate in (True, False):
            source, tally = Row(30, live=True), Tally()
            list(
                show(
                    run(source, WaitsFor(source), propagate=propagate, tally=tally),
                    lambda f, _: f.image,
                    [],
                    tally,
                )
            )
            assert tally.frames + tally.dropped == 30
            assert 1 <= tally.segmented <= 30

    def test_latency_is_measured_from_the_capture(self) -> None:
        source, tally = Row(3, live=True), Tally()
        source.started_at = time.monotonic() - 60
        results = run(source, StandIn(), policy="all", tally=tally)
        assert len(list(show(results, lambda f, _: f.image, [], tally))) == tally.latency.count == 3
        assert tally.started_at == source.started_at
        assert 59 < tally.latency.mean < 120
        assert tally.latency.percentile(95) == Latency.LONGEST

    def test_latency_of_a_source_that_does_not_report_its_start(self) -> None:
        before, tally = time.monotonic(), Tally()
        list(run(Row(3, live=True), StandIn(), tally=tally))
        assert tally.started_at is not None
        assert before <= tally.started_at <= time.monotonic()

    def test_the_summary_of_a_file(self) -> None:
        source, tally = Row(3), Tally()
        list(show(run(source, StandIn(), tally=tally), brighter, [], tally))
        tally.seconds = 2.0
        assert tally.summary() == "3 frames in 2.0 s (1.5 fps), 3 instances"
        assert tally.latency.count == 0

    def test_the_summary_of_a_live_source(self) -> None:
        tally = Tally(frames=90, instances=180, seconds=3.0, dropped=2, segmented=15, started_at=7.0)
        for _ in range(90):
            tally.latency.add(0.04)
        assert tally.summary() == (
            "90 frames in 3.0 s (30.0 fps), 180 instances; "
            "network 5.0 fps; latency 40 ms, 95% within 40 ms; 2 dropped"
        )

    def test_the_summary_before_the_first_frame(self) -> None:
        assert Tally().summary() == "0 frames in 0.0 s (0.0 fps), 0 instances"
        assert "latency 0 ms" in Tally(started_at=1.0).summary()

    def test_the_summary_of_one_photo(self) -> None:
        summary = Tally(frames=1, instances=1, seconds=0.5).summary()
        assert summary == "1 frame in 0.5 s (2.0 fps), 1 instance"
