"""Video files with the frame times and the audio of their source, encoded by ffmpeg."""

import logging
from pathlib import Path

from live_seg.errors import SinkError, UsageError
from live_seg.ffmpeg import audio_tracks, executable
from live_seg.files import Partial, check_target, claim
from live_seg.sinks.codecs import Codec
from live_seg.sinks.containers import Container, container_for
from live_seg.sinks.encoder import Encoder
from live_seg.sinks.encoding import Encoding
from live_seg.sinks.remux import Audio, Ending, needs_remux, remux
from live_seg.sinks.soundtrack import BEHIND, Soundtrack
from live_seg.sinks.timeline import Timeline, Timing, frame_rate
from live_seg.sound import Sound
from live_seg.types import Frame, Image, Instances, Sink

logger = logging.getLogger(__name__)


class VideoWriter(Sink):
    """Write drawn images, (H, W, 3) BGR uint8, to a .mp4, .m4v, .mov or .mkv file, by default as H.264.

    With `alpha`, images are (H, W, 4) BGRA, written as ProRes 4444 to .mov or as VP9 to .webm.

    Each frame is shown at its `Frame.seconds`, relative to the first frame, until the next one. `fps` is the
    nominal frame rate; `timing` chooses a constant one, and what happens to gaps between frames. `audio` is
    the video file that the frames come from. Its audio tracks are copied in sync, and if the last frame was
    written, it is shown as long as in that file. It can also be a live Sound on the clock of
    `Frame.seconds`, for frames without long gaps. `encoding` chooses codec, encoder and quality; only its
    quality applies to VP9, and nothing to ProRes. The last column or row of an odd size is repeated, because
    yuv420p requires even sizes.

    Until it is complete, the file is named STEM.partial.SUFFIX and can be played, a second behind. After a
    failed run it keeps that name.

    Raises SinkError if `path` cannot be written, or exists and `overwrite` is False, or if the encoder does
    not work; UsageError for an invalid `fps`, or if `encoding` names a codec for a transparent video.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        *,
        timing: Timing | None = None,
        audio: str | Path | Sound | None = None,
        encoding: Encoding | None = None,
        alpha: bool = False,
        overwrite: bool = False,
    ) -> None:
        path, file = Path(path), Path(audio) if isinstance(audio, str | Path) else None
        self._container = container_for(path, alpha=alpha)
        self._encoding = encoding or Encoding()
        self._path, self._overwrite = path, overwrite
        check_target(path, overwrite=overwrite)
        executable()  # fail now if it is missing, before any work
        self._codec = codec_for(path, self._container, self._encoding)
        self._tag = self._codec.tag if self._container.fragmented else ()
        self._channels = 4 if alpha else 3
        self._rate = frame_rate(fps)
        self._timeline = Timeline(self._rate, timing or Timing())
        self._source = file
        self._tracks = audio_tracks(file) if file else {}
        self._sound = audio if isinstance(audio, Sound) else None
        self._soundtrack: Soundtrack | None = None
        self._partial: Partial | None = None
        self._encoder: Encoder | None = None
        self._shown_from = 0.0
        self._until: float | None = None
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
            self._encoder = self._start(image)
            self._shown_from = self._timeline.place(frame.seconds)
            if self._sound is not None:
                self._soundtrack = Soundtrack(self._sound, self._timeline)
        elif image.shape != self._encoder.shape:
            raise SinkError(
                f"Frame {frame.index} has the shape {image.shape}, but {self._path} started with "
                f"{self._encoder.shape}. All frames of a video must have one size."
            )
        else:
            self._show_until(self._timeline.place(frame.seconds))
        self._encoder.set_image(image)
        return True

    def extend(self, until: float) -> None:
        """Show the last image until the time `until` of the source, in seconds, instead of for one frame."""
        self._until = until

    def close(self, complete: bool = True) -> None:
        """Complete the file and give it its final name, or delete it if there were no frames."""
        if self._closed or self._encoder is None or self._partial is None:
            self._closed = True
            return
        self._closed = True
        if self._encoder.interrupted and not self._encoder.end:  # in the first image
            self._encoder.stop()
            self._partial.discard()
            return
        try:
            self._finish(self._encoder, self._partial)
            if complete:
                self._partial.publish(overwrite=self._overwrite)
                self.outputs = (self._path,)
        except SinkError as error:
            raise self._failed(error) from error
        except BaseException:
            self._encoder.stop()
            logger.warning("Interrupted before %s was complete. %s", self._path, self._partial.keep())
            raise
        if not complete:
            logger.warning("The run failed. %s", self._partial.keep())

    def _start(self, image: Image) -> Encoder:
        self._partial = claim(self._path, overwrite=self._overwrite)
        container = self._container
        quality = self._codec.options(self._encoding.crf)
        options = [*quality, *self._tag, *container.partial_options, "-f", container.format]
        if self._sound is not None:
            options = ["-c:a", container.audio_encoder, *options]
        return Encoder(self._partial.name, image.shape, self._rate, options, sound=self._sound is not None)

    def _show_until(self, until: float) -> None:
        """Write the current image for the time until `until`, when the next one begins."""
        assert self._encoder is not None
        try:
            for start, seconds in self._timeline.showings(self._shown_from, until):
                self._encoder.show(start, seconds)
            if self._soundtrack is not None:
                self._soundtrack.write(self._encoder, until - BEHIND)
        except SinkError as error:
            self._closed = True
            raise self._failed(error) from error
        self._shown_from = until

    def _failed(self, error: SinkError) -> SinkError:
        """End the encoder after `error` and return the error for the user."""
        assert self._encoder is not None
        assert self._partial is not None
        self._encoder.stop()
        return SinkError(f"{error}\n{self._partial.keep()}")

    def _finish(self, encoder: Encoder, partial: Partial) -> None:
        """Write the last image and complete the partial file, with audio."""
        ending = Ending.of(self._source, self._timeline, self._rate)
        if not encoder.interrupted:
            # A source read to its end keeps its duration. After an interruption, video and audio end here.
            self._show_until(self._timeline.end(ending.last_frame(otherwise=self._until)))
            if self._soundtrack is not None:
                self._soundtrack.write(encoder, encoder.end)
        encoder.finish()
        audio = ending.audio(self._tracks, self._timeline, encoder.end)
        if needs_remux(self._container, audio):
            self._remux(partial, end=encoder.end, audio=audio)

    def _remux(self, partial: Partial, *, end: float, audio: Audio | None) -> None:
        second = Partial(self._path)
        try:
            remux(partial.name, second.name, self._container, end=end, audio=audio, tag=self._tag)
            second.name.replace(partial.name)
        except OSError as error:
            raise SinkError(f"Cannot replace {partial.name}: {error.strerror}.") from error
        finally:
            second.discard()


def codec_for(path: Path, container: Container, encoding: Encoding) -> Codec:
    """Return the codec for the file `path`. Raises SinkError and UsageError."""
    if container.codec is not None:
        if encoding.codec != "h264" or encoding.encoder is not None:
            raise UsageError(
                f"{path.name} is transparent and has a codec of its own: leave codec and encoder out."
            )
        return container.codec
    if container.format == "mov" and encoding.codec == "av1":
        raise SinkError(f"{path.name} cannot hold AV1. Use .mp4 or .mkv.")
    return encoding.chosen()
