"""The whole benchmark: engines on the same frames, by stages, end to end, and as a fresh program."""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from live_seg.benchmark import stages
from live_seg.benchmark.measured import Measured
from live_seg.benchmark.stages import Contestant
from live_seg.benchmark.whole import Excerpt, end_to_end, launched
from live_seg.errors import SourceError
from live_seg.files import write_image
from live_seg.types import Source

STARTS = 2
"""Times the program is started; the median counts."""


def benchmark(
    opened: Callable[[], Source],
    contestants: Sequence[Contestant],
    program: Sequence[str],
    *,
    frames: int,
    batch: int,
    quiet: bool = False,
) -> list[Measured]:
    """Measure every contestant on the first `frames` frames of the source that each call of `opened` opens.

    Once warm, they are timed by stages in one thread, taking turns (see `stages.measure`); then each writes
    the video end to end in this process; then the command `program` is started afresh for each: `image` for
    the start-up, and for the memory `video`, with the pictures that were encoded. A progress bar unless
    `quiet`. Raises SourceError where there is no frame, SinkError, and LiveSegError where `program` fails.
    """

    def excerpt() -> Source:
        return Excerpt(opened(), frames)

    with tempfile.TemporaryDirectory(prefix="live-seg-bench-") as folder:
        picture, video = Path(folder) / "first.png", Path(folder) / "stages.mp4"
        with excerpt() as source:
            first = next(iter(source), None)
            if first is None:
                raise SourceError(f"{source.name} holds no frame to measure with.")
            passes = 2 * len(contestants) * (source.frames or frames)
        write_image(first.image, picture)
        stages.warm_up(contestants, first.image, min(batch, frames))
        with tqdm(total=passes, unit=" frames", disable=True if quiet else None) as bar:
            with excerpt() as source:
                by_stage = stages.measure(source, contestants, video, batch=batch, progress=bar.update)
            rates = []
            for place, contestant in enumerate(contestants):
                with excerpt() as source:
                    goal = Path(folder) / f"{place}.mp4"
                    rates.append(
                        end_to_end(source, contestant.segment, goal, batch=batch, progress=bar.update)
                    )
            fresh = [_fresh([*program], contestant.options, picture, video) for contestant in contestants]
    return [
        Measured(contestant.name, contestant.segment.engine.device, columns, fps, *started)
        for contestant, columns, fps, started in zip(contestants, by_stage, rates, fresh, strict=True)
    ]


def _fresh(program: list[str], options: Sequence[str], picture: Path, video: Path) -> tuple[float, int]:
    """Start-up in seconds and peak memory in bytes of `program`."""

    def run(name: str, given: Path) -> tuple[float, int]:
        goal = given.with_name(f"fresh{given.suffix}")
        return launched([*program, name, str(given), "-o", str(goal), "--overwrite", "--quiet", *options])

    start_up = statistics.median(run("image", picture)[0] for _ in range(STARTS))
    return start_up, run("video", video)[1]
