"""Files written by VideoWriter, decoded with ffmpeg: images, timeline, audio and failures."""

import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import IO

import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_seg import ffmpeg as live_seg_ffmpeg
from live_seg.errors import SinkError, UsageError
from live_seg.ffmpeg import audio_tracks, video_span
from live_seg.sinks.encoding import Encoding
from live_seg.sinks.timeline import MAX_STEP, MIN_STEP, Timeline, Timing, frame_rate, output_index
from live_seg.sinks.video_writer import VideoWriter
from live_seg.types import Frame, Image, Instances
from tests.clips import (
    clip,
    decode_frames,
    ffmpeg,
    names,
    no_process_left_behind,
    probe,
    running_ffmpeg,
    truncated,
    variable_clip,
)
from tests.disks import fill, small_disk
from tests.marks import slow

pytestmark = pytest.mark.usefixtures(no_process_left_behind.__name__)

NOTHING = Instances.empty()
STEP = 10  # grey levels between one frame and the next; coding loses about 2
ROOT = Path(__file__).parent.parent


def numbered(index: int, width: int = 64, height: int = 48) -> Image:
    return np.full((height, width, 3), STEP * (index + 1), np.uint8)


def write_frames(sink: VideoWriter, seconds: Iterable[float]) -> None:
    for index, at in enumerate(seconds):
        assert sink.write(Frame(index, at, numbered(index)), numbered(index), NOTHING)


def frame_numbers(path: Path) -> list[int]:
    """Return the index of the source frame in each output frame."""
    return [round(float(image.mean()) / STEP) - 1 for image in decode_frames(path)]


def copy_through(source: Path, out: Path, fps: float, frames: int | None = None) -> Path:
    """Write the first `frames` frames of `source` at their times, with its audio."""
    times = probe(source).times
    with VideoWriter(out, fps, audio=source) as sink:
        for index, (image, at) in enumerate(zip(decode_frames(source)[:frames], times, strict=False)):
            sink.write(Frame(index, at - times[0], image), image, NOTHING)
    return out


class TestVideo:
    @pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov", ".mkv"])
    def test_all_containers_hold_h264_in_yuv420p(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"out{suffix}"
        with VideoWriter(path, 30) as sink:
            write_frames(sink, (i / 30 for i in range(12)))
        properties = probe(path)
        assert (properties.video_codec, properties.pixel_format, properties.size) == (
            "h264",
            "yuv420p",
            (64, 48),
        )
        assert properties.times == pytest.approx([i / 30 for i in range(12)], abs=1e-3)
        assert properties.duration == pytest.approx(0.4, abs=0.01)
        assert properties.audio_codecs == ()
        assert frame_numbers(path) == list(range(12))
        assert names(tmp_path) == [path.name]

    @pytest.mark.parametrize("audio", [0, 1])
    def test_the_index_precedes_the_data(self, tmp_path: Path, audio: int) -> None:
        source = clip(tmp_path / "in.mp4", seconds=0.2, audio=audio)
        written = copy_through(source, tmp_path / "out.mp4", 30).read_bytes()
        assert 0 < written.index(b"moov") < written.index(b"mdat")

    def test_colours_are_preserved_and_declared(self, tmp_path: Path) -> None:
        path = tmp_path / "out.mp4"
        image = np.full((48, 64, 3), (40, 90, 200), np.uint8)
        with VideoWriter(path, 30) as sink:
            sink.write(Frame(0, 0.0, image), image, NOTHING)
        log = ffmpeg("-i", path, "-f", "null", "-").stderr.decode()
        assert "yuv420p(tv, bt709," in log
        as_bgr = ("-vf", "scale=in_color_matrix=bt709", "-pix_fmt", "bgr24", "-f", "rawvideo", "-")
        colour = np.frombuffer(ffmpeg("-i", path, *as_bgr).stdout, np.uint8).reshape(-1, 3).mean(axis=0)
        assert colour == pytest.approx([40, 90, 200], abs=4)

    @pytest.mark.parametrize(("size", "even"), [((33, 18), (34, 18)), ((34, 17), (34, 18)), ((1, 1), (2, 2))])
    def test_odd_sizes_are_padded_without_rescaling(
        self, tmp_path: Path, size: tuple[int, int], even: tuple[int, int]
    ) -> None:
        path = tmp_path / "out.mp4"
        image = np.zeros((size[1], size[0], 3), np.uint8)
        image[-1:, :] = image[:, -1:] = 200
        with VideoWriter(path, 30, encoding=Encoding(1)) as sink:
            sink.write(Frame(0, 0.0, image), image, NOTHING)
        assert probe(path).size == even
        expected = np.pad(image, ((0, even[1] - size[1]), (0, even[0] - size[0]), (0, 0)), mode="edge")
        assert np.abs(decode_frames(path)[0].astype(int) - expected).mean() < 4

    def test_the_caller_may_reuse_the_image(self, tmp_path: Path) -> None:
        path = tmp_path / "out.mp4"
        canvas = numbered(0)
        with VideoWriter(path, 10) as sink:
            for index in range(4):
                canvas[:] = numbered(index)
                sink.write(Frame(index, index / 10, canvas), canvas, NOTHING)
        assert frame_numbers(path) == [0, 1, 2, 3]

    def test_a_lower_crf_gives_a_larger_file(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
        sizes = []
        for crf in (0, 51):
            with VideoWriter(tmp_path / f"{crf}.mp4", 30, encoding=Encoding(crf)) as sink:
                sink.write(Frame(0, 0.0, noise), noise, NOTHING)
            sizes.append((tmp_path / f"{crf}.mp4").stat().st_size)
        assert sizes[0] > 2 * sizes[1]


class TestTimeline:
    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", slow(".mov")])
    @pytest.mark.parametrize(
        ("seconds", "expected"),
        [
            pytest.param([0, 0.1, 0.2, 0.2333, 0.2667], [0, 0.1, 0.2, 0.2333, 0.2667], id="variable rate"),
            pytest.param([5.3, 5.47, 5.5, 5.81], [0, 0.17, 0.2, 0.51], id="starts late"),
            pytest.param([0, 0.5, 0.5, 0.5, 0.9], [0, 0.5, 0.501, 0.502, 0.9], id="equal times"),
            pytest.param([0, 0.1, 0.05], [0, 0.1, 0.101], id="time steps back"),
            pytest.param([7.0], [0], id="one frame"),
            pytest.param([0, 20.0, 20.1, 1220.1], [0, 20.0, 20.1, 1220.1], id="pauses"),
        ],
    )
    def test_every_frame_is_shown_once_at_its_time(
        self, tmp_path: Path, suffix: str, seconds: list[float], expected: list[float]
    ) -> None:
        path = tmp_path / f"out{suffix}"
        with VideoWriter(path, 10) as sink:
            write_frames(sink, seconds)
        assert frame_numbers(path) == list(range(len(seconds)))
        assert probe(path).times == pytest.approx(expected, abs=6e-4 if suffix == ".mkv" else 1e-5)
        assert probe(path).duration == pytest.approx(expected[-1] + 0.1, abs=0.01)

    @pytest.mark.parametrize(
        ("fps", "seconds", "expected"),
        [
            pytest.param(30, [0, 0.1, 0.2, 0.2333, 0.2667], [0, 0, 0, 1, 1, 1, 2, 3, 4], id="variable rate"),
            pytest.param(10, [5.3, 5.47, 5.5, 5.81], [0, 0, 2, 2, 2, 3], id="live, slower than the camera"),
            pytest.param(30, [0, 0.01, 0.02, 0.0333], [1, 3], id="two frames with one output index"),
            pytest.param(30, [0, 0.1, 0.05], [0, 0, 0, 2], id="time steps back"),
            pytest.param(30, [7.0], [0], id="one frame"),
            pytest.param(10, [0, 2.0, 2.1], [0] * 20 + [1, 2], id="a pause"),
        ],
    )
    def test_constant_rate(
        self, tmp_path: Path, fps: float, seconds: list[float], expected: list[int]
    ) -> None:
        path = tmp_path / "out.mp4"
        with VideoWriter(path, fps, timing=Timing(constant=True)) as sink:
            write_frames(sink, seconds)
        assert frame_numbers(path) == expected
        assert probe(path).times == pytest.approx([i / fps for i in range(len(expected))], abs=1e-4)

    def test_a_random_variable_rate_is_exact(self, tmp_path: Path) -> None:
        steps = np.random.default_rng(3).uniform(0.002, 0.4, 63)
        times = [0.0, *np.cumsum(steps).tolist()]
        path = tmp_path / "out.mp4"
        with VideoWriter(path, 30) as sink:
            for index, at in enumerate(times):
                sink.write(Frame(index, at, numbered(index % 20)), numbered(index % 20), NOTHING)
        written = probe(path)
        assert written.times == pytest.approx(times, abs=1e-5)  # 64 of 64
        assert written.duration == pytest.approx(times[-1] + 1 / 30, abs=0.01)
        assert frame_numbers(path) == [index % 20 for index in range(64)]

    def test_without_frames_no_file_is_written(self, tmp_path: Path) -> None:
        with VideoWriter(tmp_path / "out.mp4", 30):
            pass
        assert names(tmp_path) == []

    def test_ntsc_rate_is_exact(self, tmp_path: Path) -> None:
        path = tmp_path / "out.mp4"
        with VideoWriter(path, 29.97) as sink:
            write_frames(sink, (i * 1001 / 30000 for i in range(20)))
        assert frame_numbers(path) == list(range(20))
        assert probe(path).times == pytest.approx([i * 1001 / 30000 for i in range(20)], abs=1e-6)

    @pytest.mark.parametrize(
        ("suffix", "audio"), [(".mp4", 1), (".mkv", 0), slow(".mp4", 0), slow(".mkv", 1), slow(".mov", 1)]
    )
    def test_a_variable_rate_source_keeps_every_frame(self, tmp_path: Path, suffix: str, audio: int) -> None:
        source = variable_clip(tmp_path / "in.mp4", audio=audio)
        out = copy_through(source, tmp_path / f"out{suffix}", 30)
        before, after = probe(source), probe(out)
        assert len(after.times) == 40
        assert after.times == pytest.approx([at - before.times[0] for at in before.times], abs=1e-3)
        assert after.duration == pytest.approx(before.duration, abs=0.03)
        for read, expected in zip(decode_frames(out), decode_frames(source), strict=True):
            assert np.abs(read.astype(int) - expected).mean() < 5

    @pytest.mark.parametrize("suffix", [".mp4", slow(".mkv")])
    def test_a_long_last_frame_keeps_its_duration(self, tmp_path: Path, suffix: str) -> None:
        short = clip(tmp_path / "short.mp4", rate="10", seconds=0.5, encode=("-bf", "0"))
        lasting = "setts=duration=if(eq(N\\,4)\\,1/TB\\,DURATION)"
        source = tmp_path / f"in{suffix}"
        ffmpeg("-i", short, "-c", "copy", "-bsf:v", lasting, source)
        written = probe(copy_through(source, tmp_path / "out.mp4", 10))
        assert len(written.times) == 5
        assert written.duration == pytest.approx(1.4, abs=0.01)

    def test_an_incomplete_run_does_not_extend_its_last_frame(self, tmp_path: Path) -> None:
        source = clip(tmp_path / "in.mp4", rate="10", seconds=1.0)
        written = probe(copy_through(source, tmp_path / "out.mp4", 10, frames=4))
        assert len(written.times) == 4
        assert written.duration == pytest.approx(0.4, abs=0.01)

    @pytest.mark.parametrize(
        ("fps", "exact"),
        [
            (29.97, Fraction(30000, 1001)),
            (29.97002997, Fraction(30000, 1001)),
            (23.976, Fraction(24000, 1001)),
            (23.98, Fraction(24000, 1001)),
            (59.94, Fraction(60000, 1001)),
            (119.88, Fraction(120000, 1001)),
            (1, Fraction(1)),
            (24, Fraction(24)),
            (12.5, Fraction(25, 2)),
            (0.2, Fraction(1, 5)),
            (0.001, Fraction(1, 1000)),
        ],
    )
    def test_exact_rates(self, fps: float, exact: Fraction) -> None:
        assert frame_rate(fps) == exact

    @given(st.integers(1, 240))
    @settings(max_examples=60, deadline=None)
    def test_integer_and_ntsc_rates_are_distinguished(self, whole: int) -> None:
        assert frame_rate(float(whole)) == whole
        assert frame_rate(round(whole * 1000 / 1001, 5)) == Fraction(whole * 1000, 1001)

    @given(st.floats(0.01, 1000))
    @settings(max_examples=60, deadline=None)
    def test_any_rate_is_approximated(self, fps: float) -> None:
        assert float(frame_rate(fps)) == pytest.approx(fps, rel=1e-3, abs=1e-6)

    @pytest.mark.parametrize("fps", [0, -1, 0.0001, math.nan, math.inf])
    def test_invalid_rate(self, fps: float, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="frame rate"):
            VideoWriter(tmp_path / "out.mp4", fps)

    @given(st.floats(0, 1e5), st.floats(0, 10), st.sampled_from([10, 25, 29.97, 60]))
    @settings(max_examples=60, deadline=None)
    def test_output_index_is_nearest_and_monotonic(self, at: float, later: float, fps: float) -> None:
        rate = frame_rate(fps)
        assert abs(output_index(at, rate) / rate - at) <= 0.5 / rate + 1e-6
        assert output_index(at, rate) <= output_index(at + later, rate)


class TestGaps:
    def place(self, seconds: Iterable[float], timing: Timing) -> tuple[list[float], Timeline]:
        timeline = Timeline(Fraction(10), timing)
        return [timeline.place(at) for at in seconds], timeline

    def test_a_gap_above_the_limit_is_cut_to_one_frame(self) -> None:
        placed, timeline = self.place([5, 5.1, 65.1, 65.2, 10_000.2], Timing(max_gap=10))
        assert placed == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
        assert timeline.cuts == [pytest.approx((0.2, 60.1)), pytest.approx((60.3, 9995.2))]
        assert timeline.end(10_000.4) == pytest.approx(0.6)
        assert timeline.end(10_050.0) == pytest.approx(0.5)

    def test_by_default_gaps_are_kept_up_to_an_hour(self) -> None:
        placed, timeline = self.place([0, 3599, 10_000], Timing())
        assert placed == pytest.approx([0, 3599, 3599.1])
        assert timeline.cuts == [pytest.approx((3599.1, 10_000))]

    def test_a_long_image_is_repeated_every_hour(self) -> None:
        timeline = Timeline(Fraction(10), Timing(max_gap=math.inf))
        shown = list(timeline.showings(1.0, 1.0 + 2.5 * MAX_STEP))
        assert shown == [(1, MAX_STEP), (1 + MAX_STEP, MAX_STEP), (1 + 2 * MAX_STEP, MAX_STEP / 2)]

    def test_a_rate_below_the_limit_has_no_gaps(self) -> None:
        timeline = Timeline(Fraction(1, 60), Timing(max_gap=10))
        assert [timeline.place(at) for at in (0, 60, 120)] == [0, 60, 120]
        assert timeline.cuts == []

    @given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), st.sampled_from([10.0, 3600.0, math.inf]))
    @settings(max_examples=60, deadline=None)
    def test_times_increase_from_zero(self, seconds: list[float], max_gap: float) -> None:
        placed, timeline = self.place(seconds, Timing(max_gap=max_gap))
        steps = np.diff([*placed, timeline.end()])
        assert placed[0] == 0
        assert (steps >= MIN_STEP - 1e-9).all()
        assert (steps <= max(max_gap, 0.1) + 1e-3).all()

    @pytest.mark.parametrize("hours", [2, 100])
    def test_a_jump_in_time_takes_seconds_to_write(self, tmp_path: Path, hours: int) -> None:
        path = tmp_path / "out.mp4"
        jump = hours * 3600.0
        with VideoWriter(path, 10, timing=Timing(max_gap=math.inf)) as sink:
            write_frames(sink, [0, 0.1, jump, jump + 0.1])
        written = probe(path)
        assert written.times[-2:] == pytest.approx((jump, jump + 0.1), abs=1e-3)
        assert written.duration == pytest.approx(jump + 0.2, abs=0.1)
        assert len(written.times) <= 4 + hours

    def test_audio_is_cut_with_the_gap(self, tmp_path: Path) -> None:
        whole = flash_and_tone(tmp_path / "whole.mkv", 0.0)  # the flash at 1 s, the tone at 1 s
        keep = "select='lt(t,0.2)+gte(t,0.8)'"
        source = tmp_path / "in.mkv"
        ffmpeg("-i", whole, "-vf", keep, "-fps_mode", "passthrough", "-c:a", "pcm_s16le", source)
        times, out = probe(source).times, tmp_path / "out.mkv"
        with VideoWriter(out, 30, audio=source, timing=Timing(max_gap=0.3)) as sink:
            for index, (image, at) in enumerate(zip(decode_frames(source), times, strict=True)):
                sink.write(Frame(index, at, image), image, NOTHING)
        assert audio_delay(out) == pytest.approx(audio_delay(source), abs=1 / 30)
        assert probe(out).audio_spans[0][1] == pytest.approx(2.2 - 0.6 + 1 / 30, abs=0.05)


def transparent_image(index: int, width: int = 64, height: int = 48) -> Image:
    """Return a transparent image with a red square, half of it translucent, that moves right with `index`."""
    image = np.zeros((height, width, 4), np.uint8)
    left = 4 + 4 * index
    image[8:40, left : left + 24] = (30, 40, 220, 255)
    image[8:40, left : left + 12, 3] = 128
    return image


def decode_transparent(path: Path) -> list[Image]:
    """Decode the frames of `path` with their alpha: (height, width, 4) uint8 each."""
    size = probe(path).size
    assert size is not None
    decoder = ("-c:v", "libvpx-vp9") if path.suffix == ".webm" else ()  # ffmpeg's own decoder ignores alpha
    as_bgra = ("-vf", "scale=in_color_matrix=bt709", "-pix_fmt", "bgra", "-f", "rawvideo", "-")
    raw = ffmpeg(*decoder, "-i", path, "-map", "0:v:0", *as_bgra)
    return list(np.frombuffer(raw.stdout, np.uint8).reshape(-1, size[1], size[0], 4))


TRANSPARENT = pytest.mark.parametrize(
    ("suffix", "codec", "loss"), [(".mov", "prores", 1), (".webm", "vp9", 12)], ids=["prores", "vp9"]
)


class TestAlpha:
    @TRANSPARENT
    @pytest.mark.parametrize("audio", [0, 1])
    def test_alpha_and_colours_are_preserved(
        self, tmp_path: Path, suffix: str, codec: str, loss: int, audio: int
    ) -> None:
        source = clip(tmp_path / "in.mp4", rate="10", seconds=0.5, audio=audio)
        path = tmp_path / f"out{suffix}"
        with VideoWriter(path, 10, alpha=True, audio=source) as sink:
            for index in range(5):
                sink.write(
                    Frame(index, index / 10, transparent_image(index)), transparent_image(index), NOTHING
                )
        properties = probe(path)
        assert properties.video_codec == codec
        assert properties.audio_codecs == (() if not audio else ("opus",) if suffix == ".webm" else ("aac",))
        assert properties.times == pytest.approx([i / 10 for i in range(5)], abs=2e-3)
        read = decode_transparent(path)
        assert len(read) == 5
        for index, image in enumerate(read):
            difference = np.abs(image[..., 3].astype(int) - transparent_image(index)[..., 3])
            assert difference.mean() <= loss / 6
            assert np.count_nonzero(difference > loss) <= (100 if codec == "vp9" else 0)
            inside = image[12:36, 20 + 4 * index : 24 + 4 * index, :3].reshape(-1, 3).mean(axis=0)
            assert inside == pytest.approx([30, 40, 220], abs=12)
        assert names(tmp_path) == ["in.mp4", path.name]

    @TRANSPARENT
    def test_odd_sizes(self, tmp_path: Path, suffix: str, codec: str, loss: int) -> None:
        path = tmp_path / f"out{suffix}"
        image = transparent_image(0, 61, 47)
        with VideoWriter(path, 10, alpha=True) as sink:
            sink.write(Frame(0, 0.0, image), image, NOTHING)
        assert (probe(path).video_codec, probe(path).size) == (codec, (62, 48))
        assert np.abs(decode_transparent(path)[0][:47, :61, 3].astype(int) - image[..., 3]).mean() <= loss / 6

    @pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.avi"])
    def test_alpha_is_refused_for_formats_without_it(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(SinkError, match=rf"{name} cannot hold transparent .*\.mov .*\.webm .*folder"):
            VideoWriter(tmp_path / name, 10, alpha=True)

    def test_images_must_match_the_alpha_argument(self, tmp_path: Path) -> None:
        sink = VideoWriter(tmp_path / "out.mp4", 10)
        with pytest.raises(SinkError, match=r"\(48, 64, 4\).*alpha=True"):
            sink.write(Frame(0, 0.0, transparent_image(0)), transparent_image(0), NOTHING)
        transparent = VideoWriter(tmp_path / "out.mov", 10, alpha=True)
        with pytest.raises(SinkError, match=r"\(48, 64, 3\).*alpha=True"):
            write_frames(transparent, [0.0])
        sink.close()
        transparent.close()
        assert names(tmp_path) == []

    def test_crf_applies_to_vp9(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (96, 128, 4), np.uint8)
        for crf in (0, 51):
            with VideoWriter(tmp_path / f"{crf}.webm", 10, encoding=Encoding(crf), alpha=True) as sink:
                sink.write(Frame(0, 0.0, noise), noise, NOTHING)
        assert (tmp_path / "0.webm").stat().st_size > 2 * (tmp_path / "51.webm").stat().st_size


def flash_and_tone(path: Path, delay: float) -> Path:
    """Write a clip that turns white 1 s after the video starts, with a tone 1 s after the audio starts."""
    white = "color=black:size=64x48:rate=30:duration=2,drawbox=color=white:thickness=fill:enable='gte(t,1)'"
    tone = "aevalsrc='if(gte(t,1),sin(2760*t),0)':duration=2.2:sample_rate=44100"
    ffmpeg(
        *("-itsoffset", str(max(delay, 0.0)), "-f", "lavfi", "-i", white),
        *("-itsoffset", str(max(-delay, 0.0)), "-f", "lavfi", "-i", tone),
        *("-map", "0", "-map", "1", "-c:v", "libx264", "-pix_fmt", "yuv420p", path),
    )
    return path


def audio_delay(path: Path) -> float:
    """Return the seconds from the first white frame to the tone, as played."""
    properties = probe(path)
    raw = ffmpeg("-i", path, "-map", "0:a:0", "-ac", "1", "-ar", "44100", "-f", "s16le", "-").stdout
    loud = np.abs(np.frombuffer(raw, np.int16).astype(int)) > 3000
    grey = ffmpeg(
        "-i", path, "-map", "0:v", "-fps_mode", "passthrough", "-pix_fmt", "gray", "-f", "rawvideo", "-"
    )
    white = np.frombuffer(grey.stdout, np.uint8).reshape(len(properties.times), -1).mean(axis=1) > 128
    assert loud.any()
    assert white.any()
    assert not white[0]
    tone = properties.audio_spans[0][0] + float(np.argmax(loud)) / 44100
    return tone - properties.times[int(np.argmax(white))]


class TestAudio:
    @pytest.mark.parametrize(
        ("source", "delay", "out"),
        [
            slow("in.mp4", 0.0, "out.mp4"),
            ("in.mp4", 0.5, "out.mp4"),
            slow("in.mp4", -0.5, "out.mp4"),
            slow("in.ts", 0.5, "out.mp4"),
            ("in.ts", -0.5, "out.mkv"),
            slow("in.mkv", 0.5, "out.mkv"),
        ],
    )
    def test_audio_and_video_with_different_starts_stay_in_sync(
        self, tmp_path: Path, source: str, delay: float, out: str
    ) -> None:
        made = flash_and_tone(tmp_path / source, delay)
        before = audio_delay(made)
        assert before == pytest.approx(-delay, abs=0.03)
        written = copy_through(made, tmp_path / out, 30)
        assert audio_delay(written) == pytest.approx(before, abs=1 / 30)
        assert (probe(written).times[0], len(probe(written).times)) == (0, 60)

    def test_reencoded_audio_stays_in_sync(self, tmp_path: Path) -> None:
        source = tmp_path / "in.mkv"
        ffmpeg("-i", flash_and_tone(tmp_path / "made.mkv", 0.5), "-c:v", "copy", "-c:a", "pcm_s16le", source)
        written = copy_through(source, tmp_path / "out.mp4", 30)
        assert probe(written).audio_codecs == ("aac",)
        assert audio_delay(written) == pytest.approx(-0.5, abs=1 / 30)

    def test_a_clip_with_an_edit_list_stays_in_sync(self, tmp_path: Path) -> None:
        source = tmp_path / "in.mp4"  # with an edit list: half a second is decoded but not shown
        ffmpeg("-ss", "0.5", "-i", flash_and_tone(tmp_path / "whole.mp4", 0.0), "-c", "copy", source)
        written = copy_through(source, tmp_path / "out.mp4", 30)
        assert audio_delay(written) == pytest.approx(audio_delay(source), abs=1 / 30)
        assert len(probe(written).times) == len(probe(source).times) == 45

    def test_a_run_that_starts_late_skips_the_audio_before(self, tmp_path: Path) -> None:
        source = flash_and_tone(tmp_path / "in.mp4", 0.0)
        with VideoWriter(tmp_path / "out.mp4", 30, audio=source) as sink:
            for index, image in list(enumerate(decode_frames(source)))[15:]:
                sink.write(Frame(index, index / 30, image), image, NOTHING)
        assert audio_delay(tmp_path / "out.mp4") == pytest.approx(0, abs=1 / 30)
        assert len(probe(tmp_path / "out.mp4").times) == 45

    @pytest.mark.parametrize("suffix", [".mp4", slow(".mkv")])
    def test_tracks_are_copied_packet_for_packet(self, tmp_path: Path, suffix: str) -> None:
        source = clip(tmp_path / "in.mp4", seconds=1.0, audio=2)
        out = copy_through(source, tmp_path / f"out{suffix}", 30)
        packets = ("-map", "0:a", "-c", "copy", "-f", "streamhash", "-")
        assert ffmpeg("-i", out, *packets).stdout == ffmpeg("-i", source, *packets).stdout
        assert probe(out).audio_codecs == ("aac", "aac")
        assert names(tmp_path) == sorted(["in.mp4", out.name])

    def test_source_without_audio(self, tmp_path: Path) -> None:
        out = copy_through(clip(tmp_path / "in.mp4"), tmp_path / "out.mp4", 30)
        assert probe(out).audio_codecs == ()
        assert len(probe(out).times) == 30

    @pytest.mark.parametrize(
        ("suffix", "out", "codec"),
        [
            (".mkv", "out.mp4", "aac"),
            slow(".avi", "out.mp4", "aac"),
            slow(".mov", "out.mp4", "aac"),
            (".avi", "out.mkv", "pcm_s16le"),
            slow(".mkv", "out.mov", "pcm_s16le"),
        ],
    )
    def test_audio_is_reencoded_only_if_the_container_requires_it(
        self, tmp_path: Path, suffix: str, out: str, codec: str
    ) -> None:
        source = clip(tmp_path / f"in{suffix}", audio=1, encode=("-c:a", "pcm_s16le", "-bf", "0"))
        written = probe(copy_through(source, tmp_path / out, 30))
        assert written.audio_codecs == (codec,)
        assert written.audio_spans[0] == pytest.approx((0, 1), abs=1 / 30)
        assert len(written.times) == 30

    def test_a_file_is_listed_once_until_it_changes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs: list[list[str]] = []
        real = live_seg_ffmpeg._run

        def counted(words: list[str]) -> subprocess.CompletedProcess[bytes]:
            runs.append(words)
            return real(words)

        monkeypatch.setattr(live_seg_ffmpeg, "_run", counted)
        source = clip(tmp_path / "in.mkv", audio=1)
        assert len(audio_tracks(source)) == len(audio_tracks(source)) == 1
        assert len(runs) == 1
        clip(tmp_path / "in.mkv", audio=2)
        assert len(audio_tracks(source)) == 2
        assert audio_tracks(tmp_path / "nowhere.mkv") == {}
        assert len(runs) == 2

    def test_reencoding_one_track_keeps_the_other(self, tmp_path: Path) -> None:
        source = clip(tmp_path / "in.mkv", audio=2, encode=("-c:a:0", "libvorbis", "-c:a:1", "ac3"))
        assert audio_tracks(source) == {1: "vorbis", 2: "ac3"}
        assert probe(copy_through(source, tmp_path / "out.mp4", 30)).audio_codecs == ("aac", "ac3")

    def test_chapters_do_not_become_a_track(self, tmp_path: Path) -> None:
        chapters = tmp_path / "chapters.txt"
        chapters.write_text(";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/10\nSTART=0\nEND=5\ntitle=first\n")
        source = tmp_path / "in.mp4"
        made = clip(tmp_path / "made.mp4", audio=1)
        ffmpeg("-i", made, "-i", chapters, "-map", "0", "-map_chapters", "1", "-c", "copy", source)
        out = copy_through(source, tmp_path / "out.mp4", 30)
        log = ffmpeg("-i", out, "-f", "null", "-").stderr.decode().split("Stream mapping")[0]
        assert log.count("Stream #0:") == 2

    def test_audio_longer_than_the_video_is_kept(self, tmp_path: Path) -> None:
        source = clip(tmp_path / "in.mp4", seconds=0.5, audio=1)
        longer = tmp_path / "longer.mp4"
        tone = ("-f", "lavfi", "-i", "sine=duration=1.5")
        ffmpeg("-i", source, *tone, "-map", "0:v", "-map", "1:a", "-c:v", "copy", longer)
        properties = probe(copy_through(longer, tmp_path / "out.mp4", 30))
        assert len(properties.times) == 15
        assert properties.audio_spans[0] == pytest.approx((0, 1.5), abs=1 / 30)

    @pytest.mark.parametrize("audio", ["aac", "pcm_s16le"])
    def test_audio_ends_with_an_interrupted_video(self, tmp_path: Path, audio: str) -> None:
        source = clip(tmp_path / "in.mkv", seconds=1.5, audio=1, encode=("-c:a", audio))
        properties = probe(copy_through(source, tmp_path / "out.mp4", 30, frames=20))
        assert len(properties.times) == 20
        assert properties.audio_spans[0] == pytest.approx((0, 20 / 30), abs=1 / 30)

    def test_span_of_a_clip(self, tmp_path: Path) -> None:
        made = clip(tmp_path / "made.mkv", rate="10", audio=1, encode=("-bf", "0"))
        late = tmp_path / "late.mkv"
        ffmpeg(
            "-i", made, "-itsoffset", "0.517", "-i", made, "-map", "0:a", "-map", "1:v", "-c", "copy", late
        )
        span = video_span(late)
        assert span is not None
        assert (span.start, span.last, span.end) == pytest.approx((0.517, 0.9, 1.0), abs=0.002)

    def test_span_and_tracks_of_a_damaged_file(self, tmp_path: Path) -> None:
        broken = truncated(tmp_path / "broken.mp4")
        assert video_span(broken) is None
        assert audio_tracks(broken) == {}

    def test_frames_outside_the_edit_list_are_ignored(self, tmp_path: Path) -> None:
        cut = tmp_path / "cut.mp4"
        ffmpeg("-ss", "0.5", "-i", clip(tmp_path / "in.mp4", encode=("-bf", "0")), "-c", "copy", cut)
        data = bytearray(cut.read_bytes())
        per_second, duration = data.index(b"mvhd") + 16, data.index(b"elst") + 12
        units = int.from_bytes(data[per_second : per_second + 4], "big")
        data[duration : duration + 4] = (units * 9 // 30).to_bytes(4, "big")  # ends the first edit earlier
        cut.write_bytes(data)
        assert len(probe(cut).times) == 9
        span = video_span(cut)
        assert span is not None
        assert (span.start, span.last, span.end) == pytest.approx((0, 8 / 30, 9 / 30), abs=1e-3)


class InterruptedPipe:
    """A pipe to ffmpeg that is interrupted by Ctrl-C in the middle of write number `at`."""

    def __init__(self, pipe: IO[bytes], at: int) -> None:
        self._pipe, self._left = pipe, at
        self.close = pipe.close

    def write(self, data: bytes | memoryview) -> None:
        whole = memoryview(data).cast("B")
        self._left -= 1
        self._pipe.write(whole if self._left else whole[: whole.nbytes // 2])
        if not self._left:
            raise KeyboardInterrupt


def fail_after(frames: int, sink: VideoWriter, error: BaseException) -> None:
    """Write some frames, then fail outside of the sink."""
    with sink:
        write_frames(sink, (i / 30 for i in range(frames)))
        raise error


class TestClosing:
    def test_ctrl_c_completes_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "out.mp4"
        with pytest.raises(KeyboardInterrupt):
            fail_after(5, VideoWriter(path, 30), KeyboardInterrupt())
        assert frame_numbers(path) == [0, 1, 2, 3, 4]
        assert names(tmp_path) == ["out.mp4"]

    @pytest.mark.parametrize("at", [1, 2], ids=["header", "image"])
    @pytest.mark.parametrize(("before", "left"), [(5, ["out.mp4"]), (1, [])])
    def test_ctrl_c_during_a_write_loses_only_that_image(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, left: list[str], at: int
    ) -> None:
        path = tmp_path / "out.mp4"
        sink = VideoWriter(path, 30)
        write_frames(sink, (i / 30 for i in range(before)))
        assert sink._encoder is not None
        pipe = sink._encoder._process.stdin
        assert pipe is not None
        monkeypatch.setattr(sink._encoder._process, "stdin", InterruptedPipe(pipe, at))
        last = Frame(before, before / 30, numbered(before))
        with pytest.raises(KeyboardInterrupt), sink:
            sink.write(last, last.image, NOTHING)
        assert names(tmp_path) == left
        if left:
            assert frame_numbers(path) == [0, 1, 2, 3]

    def test_ctrl_c_of_a_terminal_does_not_reach_ffmpeg(self, tmp_path: Path) -> None:
        path = tmp_path / "out.mp4"
        program = f"""
            import pathlib, numpy as np
            from live_seg.types import Frame, Instances
            from live_seg.sinks.video_writer import VideoWriter
            image = np.zeros((480, 640, 3), np.uint8)
            with VideoWriter(pathlib.Path({str(path)!r}), 30) as sink:
                for index in range(100_000):
                    sink.write(Frame(index, index / 30, image), image, Instances.empty())
                    if index == 20:
                        print("running", flush=True)
        """
        command = [sys.executable, "-c", textwrap.dedent(program)]
        with subprocess.Popen(
            command,
            cwd=ROOT,
            process_group=0,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"running\n"
            signal_group(process.pid)
            _, stderr = process.communicate()
        assert stderr.decode().rstrip().endswith("KeyboardInterrupt")
        assert names(tmp_path) == ["out.mp4"]
        assert len(probe(path).times) >= 20

    @pytest.mark.parametrize("audio", [0, 1])
    def test_after_a_failed_run_the_partial_file_plays(
        self, tmp_path: Path, audio: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = clip(tmp_path / "in.mp4", audio=audio)
        with pytest.raises(ZeroDivisionError):
            fail_after(5, VideoWriter(tmp_path / "out.mp4", 30, audio=source), ZeroDivisionError())
        partial = tmp_path / "out.partial.mp4"
        assert names(tmp_path) == ["in.mp4", "out.partial.mp4"]
        assert frame_numbers(partial) == [0, 1, 2, 3, 4]
        assert len(probe(partial).audio_codecs) == audio
        assert str(partial) in caplog.text

    def test_a_new_image_size_raises_and_the_partial_file_plays(self, tmp_path: Path) -> None:
        sink = VideoWriter(tmp_path / "out.mp4", 30)
        write_frames(sink, [0.0])
        with pytest.raises(SinkError, match=r"Frame 1 has the shape \(48, 66, 3\).*one size"), sink:
            sink.write(Frame(1, 0.1, numbered(1)), numbered(1, width=66), NOTHING)
        assert frame_numbers(tmp_path / "out.partial.mp4") == [0]

    def test_closing_twice_is_allowed_and_writing_afterwards_raises(self, tmp_path: Path) -> None:
        sink = VideoWriter(tmp_path / "out.mp4", 30)
        write_frames(sink, [0.0])
        sink.close()
        sink.close(complete=False)
        with pytest.raises(SinkError, match="closed"):
            write_frames(sink, [0.0])
        assert names(tmp_path) == ["out.mp4"]


def signal_group(group: int) -> None:
    """Send SIGINT to all processes of the group, as a terminal does on Ctrl-C."""
    if sys.platform == "win32":
        pytest.skip("needs process groups")
    os.killpg(group, signal.SIGINT)


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace ffmpeg by an executable that starts its output, reads a little and fails; return its folder."""
    fake = tmp_path / "ffmpeg"
    fake.write_text(
        "#!/bin/sh\nfor last; do :; done\n"
        ': >"$last"\nhead -c 5000 >/dev/null\necho "boom, said ffmpeg" >&2\nexit 1\n'
    )
    fake.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
    return tmp_path


class TestFailures:
    def test_encoder_failure_is_quoted_and_leaves_no_file(self, broken: Path) -> None:
        sink = VideoWriter(broken / "out.mp4", 30)
        with pytest.raises(SinkError, match=r"(?s)out\.partial\.mp4.*boom"):
            write_frames(sink, (i / 30 for i in range(20)))
        sink.close()
        assert names(broken) == ["ffmpeg"]

    def test_encoder_failure_at_the_end_is_quoted_and_leaves_no_file(self, broken: Path) -> None:
        sink = VideoWriter(broken / "out.mp4", 30)
        write_frames(sink, [0.0])
        with pytest.raises(SinkError, match=r"(?s)out\.partial\.mp4.*boom"):
            sink.close()
        sink.close()
        assert names(broken) == ["ffmpeg"]

    @pytest.mark.parametrize("name", ["out.mp4", slow("out.mkv"), slow("out.mov"), "out.webm"])
    def test_full_disk_keeps_what_was_recorded(self, tmp_path: Path, name: str) -> None:
        alpha = name == "out.webm"
        noise = np.random.default_rng(0).integers(0, 256, (48, 64, 4 if alpha else 3), np.uint8)
        with small_disk(tmp_path / "disk", kibibytes=256) as disk:
            sink = VideoWriter(disk / name, 10, alpha=alpha)
            with pytest.raises(SinkError) as failure:  # noqa: PT012, the pipe to ffmpeg holds some images
                for index in range(10_000):
                    sink.write(Frame(index, index / 10, noise), np.roll(noise, index), NOTHING)
                sink.close()
            sink.close()
            (partial,) = disk.iterdir()
            assert partial.name == name.replace(".", ".partial.")
            assert "No space left on device" in str(failure.value)
            assert str(failure.value).endswith(f"The output so far is in {partial}.")
            assert len(probe(partial).times) >= 20

    def test_without_space_for_the_second_pass_the_first_is_kept(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
        source = clip(tmp_path / "in.mp4", audio=1)
        with small_disk(tmp_path / "disk", kibibytes=1024) as disk:
            sink = VideoWriter(disk / "out.mp4", 30, audio=source)
            for index in range(30):
                sink.write(Frame(index, index / 30, noise), np.roll(noise, index), NOTHING)
            assert sink._encoder is not None
            real = sink._encoder.finish

            def full() -> None:
                real()
                fill(disk)

            sink._encoder.finish = full  # type: ignore[method-assign]
            with pytest.raises(SinkError, match=r"(?s)No space left.*so far is in .*out\.partial\.mp4"):
                sink.close()
            assert names(disk) == ["ballast", "out.partial.mp4"]
            assert len(probe(disk / "out.partial.mp4").times) == 30

    @pytest.mark.parametrize("name", ["out.mp4", "out.mkv", slow("out.mov")])
    def test_a_killed_encoder_leaves_a_file_that_plays(self, tmp_path: Path, name: str) -> None:
        sink = VideoWriter(tmp_path / name, 10)
        write_frames(sink, (index / 10 for index in range(20)))
        noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
        for index in range(20, 100):
            sink.write(Frame(index, index / 10, noise), np.roll(noise, index), NOTHING)
        encoder = running_ffmpeg()
        partial = tmp_path / name.replace(".", ".partial.")
        while partial.stat().st_size < 20_000:  # some seconds
            time.sleep(0.01)
        playable = len(probe(partial).times)
        encoder.kill()
        with pytest.raises(SinkError, match=rf"The output so far is in .*{re.escape(partial.name)}"):
            write_frames(sink, (10 + index / 10 for index in range(100)))
        assert names(tmp_path) == [partial.name]
        assert len(probe(partial).times) >= playable >= 10

    def test_an_error_at_the_end_does_not_hide_the_first_one(
        self, broken: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(ZeroDivisionError):
            fail_after(1, VideoWriter(broken / "out.mp4", 30), ZeroDivisionError())
        assert "boom, said ffmpeg" in caplog.text

    def test_missing_ffmpeg(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def none() -> str:
            raise RuntimeError("No ffmpeg exe could be found.")

        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", none)
        with pytest.raises(SinkError, match="No ffmpeg"):
            VideoWriter(tmp_path / "out.mp4", 30)


class TestInvalidArguments:
    def test_existing_file_is_refused_and_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "out.mp4"
        path.write_text("precious")
        with pytest.raises(SinkError, match="--overwrite"):
            VideoWriter(path, 30)
        assert path.read_text() == "precious"

    def test_overwrite_replaces_it_once_complete(self, tmp_path: Path) -> None:
        path = tmp_path / "out.mp4"
        path.write_text("old")
        with VideoWriter(path, 30, overwrite=True) as sink:
            write_frames(sink, [0.0])
            assert path.read_text() == "old"
        assert frame_numbers(path) == [0]

    @pytest.mark.parametrize("name", ["out.avi", "out", "out.txt"])
    def test_unknown_suffix(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(SinkError, match=r"\.mp4, \.m4v, \.mov, \.mkv"):
            VideoWriter(tmp_path / name, 30)

    @pytest.mark.parametrize("crf", [-1, 52])
    def test_invalid_quality(self, tmp_path: Path, crf: int) -> None:
        with pytest.raises(UsageError, match=f"crf.*Got {crf}"):
            VideoWriter(tmp_path / "out.mp4", 30, encoding=Encoding(crf))

    def test_names_that_ffmpeg_would_parse_as_url_or_option(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("12:30.mp4", "-größe %03d.mp4"):
            with VideoWriter(Path(name), 30) as sink:
                write_frames(sink, [0.0])
            assert frame_numbers(tmp_path / name) == [0]
