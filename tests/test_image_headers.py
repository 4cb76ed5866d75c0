"""Images: their size before decoding, those that do not fit into memory, and names of every kind."""

import io
import os
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live_seg import files
from live_seg.cli.options import Options
from live_seg.errors import SourceError
from live_seg.files import read_image
from live_seg.image_headers import declared_size
from live_seg.sources.opening import open_source
from tests.clips import clip
from tests.stand_ins import StandIn
from tests.test_cli import invoke

SUFFIXES = (".png", ".jpg", ".webp", ".tif", ".bmp", ".ppm", ".pgm", ".pbm", ".jp2")


def encoded(suffix: str, width: int, height: int, *how: int) -> bytes:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    if suffix == ".jp2":
        return saved(PIL.Image.fromarray(image), "JPEG2000", PIL.Image.Exif())
    one = image if suffix not in (".pgm", ".pbm") else image[:, :, 0]
    return cv2.imencode(suffix, one, how)[1].tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG file of a few bytes that declares many pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", [(1, 1), (30, 20), (257, 300)])
def test_the_declared_size(suffix: str, size: tuple[int, int]) -> None:
    assert declared_size(encoded(suffix, *size)) == size


def test_other_forms_of_a_header() -> None:
    assert declared_size(encoded(".webp", 40, 30, cv2.IMWRITE_WEBP_QUALITY, 50)) == (40, 30)  # lossy
    assert declared_size(encoded(".jpg", 40, 30, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)) == (40, 30)
    assert declared_size(b"P3 # a comment\n40 # another\n 30 255 ") == (40, 30)
    with_exif = PIL.Image.new("RGB", (40, 30))
    exif = PIL.Image.Exif()
    exif[274] = 6
    assert declared_size(saved(with_exif, "JPEG", exif)) == (40, 30)


def saved(image: PIL.Image.Image, kind: str, exif: PIL.Image.Exif) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, exif=exif)
    return file.getvalue()


@given(
    st.sampled_from(SUFFIXES),
    st.integers(0, 60),
    st.binary(max_size=8),
    st.integers(0, 200),
)
def test_damaged_headers(suffix: str, place: int, noise: bytes, length: int) -> None:
    data = bytearray(encoded(suffix, 30, 20))
    data[place : place + len(noise)] = noise
    size = declared_size(bytes(data[:length]))
    assert size is None or min(size) >= 0


def test_an_image_that_does_not_fit_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", refuse)
    (tmp_path / "a.png").write_bytes(bomb(40_000, 40_000))
    with pytest.raises(SourceError, match=r"a.png has 40000 x 40000 pixels, more than OpenCV reads"):
        read_image(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(bomb(30_000, 30_000))
    monkeypatch.setattr(files, "available_memory", lambda: 8 * 10**9)
    with pytest.raises(SourceError, match=r"30000 x 30000 pixels, which need 10.8 GB of memory, and 8.0 GB"):
        read_image(tmp_path / "a.png")


def test_memory_that_runs_out_while_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        error = cv2.error("Failed to allocate 2700000000 bytes")
        error.code = cv2.Error.StsNoMem
        raise error

    monkeypatch.setattr(cv2, "imdecode", fail)
    (tmp_path / "a.png").write_bytes(encoded(".png", 3, 2))
    with pytest.raises(SourceError, match="too little memory"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["TIFF", "PNG", "JPEG"])
def test_orientation(tmp_path: Path, kind: str, orientation: int) -> None:
    corners = np.zeros((16, 32, 3), np.uint8)
    corners[:8, :16] = 255
    corners[8:, :16] = 128
    exif = PIL.Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{kind}"
    path.write_bytes(saved(PIL.Image.fromarray(corners), kind, exif))
    expected = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(path)))
    np.testing.assert_allclose(read_image(path), expected, atol=3)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    image, video = (folder / os.fsdecode(b"\xff" + suffix) for suffix in (b".png", b".mp4"))
    image.write_bytes(encoded(".png", 30, 20))
    clip(tmp_path / "a.mp4", seconds=0.2).rename(video)
    assert read_image(image).shape == (20, 30, 3)
    for spec in (folder, folder / "*.png", image):
        with open_source(spec) as source:
            assert len(list(source)) == 1
    with open_source(video) as source:
        assert len(list(source)) == 6
    video.write_bytes(b"no video")
    with pytest.raises(SourceError, match="not a video"):
        open_source(video)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_a_pattern_of_names_that_are_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Options, "load", lambda _: StandIn())
    for name in (b"a", b"\xff\xe9"):
        (tmp_path / os.fsdecode(name + b".jpg")).write_bytes(encoded(".jpg", 30, 20))
    out = tmp_path / "out"
    result = invoke("image", tmp_path / "*.jpg", "-o", out, "--json", tmp_path / "a.jsonl")
    assert result.exit_code == 0
    assert {os.fsencode(path.name) for path in out.iterdir()} == {b"a.png", b"\xff\xe9.png"}
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 2
