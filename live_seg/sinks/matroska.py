"""Raw images, and sound, with times as a Matroska stream, the input of an encoder.

The elements are those of RFC 9559 (Matroska) and RFC 8794 (EBML). Every cluster holds one image, or samples.
"""

import struct
from fractions import Fraction

from live_seg.sound import CHANNELS, RATE, SAMPLE_BYTES

MICROSECONDS = 1_000_000
"""Ticks per second of the stream."""

FOURCC = {3: b"BGR\x18", 4: b"BGRA"}
"""Pixel format by number of channels; ffmpeg reads them as bgr24 and bgra."""

VIDEO_TRACK, SOUND_TRACK = 1, 2
UNKNOWN_LENGTH = b"\x01" + b"\xff" * 7


def header(width: int, height: int, channels: int, rate: Fraction, *, sound: bool = False) -> bytes:
    """Return the start of a stream of images of `width` x `height` pixels, with 3 or 4 `channels`.

    `rate` is the nominal number of images per second; the blocks have times of their own. With `sound`, the
    stream has samples, too.
    """
    document = _element(
        0x1A45DFA3,  # EBML
        _number(0x4286, 1),  # EBMLVersion
        _number(0x42F7, 1),  # EBMLReadVersion
        _element(0x4282, b"matroska"),  # DocType
        _number(0x4287, 4),  # DocTypeVersion
        _number(0x4285, 2),  # DocTypeReadVersion
    )
    info = _element(0x1549A966, _number(0x2AD7B1, 10**9 // MICROSECONDS))  # TimestampScale in nanoseconds
    video = _element(
        0xE0,
        _number(0xB0, width),
        _number(0xBA, height),
        _element(0x2EB524, FOURCC[channels]),  # UncompressedFourCC
    )
    track = _element(
        0xAE,
        _number(0xD7, VIDEO_TRACK),  # TrackNumber
        _number(0x73C5, VIDEO_TRACK),  # TrackUID
        _number(0x83, 1),  # TrackType: video
        _element(0x86, b"V_UNCOMPRESSED"),
        _number(0x23E383, round(10**9 / rate)),  # DefaultDuration in nanoseconds
        video,
    )
    tracks = _element(0x1654AE6B, track, _sound_track() if sound else b"")
    return document + _id(0x18538067) + UNKNOWN_LENGTH + info + tracks


def _sound_track() -> bytes:
    audio = _element(
        0xE1,
        _element(0xB5, struct.pack(">d", RATE)),  # SamplingFrequency
        _number(0x9F, CHANNELS),
        _number(0x6264, 8 * SAMPLE_BYTES // CHANNELS),  # BitDepth
    )
    return _element(
        0xAE,
        _number(0xD7, SOUND_TRACK),  # TrackNumber
        _number(0x73C5, SOUND_TRACK),  # TrackUID
        _number(0x83, 2),  # TrackType: audio
        _element(0x86, b"A_PCM/INT/LIT"),
        audio,
    )


def sound_block(begin: float, samples: bytes) -> bytes:
    """Return the block of `samples`, SAMPLE_BYTES each, that are heard from `begin` seconds on."""
    lead = struct.pack(">BhB", 0x80 | SOUND_TRACK, 0, 0)
    simple = _id(0xA3) + _length(len(lead) + len(samples)) + lead + samples
    time = _number(0xE7, round(begin * MICROSECONDS))
    return _id(0x1F43B675) + _length(len(time) + len(simple)) + time + simple


def block(begin: float, seconds: float, size: int) -> bytes:
    """Return what precedes the `size` bytes of an image that is shown from `begin` for `seconds`."""
    start, end = round(begin * MICROSECONDS), round((begin + seconds) * MICROSECONDS)
    duration = _number(0x9B, max(end - start, 1))
    # Track number, time relative to the cluster, flags.
    lead = struct.pack(">BhB", 0x80 | VIDEO_TRACK, 0, 0)
    image = _id(0xA1) + _length(len(lead) + size) + lead
    group = _id(0xA0) + _length(len(duration) + len(image) + size) + duration + image
    time = _number(0xE7, start)
    return _id(0x1F43B675) + _length(len(time) + len(group) + size) + time + group


def _element(identifier: int, *content: bytes) -> bytes:
    body = b"".join(content)
    return _id(identifier) + _length(len(body)) + body


def _number(identifier: int, value: int) -> bytes:
    return _element(identifier, struct.pack(">Q", value))


def _id(identifier: int) -> bytes:
    return identifier.to_bytes((identifier.bit_length() + 7) // 8, "big")


def _length(size: int) -> bytes:
    """Return `size` as an EBML length of 8 bytes."""
    return struct.pack(">Q", 1 << 56 | size)
