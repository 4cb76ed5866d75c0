"""Recordings of a session, read back with ffmpeg: when they begin and end, how long they play, what fails."""

import itertools
import logging
import math
import random
import re
from collections.abc import Iterable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_seg.errors import SinkError, UsageError
from live_seg.sinks.file_names import FileNames
from live_seg.sinks.recorder import MAX_GAP, Recorder, RecorderStatus, Trigger, parse_duration
from live_seg.types import Frame, Image, Instances
from tests.clips import ffmpeg, names, no_process_left_behind, probe
from tests.stand_ins import left_half

pytestmark = pytest.mark.usefixtures(no_process_left_behind.__name__)

FPS = 8  # times are exact in binary
GREY = 6  # levels between one frame and the next; coding loses about 1
NOBODY = Instances.empty()
SOMEBODY = left_half(np.zeros((48, 64, 3), np.uint8))
PERSON = frozenset({1})


def numbered(index: int, width: int = 64) -> Image:
    return np.full((48, width, 3), GREY * (index + 1), np.uint8)


def put(
    recorder: Recorder,
    frames: Iterable[int],
    *,
    seen: Iterable[int] = (),
    start: float = 100.0,
    fps: int = FPS,
) -> None:
    """Write the frames of these indices, each at its time since `start`; in those `seen` is a person.

    All are drawn into one and the same picture, as a caller may do.
    """
    seen = set(seen)
    canvas = numbered(0)
    for index in frames:
        found = SOMEBODY if index in seen else NOBODY
        canvas[:] = numbered(index)
        assert recorder.write(Frame(index, start + index / fps, numbered(index)), canvas, found)


def shown(path: Path) -> list[int]:
    """The number of the source frame in each output frame."""
    one_grey = ("-fps_mode", "passthrough", "-vf", "scale=1:1", "-pix_fmt", "gray", "-f", "rawvideo", "-")
    return [round(grey / GREY) - 1 for grey in ffmpeg("-i", path, *one_grey).stdout]


def state(recorder: Recorder) -> str:
    return recorder.status.state


class TestByHand:
    def test_from_the_start_into_the_very_file(self, tmp_path: Path) -> None:
        path = tmp_path / "out.mp4"
        with Recorder(path, FPS) as recorder:
            recorder.start()
            put(recorder, range(10))
            assert recorder.status == RecorderStatus("recording", str(path))
        assert shown(path) == list(range(10))
        assert probe(path).times[0] == 0
        assert (recorder.written, recorder.status) == ([path], RecorderStatus("idle"))
        assert names(tmp_path) == ["out.mp4"]

    def test_any_time_and_again(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            put(recorder, range(3))
            recorder.start()
            assert state(recorder) == "recording"
            put(recorder, range(3, 7))
            recorder.stop()
            assert state(recorder) == "idle"
            put(recorder, range(7, 9))
            recorder.start()
            recorder.start()
            put(recorder, range(9, 12))
        assert names(tmp_path) == ["out.mp4", "out_001.mp4"]
        assert shown(tmp_path / "out.mp4") == [3, 4, 5, 6]
        assert shown(tmp_path / "out_001.mp4") == [9, 10, 11]

    def test_no_frame_no_file(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.start()
            recorder.stop()
            put(recorder, range(3))
            recorder.stop()
            recorder.start()
        recorder.close()
        assert (names(tmp_path), recorder.written) == ([], [])

    @pytest.mark.parametrize("seed", range(3))
    def test_irregular_frames_play_as_long_as_the_clock_ran(self, tmp_path: Path, seed: int) -> None:
        dice = random.Random(seed)
        waits = [dice.choice([0.011, 0.04, 0.033, 0.5, 1.2]) for _ in range(20)]
        times = list(itertools.accumulate(waits, initial=1234.5))
        with Recorder(tmp_path / "out.mp4", 30) as recorder:
            recorder.start()
            for index, at in enumerate(times):
                recorder.write(Frame(index, at, numbered(index)), numbered(index), NOBODY)
        played = shown(tmp_path / "out.mp4")
        assert len(played) / 30 == pytest.approx(times[-1] - times[0] + 1 / 30, abs=1 / 30)
        assert probe(tmp_path / "out.mp4").duration == pytest.approx(len(played) / 30, abs=0.01)
        for index in (played[0], played[len(played) // 2], played[-1]):
            assert played.index(index) / 30 == pytest.approx(times[index] - times[0], abs=1 / 30)


class TestPause:
    def test_the_paused_span_is_not_in_the_file(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.start()
            put(recorder, range(4))
            recorder.pause()
            put(recorder, range(4, 20))
            recorder.resume()
            put(recorder, range(20, 24))
        assert shown(tmp_path / "out.mp4") == [0, 1, 2, 3, 20, 21, 22, 23]

    def test_a_pause_without_a_frame_counts_too(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.pause()
            recorder.start()
            recorder.resume()
            put(recorder, range(2))
            recorder.pause()
            recorder.pause()
            recorder.resume()
            put(recorder, range(30, 32))
        assert shown(tmp_path / "out.mp4") == [0, 1, 30, 31]

    def test_seconds_after_a_sighting_do_not_run_out_meanwhile(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=0, post=0.5)) as recorder:
            put(recorder, range(2), seen=[1])
            recorder.pause()
            put(recorder, range(2, 20), seen=[3])
            recorder.resume()
            put(recorder, range(20, 34))
        assert shown(tmp_path / "out_001.mp4") == [1, 20, 21, 22, 23]

    def test_closing_while_paused(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.start()
            put(recorder, range(2))
            recorder.pause()
        assert shown(tmp_path / "out.mp4") == [0, 1]


class TestTrigger:
    def test_from_before_the_class_is_seen_until_after_it_was(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=1, post=0.5)) as recorder:
            put(recorder, range(30), seen=[16, 18])
            assert state(recorder) == "idle"
        assert names(tmp_path) == ["out_001.mp4"]
        assert shown(tmp_path / "out_001.mp4") == list(range(8, 23))

    def test_each_event_has_its_file_and_no_frame_is_in_two(self, tmp_path: Path) -> None:
        with Recorder(
            tmp_path / "p_{number}.mp4", FPS, trigger=Trigger(PERSON, pre=1, post=0.25)
        ) as recorder:
            put(recorder, range(36), seen=[10, 15, 28])
        assert names(tmp_path) == ["p_1.mp4", "p_2.mp4", "p_3.mp4"]
        assert shown(tmp_path / "p_1.mp4") == list(range(2, 13))
        assert shown(tmp_path / "p_2.mp4") == list(range(13, 18))
        assert shown(tmp_path / "p_3.mp4") == list(range(20, 31))

    @pytest.mark.parametrize("pre", [0.0, 1.0])
    def test_never_seen_no_file(self, tmp_path: Path, pre: float) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(frozenset({2}), pre=pre)) as recorder:
            put(recorder, range(20), seen=range(20))
        assert names(tmp_path) == []

    def test_pictures_from_before_an_outage_are_too_old(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=1)) as recorder:
            put(recorder, [0, 1, 2, 38, 39], seen=[39])
        assert shown(tmp_path / "out_001.mp4") == [38, 39]

    def test_the_end_comes_on_time_where_frames_are_rare(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=0, post=1)) as recorder:
            put(recorder, [0, 6, 12], seen=[0])
        assert shown(tmp_path / "out_001.mp4") == [0] * 6 + [6] * 6

    def test_closing_writes_what_still_waits(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=2)) as recorder:
            put(recorder, range(17), seen=[16])
        assert shown(tmp_path / "out_001.mp4") == list(range(17))

    def test_the_key_begins_with_what_is_kept_and_ends_what_it_began(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=0.5, post=0.25)) as recorder:
            put(recorder, range(10))
            recorder.start()
            put(recorder, range(10, 20), seen=[12])
            recorder.stop()
            put(recorder, range(20, 25))
        assert shown(tmp_path / "out_001.mp4") == list(range(5, 20))
        assert names(tmp_path) == ["out_001.mp4"]

    def test_a_start_while_an_event_is_recorded_outlasts_it(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=0, post=0.25)) as recorder:
            put(recorder, range(2), seen=[0])
            recorder.start()
            put(recorder, range(2, 8))
            recorder.stop()
            put(recorder, range(8, 10))
        assert [shown(path) for path in recorder.written] == [list(range(8))]

    def test_an_event_that_was_stopped_by_key_does_not_begin_again(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=0, post=0.25)) as recorder:
            put(recorder, range(4), seen=range(4))
            recorder.stop()
            put(recorder, range(4, 20), seen=[4, 5, 15])
        assert shown(tmp_path / "out_001.mp4") == [0, 1, 2, 3]
        assert shown(tmp_path / "out_002.mp4") == [15, 16, 17]

    def test_memory_holds_the_last_seconds_only(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, trigger=Trigger(PERSON, pre=1, post=50)) as recorder:
            put(recorder, range(30))
            assert len(recorder._buffer) == FPS + 1
            assert sum(packed.nbytes for _, packed in recorder._buffer) < numbered(0).nbytes
            put(recorder, range(30, 40), seen=[30])
            assert len(recorder._buffer) == 0
        assert shown(tmp_path / "out_001.mp4") == list(range(22, 40))

    @pytest.mark.parametrize(("pre", "post"), [(-1, 0), (0, -1), (math.nan, 0), (0, math.nan), (math.inf, 0)])
    def test_no_such_seconds(self, pre: float, post: float) -> None:
        with pytest.raises(UsageError, match="0 or more"):
            Trigger(PERSON, pre, post)


class TestSegments:
    def test_no_frame_is_lost_at_a_cut(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", 10, segment=1) as recorder:
            recorder.start()
            put(recorder, range(35), fps=10, start=1 / 3)  # a start whose sums are not exact
        assert names(tmp_path) == [f"out_00{n}.mp4" for n in (1, 2, 3, 4)]
        files = [shown(path) for path in recorder.written]
        assert list(map(len, files)) == [10, 10, 10, 5]
        assert [index for file in files for index in file] == list(range(35))
        assert all(probe(path).times[0] == 0 for path in recorder.written)

    def test_rare_frames_last_until_the_cut(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS, segment=1) as recorder:
            recorder.start()
            put(recorder, range(0, 36, 5))
        assert [index for path in recorder.written for index in shown(path)] == [
            i // 5 * 5 for i in range(36)
        ]
        assert len(recorder.written) == 4

    def test_what_came_before_is_cut_alike(self, tmp_path: Path) -> None:
        on = Trigger(PERSON, pre=2, post=50)
        with Recorder(tmp_path / "out.mp4", FPS, trigger=on, segment=1) as recorder:
            put(recorder, range(24), seen=[16])
        assert [shown(path) for path in recorder.written] == [
            list(range(begin, begin + 8)) for begin in (0, 8, 16)
        ]

    def test_another_size_begins_a_new_file(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.start()
            put(recorder, range(3))
            for index in (3, 4):
                wide = numbered(index, width=96)
                recorder.write(Frame(index, 100 + index / FPS, wide), wide, NOBODY)
        assert [shown(path) for path in recorder.written] == [[0, 1, 2], [3, 4]]
        assert [probe(path).size for path in recorder.written] == [(64, 48), (96, 48)]

    def test_an_outage_is_not_recorded(self, tmp_path: Path) -> None:
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.start()
            put(recorder, range(2))
            put(recorder, range(2, 4), start=100 + 3600.0)
            put(recorder, [4], start=100 + 3600.0 + MAX_GAP - 1)
        assert shown(tmp_path / "out.mp4") == [0, 1]
        assert shown(tmp_path / "out_001.mp4") == [2] + [3] * round(9 * FPS + 1) + [4]

    @pytest.mark.parametrize("segment", [0, -1, 0.5, math.nan])
    def test_no_such_length(self, tmp_path: Path, segment: float) -> None:
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
    def test_read(self, text: str, seconds: float) -> None:
        assert parse_duration(text) == seconds

    @given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 99))
    @settings(max_examples=30, deadline=None)
    def test_parts_add_up(self, hours: int, minutes: int, seconds: int) -> None:
        assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds

    @pytest.mark.parametrize(
        "text", ["", "0", "0s", "-5", "ten", "10 minutes", "5d", "1e3", "1m1h", "inf", "nan"]
    )
    def test_nonsense(self, text: str) -> None:
        with pytest.raises(UsageError, match=f"'{text}' is not a duration"):
            parse_duration(text)

    def test_too_long_for_a_float(self) -> None:
        with pytest.raises(UsageError, match="not a duration"):
            parse_duration("9" * 400)


def fail_after(frames: int, recorder: Recorder, error: BaseException) -> None:
    with recorder:
        recorder.start()
        put(recorder, range(frames))
        raise error


class TestFailures:
    def test_a_killed_encoder_ends_the_recording_and_the_next_one_works(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.start()
            put(recorder, range(3))
            (encoder,) = psutil.Process().children()
            encoder.kill()
            put(recorder, range(3, 30))
            assert state(recorder) == "failed"
            assert "out.partial.mp4" in recorder.status.text
            assert recorder.status.text in caplog.text
            assert names(tmp_path) == []
            recorder.start()
            put(recorder, range(30, 33))
            assert state(recorder) == "recording"
        assert names(tmp_path) == ["out_001.mp4"]
        assert shown(tmp_path / "out_001.mp4") == [30, 31, 32]
        assert len(caplog.records) == 1

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
    def test_a_full_disk(self, tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full here")
        (tmp_path / f"out.partial{suffix}").symlink_to("/dev/full")
        noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
        with Recorder(tmp_path / f"out{suffix}", FPS, overwrite=True) as recorder:
            recorder.start()
            for index in range(30):
                assert recorder.write(Frame(index, index / FPS, noise), np.roll(noise, index), NOBODY)
        assert state(recorder) == "failed"
        assert "No space left on device" in recorder.status.text
        assert "No space left on device" in caplog.text
        assert (names(tmp_path), recorder.written) == ([], [])

    def test_an_event_that_fails_is_told_once_and_the_next_one_is_recorded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        clips = tmp_path / "clips"
        clips.mkdir()
        with Recorder(clips / "out.mp4", FPS, trigger=Trigger(PERSON, pre=1, post=0.25)) as recorder:
            with monkeypatch.context() as broken:
                broken.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fails(tmp_path)))
                put(recorder, range(20), seen=range(4, 20))
                assert state(recorder) == "failed"
                assert "boom" in recorder.status.text
                assert len(caplog.records) == 1
            put(recorder, range(20, 36), seen=[32])
        assert [shown(path) for path in recorder.written] == [list(range(24, 35))]
        assert names(clips) == ["out_002.mp4"]

    def test_an_encoder_that_fails_at_the_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fails(tmp_path)))
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.start()
            put(recorder, [0])
        assert state(recorder) == "failed"
        assert "boom" in recorder.status.text
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert names(tmp_path) == ["ffmpeg"]

    def test_a_folder_that_vanishes(self, tmp_path: Path) -> None:
        clips = tmp_path / "clips"
        clips.mkdir()
        with Recorder(clips / "out.mp4", FPS, segment=1) as recorder:
            recorder.start()
            clips.rmdir()
            put(recorder, range(3))
            assert state(recorder) == "failed"
            assert "no folder" in recorder.status.text
            clips.mkdir()
            recorder.start()
            put(recorder, range(3, 6))
        assert [shown(path) for path in recorder.written] == [[3, 4, 5]]

    def test_ctrl_c_completes_the_file(self, tmp_path: Path) -> None:
        recorder = Recorder(tmp_path / "out.mp4", FPS)
        with pytest.raises(KeyboardInterrupt):
            fail_after(3, recorder, KeyboardInterrupt())
        assert shown(tmp_path / "out.mp4") == [0, 1, 2]

    def test_after_a_failed_session_what_there_is_plays_under_its_partial_name(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        recorder = Recorder(tmp_path / "out.mp4", FPS)
        with pytest.raises(ZeroDivisionError):
            fail_after(3, recorder, ZeroDivisionError())
        assert names(tmp_path) == ["out.partial.mp4"]
        assert shown(tmp_path / "out.partial.mp4") == [0, 1, 2]
        assert "out.partial.mp4" in caplog.text
        assert recorder.written == []

    @pytest.mark.parametrize("name", ["out.avi", "out", "nowhere/out.mp4"])
    def test_what_cannot_be_written_is_told_before_the_session(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(SinkError):
            Recorder(tmp_path / name, FPS)

    @pytest.mark.parametrize(("fps", "crf"), [(0, 23), (math.nan, 23), (FPS, 52)])
    def test_no_such_rate_or_quality(self, tmp_path: Path, fps: float, crf: int) -> None:
        with pytest.raises(UsageError):
            Recorder(tmp_path / "out.mp4", fps, crf=crf)


def fails(folder: Path) -> Path:
    """An ffmpeg that begins its output, reads a little and fails."""
    fake = folder / "ffmpeg"
    fake.write_text(
        "#!/bin/sh\nfor last; do :; done\n"
        ': >"$last"\nhead -c 5000 >/dev/null\necho "boom, said ffmpeg" >&2\nexit 1\n'
    )
    fake.chmod(0o755)
    return fake


class TestNames:
    def test_a_plain_name_stands_as_it_is_and_then_counts(self, tmp_path: Path) -> None:
        names = FileNames(tmp_path / "a.b.mp4")
        assert [names.next().name for _ in range(3)] == ["a.b.mp4", "a.b_001.mp4", "a.b_002.mp4"]

    def test_several_files_are_counted_from_the_first(self, tmp_path: Path) -> None:
        names = FileNames(str(tmp_path / "a.mp4"), several=True)
        assert [names.next().name for _ in range(2)] == ["a_001.mp4", "a_002.mp4"]

    def test_a_number_goes_where_the_template_has_it(self, tmp_path: Path) -> None:
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
    def test_the_time(self, tmp_path: Path, template: str, pattern: str) -> None:
        assert re.fullmatch(pattern, FileNames(tmp_path / template).next().name)

    def test_a_time_that_comes_twice_is_told_apart(self, tmp_path: Path) -> None:
        names = FileNames(tmp_path / "{time:%Y}.mp4", overwrite=True)
        first, second = names.next(), names.next()
        assert second.name == f"{first.stem}_001.mp4"

    def test_numbers_go_on_after_the_highest_there_is(self, tmp_path: Path) -> None:
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

    def test_what_exists_is_left_alone_with_what_a_failed_run_left(self, tmp_path: Path) -> None:
        for taken in ("a.mp4", "a_001.partial.mp4"):
            (tmp_path / taken).touch()
        assert FileNames(tmp_path / "a.mp4").next().name == "a_002.mp4"

    def test_overwriting_begins_anew_but_never_with_a_file_of_its_own(self, tmp_path: Path) -> None:
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
    def test_nonsense(self, template: str) -> None:
        with pytest.raises(UsageError, match=r"Invalid file name template .*\{number:03d\} and \{time:"):
            FileNames(template)

    def test_an_existing_recording_is_kept(self, tmp_path: Path) -> None:
        (tmp_path / "out.mp4").write_text("precious")
        with Recorder(tmp_path / "out.mp4", FPS) as recorder:
            recorder.start()
            put(recorder, range(2))
        assert (tmp_path / "out.mp4").read_text() == "precious"
        assert shown(tmp_path / "out_001.mp4") == [0, 1]

    def test_overwrite_replaces_it_once_complete(self, tmp_path: Path) -> None:
        (tmp_path / "out.mp4").write_text("old")
        with Recorder(tmp_path / "out.mp4", FPS, overwrite=True) as recorder:
            recorder.start()
            put(recorder, range(2))
            assert (tmp_path / "out.mp4").read_text() == "old"
        assert shown(tmp_path / "out.mp4") == [0, 1]
