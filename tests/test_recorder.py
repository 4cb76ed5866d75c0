"""Recordings of a session, decoded with ffmpeg: start, end, duration and failures."""

import itertools
import logging
import math
import random
import re
from collections.abc import Iterable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_seg.errors import SinkError, UsageError
from live_seg.events.trigger import Trigger
from live_seg.sinks.encoding import Encoding
from live_seg.sinks.file_names import FileNames
from live_seg.sinks.recorder import Recorder, RecorderStatus, parse_duration
from live_seg.sinks.recording_file import MAX_GAP
from live_seg.types import Frame, Image, Instances
from tests.clips import ffmpeg, names, no_process_left_behind, probe, running_ffmpeg
from tests.disks import fill, small_disk
from tests.stand_ins import left_half

pytestmark = pytest.mark.usefixtures(no_process_left_behind.__name__)

FPS = 8  # times are exact in binary
GREY = 6  # levels between one frame and the next; coding loses about 1
CYCLE = 42  # frames until the levels repeat
NOTHING = Instances.empty()
PERSON_SEEN = left_half(np.zeros((48, 64, 3), np.uint8))
PERSON = frozenset({1})


def numbered(index: int, width: int = 64) -> Image:
    return np.full((48, width, 3), GREY * (index % CYCLE + 1), np.uint8)


def cycled(begin: int, end: int) -> list[int]:
    return [index % CYCLE for index in range(begin, end)]


def write_frames(
    recorder: Recorder,
    frames: Iterable[int],
    *,
    seen: Iterable[int] = (),
    start: float = 100.0,
    fps: int = FPS,
) -> None:
    """Write the frames with these indices at their times since `start`, with a person in those in `seen`.

    All are drawn into the same image, as callers may do.
    """
    seen = set(seen)
    canvas = numbered(0)
    for index in frames:
        found = PERSON_SEEN if index in seen else NOTHING
        canvas[:] = numbered(index)
        assert recorder.write(Frame(index, start + index / fps, numbered(index)), canvas, found)


def frame_numbers(path: Path, fps: int = FPS) -> list[int]:
    """Return the index of the source frame that is shown at each of `fps` moments per second."""
    one_grey = ("-vf", f"fps={fps},scale=1:1", "-pix_fmt", "gray", "-f", "rawvideo", "-")
    shown = [round(grey / GREY) - 1 for grey in ffmpeg("-i", path, *one_grey).stdout]
    # With B-frames, the duration that ffmpeg assumes for the last frame is that of another one.
    return shown[: round(probe(path).duration * fps)]


def state(recorder: Recorder) -> str:
    return recorder.status.state


class TestStartAndStop:
    def test_started_at_once_the_file_has_the_plain_name(self, tmp_path: Path) -> None:
        path = tmp_path / "out.mp4"
        with Recorder(path, FPS) as recorder:
            recorder.start()
            write_frames(recorder, range(10))
            assert recorder.status == RecorderStatus("recording", str(path))
        assert frame_numbers(path) == list(range(10))
        assert probe(path).times[0] == 0
        assert (recorder.written, recorder.status) == ([path], RecorderStatus("idle"))
        assert names(tmp_path) == ["out.mp4"]

    def test_start_and_stop_several_times(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            write_frames(recorder, range(3))
            recorder.start()
            assert state(recorder) == "recording"
            write_frames(recorder, range(3, 7))
            recorder.stop()
            assert state(recorder) == "idle"
            write_frames(recorder, range(7, 9))
            recorder.start()
            recorder.start()
            write_frames(recorder, range(9, 12))
        assert names(tmp_path) == ["out.mp4", "out_001.mp4"]
        assert frame_numbers(tmp_path / "out.mp4") == [3, 4, 5, 6]
        assert frame_numbers(tmp_path / "out_001.mp4") == [9, 10, 11]

    def test_without_frames_no_file_is_written(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.start()
            recorder.stop()
            write_frames(recorder, range(3))
            recorder.stop()
            recorder.start()
        recorder.close()
        assert (names(tmp_path), recorder.written) == ([], [])

    @pytest.mark.parametrize("seed", range(3))
    def test_duration_matches_the_clock_for_irregular_frames(self, tmp_path: Path, seed: int) -> None:
        dice = random.Random(seed)
        waits = [dice.choice([0.011, 0.04, 0.033, 0.5, 1.2]) for _ in range(20)]
        times = list(itertools.accumulate(waits, initial=1234.5))
        with Recorder(tmp_path / "out.mp4", 30) as recorder:
            recorder.start()
            for index, at in enumerate(times):
                recorder.write(Frame(index, at, numbered(index)), numbered(index), NOTHING)
        written = probe(tmp_path / "out.mp4")
        assert written.times == pytest.approx([at - times[0] for at in times], abs=1e-4)
        assert written.duration == pytest.approx(times[-1] - times[0] + 1 / 30, abs=0.01)


class TestPause:
    def test_paused_frames_are_not_recorded(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.start()
            write_frames(recorder, range(4))
            recorder.pause()
            write_frames(recorder, range(4, 20))
            recorder.resume()
            write_frames(recorder, range(20, 24))
        assert frame_numbers(tmp_path / "out.mp4") == [0, 1, 2, 3, 20, 21, 22, 23]

    def test_pause_without_frames(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.pause()
            recorder.start()
            recorder.resume()
            write_frames(recorder, range(2))
            recorder.pause()
            recorder.pause()
            recorder.resume()
            write_frames(recorder, range(30, 32))
        assert frame_numbers(tmp_path / "out.mp4") == [0, 1, 30, 31]

    def test_post_seconds_do_not_elapse_during_a_pause(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=0, post=0.5)) as recorder:
            write_frames(recorder, range(2), seen=[1])
            recorder.pause()
            write_frames(recorder, range(2, 20), seen=[3])
            recorder.resume()
            write_frames(recorder, range(20, 34))
        assert frame_numbers(tmp_path / "out_001.mp4") == [1, 20, 21, 22, 23]

    def test_close_during_a_pause(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.start()
            write_frames(recorder, range(2))
            recorder.pause()
        assert frame_numbers(tmp_path / "out.mp4") == [0, 1]


class TestTrigger:
    def test_records_pre_and_post_seconds(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=1, post=0.5)) as recorder:
            write_frames(recorder, range(30), seen=[16, 18])
            assert state(recorder) == "idle"
        assert names(tmp_path) == ["out_001.mp4"]
        assert frame_numbers(tmp_path / "out_001.mp4") == list(range(8, 23))

    def test_each_event_has_its_own_file_without_shared_frames(self, tmp_path: Path) -> None:
        with Recorder(
            tmp_path / "p_{number}.mp4", FPS, trigger=Trigger(PERSON, pre=1, post=0.25)
        ) as recorder:
            write_frames(recorder, range(36), seen=[10, 15, 28])
        assert names(tmp_path) == ["p_1.mp4", "p_2.mp4", "p_3.mp4"]
        assert frame_numbers(tmp_path / "p_1.mp4") == list(range(2, 13))
        assert frame_numbers(tmp_path / "p_2.mp4") == list(range(13, 18))
        assert frame_numbers(tmp_path / "p_3.mp4") == list(range(20, 31))

    @pytest.mark.parametrize("pre", [0.0, 1.0])
    def test_without_a_match_no_file_is_written(self, tmp_path: Path, pre: float) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(frozenset({2}), pre=pre)) as recorder:
            write_frames(recorder, range(20), seen=range(20))
        assert names(tmp_path) == []

    def test_buffered_images_from_before_a_gap_are_dropped(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=1)) as recorder:
            write_frames(recorder, [0, 1, 2, 38, 39], seen=[39])
        assert frame_numbers(tmp_path / "out_001.mp4") == [38, 39]

    def test_recording_ends_on_time_at_a_low_frame_rate(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=0, post=1)) as recorder:
            write_frames(recorder, [0, 6, 12], seen=[0])
        assert frame_numbers(tmp_path / "out_001.mp4") == [0] * 6 + [6] * 6

    def test_close_writes_the_buffer(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=2)) as recorder:
            write_frames(recorder, range(17), seen=[16])
        assert frame_numbers(tmp_path / "out_001.mp4") == list(range(17))

    def test_manual_start_includes_the_buffer_and_ignores_the_trigger(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=0.5, post=0.25)) as recorder:
            write_frames(recorder, range(10))
            recorder.start()
            write_frames(recorder, range(10, 20), seen=[12])
            recorder.stop()
            write_frames(recorder, range(20, 25))
        assert frame_numbers(tmp_path / "out_001.mp4") == list(range(5, 20))
        assert names(tmp_path) == ["out_001.mp4"]

    def test_manual_start_during_an_event_continues_after_it(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=0, post=0.25)) as recorder:
            write_frames(recorder, range(2), seen=[0])
            recorder.start()
            write_frames(recorder, range(2, 8))
            recorder.stop()
            write_frames(recorder, range(8, 10))
        assert [frame_numbers(path) for path in recorder.written] == [list(range(8))]

    def test_an_event_stopped_by_hand_does_not_restart(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=0, post=0.25)) as recorder:
            write_frames(recorder, range(4), seen=range(4))
            recorder.stop()
            write_frames(recorder, range(4, 20), seen=[4, 5, 15])
        assert frame_numbers(tmp_path / "out_001.mp4") == [0, 1, 2, 3]
        assert frame_numbers(tmp_path / "out_002.mp4") == [15, 16, 17]

    def test_buffer_holds_pre_seconds_as_jpeg(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=1, post=50)) as recorder:
            write_frames(recorder, range(30))
            assert len(recorder._buffer) == FPS + 1
            assert sum(packed.nbytes for _, packed in recorder._buffer) < numbered(0).nbytes
            write_frames(recorder, range(30, 40), seen=[30])
            assert len(recorder._buffer) == 0
        assert frame_numbers(tmp_path / "out_001.mp4") == list(range(22, 40))

    @pytest.mark.parametrize(("pre", "post"), [(-1, 0), (0, -1), (math.nan, 0), (0, math.nan), (math.inf, 0)])
    def test_invalid_pre_and_post_seconds(self, pre: float, post: float) -> None:
        with pytest.raises(UsageError, match="0 or more"):
            Trigger(PERSON, pre, post)


class TestSegments:
    def test_no_frame_is_lost_between_segments(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", 10, segment=1) as recorder:
            recorder.start()
            write_frames(recorder, range(35), fps=10, start=1 / 3)  # not exact in binary
        assert names(tmp_path) == [f"out_00{n}.mp4" for n in (1, 2, 3, 4)]
        files = [frame_numbers(path, fps=10) for path in recorder.written]
        assert list(map(len, files)) == [10, 10, 10, 5]
        assert [index for file in files for index in file] == list(range(35))
        assert all(probe(path).times[0] == 0 for path in recorder.written)

    def test_a_frame_is_shown_until_the_end_of_its_segment(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, segment=1) as recorder:
            recorder.start()
            write_frames(recorder, range(0, 36, 5))
        assert [index for path in recorder.written for index in frame_numbers(path)] == [
            i // 5 * 5 for i in range(36)
        ]
        assert len(recorder.written) == 4

    def test_buffered_images_are_split_into_segments(self, tmp_path: Path) -> None:
        on = Trigger(PERSON, pre=2, post=50)
        with Recorder(tmp_path / "out.mp4", FPS, trigger=on, segment=1) as recorder:
            write_frames(recorder, range(24), seen=[16])
        assert [frame_numbers(path) for path in recorder.written] == [
            list(range(begin, begin + 8)) for begin in (0, 8, 16)
        ]

    def test_a_new_image_size_starts_a_new_file(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.start()
            write_frames(recorder, range(3))
            for index in (3, 4):
                wide = numbered(index, width=96)
                recorder.write(Frame(index, 100 + index / FPS, wide), wide, NOTHING)
        assert [frame_numbers(path) for path in recorder.written] == [[0, 1, 2], [3, 4]]
        assert [probe(path).size for path in recorder.written] == [(64, 48), (96, 48)]

    def test_a_long_gap_starts_a_new_file(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.start()
            write_frames(recorder, range(2))
            write_frames(recorder, range(2, 4), start=100 + 3600.0)
            write_frames(recorder, [4], start=100 + 3600.0 + MAX_GAP - 1)
        assert frame_numbers(tmp_path / "out.mp4") == [0, 1]
        assert frame_numbers(tmp_path / "out_001.mp4") == [2] + [3] * round(9 * FPS + 1) + [4]

    @pytest.mark.parametrize("segment", [0, -1, 0.5, math.nan])
    def test_invalid_segment(self, tmp_path: Path, segment: float) -> None:
        with pytest.raises(UsageError, match="at least 1 second"):
            Recorder(tmp_path / "out.mp4", FPS, segment=segment)


class TestDuration:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("90", 90),
            ("90s", 90),
            ("10m", 600),
            ("1h", 3600),
            ("1.5h", 5400),
            ("1h30m", 5400),
            (" 1M5s ", 65),
        ],
    )
    def test_valid_durations(self, text: str, seconds: float) -> None:
        assert parse_duration(text) == seconds

    @given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 99))
    @settings(max_examples=30, deadline=None)
    def test_parts_add_up(self, hours: int, minutes: int, seconds: int) -> None:
        assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds

    @pytest.mark.parametrize(
        "text", ["", "0", "0s", "-5", "ten", "10 minutes", "5d", "1e3", "1m1h", "inf", "nan"]
    )
    def test_invalid_text(self, text: str) -> None:
        with pytest.raises(UsageError, match=f"'{text}' is not a duration"):
            parse_duration(text)

    def test_overflow(self) -> None:
        with pytest.raises(UsageError, match="not a duration"):
            parse_duration("9" * 400)


def fail_after(frames: int, recorder: Recorder, error: BaseException) -> None:
    with recorder:
        recorder.start()
        write_frames(recorder, range(frames))
        raise error


class TestFailures:
    def test_a_killed_encoder_ends_only_this_recording(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.start()
            write_frames(recorder, range(3))
            encoder = running_ffmpeg()
            encoder.kill()
            write_frames(recorder, range(3, 30))
            assert state(recorder) == "failed"
            assert "out.partial.mp4" in recorder.status.text
            assert recorder.status.text in caplog.text
            assert names(tmp_path) == []
            recorder.start()
            write_frames(recorder, range(30, 33))
            assert state(recorder) == "recording"
        assert names(tmp_path) == ["out_001.mp4"]
        assert frame_numbers(tmp_path / "out_001.mp4") == [30, 31, 32]
        assert len(caplog.records) == 1

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    def test_full_disk(self, tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
        with small_disk(tmp_path / "disk", kibibytes=256) as disk:
            with Recorder(disk / f"out{suffix}", FPS, overwrite=True) as recorder:
                recorder.start()
                for index in range(200):
                    assert recorder.write(Frame(index, index / FPS, noise), np.roll(noise, index), NOTHING)
            assert state(recorder) == "failed"
            assert "No space left on device" in recorder.status.text
            assert "No space left on device" in caplog.text
            assert (names(disk), recorder.written) == ([f"out.partial{suffix}"], [])
            assert f"The output so far is in {disk / f'out.partial{suffix}'}." in recorder.status.text
            assert len(probe(disk / f"out.partial{suffix}").times) >= 20

    def test_a_failing_event_is_logged_once_and_the_next_one_recorded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        clips = tmp_path / "clips"
        clips.mkdir()
        with Recorder(clips / "out.mp4", FPS, trigger=Trigger(PERSON, pre=1, post=0.25)) as recorder:
            with monkeypatch.context() as broken:
                broken.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fails(tmp_path)))
                write_frames(recorder, range(20), seen=range(4, 20))
                assert state(recorder) == "failed"
                assert "boom" in recorder.status.text
                assert len(caplog.records) == 1
            write_frames(recorder, range(20, 36), seen=[32])
        assert [frame_numbers(path) for path in recorder.written] == [list(range(24, 35))]
        assert names(clips) == ["out_002.mp4"]

    def test_encoder_failure_at_the_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fails(tmp_path)))
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.start()
            write_frames(recorder, [0])
        assert state(recorder) == "failed"
        assert "boom" in recorder.status.text
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert names(tmp_path) == ["ffmpeg"]

    def test_folder_deleted_during_the_session(self, tmp_path: Path) -> None:
        clips = tmp_path / "clips"
        clips.mkdir()
        with Recorder(clips / "out.mp4", FPS) as recorder:
            recorder.start()
            clips.rmdir()
            write_frames(recorder, range(3))
            assert state(recorder) == "failed"
            assert "no folder" in recorder.status.text
            clips.mkdir()
            recorder.start()
            write_frames(recorder, range(3, 6))
        assert [frame_numbers(path) for path in recorder.written] == [[3, 4, 5]]

    def test_a_folder_named_by_a_field_is_created(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        days = iter(["monday", "monday", "tuesday"])
        real = FileNames.next

        def of_the_day(self: FileNames) -> Path:
            path = real(self)
            return path.parent.parent / next(days) / path.name

        monkeypatch.setattr(FileNames, "next", of_the_day)
        with Recorder(tmp_path / "{time:%A}" / "{number}.mp4", FPS, segment=1) as recorder:
            assert names(tmp_path) == []
            recorder.start()
            write_frames(recorder, range(12))
        assert [frame_numbers(path) for path in recorder.written] == [list(range(8)), list(range(8, 12))]
        assert recorder.written == [tmp_path / "monday" / "1.mp4", tmp_path / "tuesday" / "2.mp4"]

    @pytest.mark.parametrize(
        ("template", "fixed"),
        [
            ("a/b/{time}.mp4", "a/b"),
            ("a/b{{/c_{number}/d.mp4", "a/b{"),
            ("a/{time:%Y/%m}/{number}.mp4", "a"),
            ("a/b.mp4", "a"),
            ("{time}/b.mp4", "."),
        ],
    )
    def test_folders_without_a_field_are_not_created(self, tmp_path: Path, template: str, fixed: str) -> None:
        generated = FileNames(tmp_path / template)
        path = generated.next()
        generated.make_folder(path)
        assert path.parent.is_dir() == (fixed == ".")
        (tmp_path / fixed).mkdir(parents=True, exist_ok=True)
        generated.make_folder(path)
        assert path.parent.is_dir()
        with pytest.raises(SinkError, match="There is no folder"):
            Recorder(tmp_path / "nowhere" / template, FPS)

    def test_an_input_is_never_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").write_text("precious")
        (tmp_path / "a_001.mp4").hardlink_to(tmp_path / "a.mp4")
        (tmp_path / "a_002.mp4").write_text("old")
        inputs = [tmp_path / "nowhere.png", tmp_path / "a.mp4"]
        with Recorder(tmp_path / "a.mp4", FPS, overwrite=True) as recorder:
            recorder.keep(inputs)
            recorder.start()
            write_frames(recorder, range(2))
        assert recorder.written == [tmp_path / "a_002.mp4"]
        assert (tmp_path / "a.mp4").read_text() == (tmp_path / "a_001.mp4").read_text() == "precious"

    def test_ctrl_c_completes_the_file(self, tmp_path: Path) -> None:
        recorder = Recorder(tmp_path / "out.mp4", FPS)
        with pytest.raises(KeyboardInterrupt):
            fail_after(3, recorder, KeyboardInterrupt())
        assert frame_numbers(tmp_path / "out.mp4") == [0, 1, 2]

    def test_after_a_failed_session_the_partial_file_plays(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        recorder = Recorder(tmp_path / "out.mp4", FPS)
        with pytest.raises(ZeroDivisionError):
            fail_after(3, recorder, ZeroDivisionError())
        assert names(tmp_path) == ["out.partial.mp4"]
        assert frame_numbers(tmp_path / "out.partial.mp4") == [0, 1, 2]
        assert "out.partial.mp4" in caplog.text
        assert recorder.written == []

    @pytest.mark.parametrize("name", ["out.avi", "out", "nowhere/out.mp4"])
    def test_invalid_output_raises_at_once(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(SinkError):
            Recorder(tmp_path / name, FPS)

    @pytest.mark.parametrize(("fps", "crf"), [(0, 23), (math.nan, 23), (FPS, 52)])
    def test_invalid_rate_or_quality(self, tmp_path: Path, fps: float, crf: int) -> None:
        with pytest.raises(UsageError):
            Recorder(tmp_path / "out.mp4", fps, encoding=Encoding(crf))


class TestRetry:
    @pytest.fixture(autouse=True)
    def _without_a_log_handler_that_fails(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)

    def test_a_full_disk_that_is_freed(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with small_disk(tmp_path / "disk", kibibytes=1024) as disk:
            with Recorder(disk / "out.mp4", FPS) as recorder:
                recorder.start()
                write_frames(recorder, range(3))
                ballast = fill(disk)
                write_frames(recorder, range(3, 8 * 120))
                assert (state(recorder), recorder.written) == ("failed", [])
                assert len(recorder.failures) == 2  # ffmpeg fails some seconds later
                ballast.unlink()
                write_frames(recorder, range(8 * 120, 8 * 200))
                assert (state(recorder), len(recorder.failures)) == ("recording", 2)
            (written,) = recorder.written
            shown = frame_numbers(written)
            assert shown == cycled(8 * 200 - len(shown), 8 * 200)
            assert len(shown) >= 8 * 10
        assert caplog.text.count("Trying to record again.") == 2

    def test_the_next_segment_is_recorded(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, segment=2) as recorder:
            recorder.start()
            write_frames(recorder, range(3))
            encoder = running_ffmpeg()
            encoder.kill()
            encoder.wait()
            write_frames(recorder, range(3, 24))
        assert [frame_numbers(path) for path in recorder.written] == [list(range(16, 24))]
        assert len(recorder.failures) == 1

    def test_after_a_minute_without_segments(self, tmp_path: Path) -> None:
        clips = tmp_path / "clips"
        clips.mkdir()
        with Recorder(clips / "out.mp4", FPS) as recorder:
            recorder.start()
            clips.rmdir()
            write_frames(recorder, range(8 * 90))
            assert len(recorder.failures) == 2
            clips.mkdir()
            write_frames(recorder, range(8 * 90, 8 * 121))
        (written,) = recorder.written
        assert frame_numbers(written) == cycled(8 * 120, 8 * 121)

    @pytest.mark.parametrize("pre", [0, 1])
    def test_within_the_same_event(self, tmp_path: Path, pre: int) -> None:
        clips = tmp_path / "clips"
        clips.mkdir()
        trigger = Trigger(PERSON, pre=pre, post=1)
        with Recorder(clips / "out.mp4", FPS, trigger=trigger) as recorder:
            clips.rmdir()
            write_frames(recorder, range(8), seen=[0])
            clips.mkdir()
            write_frames(recorder, range(8, 8 * 60), seen=range(8, 8 * 60))
            assert state(recorder) == "failed"
            write_frames(recorder, range(8 * 60, 8 * 63), seen=range(8 * 60, 8 * 61))
        (written,) = recorder.written
        assert frame_numbers(written) == cycled(8 * (60 - pre), 8 * 62)

    @pytest.mark.parametrize("by_trigger", [False, True])
    def test_not_after_the_recording_was_to_stop(self, tmp_path: Path, by_trigger: bool) -> None:
        clips = tmp_path / "clips"
        clips.mkdir()
        trigger = Trigger(PERSON, pre=0, post=1) if by_trigger else None
        with Recorder(clips / "out.mp4", FPS, trigger=trigger) as recorder:
            clips.rmdir()
            if not by_trigger:
                recorder.start()
            write_frames(recorder, range(8), seen=[0])
            assert len(recorder.failures) == 1
            clips.mkdir()
            if not by_trigger:
                recorder.stop()
            write_frames(recorder, range(8, 8 * 130))
        assert (names(clips), len(recorder.failures)) == ([], 1)

    def test_an_event_does_not_end_a_manual_recording_that_failed(self, tmp_path: Path) -> None:
        clips = tmp_path / "clips"
        clips.mkdir()
        with Recorder(clips / "out.mp4", FPS, trigger=Trigger(PERSON, pre=0, post=1)) as recorder:
            clips.rmdir()
            recorder.start()
            write_frames(recorder, range(8))
            clips.mkdir()
            write_frames(recorder, range(8, 8 * 62), seen=[12])
            assert state(recorder) == "recording"
        assert [frame_numbers(path) for path in recorder.written] == [cycled(8 * 60, 8 * 62)]


def fails(folder: Path) -> Path:
    """Write an executable that starts its output, reads a little and fails, as a broken ffmpeg."""
    fake = folder / "ffmpeg"
    fake.write_text(
        "#!/bin/sh\nfor last; do :; done\n"
        ': >"$last"\nhead -c 5000 >/dev/null\necho "boom, said ffmpeg" >&2\nexit 1\n'
    )
    fake.chmod(0o755)
    return fake


class TestNames:
    def test_plain_name_is_used_first_and_then_numbered(self, tmp_path: Path) -> None:
        names = FileNames(tmp_path / "a.b.mp4")
        assert [names.next().name for _ in range(3)] == ["a.b.mp4", "a.b_001.mp4", "a.b_002.mp4"]

    def test_several_files_are_numbered_from_the_first(self, tmp_path: Path) -> None:
        names = FileNames(str(tmp_path / "a.mp4"), several=True)
        assert [names.next().name for _ in range(2)] == ["a_001.mp4", "a_002.mp4"]

    def test_number_field(self, tmp_path: Path) -> None:
        names = FileNames(tmp_path / "{number:02d} of {{many}}.mp4")
        assert [names.next().name for _ in range(2)] == ["01 of {many}.mp4", "02 of {many}.mp4"]

    @pytest.mark.parametrize(
        ("template", "pattern"),
        [
            ("p_{time}.mp4", r"p_\d{8}-\d{6}\.mp4"),
            ("p_{time:%Y.%j}_{number:03d}.mp4", r"p_\d{4}\.\d{3}_001\.mp4"),
            ("{time:%H:%M%z}.mp4", r"\d\d:\d\d[+-]\d{4}\.mp4"),
        ],
    )
    def test_time_field(self, tmp_path: Path, template: str, pattern: str) -> None:
        assert re.fullmatch(pattern, FileNames(tmp_path / template).next().name)

    def test_a_repeated_time_gets_a_number(self, tmp_path: Path) -> None:
        names = FileNames(tmp_path / "{time:%Y}.mp4", overwrite=True)
        first, second = names.next(), names.next()
        assert second.name == f"{first.stem}_001.mp4"

    def test_numbers_continue_after_the_highest_existing_one(self, tmp_path: Path) -> None:
        for taken in (
            "p_1999_003.mp4",
            "p_1999_041.mp4",
            "p_1999_050.mkv",
            "p_1999_060.partial.mp4",
            "q_99.mp4",
        ):
            (tmp_path / taken).touch()
        names = FileNames(tmp_path / "p_{time:%Y}_{number:03d}.mp4")
        assert names.next().name.endswith("_042.mp4")
        assert names.next().name.endswith("_043.mp4")

    def test_existing_and_partial_files_are_skipped(self, tmp_path: Path) -> None:
        for taken in ("a.mp4", "a_001.partial.mp4"):
            (tmp_path / taken).touch()
        assert FileNames(tmp_path / "a.mp4").next().name == "a_002.mp4"

    def test_overwrite_restarts_numbering_without_repeating_a_name(self, tmp_path: Path) -> None:
        for taken in ("a.mp4", "a_001.mp4", "a_007.mp4"):
            (tmp_path / taken).touch()
        names = FileNames(tmp_path / "a.mp4", overwrite=True)
        assert [names.next().name for _ in range(3)] == ["a.mp4", "a_001.mp4", "a_002.mp4"]

    @pytest.mark.parametrize(
        "template",
        [
            *("{}.mp4", "{0}.mp4", "{name}.mp4", "{number", "number}", "{number:%Y}.mp4"),
            *(
                "{number.real}.mp4",
                "{time.year}.mp4",
                "{number:{}}.mp4",
                "{number:{name}}.mp4",
                "{time!x}.mp4",
            ),
        ],
    )
    def test_invalid_text(self, template: str) -> None:
        with pytest.raises(UsageError, match=r"Invalid file name template .*\{number:03d\} and \{time:"):
            FileNames(template)

    def test_an_existing_recording_is_kept(self, tmp_path: Path) -> None:
        (tmp_path / "out.mp4").write_text("precious")
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.start()
            write_frames(recorder, range(2))
        assert (tmp_path / "out.mp4").read_text() == "precious"
        assert frame_numbers(tmp_path / "out_001.mp4") == [0, 1]

    def test_a_name_that_another_recorder_uses_is_skipped(self, tmp_path: Path) -> None:
        path = tmp_path / "out.mp4"
        with Recorder(path, FPS, overwrite=True) as one, Recorder(path, FPS, overwrite=True) as other:
            for index, recorder in enumerate([one, other]):
                recorder.start()
                write_frames(recorder, range(index, index + 2))
            assert (one.failures, other.failures) == ([], [])
        assert frame_numbers(path) == [0, 1]
        assert frame_numbers(tmp_path / "out_001.mp4") == [1, 2]

    def test_overwrite_replaces_it_once_complete(self, tmp_path: Path) -> None:
        (tmp_path / "out.mp4").write_text("old")
        with Recorder(tmp_path / "out.mp4", FPS, overwrite=True) as recorder:
            recorder.start()
            write_frames(recorder, range(2))
            assert (tmp_path / "out.mp4").read_text() == "old"
        assert frame_numbers(tmp_path / "out.mp4") == [0, 1]
