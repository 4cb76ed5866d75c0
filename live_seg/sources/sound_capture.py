"""Network streams with their sound, read by PyAV: OpenCV delivers images only."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.stream import Stream

from live_seg.sound import RATE
from live_seg.sources.captures import Capture
from live_seg.sources.kept_sound import KeptSound
from live_seg.types import Image

OPTIONS = {"rtsp_transport": "tcp"}
"""Options of FFmpeg. Its default, UDP, loses packets. OpenCV uses TCP, too."""

ROTATIONS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, -90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180}
"""OpenCV's code of a rotation in degrees, counterclockwise."""


class SoundCapture(Capture):
    """Read the images of `url`, and add the sound between them to `sound`, by its timestamps.

    `timeout` is the number of seconds that the server may take to answer, and to send the next packet.
    `threads` decode images. CAP_PROP_POS_MSEC is the timestamp of an image on the clock of the sound.
    """

    def __init__(self, url: str, timeout: float, sound: KeptSound, threads: int) -> None:
        self._sound = sound
        self._resampler = _resampler()
        self._properties: dict[int, float] = {}
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._container: InputContainer | None = None
        self.has_sound = False
        """True if there is sound in the stream."""
        try:
            self._container = av.open(url, options=OPTIONS, timeout=timeout)
            self._begin(self._container, threads)
        except (av.FFmpegError, LookupError):
            self.release()

    def isOpened(self) -> bool:  # noqa: N802
        """Return whether the stream holds images."""
        return self._container is not None

    def get(self, prop: int, /) -> float:
        """Return the property `prop`; 0 if it is unknown."""
        return self._properties.get(prop, 0.0)

    def set(self, prop: int, value: float, /) -> bool:  # noqa: ARG002
        """Return False: nothing can be requested of a stream."""
        return False

    def read(self) -> tuple[bool, Image | None]:
        """Return True and the next image, or False at the end. Adds the sound before it."""
        try:
            frame = next(self._frames, None)
        except av.FFmpegError:
            frame = None
        if frame is None:
            return False, None
        self._properties[cv2.CAP_PROP_POS_MSEC] = 1000 * (frame.time or 0.0)
        return True, _image(frame)

    def release(self) -> None:
        """Close the connection."""
        if self._container is not None:
            self._container.close()
        self._container, self._frames = None, iter(())

    def _begin(self, container: InputContainer, threads: int) -> None:
        """Decode the first image. Raises LookupError if there is none."""
        video, audio = container.streams.video[0], container.streams.best("audio")
        video.thread_type, video.codec_context.thread_count = "AUTO", threads
        self.has_sound = audio is not None
        frames = self._decoded(container, [video] if audio is None else [video, audio])
        first = next(frames, None)
        if first is None:
            raise LookupError("no images")
        self._frames = itertools.chain([first], frames)
        height, width = _image(first).shape[:2]
        fps = float(video.guessed_rate or 0)
        seconds = (container.duration or 0) / av.time_base
        self._properties |= {
            cv2.CAP_PROP_FRAME_WIDTH: width,
            cv2.CAP_PROP_FRAME_HEIGHT: height,
            cv2.CAP_PROP_FPS: fps,
            cv2.CAP_PROP_FRAME_COUNT: video.frames or round(max(seconds, 0.0) * fps),
        }

    def _decoded(self, container: InputContainer, streams: Sequence[Stream]) -> Iterator[av.VideoFrame]:
        """Yield the images of `streams`. Adds the sound between them."""
        for packet in container.demux(*streams):
            with contextlib.suppress(av.InvalidDataError):  # a damaged packet
                for frame in packet.decode():
                    if isinstance(frame, av.VideoFrame):
                        yield frame
                    elif isinstance(frame, av.AudioFrame):
                        self._add(frame)

    def _add(self, frame: av.AudioFrame) -> None:
        """Add the sound of `frame`, whose format may differ from that of the last one."""
        try:
            parts = self._resampler.resample(frame)
        except ValueError:
            self._resampler = _resampler()
            parts = self._resampler.resample(frame)
        for part in parts:
            self._sound.add(part.to_ndarray().tobytes(), part.time)


def _resampler() -> av.AudioResampler:
    return av.AudioResampler("s16", "stereo", RATE)


def _image(frame: av.VideoFrame) -> Image:
    """Return the image of `frame`, upright."""
    image = np.asarray(frame.to_ndarray(format="bgr24", interpolation="BICUBIC"), np.uint8)
    code = ROTATIONS.get(frame.rotation)
    return image if code is None else np.asarray(cv2.rotate(image, code), np.uint8)
