"""Video files with the frame times and the audio of their source, encoded by ffmpeg."""

import math
import subprocess
import tempfile
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np

from live_seg.errors import SinkError, UsageError
from live_seg.ffmpeg import audio_tracks, command, executable, failure, run, video_span
from live_seg.files import claim, partial_name, publish
from live_seg.processes import OWN_GROUP
from live_seg.sinks.containers import X264_MAX_CRF, container_for
from live_seg.types import Frame, Image, Instances, Sink

DROP_EARLY_AUDIO = r"noise=drop=lt(pts*tb\,-0.05)+gt(n\,0)*lt(pts\,0)"
"""Bitstream filter that drops audio packets before the first frame. A first packet up to 50 ms early is kept:
it is the priming that decoders of AAC, MP3 and Opus need and do not play."""


def frame_rate(fps: float) -> Fraction:
    """Return the exact frame rate of a rounded decimal: 30000/1001 for 29.97, and likewise for NTSC rates.

    Raises UsageError unless `fps` is finite and at least 0.001.
    """
    if not 0.001 <= fps < math.inf:
        raise UsageError(f"The frame rate of a video must be at least 0.001 per second. Got {fps}.")
    whole = round(fps * 1.001)
    if whole and abs(fps * 1.001 - whole) < 2e-4 * whole:
        return Fraction(whole * 1000, 1001)
    return Fraction(fps).limit_denominator(1001)


def output_index(seconds: float, rate: Fraction) -> int:
    """Return the 0-based index of the output frame, at `rate` per second, nearest to `seconds`."""
    return math.floor(seconds * rate + 0.5)


class VideoWriter(Sink):
    """Write drawn images, (H, W, 3) BGR uint8, as H.264 (yuv420p) to a .mp4, .m4v, .mov or .mkv file.

    With `alpha`, images are (H, W, 4) BGRA, written as ProRes 4444 to .mov or as VP9 to .webm.

    The output has the constant rate `fps`. Each frame is shown at its `Frame.seconds`, relative to the first
    frame: the previous frame is repeated until then, and of two frames with the same output index the later
    one is kept. `audio` is the video file that the frames come from. Its audio tracks are copied in sync, and
    if the last frame was written, it is shown as long as in that file. `crf` is x264's quality, 0 (best) to
    51; it is rescaled for VP9 and ignored for ProRes. The last column or row of an odd size is repeated,
    because yuv420p requires even sizes.

    Until it is complete, the file is named STEM.partial.SUFFIX. After a failed run it keeps that name and can
    be played.

    Raises SinkError if `path` cannot be written, or exists and `overwrite` is False; UsageError for an
    invalid `fps` or `crf`.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        *,
        audio: str | Path | None = None,
        crf: int = 23,
        alpha: bool = False,
        overwrite: bool = False,
    ) -> None:
        path, audio = Path(path), Path(audio) if audio else None
        self._container = container_for(path, alpha=alpha)
        if not 0 <= crf <= X264_MAX_CRF:
            raise UsageError(
                f"The quality crf must be 0 (best) to {X264_MAX_CRF} (smallest file). Got {crf}."
            )
        self._path = path
        self._partial = claim(path, overwrite=overwrite)
        executable()  # fail now if it is missing, before any work
        self._channels = 4 if alpha else 3
        self._rate = frame_rate(fps)
        self._crf = crf
        self._source = audio
        self._tracks = audio_tracks(audio) if audio else {}
        self._encoder: _Encoder | None = None
        self._first = self._latest = 0.0
        self._closed = False

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
        """Show `image` from `frame.seconds` on. Returns True. Raises SinkError, also for a changed size."""
        if self._closed:
            raise SinkError(f"{self._path} is closed; no more frames can be written.")
        if image.shape[2:] != (self._channels,):
            raise SinkError(
                f"Frame {frame.index} has the shape {image.shape}, but {self._path} expects (H, W, "
                f"{self._channels}). Use alpha=True and .mov or .webm for transparent images only."
            )
        if self._encoder is None:
            self._first = frame.seconds
            self._encoder = self._start(image)
        if image.shape != self._encoder.shape:
            raise SinkError(
                f"Frame {frame.index} has the shape {image.shape}, but {self._path} started with "
                f"{self._encoder.shape}. All frames of a video must have one size."
            )
        try:
            self._encoder.repeat_until(output_index(frame.seconds - self._first, self._rate))
        except SinkError:
            self._discard(self._encoder)
            raise
        self._encoder.set_image(image)
        self._latest = frame.seconds
        return True

    def close(self, complete: bool = True) -> None:
        """Complete the file and give it its final name, or delete it if there were no frames."""
        encoder, self._encoder, self._closed = self._encoder, None, True
        if encoder is None:
            return
        if encoder.interrupted and not encoder.frames:
            self._discard(encoder)
            return
        try:
            span = video_span(self._source) if self._source else None
            # A source read to its end keeps its duration. After an interruption, video and audio end here.
            at_end = span is not None and self._latest + 1 / self._rate >= span.last
            encoder.finish(output_index(span.end - self._first, self._rate) if span and at_end else 0)
        except BaseException:
            self._discard(encoder)
            raise
        if self._source and self._tracks:
            video_start = self._first + (span.start if span else 0.0)
            self._add_audio(self._source, video_start, None if at_end else encoder.frames / self._rate)
        publish(self._partial, self._path, complete=complete)

    def _start(self, image: Image) -> "_Encoder":
        # With audio, the file is rewritten in a second pass anyway.
        faststart = [] if self._tracks else self._faststart()
        options = [*self._container.codec.options(self._crf), *faststart, "-f", self._container.format]
        return _Encoder(self._partial, image.shape, self._rate, options)

    def _faststart(self) -> list[str]:
        """Return the options that put the index first, for playback while loading; none for Matroska."""
        return [] if self._container.format in ("matroska", "webm") else ["-movflags", "+faststart"]

    def _discard(self, encoder: "_Encoder") -> None:
        self._encoder, self._closed = None, True
        encoder.kill()
        self._partial.unlink(missing_ok=True)

    def _add_audio(self, source: Path, video_start: float, seconds: Fraction | None) -> None:
        """Add the audio of `source`, whose video starts at `video_start`, up to `seconds` (None: all of it).

        This is a second pass because the duration is unknown until now. Packets are copied without decoding,
        with constant memory and at the speed of the disk.
        """
        merged = partial_name(self._path.with_stem(f"{self._path.stem}.audio"))
        tracks: list[str] = []
        for number, (stream, codec) in enumerate(self._tracks.items()):
            supported = self._container.audio_codecs is None or codec in self._container.audio_codecs
            encoder = "copy" if supported else self._container.audio_encoder
            tracks += ["-map", f"1:{stream}", f"-c:a:{number}", encoder]
        try:
            run(
                *("-y", "-copyts", "-i", self._partial, "-itsoffset", f"{-video_start:.6f}", "-i", source),
                *("-map", "0:v", "-c:v", "copy", *tracks, "-map_chapters", "-1", "-bsf:a", DROP_EARLY_AUDIO),
                *(("-t", f"{float(seconds):.6f}") if seconds is not None else ()),
                *(*self._faststart(), "-f", self._container.format),
                to=merged,
            )
            merged.replace(self._partial)
        except SinkError as error:
            raise SinkError(f"{error} The video without its audio is in {self._partial}.") from error
        finally:
            merged.unlink(missing_ok=True)


class _Encoder:
    """An ffmpeg process that encodes raw images of `shape`, (H, W, 3) BGR or (H, W, 4) BGRA, to `path`.

    The latest image is kept until it is known for how long to show it. Raises SinkError if ffmpeg fails.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], rate: Fraction, options: list[str]) -> None:
        self.path = path
        self.shape = shape
        self.frames = 0
        """Number of output frames written; the current image is the next one."""
        self.interrupted = False
        """True once Ctrl-C has interrupted the writing of an image. ffmpeg drops an incomplete last image."""
        height, width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
        self._image = np.zeros((height, width, shape[2]), np.uint8)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed with the process
        pixels = "bgra" if shape[2] == 4 else "bgr24"
        raw = ["-f", "rawvideo", "-pixel_format", pixels, "-video_size", f"{width}x{height}"]
        self._process = subprocess.Popen(
            command("-y", *raw, "-framerate", str(rate), "-i", "-", *options, path),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            **OWN_GROUP,
        )

    def set_image(self, image: Image) -> None:
        """Copy `image` as the current image; pad odd sizes with their last row and column."""
        height, width = self.shape[:2]
        self._image[:height, :width] = image
        self._image[height:] = self._image[height - 1 : height]
        self._image[:, width:] = self._image[:, width - 1 : width]

    def repeat_until(self, end: int) -> None:
        """Write the current image to all output frames before index `end`."""
        assert self._process.stdin is not None
        while self.frames < end:
            self.interrupted = True
            try:
                self._process.stdin.write(self._image.data)
            except OSError as error:
                self._process.wait()
                raise self._failure() from error
            self.interrupted = False
            self.frames += 1

    def finish(self, end: int) -> None:
        """Write the current image at least once and up to index `end`; wait until the file is complete."""
        assert self._process.stdin is not None
        if not self.interrupted:
            self.repeat_until(max(end, self.frames + 1))
        with suppress(OSError):  # the exit code is checked below
            self._process.stdin.close()
        if self._process.wait() != 0:
            raise self._failure()
        self._errors.close()

    def kill(self) -> None:
        """Kill ffmpeg immediately."""
        assert self._process.stdin is not None
        self._process.kill()
        with suppress(OSError):
            self._process.stdin.close()
        self._process.wait()
        self._errors.close()

    def _failure(self) -> SinkError:
        self._errors.seek(0)
        return failure(self.path, self._errors.read())
