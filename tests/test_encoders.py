"""Codecs and encoders of videos: files in each codec, the probe, and the choice of hardware."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from live_seg.choices import EncoderName, VideoCodec
from live_seg.doctor.encoders import encoders
from live_seg.errors import SinkError, UsageError
from live_seg.sinks import encoding as module
from live_seg.sinks.codecs import CODECS, HARDWARE, SOFTWARE, SVT_AV1, X264, X265, Codec, hardware
from live_seg.sinks.encoding import Encoding, failure_of
from live_seg.sinks.video_writer import VideoWriter
from live_seg.types import Frame, Instances
from tests.clips import FFMPEG, clip, decode_frames, no_process_left_behind, probe

pytestmark = pytest.mark.usefixtures(no_process_left_behind.__name__)

TIMES = (0.0, 0.1, 0.15, 0.4)


@pytest.fixture(autouse=True)
def _no_memory() -> Iterator[None]:
    """Forget the answers of earlier probes, and those of this test."""
    for cached in (module.failure_of, module._automatic):
        cached.cache_clear()
    yield
    for cached in (module.failure_of, module._automatic):
        cached.cache_clear()


def write(path: Path, encoding: Encoding, audio: Path | None = None) -> Path:
    with VideoWriter(path, 10, encoding=encoding, audio=audio) as sink:
        for index, seconds in enumerate(TIMES):
            image = np.full((120, 160, 3), 40 + 40 * index, np.uint8)
            sink.write(Frame(index, seconds, image), image, Instances.empty())
    return path


class TestFiles:
    @pytest.mark.parametrize(
        ("codec", "suffix"), [("hevc", ".mp4"), ("hevc", ".mov"), ("av1", ".mp4"), ("av1", ".mkv")]
    )
    def test_frames_have_their_times_and_images(self, tmp_path: Path, codec: VideoCodec, suffix: str) -> None:
        path = write(tmp_path / f"a{suffix}", Encoding(codec=codec))
        properties = probe(path)
        assert (properties.video_codec, properties.pixel_format) == (codec, "yuv420p")
        assert properties.times == pytest.approx(TIMES, abs=1e-3)
        assert properties.duration == pytest.approx(0.5, abs=0.01)
        means = [float(image.mean()) for image in decode_frames(path)]
        assert means == pytest.approx([40, 80, 120, 160], abs=4)

    def test_hevc_has_the_tag_of_apples_players(self, tmp_path: Path) -> None:
        sound = clip(tmp_path / "sound.mp4", seconds=0.5, audio=1)
        assert b"hvc1" in write(tmp_path / "a.mp4", Encoding(codec="hevc"), audio=sound).read_bytes()

    def test_a_lower_crf_gives_a_larger_file(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
        for crf in (10, 50):
            with VideoWriter(tmp_path / f"{crf}.mkv", 30, encoding=Encoding(crf, "av1")) as sink:
                sink.write(Frame(0, 0.0, noise), noise, Instances.empty())
        assert (tmp_path / "10.mkv").stat().st_size > 2 * (tmp_path / "50.mkv").stat().st_size

    def test_quicktime_holds_no_av1(self, tmp_path: Path) -> None:
        with pytest.raises(SinkError, match=r"a.mov cannot hold AV1. Use .mp4 or .mkv"):
            VideoWriter(tmp_path / "a.mov", 30, encoding=Encoding(codec="av1"))

    @pytest.mark.parametrize("encoding", [Encoding(codec="hevc"), Encoding(encoder="auto")])
    def test_transparent_video_has_a_codec_of_its_own(self, tmp_path: Path, encoding: Encoding) -> None:
        with pytest.raises(UsageError, match=r"a.webm is transparent"):
            VideoWriter(tmp_path / "a.webm", 30, encoding=encoding, alpha=True)


class TestChoice:
    @pytest.mark.parametrize("codec", CODECS)
    def test_software_is_the_default(self, codec: VideoCodec) -> None:
        assert Encoding(codec=codec).chosen() == SOFTWARE[codec]

    def test_x264_encodes_nothing_else(self) -> None:
        with pytest.raises(UsageError, match="x264 encodes h264 only, not av1"):
            Encoding(codec="av1", encoder="x264")

    def works(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
        """Make the encoders `names` work only. Return a list that receives each encoder that is tried."""
        tried: list[str] = []

        def answer(one: Codec) -> str | None:
            tried.append(one.name)
            return None if one.name in names else "no such device"

        monkeypatch.setattr(module, "failure_of", answer)
        return tried

    def test_auto_takes_the_first_hardware_that_works(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        tried = self.works(monkeypatch, "hevc_qsv", "hevc_vaapi")
        caplog.set_level("INFO", "live_seg")
        assert Encoding(codec="hevc", encoder="auto").chosen() == hardware("qsv", "hevc")
        assert tried == ["hevc_nvenc", "hevc_qsv"]
        assert caplog.messages == ["Videos are encoded with hevc_qsv."]

    @pytest.mark.parametrize(("codec", "software"), [("h264", X264), ("av1", SVT_AV1)])
    def test_auto_takes_software_without_hardware(
        self, monkeypatch: pytest.MonkeyPatch, codec: VideoCodec, software: Codec
    ) -> None:
        tried = self.works(monkeypatch, "svt-av1")
        assert Encoding(codec=codec, encoder="auto").chosen() == software
        assert tried[:5] == [f"{codec}_{name}" for name in HARDWARE]

    @pytest.mark.parametrize(
        ("codec", "encoder", "message"),
        [
            ("h264", "nvenc", "Cannot encode with h264_nvenc: no such device. Use --encoder auto."),
            ("hevc", None, "Cannot encode with x265: no such device. Use --codec h264."),
        ],
    )
    def test_the_reason_of_a_failure_is_reported_before_the_first_frame(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        codec: VideoCodec,
        encoder: EncoderName | None,
        message: str,
    ) -> None:
        self.works(monkeypatch)
        with pytest.raises(SinkError, match=message):
            VideoWriter(tmp_path / "a.mp4", 30, encoding=Encoding(23, codec, encoder))


class TestProbe:
    def test_software_works(self) -> None:
        assert [failure_of(one) for one in (X264, X265, SVT_AV1)] == [None] * 3

    @pytest.mark.parametrize("encoder", HARDWARE)
    def test_hardware_options_are_known_to_ffmpeg(self, encoder: EncoderName) -> None:
        """Without the device the probe fails, but not because of an option."""
        for codec in CODECS:
            failure = failure_of(hardware(encoder, codec)) or ""
            assert "ption" not in failure
            assert "parse" not in failure

    @pytest.mark.parametrize("encoder", HARDWARE)
    def test_hardware_options_belong_to_the_encoder(self, encoder: EncoderName) -> None:
        """Drivers may be missing, so ffmpeg's own list of options is compared."""
        common = {"-c:v", "-b:v", "-global_quality", "-q:v", "-init_hw_device", "-filter_hw_device"}
        for codec in CODECS:
            one = hardware(encoder, codec)
            listed = subprocess.run(
                [FFMPEG, "-hide_banner", "-h", f"encoder={one.name}"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            if "is not recognized" in listed:
                continue
            used = {word for word in (*one.encoder, *one.quality) if word.startswith("-")} - common
            assert {name for name in used if f" {name} " not in listed} == set()
            assert one.upload or one.pixels in listed

    def script(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
        if sys.platform == "win32":
            pytest.skip("needs a shell script")
        fake = tmp_path / "ffmpeg"
        fake.write_text(f"#!/bin/sh\n{lines}\n")
        fake.chmod(0o755)
        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))

    def test_the_first_message_is_the_reason(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        message = "echo '[h264_nvenc @ 0x5] Cannot load libcuda.so.1.' >&2; echo 'later' >&2; exit 1"
        self.script(tmp_path, monkeypatch, message)
        assert failure_of(hardware("nvenc", "h264")) == "Cannot load libcuda.so.1"

    def test_a_driver_that_hangs_is_not_used(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.script(tmp_path, monkeypatch, "exec sleep 60")
        monkeypatch.setattr(module, "PROBE_TIMEOUT", 0.1)
        assert failure_of(hardware("vaapi", "h264")) == "no answer within 0.1 s"


def test_doctor_lists_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    working = {"x264", "svt-av1", "h264_vaapi", "hevc_vaapi"}
    monkeypatch.setattr(
        "live_seg.doctor.encoders.failure_of", lambda one: None if one.name in working else "no device"
    )
    finding = encoders()
    assert finding.state == "good"
    assert finding.message == (
        "h264: x264, av1: svt-av1; hardware: vaapi (h264, hevc); not nvenc (no device), qsv (no device), "
        "videotoolbox (no device), amf (no device)"
    )
