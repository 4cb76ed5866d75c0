"""The command `live-seg bench`."""

import sys
from dataclasses import fields, replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from live_seg.choices import EngineName
from live_seg.cli.options import ModelOptions, with_options
from live_seg.errors import UsageError, nearest

if TYPE_CHECKING:
    from live_seg.benchmark.stages import Contestant
    from live_seg.types import Source

PROGRAM = (sys.executable, "-c", "from live_seg.cli.main import main; main()")
"""What is started afresh; `live-seg` itself may not be on the path."""


@with_options
def bench(
    options: ModelOptions,
    video: Annotated[
        str | None, typer.Option(help="Real frames: a video file or folder.  [default: the demo clip]")
    ] = None,
    compare: Annotated[
        str | None, typer.Option(help="Several engines in turns: keras,openvino,openvino-int8.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Most frames to measure on.")] = 100,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    chart: Annotated[Path | None, typer.Option(help="Draw the stages here, a PNG.")] = None,
) -> None:
    """Measure how fast a model runs here: each stage of a frame's way, and all of it end to end.

    The stages are timed one by one, the encoder, which is a process of its own, apart from the others; end to
    end they overlap. Start-up is all of `live-seg image` on one picture, with warm caches.
    """
    engines = _engines(compare, options)
    if chart is not None and chart.suffix.lower() != ".png":
        raise UsageError(f"The chart is a PNG: name it {chart.with_suffix('.png')}, not {chart}.")
    outputs = options.claimed(json, chart, otherwise="--json OUT.json or --chart OUT.png")
    from live_seg.benchmark.benchmark import benchmark
    from live_seg.benchmark.chart import draw_chart
    from live_seg.benchmark.report import comparison, figures, table
    from live_seg.files import replacing

    with _opened(video) as source:
        told = f"{Path(source.name).name}, {source.size[0]}x{source.size[1]}"
    contestants = [_contestant(replace(options, engine=engine)) for engine in engines]
    found = benchmark(
        lambda: _opened(video), contestants, PROGRAM, frames=frames, batch=options.batch, quiet=options.quiet
    )
    setting = {
        "model": Path(options.model).name,
        "size": contestants[0].segment.config.size,
        "batch": options.batch,
        "frames": len(found[0].whole),
        "video": told,
    }
    title = "{model}, size {size}, batch {batch}, {frames} frames of {video}".format_map(setting)
    if json is not None:
        with replacing(json) as partial:
            partial.write_text(dumps(setting | {"engines": figures(found)}, indent=2) + "\n", "utf-8")
    if chart is not None:
        draw_chart(found, title, chart)
    if not options.quiet:
        parts = [title, *map(table, found), *([comparison(found)] if len(found) > 1 else [])]
        print("\n\n".join(parts))
        for path in outputs:
            print(f"-> {path}")


def _engines(compare: str | None, options: ModelOptions) -> list[EngineName]:
    """Those to measure, in the order given. Raises UsageError for an unknown one."""
    if compare is None:
        return [options.engine]
    if options.engine != "auto":
        raise UsageError("--engine chooses one engine, --compare several: give one of the two.")
    names, known = [name.strip() for name in compare.split(",")], get_args(EngineName)
    for name in names:
        if name not in known:
            raise UsageError(f"Unknown engine {name!r}. {nearest(name, known)}")
    return [cast(EngineName, name) for name in names]


def _opened(video: str | None) -> "Source":
    """The frames to measure on. Raises SourceError, and UsageError for a live source."""
    from live_seg.sources.demo import DemoClip
    from live_seg.sources.opening import open_source

    if video is None:
        return DemoClip()
    source = open_source(video, wait=False)
    if source.live:
        source.close()
        raise UsageError(f"The same frames are read several times: give a file or folder, not {video}.")
    return source


def _contestant(options: ModelOptions) -> "Contestant":
    from live_seg.benchmark.stages import Contestant

    chosen = {field.name: getattr(options, field.name) for field in fields(options)}
    words = [
        (f"--{name}", str(value)) for name, value in chosen.items() if not isinstance(value, bool | None)
    ]
    return Contestant(options.engine, options.load(), tuple(word for pair in words for word in pair))
