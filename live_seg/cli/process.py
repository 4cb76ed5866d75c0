"""A source run through a model into sinks, with a progress bar and a summary."""

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
    goal: Path | None,
    track: bool = True,
    **how: Any,
) -> None:
    """Run `source` through the model into `sinks`, with a progress bar and a summary that names `goal`.

    `how` goes to `pipeline.run.run`.
    """
    from tqdm import tqdm

    from live_seg.files import claim
    from live_seg.pipeline.run import run, show
    from live_seg.pipeline.stats import Tally
    from live_seg.sinks.json_lines import JsonLines

    tally = Tally()
    with summed_up(tally, [goal] if goal else [], quiet=options.quiet), contextlib.ExitStack() as stack:
        outlets = [stack.enter_context(sink) for sink in sinks]
        if options.json is not None:  # asked before the model loads, which takes seconds
            claim(options.json, overwrite=options.overwrite)
        draw = options.drawing(hold=track)
        segment = options.load()
        if options.json is not None:
            lines = JsonLines(options.json, segment.class_names, overwrite=options.overwrite)
            outlets.append(stack.enter_context(lines))
        found = run(source, segment, track=track, tally=tally, **how)
        stack.enter_context(contextlib.closing(found))
        silent = True if options.quiet else None  # None: also where stderr is no terminal
        bar = stack.enter_context(tqdm(total=source.frames, unit=" frames", disable=silent))
        drawn = functools.partial(draw, names=segment.class_names)
        for _ in show(found, drawn, outlets, tally):
            bar.update()


@contextlib.contextmanager
def summed_up(tally: "Tally", written: list[Path], *, quiet: bool) -> Iterator[None]:
    """Print what was done, and where it was written, once the outputs are closed; also after Ctrl-C."""
    interrupted = False
    try:
        yield
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        if not quiet and (sys.exc_info()[0] is None or interrupted):
            goal = f" -> {', '.join(map(str, written))}" if written and tally.frames else ""
            print(f"{'Interrupted: ' if interrupted else ''}{tally.summary()}{goal}")
