"""Run a source through a model into sinks, with a progress bar and a summary."""

import contextlib
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from live_seg.cli.options import Options

if TYPE_CHECKING:
    from live_seg.pipeline.stats import Tally
    from live_seg.types import Sink, Source


def process(
    source: "Source",
    sinks: "Sequence[Sink]",
    options: Options,
    *,
    output: Path | None,
    track: bool = True,
    **run_arguments: Any,
) -> None:
    """Run `source` through the model into `sinks`, with a progress bar and a summary that names `output`.

    `run_arguments` are passed to `pipeline.run.run`.
    """
    from tqdm import tqdm

    from live_seg.files import check_target
    from live_seg.pipeline.run import run, show
    from live_seg.pipeline.stats import Tally
    from live_seg.sinks.json_lines import JsonLines

    tally = Tally()
    about, completed = list[str](), list[Path]()
    with final_summary(tally, completed, about, quiet=options.quiet), contextlib.ExitStack() as stack:
        entered = list["Sink"]()
        stack.callback(lambda: completed.extend(_completed(entered, output)))  # once all are closed
        entered += [stack.enter_context(sink) for sink in sinks]
        if options.json is not None:  # checked before the model loads, which takes seconds
            check_target(options.json, overwrite=options.overwrite)
        draw = options.draw_function(retain=track)
        segment = options.load()
        about.append(f"{options.model} with {segment.engine.device}")
        if options.json is not None:
            lines = JsonLines(options.json, segment.class_names, overwrite=options.overwrite)
            entered.append(stack.enter_context(lines))
        results = run(source, segment, track=track, tally=tally, **run_arguments)
        stack.enter_context(contextlib.closing(results))
        disable = True if options.quiet else None  # None: disabled unless stderr is a terminal
        bar = stack.enter_context(tqdm(total=source.frames, unit=" frames", disable=disable))
        for _ in show(results, functools.partial(draw, names=segment.class_names), entered, tally):
            bar.update()


def _completed(sinks: "Sequence[Sink]", output: Path | None) -> list[Path]:
    """Return `output` if one of the `sinks` has completed it."""
    return [path for sink in sinks for path in sink.outputs if path == output]


@contextlib.contextmanager
def final_summary(tally: "Tally", outputs: list[Path], about: list[str], *, quiet: bool) -> Iterator[None]:
    """Print what was done and the `outputs` once they are closed, also after Ctrl-C but not after an error.

    `outputs`, and the model and engine in `about`, are read at the end, so they may be added until then.
    """
    interrupted = False
    try:
        yield
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        if not quiet and (sys.exc_info()[0] is None or interrupted):
            paths = f" -> {', '.join(map(str, outputs))}" if outputs and tally.frames else ""
            text = "; ".join([tally.summary(), *(about if tally.frames else ())])
            print(f"{'Interrupted: ' if interrupted else ''}{text}{paths}")
