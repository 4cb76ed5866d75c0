"""Colours and shapes of video files, compared with ffmpeg's own conversion; and parts of files."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from live_seg import open_source
from live_seg.cli.options import Options
from live_seg.errors import SourceError, UsageError
from live_seg.sources.colour import VideoFormat, parse_format
from live_seg.sources.converted_files import ConvertedFile, open_video
from live_seg.sources.excerpt import Excerpt, parse_time
from live_seg.sources.video_files import VideoFile
from live_seg.types import Frame, Image
from tests.clips import clip, ffmpeg, no_process_left_behind, probe  # noqa: F401, a fixture
from tests.marks import slow
from tests.stand_ins import StandIn
from tests.test_cli import invoke

PATTERN = "testsrc2=size={size}:rate=10:duration=0.3,gblur=sigma=9"
TONEMAPPED = (
    "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=tonemap=hable:desat=0,"
    "zscale=t=bt709:m=bt709:r=tv,format=yuv444p"
)
EXACT = "zscale=m=gbr:r=pc:f=bicubic,format=gbrp"
HEVC = ("-c:v", "libx265", "-crf", "5", "-x265-params")
AVC = ("-c:v", "libx264", "-crf", "5")


def tagged(
    matrix: str, primaries: str, transfer: str, scaling: str = "out_range=tv", pixels: str = "yuv420p"
) -> str:
    tags = f"colorspace={matrix}:color_primaries={primaries}:color_trc={transfer}"
    return f"scale={scaling},format={pixels},setparams={tags}"


def hevc(matrix: str, primaries: str, transfer: str) -> tuple[str, ...]:
    tags = f"log-level=error:colormatrix={matrix}:colorprim={primaries}:transfer={transfer}"
    filters = tagged(matrix, primaries, transfer, pixels="yuv420p10le")
    return ("-vf", filters, *HEVC, tags)


CLIPS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "hlg": ("320x180", hevc("bt2020nc", "bt2020", "arib-std-b67"), TONEMAPPED),
    "pq": ("320x180", hevc("bt2020nc", "bt2020", "smpte2084"), TONEMAPPED),
    "ten bits": ("320x180", hevc("bt709", "bt709", "bt709"), EXACT),
    "full range": (
        "320x180",
        ("-vf", f"{tagged('bt709', 'bt709', 'bt709', 'out_range=pc:out_color_matrix=bt709')}:range=pc", *AVC),
        EXACT,
    ),
    "wide pixels": (
        "240x180",
        ("-vf", "setsar=4/3", *AVC),
        f"setparams=colorspace=smpte170m,{EXACT},scale=320:180",
    ),
    "tall pixels": (
        "320x180",
        ("-vf", "setsar=2/3", *AVC),
        f"setparams=colorspace=smpte170m,{EXACT},scale=320:270",
    ),
    "untagged, full range": (
        "320x180",
        (
            "-vf",
            f"{tagged('unknown', 'unknown', 'unknown', 'out_range=pc:out_color_matrix=smpte170m')}:range=pc",
            *AVC,
        ),
        f"setparams=colorspace=smpte170m,{EXACT}",
    ),
    "untagged": (
        "1280x720",
        ("-vf", tagged("unknown", "unknown", "unknown", "out_range=tv:out_color_matrix=bt709"), *AVC),
        f"setparams=colorspace=bt709,{EXACT}",
    ),
}
"""Size, encoding, and the filters of ffmpeg that convert each clip as it should be shown."""


def make(name: str, folder: Path) -> Path:
    size, encoding, _ = CLIPS[name]
    path = folder / f"{name.replace(' ', '-')}.mp4"
    ffmpeg("-f", "lavfi", "-i", PATTERN.format(size=size), *encoding, path)
    return path


def reference(path: Path, filters: str, size: tuple[int, int]) -> list[Image]:
    raw = ffmpeg("-i", path, "-vf", filters, "-pix_fmt", "bgr24", "-f", "rawvideo", "-").stdout
    return list(np.frombuffer(raw, np.uint8).reshape(-1, size[1], size[0], 3))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Options, "load", lambda _: StandIn())


@pytest.mark.parametrize("name", [slow(name) if name == "hlg" else name for name in CLIPS])
@pytest.mark.usefixtures("no_process_left_behind")
def test_colours_are_those_of_ffmpeg(name: str, tmp_path: Path) -> None:
    path = make(name, tmp_path)
    with open_source(path) as source:
        assert isinstance(source, ConvertedFile)
        frames = list(source)
        expected = reference(path, CLIPS[name][2], source.size)
        assert (source.name, source.fps, source.audio) == (str(path), 10.0, path)
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.1, 0.2])
    assert len(expected) == 3
    for frame, image in zip(frames, expected, strict=True):
        assert np.abs(frame.image.astype(int) - image).max() <= 4


@pytest.mark.parametrize("name", [slow(name) if name in ("hlg", "pq") else name for name in CLIPS])
def test_opencv_alone_shows_something_else(name: str, tmp_path: Path) -> None:
    """Except for 10 bits and full range. For HDR it computes a table, which takes seconds."""
    path = make(name, tmp_path)
    with open_source(path) as source:
        size = source.size
    expected, *_ = reference(path, CLIPS[name][2], size)
    with VideoFile(path) as plain:
        first = next(iter(plain)).image
    differs = first.shape != expected.shape or np.abs(first.astype(int) - expected).max() > 20
    assert differs == (name not in ("ten bits", "full range", "untagged, full range"))


def test_sharp_edges_have_the_colours_of_a_bicubic_conversion(tmp_path: Path) -> None:
    pattern = "testsrc2=size=320x180:rate=10:duration=0.1"
    ffmpeg("-f", "lavfi", "-i", pattern, *hevc("bt709", "bt709", "bt709"), tmp_path / "a.mp4")
    with open_source(tmp_path / "a.mp4") as source:
        (frame,) = source
    exact, fast = (
        reference(tmp_path / "a.mp4", filters, (320, 180))[0].astype(int) for filters in (EXACT, "null")
    )
    assert np.abs(frame.image - exact).max() <= 1
    assert np.abs(fast - exact).max() > 40


@pytest.mark.parametrize(("size", "used"), [("320x180", True), ("321x181", False)])
def test_zscale_needs_even_sizes(size: str, used: bool, tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", size=size, seconds=0.1, encode=("-vf", "setsar=4/3", "-crf", "5"))
    video = parse_format(ffmpeg("-i", path, "-f", "null", "-").stderr.decode())
    assert video is not None
    assert ("zscale" in video.filters()) == used
    with open_source(path) as source:
        assert isinstance(source, ConvertedFile)
        assert len(list(source)) == 3


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
def test_ordinary_files_differ_from_the_reference_at_edges_only(tmp_path: Path, matrix: str) -> None:
    path = tmp_path / "a.mp4"
    filters = tagged(matrix, matrix, matrix, f"out_range=tv:out_color_matrix={matrix}")
    differences = {}
    for blur in ("null", "gblur=sigma=40"):
        pattern = f"testsrc2=size=320x180:rate=10:duration=0.1,{blur}"
        ffmpeg("-y", "-f", "lavfi", "-i", pattern, "-vf", filters, *AVC, path)
        with open_source(path) as source:
            assert isinstance(source, VideoFile)
            image = next(iter(source)).image.astype(int)
        for name, chain in (("default", f"scale=in_color_matrix={matrix}"), ("exact", EXACT)):
            differences[blur, name] = np.abs(image - reference(path, chain, (320, 180))[0]).max()
    assert max(differences["null", "default"], differences["gblur=sigma=40", "default"]) <= 1
    assert differences["null", "exact"] > 40
    assert differences["gblur=sigma=40", "exact"] <= 8


def test_rotation_applies_before_the_shape_of_pixels(tmp_path: Path) -> None:
    flat = clip(tmp_path / "flat.mp4", size="240x180", seconds=0.2, encode=("-vf", "setsar=4/3"))
    ffmpeg("-display_rotation", "90", "-i", flat, "-c", "copy", tmp_path / "a.mp4")
    with open_source(tmp_path / "a.mp4") as source:
        assert source.size == (180, 320)
        assert next(iter(source)).image.shape == (320, 180, 3)


@pytest.mark.usefixtures("no_process_left_behind")
def test_closing_ends_ffmpeg(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", seconds=3, encode=("-vf", "setsar=4/3"))
    source = open_video(path)
    frames = iter(source)
    assert next(frames).index == 0
    source.close()
    source.close()
    assert list(frames) == []
    with pytest.raises(SourceError, match="was read already"):
        next(iter(source))


@pytest.mark.usefixtures("model")
def test_the_output_is_tagged_as_what_it_is(tmp_path: Path) -> None:
    path = make("hlg", tmp_path)
    assert (
        invoke(
            "video", path, "-o", tmp_path / "out.mp4", "--no-labels", "--no-boxes", "--alpha", "0"
        ).exit_code
        == 0
    )
    written = parse_format(ffmpeg("-i", tmp_path / "out.mp4", "-f", "null", "-").stderr.decode())
    assert written == VideoFormat("yuv420p", False, "bt709", "bt709", "bt709", (320, 180))


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (
            "hevc (Main 10) (hvc1 / 0x31637668), yuv420p10le(tv, bt2020nc/bt2020/arib-std-b67), 1920x1080",
            VideoFormat("yuv420p10le", False, "bt2020nc", "bt2020", "arib-std-b67", (1920, 1080)),
        ),
        (
            "h264 (High), yuvj420p(pc, bt470bg/unknown/unknown, progressive), 640x480 [SAR 4:3 DAR 16:9]",
            VideoFormat("yuvj420p", True, "bt470bg", "unknown", "unknown", (640, 480), Fraction(4, 3)),
        ),
        (
            "h264 (High), yuv420p(progressive), 1280x720 [SAR 0:1 DAR 0:1], 30 fps",
            VideoFormat("yuv420p", False, "unknown", "unknown", "unknown", (1280, 720)),
        ),
        ("vp9, yuv420p(tv), 8x8", VideoFormat("yuv420p", False, "unknown", "unknown", "unknown", (8, 8))),
    ],
)
def test_the_format_is_what_ffmpeg_lists(stream: str, expected: VideoFormat) -> None:
    cover = "  Stream #0:0: Video: mjpeg (Baseline), yuvj420p(pc), 50x50, 90k tbr (attached pic)\n"
    assert parse_format(f"{cover}  Stream #0:1[0x1](und): Video: {stream}\n") == expected
    assert parse_format(cover) is None


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 12 s at 10 fps whose grey level is twice its index."""
    path = tmp_path_factory.mktemp("long") / "a.mp4"
    grey = "color=black:size=64x48:rate=10:duration=12,format=gray,geq=lum=2*N"
    tone = ("-f", "lavfi", "-i", "sine=duration=12")
    ffmpeg("-f", "lavfi", "-i", grey, *tone, "-pix_fmt", "yuv420p", "-g", "25", *AVC, path)
    return path


class TestExcerpt:
    def read(self, path: Path, start: float, end: float) -> list[Frame]:
        with open_source(path, start=start, end=end) as source:
            assert isinstance(source, Excerpt) == ((start, end) != (0, math.inf))
            return list(source)

    @pytest.mark.parametrize(("start", "end"), [(0, 0.5), (1.25, 2), (7, 7.5), (11.5, math.inf), (0, 99)])
    def test_frames_are_those_between_start_and_end(self, long: Path, start: float, end: float) -> None:
        first, last = math.ceil(start * 10), min(math.ceil(end * 10) if end < 99 else 120, 120)
        found, whole = self.read(long, start, end), self.read(long, 0, math.inf)[first:last]
        assert [frame.index for frame in found] == list(range(last - first))
        assert [frame.seconds for frame in found] == [frame.seconds for frame in whole]
        for frame, same in zip(found, whole, strict=True):
            np.testing.assert_array_equal(frame.image, same.image)

    def test_files_that_ffmpeg_converts_have_the_same_times(self, long: Path, tmp_path: Path) -> None:
        ffmpeg("-i", long, "-vf", "setsar=4/3", *AVC, tmp_path / "a.mp4")
        found = self.read(tmp_path / "a.mp4", 7, 7.5)
        assert [round(frame.seconds, 3) for frame in found] == [7.0, 7.1, 7.2, 7.3, 7.4]

    def test_nothing_there(self, long: Path) -> None:
        with pytest.raises(
            SourceError, match=r"no frames from 20 s on and before inf s; the last one read is at"
        ):
            self.read(long, 20, math.inf)

    @pytest.mark.parametrize(("start", "end"), [(2, 1), (-1, 3), (1, 1)])
    def test_start_comes_before_end(self, long: Path, start: float, end: float) -> None:
        with pytest.raises(UsageError, match="Expected a start before the end"):
            open_source(long, start=start, end=end)

    def test_only_files_have_parts(self) -> None:
        with pytest.raises(UsageError, match="Only a video file can be read in part"):
            open_source(0, start=1)

    @pytest.mark.usefixtures("model")
    def test_the_command_keeps_audio_in_sync(self, long: Path, tmp_path: Path) -> None:
        options = ("--start", "0:07", "--end", "8.5")
        assert invoke("video", long, "-o", tmp_path / "out.mp4", *options).exit_code == 0
        written = probe(tmp_path / "out.mp4")
        assert len(written.times) == 15
        ((begin, end),) = written.audio_spans
        assert begin == pytest.approx(0, abs=0.05)
        assert end == pytest.approx(1.5, abs=0.05)

    @pytest.mark.parametrize(
        ("text", "seconds"), [("80", 80), ("1:20", 80), ("1:02:03.5", 3723.5), (" 0.5 ", 0.5)]
    )
    def test_times(self, text: str, seconds: float) -> None:
        assert parse_time(text) == seconds

    @pytest.mark.parametrize("text", ["", "1:", ":5", "-3", "1m", "1:2:3:4", "nan"])
    def test_what_is_no_time(self, text: str) -> None:
        with pytest.raises(UsageError, match="is not a time"):
            parse_time(text)
