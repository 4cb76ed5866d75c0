"""Sessions, tested with a screen that presses keys by itself."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Semaphore
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from live_seg.errors import SinkError
from live_seg.events.trigger import Trigger
from live_seg.files import read_image
from live_seg.pipeline.run import run
from live_seg.pipeline.stats import Tally
from live_seg.sinks.recorder import Recorder
from live_seg.types import Frame, Image, Instances, Sink, Source
from live_seg.ui import session as module
from live_seg.ui.controls import Controls
from live_seg.ui.hud import draw_hud
from live_seg.ui.metrics import Metrics
from live_seg.ui.session import Screen, Session
from tests.clips import decode_frames, probe
from tests.stand_ins import left_half

SIZE = (120, 160, 3)
RATE = 10


class FakeScreen(Screen):
    """Screen that presses `keys` by the index of the frame shown, and the keys `paused` while waiting."""

    def __init__(self, controls: Controls, keys: dict[int, str] | None = None, paused: str = "") -> None:
        self.controls, self.keys, self.paused = controls, keys or {}, list(paused)
        self.shown: list[tuple[int, Image]] = []
        self.extras: list[tuple[Metrics, str]] = []
        self.waits = 0

    def write(
        self,
        frame: Frame,
        image: Image,
        instances: Instances,  # noqa: ARG002
        metrics: Metrics | None = None,
        message: str = "",
    ) -> bool:
        assert metrics is not None
        canvas = image.copy()
        draw_hud(canvas, self.controls, metrics, message)
        self.shown.append((frame.index, canvas))
        self.extras.append((metrics, message))
        for key in self.keys.pop(frame.index, ""):
            self.controls.press(key)
        return not self.controls.ended

    def wait(self, seconds: float) -> bool:  # noqa: ARG002
        self.waits += 1
        if self.paused:
            self.controls.press(self.paused.pop(0))
        return not self.controls.ended

    def close(self, complete: bool = True) -> None: ...


class Written(Sink):
    def __init__(self, last: int = 10**9) -> None:
        self.frames: list[int] = []
        self.counts: list[int] = []
        self.last = last

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
        self.frames.append(frame.index)
        self.counts.append(len(instances))
        return frame.index < self.last

    def close(self, complete: bool = True) -> None: ...


def grey(index: int) -> Image:
    return np.full(SIZE, 40 + 2 * (index % 100), np.uint8)


def found(count: int, *, until: int = 10**9) -> Iterator[tuple[Frame, Instances]]:
    """Yield `count` frames with persons of score 0.9 and 0.4, from frame `until` on without."""
    for index in range(count):
        one = left_half(grey(index))
        both = one.joined(Instances(one.boxes, one.masks, one.class_ids, np.array([0.4], np.float32)))
        yield Frame(index, index / RATE, grey(index)), both if index < until else Instances.empty()


class Drawn:
    """Draw function that draws nothing and records its arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, dict[str, bool]]] = []

    def __call__(self, frame: Frame, instances: Instances, **switches: bool) -> Image:
        self.calls.append((frame.index, len(instances), switches))
        return frame.image.copy()


def run_session(
    count: int,
    keys: dict[int, str] | None = None,
    *,
    paused: str = "",
    controls: Controls | None = None,
    recorder: Recorder | None = None,
    draw: Callable[..., Image] | None = None,
    sinks: tuple[Sink, ...] = (),
    results: Iterator[tuple[Frame, Instances]] | None = None,
) -> tuple[FakeScreen, list[int], Tally]:
    """Show `count` frames. Return the screen, the indices of the frames shown, and the tally."""
    controls = controls or Controls(0.5, 0.25, hud=False)
    screen, tally = FakeScreen(controls, keys, paused), Tally()
    with Session(draw or Drawn(), controls, tally, screen=screen, recorder=recorder) as session:
        shown = [frame.index for frame in session.show(results or found(count), sinks)]
    return screen, shown, tally


class TestShowing:
    def test_every_frame_is_shown_and_written_to_every_sink(self) -> None:
        sink = Written()
        screen, shown, tally = run_session(5, sinks=(sink,))
        assert [index for index, _ in screen.shown] == shown == sink.frames == list(range(5))
        assert (tally.frames, tally.instances) == (5, 5)
        for index, image in screen.shown:
            np.testing.assert_array_equal(image, grey(index))

    def test_nothing_to_show(self) -> None:
        assert run_session(0)[1] == []

    @pytest.mark.parametrize("key", ["q", "\x1b"])
    def test_a_key_quits(self, key: str) -> None:
        assert run_session(10, {3: key})[1] == [0, 1, 2, 3]

    def test_a_sink_can_end_it(self) -> None:
        assert run_session(10, sinks=(Written(last=2),))[1] == [0, 1, 2]

    def test_the_limit_is_source_time(self) -> None:
        controls = Controls()
        session = Session(Drawn(), controls, Tally(), screen=FakeScreen(controls))
        assert [frame.index for frame in session.show(found(10), limit=0.35)] == [0, 1, 2, 3]

    def test_without_a_screen(self) -> None:
        sink = Written()
        with Session(Drawn(), Controls(0.5), Tally()) as session:
            assert len(list(session.show(found(4), [sink]))) == 4
        assert sink.counts == [1, 1, 1, 1]

    def test_transparent_images_are_blended_onto_grey(self) -> None:
        def cut(frame: Frame, *_: object, **__: bool) -> Image:
            alpha = np.zeros((*SIZE[:2], 1), np.uint8)
            alpha[:, 80:] = 255
            return np.concatenate([frame.image, alpha], axis=2)

        screen, _, _ = run_session(1, draw=cut)
        assert np.all(screen.shown[0][1][:, :80] == module.BACKDROP)
        assert np.all(screen.shown[0][1][:, 80:] == 40)


class TestSwitches:
    def test_masks_boxes_and_labels(self) -> None:
        drawn = Drawn()
        run_session(5, {0: "m", 1: "b", 2: "l", 3: "mbl"}, draw=drawn)
        seen = [(s["masks"], s["boxes"], s["labels"]) for _, _, s in drawn.calls]
        assert seen == [(1, 1, 1), (0, 1, 1), (0, 0, 1), (0, 0, 0), (1, 1, 1)]

    def test_the_threshold_applies_to_drawing_and_sinks(self) -> None:
        drawn, sink = Drawn(), Written()
        run_session(3, {0: "--", 1: "+++++++++++++"}, draw=drawn, sinks=(sink,))
        assert [count for _, count, _ in drawn.calls] == sink.counts == [1, 2, 0]

    def test_metrics_and_help_are_not_recorded(self, tmp_path: Path) -> None:
        recorder = Recorder(tmp_path / "a.mp4", RATE)
        screen, _, _ = run_session(
            6, {0: "h", 2: "?", 4: "?"}, controls=Controls(recording=True), recorder=recorder
        )
        changed = [int((image != grey(index)).any(axis=2).sum()) for index, image in screen.shown]
        assert [pixels > 0 for pixels in changed] == [True, False, False, True, True, False]
        only_help, (metrics, _) = Controls(hud=False), screen.extras[3]
        only_help.help = True
        expected = grey(3)
        draw_hud(expected, only_help, metrics)
        np.testing.assert_array_equal(screen.shown[3][1], expected)
        for index, image in enumerate(decode_frames(tmp_path / "a.mp4")):
            assert np.abs(image.astype(int) - grey(index)).max() < 6


class TestMetrics:
    def test_frames_delivered_and_segmented_are_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = [0.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])

        def ticking() -> Iterator[tuple[Frame, Instances]]:
            for frame, instances in found(40):
                clock[0] += 0.05
                if frame.index % 2 == 0:  # every second one of 40 is dropped
                    tally.segmented += frame.index % 8 == 0
                    yield frame, instances

        controls, tally = Controls(0.5), Tally()
        screen = FakeScreen(controls)
        list(Session(Drawn(), controls, tally, screen=screen).show(ticking()))
        last, _ = screen.extras[-1]
        assert last.camera_fps == pytest.approx(20, rel=0.1)
        assert last.network_fps == pytest.approx(2.5, rel=0.2)
        assert last.instances == 1
        assert last.recorded is None
        assert last.dropped == 18  # 19 once the last frame has been shown

    def test_a_pause_does_not_affect_the_rates(self) -> None:
        def hurrying() -> Iterator[tuple[Frame, Instances]]:
            pairs = list(found(1000))
            yield from [*pairs[:3], *pairs[990:993]]

        screen, _, _ = run_session(0, {2: " "}, paused="x ", results=hurrying())
        assert screen.extras[-3][0].camera_fps == 0  # the 987 frames in between do not count

    def test_the_recording_time(self, tmp_path: Path) -> None:
        screen, _, _ = run_session(8, {1: "r", 5: "r"}, recorder=Recorder(tmp_path / "a.mp4", RATE))
        seen = [metrics.recorded for metrics, _ in screen.extras]
        assert seen[:2] == seen[6:] == [None, None]
        assert seen[2:6] == pytest.approx([0, 0.1, 0.2, 0.3])


class TestPause:
    def test_the_frame_stays_and_keys_work(self) -> None:
        drawn = Drawn()
        screen, shown, _ = run_session(4, {1: " "}, paused="m-h ", draw=drawn)
        assert shown == [0, 1, 2, 3]
        assert screen.waits == 4
        again = [(count, switches["masks"]) for index, count, switches in drawn.calls if index == 1]
        assert again == [(1, True), (1, True), (1, False), (1, False), (1, False)]
        indicators = [(image != grey(1)).any() for index, image in screen.shown if index == 1]
        assert indicators == [False, False, False, False, True]  # h shows the pause indicator

    def test_frames_are_counted_once(self) -> None:
        sink = Written()
        _, _, tally = run_session(4, {1: " "}, paused="xxx ", sinks=(sink,))
        assert tally.frames == 4
        assert sink.frames == [0, 1, 2, 3]

    @pytest.mark.parametrize("key", ["q", "\x1b"])
    def test_keys_can_quit(self, key: str) -> None:
        assert run_session(10, {2: " "}, paused=f"x{key}")[1] == [0, 1, 2]

    def test_the_recording_time_stops(self, tmp_path: Path) -> None:
        def late() -> Iterator[tuple[Frame, Instances]]:
            for frame, instances in found(10):
                wait = 60 if frame.index > 4 else 0
                yield Frame(frame.index, frame.seconds + wait, frame.image), instances

        path = tmp_path / "a.mp4"
        controls = Controls(recording=True)
        run_session(
            0, {4: " "}, paused="x ", results=late(), controls=controls, recorder=Recorder(path, RATE)
        )
        assert probe(path).times == pytest.approx([i / RATE for i in range(10)], abs=1e-3)

    def test_a_recording_can_be_stopped(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mp4"
        recorder = Recorder(path, RATE)
        run_session(10, {4: " "}, paused="rx ", controls=Controls(recording=True), recorder=recorder)
        assert len(probe(path).times) == 5


class TestStall:
    """`idle` is called while no frame arrives."""

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        clock = [100.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        return clock

    def gone(
        self, clock: list[float], paused: str, *, recorder: Recorder | None = None
    ) -> tuple[FakeScreen, Controls, list[bool]]:
        """Show three frames, then call `idle` every half second, once for each key in `paused`."""
        controls, tally, wanted = Controls(0.5, 0.25, hud=False), Tally(), list[bool]()
        screen = FakeScreen(controls, paused=paused)

        def stalling() -> Iterator[tuple[Frame, Instances]]:
            for pair in found(3):
                clock[0] += 0.1
                yield pair
            for _ in paused:
                clock[0] += 0.5
                wanted.append(session.idle())

        with Session(Drawn(), controls, tally, screen=screen, recorder=recorder) as session:
            assert len(list(session.show(stalling()))) == tally.frames == 3
        return screen, controls, wanted

    def test_the_last_frame_is_shown_with_its_age(self, clock: list[float]) -> None:
        screen, _, _ = self.gone(clock, "x" * 6)
        assert [index for index, _ in screen.shown] == [0, 1, 2, 2, 2, 2]
        seen = [message for _, message in screen.extras]
        assert seen == [""] * 3 + [f"no frame for {seconds} s, waiting" for seconds in (2, 2, 3)]
        assert [metrics.latency for metrics, _ in screen.extras[3:]] == [None] * 3
        rates = [metrics.camera_fps for metrics, _ in screen.extras[2:]]
        assert rates == sorted(rates, reverse=True)
        assert rates[0] == pytest.approx(10)
        assert rates[-1] < 1

    def test_keys_work(self, clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        screen, controls, wanted = self.gone(clock, "mxxxxsxq")
        assert wanted == [True] * 7 + [False]
        assert controls.ended
        assert not controls.masks
        assert len(list(tmp_path.iterdir())) == 2  # the snapshot of the frame still shown
        assert [message[:5] for _, message in screen.extras[-2:]] == ["saved", "saved"]

    def test_a_recording_can_be_stopped_while_stalled(self, clock: list[float], tmp_path: Path) -> None:
        recorder = Recorder(tmp_path / "a.mp4", RATE)
        screen, controls, _ = self.gone(clock, "rxxxxrxx", recorder=recorder)
        assert [metrics.recorded is None for metrics, _ in screen.extras[3:]] == [False] * 3 + [True] * 2
        assert not controls.recording

    def test_a_pause_is_no_stall(self, clock: list[float]) -> None:
        class SlowScreen(FakeScreen):
            def wait(self, seconds: float) -> bool:
                clock[0] += 30
                return super().wait(seconds)

        def results() -> Iterator[tuple[Frame, Instances]]:
            yield from found(2)
            assert session.idle()

        controls = Controls(0.5)
        screen = SlowScreen(controls, {1: " "}, paused="x ")
        session = Session(Drawn(), controls, Tally(), screen=screen)
        list(session.show(results()))
        assert [
            (index, message) for (index, _), (_, message) in zip(screen.shown, screen.extras, strict=True)
        ] == [
            (0, ""),
            *[(1, "")] * 3,
        ]

    @pytest.mark.parametrize("live", [True, False])
    def test_the_limit_also_applies_to_the_clock(self, clock: list[float], live: bool) -> None:
        source = SimpleNamespace(live=live, started_at=None)
        session = Session(Drawn(), Controls(), Tally())

        def results() -> Iterator[tuple[Frame, Instances]]:
            clock[0] += 9
            assert session.idle()
            clock[0] += 2
            assert session.idle() != live  # a slow network is not a silent source
            assert session.starved == live
            for frame, instances in found(100):
                yield frame, instances
                clock[0] += 3
                assert session.idle() == (frame.index < 3)
                assert not session.starved

        shown = list(session.show(results(), limit=10, source=cast("Source", source)))
        assert [frame.index for frame in shown] == [0, 1, 2, 3]

    def test_a_source_that_began_is_waited_for(self, clock: list[float]) -> None:
        source = SimpleNamespace(live=True, started_at=None)
        session = Session(Drawn(), Controls(), Tally())
        list(session.show(iter(()), limit=10, source=cast("Source", source)))
        clock[0] += 11
        assert session.starved
        source.started_at = 5.0
        assert not session.starved
        assert session.idle()

    def test_the_limit_ends_a_pause(self, clock: list[float]) -> None:
        class SlowScreen(FakeScreen):
            def wait(self, seconds: float) -> bool:
                clock[0] += 3
                return super().wait(seconds)

        controls = Controls()
        screen = SlowScreen(controls, {1: " "})
        session = Session(Drawn(), controls, Tally(), screen=screen)
        assert [frame.index for frame in session.show(found(100), limit=10)] == [0, 1]
        assert controls.paused
        assert screen.waits == 4

    def test_before_the_first_frame(self) -> None:
        controls = Controls()
        screen = FakeScreen(controls, paused="xq")
        session = Session(Drawn(), controls, Tally(), screen=screen)
        assert session.idle()
        assert not session.idle()
        assert screen.shown == []

    def test_without_a_screen(self) -> None:
        assert Session(Drawn(), Controls(), Tally()).idle()


class TestSnapshot:
    def test_two_files_in_the_current_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

        def draw(frame: Frame, *_: object, **__: bool) -> Image:
            return 255 - frame.image

        screen, _, _ = run_session(3, {0: "s"}, draw=draw)
        plain, masks = sorted(tmp_path.iterdir())
        assert masks.name == f"{plain.stem}_masks.png"
        np.testing.assert_array_equal(read_image(plain), grey(1))
        np.testing.assert_array_equal(read_image(masks), 255 - grey(1))
        seen = [(image != 255 - grey(index)).any() for index, image in screen.shown]
        assert seen == [False, True, True]  # the message is shown for a while

    def test_a_failure_is_reported_and_the_session_continues(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_: object) -> None:
            raise SinkError("The disk is full.")

        monkeypatch.setattr(module, "save_snapshot", fail)
        screen, shown, _ = run_session(3, {0: "s"})
        assert len(shown) == 3
        assert (screen.shown[1][1] != grey(1)).any()
        assert caplog.messages == ["The disk is full."]


class Broken(Recorder):
    """Recorder whose encoder fails at the second frame of each recording while `broken`."""

    broken = True

    def _record(self, seconds: float, image: Image) -> None:
        if self.broken and self._clip is not None:
            self._fail(SinkError("The encoder broke."))
        else:
            super()._record(seconds, image)


class TestRecording:
    def test_a_key_starts_and_stops_it(self, tmp_path: Path) -> None:
        recorder = Recorder(tmp_path / "a.mp4", RATE)
        run_session(12, {2: "r", 6: "r", 8: "r"}, recorder=recorder)
        first, second = recorder.written
        for path, indexes in ((first, range(3, 7)), (second, range(9, 12))):
            assert probe(path).times == pytest.approx([i / RATE for i in range(len(indexes))], abs=1e-3)
            for image, index in zip(decode_frames(path), indexes, strict=True):
                assert np.abs(image.astype(int) - grey(index)).max() < 6

    def test_its_end_names_the_file(self, tmp_path: Path) -> None:
        recorder = Recorder(tmp_path / "a.mp4", RATE)

        def until_complete() -> Iterator[tuple[Frame, Instances]]:
            for frame, instances in found(9):
                while frame.index == 8 and not recorder.written:
                    time.sleep(0.01)
                yield frame, instances

        screen, _, _ = run_session(9, {2: "r", 6: "r"}, recorder=recorder, results=until_complete())
        assert [message for _, message in screen.extras][-1] == "saved a.mp4"

    def test_the_controls_follow_a_trigger(self, tmp_path: Path) -> None:
        controls = Controls()
        lit: list[bool] = []
        recorder = Recorder(tmp_path / "a.mp4", RATE, trigger=Trigger(frozenset({1}), pre=0, post=0.2))
        screen, tally = FakeScreen(controls), Tally()
        with Session(Drawn(), controls, tally, screen=screen, recorder=recorder) as session:
            for _ in session.show(found(10, until=3)):
                settle(session)
                lit.append(controls.recording)
        assert lit == [False, *[True] * 5, *[False] * 4]
        assert len(probe(recorder.written[0]).times) == 5

    def test_a_key_stops_a_triggered_recording(self, tmp_path: Path) -> None:
        controls = Controls()
        recorder = Recorder(tmp_path / "a.mp4", RATE, trigger=Trigger(frozenset({1}), pre=0, post=5))
        with Session(
            Drawn(), controls, Tally(), screen=FakeScreen(controls, {4: "r"}), recorder=recorder
        ) as session:
            for _ in session.show(found(10)):
                settle(session)
        assert [len(probe(path).times) for path in recorder.written] == [5]
        assert not controls.recording

    def test_a_failed_recording_does_not_end_the_session(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        controls = Controls(recording=True)
        recorder = Broken(tmp_path / "a.mp4", RATE)
        seen: list[bool] = []
        screen = FakeScreen(controls)
        session = Session(Drawn(), controls, Tally(), screen=screen, recorder=recorder)
        for frame in session.show(found(12)):
            settle(session)
            seen.append(controls.recording)
            if frame.index == 6:
                recorder.broken = False
                controls.press("r")
        with pytest.raises(SinkError, match=r"A recording failed: The encoder broke\."):
            session.close()
        assert seen == [True, True, *[False] * 5, *[True] * 5]
        assert caplog.messages[0] == "A recording failed. The session continues. The encoder broke."
        assert len(recorder.written) == 1

    def test_a_failed_recording_hides_no_other_error(self, tmp_path: Path) -> None:
        controls = Controls(recording=True)

        def failing() -> Iterator[tuple[Frame, Instances]]:
            yield from found(5)
            raise ZeroDivisionError("no such number")

        with pytest.raises(ZeroDivisionError):
            run_session(0, results=failing(), controls=controls, recorder=Broken(tmp_path / "a.mp4", RATE))

    def test_missing_frames_are_logged(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("live_seg.sinks.threaded.MAX_QUEUED_BYTES", 1)
        gate = Event()

        class Slow(Recorder):
            def write(self, frame: Frame, image: Image, instances: Instances) -> bool:
                gate.wait()
                return super().write(frame, image, instances)

        recorder = Slow(tmp_path / "a.mp4", RATE)
        controls = Controls(recording=True)
        with Session(Drawn(), controls, Tally(), recorder=recorder) as session:
            for _ in session.show(found(6)):
                pass
            gate.set()
        assert caplog.messages == [
            "The recording lacks 5 frames because its encoder was too slow for the source."
        ]


def settle(session: Session) -> None:
    """Wait until the recorder's thread has finished all its calls."""
    done = Event()
    recording = session._recording
    assert recording is not None
    recording._thread.call(done.set)
    assert done.wait(30)


class Paced(Source):
    """Live source that delivers the next frame once `shown` is released."""

    live = True
    name, fps, size = "paced", 30.0, (160, 120)

    def __init__(self, count: int) -> None:
        self.count, self.shown = count, Semaphore(2)

    def __iter__(self) -> Iterator[Frame]:
        noise = np.random.default_rng(0).integers(0, 255, SIZE, np.uint8)
        for index in range(self.count):
            self.shown.acquire()
            yield Frame(index, index / 30, noise)

    def close(self) -> None:
        self.shown.release(self.count)


def test_a_network_that_takes_two_and_a_half_seconds_shows_its_masks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "live_seg.propagation.propagator")
    enough, answered = Event(), Event()

    def segment(images: list[Image]) -> list[Instances]:
        assert enough.wait(60)
        answered.set()
        return [left_half(image) for image in images]

    source, controls, tally = Paced(100), Controls(), Tally()
    counts: list[int] = []

    def draw(frame: Frame, instances: Instances, **_: Any) -> Image:
        counts.append(len(instances))
        return frame.image

    session = Session(draw, controls, tally)
    for frame in session.show(run(source, segment, tally=tally)):
        if frame.index == 75:
            enough.set()
            assert answered.wait(60)
        source.shown.release()
    assert counts[:75] == [0] * 75
    assert counts[-1] == 1
    assert not [message for message in caplog.messages if "too late" in message]
