"""Process many files one after the other, with one model, one progress bar and one summary line for each."""

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from live_seg.cli.messages import clean
from live_seg.cli.process import Shared
from live_seg.cli.signals import completing
from live_seg.errors import LiveSegError, SinkError, SourceError

if TYPE_CHECKING:
    from live_seg.fleet.jobs import Job
    from live_seg.fleet.progress import Progress
    from live_seg.segmenter import Segmenter


class ManyFilesBar:
    """One progress bar, in frames, over files whose lengths become known one after the other.

    `sizes` are the files' sizes in bytes. The total assumes as many frames per byte in files not opened yet.
    """

    def __init__(self, sizes: Sequence[int], *, quiet: bool) -> None:
        from tqdm import tqdm

        disable = True if quiet else None  # None: disabled unless stderr is a terminal
        self.bar: tqdm[Any] = tqdm(unit=" frames", disable=disable)
        self._sizes = sizes
        self._rest = sum(sizes)
        self._bytes = self._frames = 0

    def begin(self, number: int, frames: int | None) -> None:
        """Add file `number` with about `frames` frames to what is known."""
        self._bytes += self._sizes[number]
        self._frames += frames or 0
        self.bar.total = round(self._frames * self._rest / self._bytes) if self._bytes else None
        self.bar.refresh()

    def skip(self, number: int) -> None:
        """Leave file `number` out of the total."""
        self._rest -= self._sizes[number]


def process_many(
    jobs: "Sequence[Job]",
    progress: "Progress",
    one: "Callable[[Job, Shared, bool], None]",
    load: "Callable[[], Segmenter]",
    *,
    quiet: bool,
) -> None:
    """Call `one` for each of `jobs` that `progress` does not know as complete.

    It gets the job, what the files share, and whether existing outputs are left from an interrupted run. A
    file that fails is reported, and the others follow. Raises LiveSegError at the end if some failed.
    """
    load = functools.cache(load)
    shared_bar = ManyFilesBar([size_of(job.source) for job in jobs], quiet=quiet)
    with shared_bar.bar as bar:

        def count(number: int) -> None:
            progress.add(number)
            bar.update()

        for number, (job, file) in enumerate(zip(jobs, progress.files, strict=True)):

            def begin(frames: int | None, number: int = number) -> Callable[[], object]:
                progress.begin(number, frames)
                shared_bar.begin(number, frames)
                return functools.partial(count, number)

            def say(text: str, source: str = job.source) -> None:
                bar.write(clean(f"{source}: {text}"))

            if file.state == "complete":
                shared_bar.skip(number)
                if not quiet:
                    say(f"complete since an earlier run -> {', '.join(map(str, job.outputs))}")
                continue
            try:
                _process(progress, number, job, functools.partial(one, job, Shared(load, begin, say)))
            except BaseException:
                progress.interrupt()
                raise
    failed = sum(file.state == "failed" for file in progress.files)
    progress.finish()
    if failed:
        raise LiveSegError(f"{failed} of {len(jobs)} files failed; the messages above say why.")


def _process(progress: "Progress", number: int, job: "Job", one: Callable[[bool], None]) -> None:
    """Process file `number` and record in `progress` how it ended.

    A first ending signal while the outputs are completed raises Ended only after that is recorded.
    """
    with completing():
        try:
            one(progress.owns(number))
        except (SourceError, SinkError) as error:
            progress.end(number, (), "failed", str(error))
            print(f"live-seg: {clean(error)}", file=sys.stderr)
        except BaseException:
            progress.end(number, job.outputs, "interrupted")
            raise
        else:
            progress.end(number, job.outputs, "complete")


def size_of(source: str) -> int:
    """Return the size of a file in bytes; 0 for what is no file."""
    try:
        return Path(source).stat().st_size
    except OSError:
        return 0
