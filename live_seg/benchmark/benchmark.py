"""The whole benchmark: engines on the same frames, by stage, end to end, and as a new process."""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from live_seg.benchmark import stages
from live_seg.benchmark.end_to_end import Excerpt, end_to_end_fps
from live_seg.benchmark.launch import measure_command
from live_seg.benchmark.measurement import Measurement
from live_seg.benchmark.stages import Candidate
from live_seg.errors import SourceError
from live_seg.files import write_image
from live_seg.types import Source

STARTS = 2
"""Number of times that the program is started; the start-up time is the median."""


def benchmark(
    open_video: Callable[[], Source],
    candidates: Sequence[Candidate],
    program: Sequence[str],
    *,
    frames: int,
    batch: int,
    quiet: bool = False,
) -> list[Measurement]:
    """Measure each candidate on the first `frames` frames of the source that `open_video` opens.

    After a warm-up, all stages are timed in one thread (see `stages.measure`). Then each candidate writes the
    video end to end in this process. Last, the command `program` is started for each candidate: with `image`
    for the start-up time, and with `video`, on the encoded frames, for the memory. A progress bar is shown
    unless `quiet`. Raises SourceError when there is no frame, SinkError, and LiveSegError when `program`
    fails.
    """

    def excerpt() -> Source:
        return Excerpt(open_video(), frames)

    with tempfile.TemporaryDirectory(prefix="live-seg-bench-") as folder:
        image, video = Path(folder) / "first.png", Path(folder) / "stages.mp4"
        with excerpt() as source:
            first = next(iter(source), None)
            if first is None:
                raise SourceError(f"{source.name} contains no frame to measure with.")
            passes = 2 * len(candidates) * (source.frames or frames)
        write_image(first.image, image)
        stages.warm_up(candidates, first.image, min(batch, frames))
        with tqdm(total=passes, unit=" frames", disable=True if quiet else None) as bar:
            with excerpt() as source:
                by_stage = stages.measure(source, candidates, video, batch=batch, progress=bar.update)
            rates = []
            for place, candidate in enumerate(candidates):
                with excerpt() as source:
                    output = Path(folder) / f"{place}.mp4"
                    rates.append(
                        end_to_end_fps(source, candidate.segment, output, batch=batch, progress=bar.update)
                    )
        processes = [_new_process([*program], candidate.arguments, image, video) for candidate in candidates]
    return [
        Measurement(candidate.name, candidate.segment.engine.device, columns, fps, *process)
        for candidate, columns, fps, process in zip(candidates, by_stage, rates, processes, strict=True)
    ]


def _new_process(
    program: list[str], arguments: Sequence[str], image: Path, video: Path
) -> tuple[float, int | None]:
    """Return the start-up time in seconds and, except on Windows, the peak memory in bytes of `program`."""

    def run(command: str, file: Path) -> tuple[float, int | None]:
        output = file.with_name(f"output{file.suffix}")
        return measure_command(
            [*program, command, str(file), "-o", str(output), "--overwrite", "--quiet", *arguments]
        )

    start_up = statistics.median(run("image", image)[0] for _ in range(STARTS))
    return start_up, run("video", video)[1]
