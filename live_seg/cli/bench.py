"""The command `live-seg bench`."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

from live_seg.choices import EngineName
from live_seg.cli.expand import with_options
from live_seg.cli.messages import clean
from live_seg.cli.options import ModelOptions
from live_seg.cli.outputs import model_files
from live_seg.cli.panels import INPUT, MODEL, OUTPUT, option
from live_seg.errors import UsageError, nearest
from live_seg.urls import redacted

if TYPE_CHECKING:
    from live_seg.benchmark.measurement import Measurement
    from live_seg.benchmark.stages import Candidate
    from live_seg.types import Source

PROGRAM = (sys.executable, "-c", "from live_seg.cli.main import main; main()")
"""The command that starts live-seg in a new process; `live-seg` itself may not be on the path."""


@with_options
def bench(
    options: ModelOptions,
    video: Annotated[
        str | None,
        option(INPUT, "A video file or folder of frames.", show_default="the demo clip"),
    ] = None,
    frames: Annotated[int, option(INPUT, "Maximum number of frames to measure.", min=1)] = 100,
    compare: Annotated[
        str | None,
        option(MODEL, "Engines to compare, of --model or of others: keras,openvino,coco:openvino."),
    ] = None,
    json: Annotated[Path | None, option(OUTPUT, "Write the measurements to this file.")] = None,
    chart: Annotated[Path | None, option(OUTPUT, "Draw the stages to this PNG file.")] = None,
) -> None:
    """Measure the speed of a model on this machine, by stage and end to end.

    Stages are timed one after the other, the encoder separately because it is a process of its own; end to
    end they overlap. Start-up is the duration of `live-seg image` on one image with warm caches.
    """
    choices = _choices(compare, options)
    if chart is not None and chart.suffix.lower() != ".png":
        raise UsageError(f"The chart is a PNG file: name it {chart.with_suffix('.png')}, not {chart}.")
    inputs = [path for choice in choices.values() for path in model_files(choice.model)]
    inputs += [Path(video), *Path(video).glob("*")] if video is not None else []
    outputs = options.claim_outputs(json, chart, inputs=inputs, expected="--json OUT.json or --chart OUT.png")
    from live_seg.benchmark.benchmark import benchmark
    from live_seg.benchmark.chart import draw_chart

    with _open(video) as source:
        clip = f"{Path(source.name).name}, {source.size[0]}x{source.size[1]}"
    candidates = [_candidate(name, choice) for name, choice in choices.items()]
    measurements = benchmark(
        lambda: _open(video), candidates, PROGRAM, frames=frames, batch=options.batch, quiet=options.quiet
    )
    conditions = {
        "model": _joined(Path(choice.model).name for choice in choices.values()),
        "size": _joined(candidate.segment.config.size for candidate in candidates),
        "batch": options.batch,
        "frames": len(measurements[0].total),
        "video": clip,
    }
    title = "{model}, size {size}, batch {batch}, {frames} frames of {video}".format_map(conditions)
    if json is not None:
        _write_json(conditions, measurements, json)
    if chart is not None:
        draw_chart(measurements, title, chart)
    if not options.quiet:
        _print_report(title, measurements, outputs)


def _choices(compare: str | None, options: ModelOptions) -> dict[str, ModelOptions]:
    """Return the options of each candidate by its name, in the given order.

    A name is ENGINE or MODEL:ENGINE. Raises UsageError for an unknown engine.
    """
    if compare is None:
        return {options.engine: options}
    if options.engine != "auto":
        raise UsageError("--engine selects one engine, --compare several: give only one of the two.")
    choices, known = {}, get_args(EngineName)
    for name in map(str.strip, compare.split(",")):
        model, _, engine = name.rpartition(":")
        if engine not in known:
            raise UsageError(f"Unknown engine {redacted(name)!r} in --compare. {nearest(engine, known)}")
        choices[name] = replace(options, model=model or options.model, engine=cast(EngineName, engine))
    return choices


def _joined(values: Iterable[Any]) -> Any:
    """Return the common value, or the different ones joined in a text."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else ", ".join(map(str, different))


def _open(video: str | None) -> "Source":
    """Open the video to measure on. Raises SourceError, and UsageError for a live source."""
    from live_seg.sources.demo import DemoClip
    from live_seg.sources.opening import open_source

    if video is None:
        return DemoClip()
    source = open_source(video, wait=False)
    if source.live:
        source.close()
        raise UsageError(
            f"The same frames are read several times: give a file or folder, not {redacted(video)}."
        )
    return source


def _candidate(name: str, options: ModelOptions) -> "Candidate":
    """Load the model; a new process gets the same options as command-line arguments."""
    from live_seg.benchmark.stages import Candidate

    arguments = ["--model", options.model, "--engine", options.engine, "--layout", options.layout]
    arguments += ["--batch", str(options.batch)]
    if options.classes is not None:
        arguments += ["--classes", options.classes]
    if options.conf is not None:
        arguments += ["--conf", str(options.conf)]
    if options.size is not None:
        arguments += ["--size", str(options.size)]
    if options.proposals is not None:
        arguments += ["--proposals", str(options.proposals)]
    return Candidate(name, options.load(), tuple(arguments))


def _write_json(conditions: dict[str, Any], measurements: "Sequence[Measurement]", path: Path) -> None:
    """Write the conditions and measurements to `path`. Raises SinkError."""
    from live_seg.benchmark.report import as_json
    from live_seg.files import replacing

    with replacing(path) as partial:
        partial.write_text(dumps(conditions | {"engines": as_json(measurements)}, indent=2) + "\n", "utf-8")


def _print_report(title: str, measurements: "Sequence[Measurement]", outputs: Sequence[Path]) -> None:
    from live_seg.benchmark.report import comparison, table

    parts = [title, *map(table, measurements)]
    if len(measurements) > 1:
        parts.append(comparison(measurements))
    print(clean("\n\n".join(parts)))
    for path in outputs:
        print(clean(f"-> {path}"))
