"""The size that an image declares in its header, read without decoding it."""

import re
import struct

PNM = re.compile(rb"P[1-6]\s+(?:#[^\n]*\s+)*(\d{1,9})\s+(?:#[^\n]*\s+)*(\d{1,9})\s")

JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""JPEG markers of a frame header, SOF0 to SOF15."""

TIFF_WIDTH, TIFF_HEIGHT = 256, 257
"""TIFF tags."""


def declared_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) from the header of an image file; None if it is unknown or damaged."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return struct.unpack_from(">II", data, 16)
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _tiff(data, "<" if data.startswith(b"II") else ">")
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
        if data.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", data, 18)
            return abs(width), abs(height)
        if data[4:8] == b"jP  ":  # JPEG 2000
            height, width = struct.unpack_from(">II", data, data.index(b"ihdr") + 4)
            return width, height
        if found := PNM.match(data):
            return int(found[1]), int(found[2])
    except (struct.error, ValueError, IndexError):
        pass
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Follow the segments to the frame header (ITU-T T.81, annex B)."""
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # fill, or without a length
            at += 1 if marker == 0xFF else 2
            continue
        if marker in JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + max(2, struct.unpack_from(">H", data, at + 2)[0])
    return None


def _tiff(data: bytes, order: str) -> tuple[int, int] | None:
    """Read the first directory (TIFF 6.0, section 2)."""
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    found = {}
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        (found[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, at + 8)
    return (found[TIFF_WIDTH], found[TIFF_HEIGHT]) if {TIFF_WIDTH, TIFF_HEIGHT} <= found.keys() else None


def _webp(data: bytes) -> tuple[int, int] | None:
    """Read the first chunk (RFC 9649, section 2)."""
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF
