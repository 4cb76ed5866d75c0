"""Video with the audio and the time line of its source, through the ffmpeg of imageio-ffmpeg."""

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
from live_seg.sinks.containers import X264_MAX_CRF, container_for
from live_seg.types import Frame, Image, Instances, Sink

FROM_ZERO = r"noise=drop=lt(pts*tb\,-0.05)+gt(n\,0)*lt(pts\,0)"
"""A packet filter that leaves out audio from before the picture. A first packet up to 50 ms early stays: it
is the run-in that decoders of AAC, MP3 and Opus need and do not play."""


def frame_rate(fps: float) -> Fraction:
    """Find the exact rate that a decimal stands for: 29.97 is 30000/1001, as are its NTSC relatives.

    Raises UsageError unless `fps` is at least 0.001 and finite.
    """
    if not 0.001 <= fps < math.inf:
        raise UsageError(f"A video needs a frame rate above 0, in frames per second. Got {fps}.")
    whole = round(fps * 1.001)
    if whole and abs(fps * 1.001 - whole) < 2e-4 * whole:
        return Fraction(whole * 1000, 1001)
    return Fraction(fps).limit_denominator(1001)


def output_index(seconds: float, rate: Fraction) -> int:
    """Number the output frame (0-based, `rate` per second) that is shown nearest to `seconds`."""
    return math.floor(seconds * rate + 0.5)


class VideoWriter(Sink):
    """Writes the drawn pictures as H.264 (yuv420p) to `path`: .mp4, .m4v, .mov or .mkv.

    With `alpha` they are (H, W, 4), BGR and alpha, and become ProRes 4444 in .mov or VP9 in .webm.

    The output has the constant rate `fps`; each frame is shown at its own `Frame.seconds`, counted from the
    first one. The frame before is repeated until then, and of two frames for one output frame the later wins.
    `audio` is the video file the frames come from: its audio tracks are copied in step with the picture, and
    the last frame is shown as long as there, if it was written. `crf` is x264's quality, 0 (best) to 51, put
    on VP9's scale for .webm; ProRes has none.
    An odd width or height gets its last column or row twice, as yuv420p needs even sizes.

    Until complete the file is called STEM.partial.SUFFIX; after a failed run it stays there, playable.
    Raises SinkError when `path` cannot be written, or exists and `overwrite` is False; UsageError for a bad
    `fps` or `crf`.
    """

    def __init__(
        self,
        path: Path,
        fps: float,
        *,
        audio: Path | None = None,
        crf: int = 23,
        alpha: bool = False,
        overwrite: bool = False,
    ) -> None:
        self._container = container_for(path, alpha=alpha)
        if not 0 <= crf <= X264_MAX_CRF:
            raise UsageError(
                f"The quality crf goes from 0 (best) to {X264_MAX_CRF} (smallest file). Got {crf}."
            )
        self._path = path
        self._partial = claim(path, overwrite=overwrite)
        executable()  # a missing one is told now, before any work
        self._channels = 4 if alpha else 3
        self._rate = frame_rate(fps)
        self._crf = crf
        self._source = audio
        self._tracks = audio_tracks(audio) if audio else {}
        self._encoder: _Encoder | None = None
        self._first = self._latest = 0.0
        self._closed = False

    def write(self, frame: Frame, image: Image, instances: Instances) -> bool:  # noqa: ARG002
        """Place one picture on the time line, sized as the first. Always True. Raises SinkError."""
        if self._closed:
            raise SinkError(f"{self._path} is closed; no more frames can be written.")
        if image.shape[2:] != (self._channels,):
            raise SinkError(
                f"Frame {frame.index} has the shape {image.shape}, but {self._path} takes (H, W, "
                f"{self._channels}). Transparent pictures need alpha=True and .mov or .webm, others neither."
            )
        if self._encoder is None:
            self._first = frame.seconds
            self._encoder = self._start(image)
        if image.shape != self._encoder.shape:
            raise SinkError(
                f"Frame {frame.index} has the shape {image.shape}, but {self._path} began with "
                f"{self._encoder.shape}. All frames of a video must have one size."
            )
        try:
            self._encoder.show_until(output_index(frame.seconds - self._first, self._rate))
        except SinkError:
            self._discard(self._encoder)
            raise
        self._encoder.hold(image)
        self._latest = frame.seconds
        return True

    def close(self, complete: bool = True) -> None:
        """Finish the file and give it its final name; no file is left when no frame came."""
        encoder, self._encoder, self._closed = self._encoder, None, True
        if encoder is None:
            return
        if encoder.torn and not encoder.frames:
            self._discard(encoder)
            return
        try:
            span = video_span(self._source) if self._source else None
            # Read to its end, a source keeps its length; interrupted, it ends here, and its audio with it.
            at_end = span is not None and self._latest + 1 / self._rate >= span.last
            encoder.finish(output_index(span.end - self._first, self._rate) if span and at_end else 0)
        except BaseException:
            self._discard(encoder)
            raise
        if self._source and self._tracks:
            picture_start = self._first + (span.start if span else 0.0)
            self._add_audio(self._source, picture_start, None if at_end else encoder.frames / self._rate)
        publish(self._partial, self._path, complete=complete)

    def _start(self, image: Image) -> "_Encoder":
        # With audio to come the file is written once more anyway.
        faststart = [] if self._tracks else self._faststart()
        options = [*self._container.codec.options(self._crf), *faststart, "-f", self._container.format]
        return _Encoder(self._partial, image.shape, self._rate, options)

    def _faststart(self) -> list[str]:
        """Put the index before the pictures, so that a browser plays while it loads; Matroska has none."""
        return [] if self._container.format in ("matroska", "webm") else ["-movflags", "+faststart"]

    def _discard(self, encoder: "_Encoder") -> None:
        self._encoder, self._closed = None, True
        encoder.kill()
        self._partial.unlink(missing_ok=True)

    def _add_audio(self, source: Path, picture_start: float, seconds: Fraction | None) -> None:
        """Put the audio of `source`, where the picture starts at `picture_start` seconds, beside the picture.

        In a second pass, because only now is known how many `seconds` of it belong there (None: all). Packets
        are copied, not decoded: flat memory, and as fast as the disk.
        """
        both = partial_name(self._path.with_stem(f"{self._path.stem}.audio"))
        tracks: list[str] = []
        for number, (stream, codec) in enumerate(self._tracks.items()):
            held = self._container.holds is None or codec in self._container.holds
            tracks += ["-map", f"1:{stream}", f"-c:a:{number}", "copy" if held else self._container.audio]
        try:
            run(
                *("-y", "-copyts", "-i", self._partial, "-itsoffset", f"{-picture_start:.6f}", "-i", source),
                *("-map", "0:v", "-c:v", "copy", *tracks, "-map_chapters", "-1", "-bsf:a", FROM_ZERO),
                *(("-t", f"{float(seconds):.6f}") if seconds is not None else ()),
                *(*self._faststart(), "-f", self._container.format),
                to=both,
            )
            both.replace(self._partial)
        except SinkError as error:
            raise SinkError(f"{error} The picture without its audio is in {self._partial}.") from error
        finally:
            both.unlink(missing_ok=True)


class _Encoder:
    """An ffmpeg process that makes `path` of raw pictures of `shape`, (H, W, 3) or with alpha (H, W, 4).

    It holds the latest picture until it is known how long to show it. Raises SinkError when ffmpeg fails.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], rate: Fraction, options: list[str]) -> None:
        self.path = path
        self.shape = shape
        self.frames = 0
        """Output frames written; the held picture is the next."""
        self.torn = False
        """Whether Ctrl-C broke into the writing of a picture. ffmpeg drops half a one, if nothing follows."""
        height, width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
        self._picture = np.zeros((height, width, shape[2]), np.uint8)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed with the process
        pixels = "bgra" if shape[2] == 4 else "bgr24"
        raw = ["-f", "rawvideo", "-pixel_format", pixels, "-video_size", f"{width}x{height}"]
        self._process = subprocess.Popen(
            command("-y", *raw, "-framerate", str(rate), "-i", "-", *options, path),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
        )

    def hold(self, image: Image) -> None:
        """Keep a copy of `image` as the next picture, its last row and column twice where they are odd."""
        height, width = self.shape[:2]
        self._picture[:height, :width] = image
        self._picture[height:] = self._picture[height - 1 : height]
        self._picture[:, width:] = self._picture[:, width - 1 : width]

    def show_until(self, end: int) -> None:
        """Show the held picture on every output frame before frame `end`."""
        assert self._process.stdin is not None
        while self.frames < end:
            self.torn = True
            try:
                self._process.stdin.write(self._picture.data)
            except OSError as error:
                self._process.wait()
                raise self._failure() from error
            self.torn = False
            self.frames += 1

    def finish(self, end: int) -> None:
        """Show the held picture at least once and until `end`, and wait for ffmpeg to complete the file."""
        assert self._process.stdin is not None
        if not self.torn:
            self.show_until(max(end, self.frames + 1))
        with suppress(OSError):  # the exit code tells
            self._process.stdin.close()
        if self._process.wait() != 0:
            raise self._failure()
        self._errors.close()

    def kill(self) -> None:
        """End ffmpeg at once, whatever it does."""
        assert self._process.stdin is not None
        self._process.kill()
        with suppress(OSError):
            self._process.stdin.close()
        self._process.wait()
        self._errors.close()

    def _failure(self) -> SinkError:
        self._errors.seek(0)
        return failure(self.path, self._errors.read())
