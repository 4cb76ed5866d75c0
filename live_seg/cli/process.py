"""Run a source through a model into sinks, with a progress bar and a summary."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from live_seg.cli.messages import clean
from live_seg.cli.options import Options
from live_seg.cli.signals import completing
from live_seg.errors import SourceError

if TYPE_CHECKING:
    from live_seg.cli.options import DrawFunction
    from live_seg.pipeline.stats import Tally
    from live_seg.segmenter import Segmenter
    from live_seg.types import Frame, Instances, Sink, Source

    Results = Iterator[tuple[Frame, Instances]]


@dataclass(frozen=True)
class Shared:
    """For one file of many, in place of a model, a progress bar and `print` of its own."""

    load: "Callable[[], Segmenter]"
    begin: Callable[[int | None], Callable[[], object]]
    """Called with the number of frames, as far as known; returns the function to call after each frame."""
    say: Callable[[str], None]
    """Called with the summary."""


def process(
    source: "Source",
    sinks: "Sequence[Sink]",
    options: Options,
    *,
    output: Path | None,
    track: bool = True,
    shared: "Shared | None" = None,
    draw: "DrawFunction | None" = None,
    fill: "Callable[[Results], Results] | None" = None,
    **run_arguments: Any,
) -> None:
    """Run `source` through the model into `sinks`, with a progress bar and a summary that names `output`.

    `run_arguments` are passed to `pipeline.run.run`. `shared` is given for one file of many. `draw` is by
    default the options' own. `fill` may delay and complete the results before they are drawn. Raises
    SourceError in the end if images were skipped.
    """
    from live_seg.pipeline.run import run, show
    from live_seg.pipeline.stats import Tally

    tally = Tally()
    about, completed = list[str](), list[Path]()
    say = shared.say if shared else options.say
    with (
        final_summary(tally, completed, about, options, say=say) as completing_begins,
        contextlib.ExitStack() as stack,
    ):
        entered = list["Sink"]()
        stack.callback(lambda: completed.extend(_completed(entered, output)))  # once all are closed
        entered += [stack.enter_context(sink) for sink in sinks]
        options.check_json()  # before the model loads, which takes seconds
        draw = draw or options.draw_function(retain=track)
        segment = (shared.load if shared else options.load)()
        about.append(f"{options.model} with {segment.engine.device}")
        if options.json is not None:
            entered.append(stack.enter_context(options.json_sink(segment.class_names)))
        results = run(source, segment, track=track, tally=tally, **run_arguments)
        stack.enter_context(contextlib.closing(results))
        filled = fill(results) if fill else results
        begin = shared.begin if shared else functools.partial(_bar, stack, quiet=options.quiet)
        count = begin(source.frames)
        stack.callback(completing_begins)  # the first to be called at the end
        for _ in show(filled, functools.partial(draw, names=segment.class_names), entered, tally):
            count()
    if source.skipped:
        listed = "".join(f"\n  {path}" for path in source.skipped)
        count_of = f"{len(source.skipped)} of {source.frames} images"
        raise SourceError(f"{count_of} could not be read and were skipped:{listed}")


def _bar(stack: contextlib.ExitStack, frames: int | None, *, quiet: bool) -> Callable[[], object]:
    """Show a progress bar of `frames` until `stack` is closed. Return the function that advances it."""
    from tqdm import tqdm

    disable = True if quiet else None  # None: disabled unless stderr is a terminal
    return stack.enter_context(tqdm(total=frames, unit=" frames", disable=disable)).update


def _completed(sinks: "Sequence[Sink]", output: Path | None) -> list[Path]:
    """Return `output` if one of the `sinks` has completed it."""
    return [path for sink in sinks for path in sink.outputs if path == output]


@contextlib.contextmanager
def final_summary(
    tally: "Tally",
    outputs: list[Path],
    about: list[str],
    options: Options,
    *,
    say: Callable[[str], None] | None = None,
) -> Iterator[Callable[[], None]]:
    """Print what was done and the `outputs` once they are closed, also after Ctrl-C but not after an error.

    `say` prints it, by default as `options` ask. `outputs`, and the model and engine in `about`, are read at
    the end, so they may be added until then. Yields the function to call when the outputs begin to be
    completed: see `completing`.
    """
    interrupted = False
    with completing() as completing_begins:
        try:
            yield completing_begins
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            if not options.quiet and (sys.exc_info()[0] is None or interrupted):
                paths = f" -> {', '.join(map(str, outputs))}" if outputs and tally.frames else ""
                text = "; ".join([tally.summary(), *(about if tally.frames else ())])
                (say or options.say)(clean(f"{'Interrupted: ' if interrupted else ''}{text}{paths}"))
