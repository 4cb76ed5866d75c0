"""A model as its user meets it: a video from end to end, the program's start, its memory."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from live_seg.drawing.annotate import draw
from live_seg.errors import LiveSegError
from live_seg.pipeline.run import run, show
from live_seg.pipeline.stats import Tally
from live_seg.segmenter import Segmenter
from live_seg.sinks.video_writer import VideoWriter
from live_seg.types import Frame, Source


class Excerpt(Source):
    """The first frames of `source`, at most `most`; closing it closes `source`."""

    def __init__(self, source: Source, most: int) -> None:
        self.name, self.fps, self.size = source.name, source.fps, source.size
        self.frames = most if source.frames is None else min(most, source.frames)
        self._source, self._most = source, most

    def __iter__(self) -> Iterator[Frame]:
        return itertools.islice(self._source, self._most)

    def close(self) -> None:
        """Close `source`."""
        self._source.close()


def end_to_end(
    source: Source,
    segment: Segmenter,
    video: Path,
    *,
    batch: int,
    progress: Callable[[int], object] = lambda _: None,
) -> float:
    """Frames per second of a session that writes `source`, drawn, to `video`, with its threads.

    From the first read until the file is complete. What is fixed, filling the pipeline and emptying the
    encoder, weighs less the longer the video is. Raises SourceError and SinkError.
    """
    tally = Tally()
    begun = time.perf_counter()
    with (
        VideoWriter(video, source.fps) as writer,
        contextlib.closing(run(source, segment, batch=batch, tally=tally)) as found,
    ):
        for _ in show(
            found,
            lambda frame, instances: draw(frame.image, instances, segment.class_names),
            [writer],
            tally,
        ):
            progress(1)
    return tally.frames / (time.perf_counter() - begun)


def launched(command: Sequence[str]) -> tuple[float, int]:
    """Run `command` in a fresh process: seconds from start to end, and peak resident memory in bytes.

    The memory is that of the largest process in it, which leaves out an encoder beside it. Raises
    LiveSegError, with its own words, when the command fails.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "live_seg.benchmark.launch", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        try:
            told, errors = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # what it launched, too
            raise
    code, seconds, peak = json.loads(told) if told else (process.returncode, 0.0, 0)
    if code:
        words = errors.decode(errors="replace").strip()
        raise LiveSegError(f"{' '.join(command)} ended with exit code {code}:\n{words}")
    return seconds, peak
