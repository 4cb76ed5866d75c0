"""The figures of a benchmark as text and as JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from live_seg.benchmark.measured import Measured, Seconds

WIDTH = 15
"""Of the column with the stages' names."""


def table(measured: Measured) -> str:
    """One engine: a line for each stage, the network's parts indented below it, and the figures in all."""
    whole = float(measured.whole.sum())

    def line(name: str, seconds: Seconds) -> str:
        share = float(seconds.sum()) / whole if whole else 0.0
        return f"{name:{WIDTH}}{_ms(seconds, 50):10.1f}{_ms(seconds, 95):9.1f}{share:8.0%}"

    lines = [f"{measured.engine}, runs on {measured.device}", f"{'stage':{WIDTH}} median ms   p95 ms   share"]
    for stage, seconds in measured.stages.items():
        if stage in measured.parts:
            if stage == measured.parts[0]:
                lines.append(line("network", measured.network))
            lines.append(line(f"  {stage}", seconds))
        else:
            lines.append(line(stage, seconds))
    lines.append(line("all", measured.whole))
    return "\n".join([*lines, *_in_all(measured)])


def _in_all(measured: Measured) -> list[str]:
    alone = measured.network_fps
    share = f" (network alone {alone:.1f} fps: {measured.fps / alone:.2f} of it)" if alone else ""
    return [
        f"end to end {measured.fps:.1f} fps{share}",
        f"start-up {measured.start_up:.1f} s",
        f"peak memory {measured.peak / 2**20:.0f} MiB",
    ]


def _ms(seconds: Seconds, percent: float) -> float:
    return 1000 * float(np.percentile(seconds, percent))


def ratios(measured: Measured, first: Measured) -> dict[str, float | None]:
    """How many times as fast as `first`; below 1 is slower, None is not known.

    For "network" and "one frame" the median over the frames, each compared with itself: what slowed the
    machine for a while slowed both. For "end to end" and "start-up" of the figures.
    """
    return {
        "network": _paired(first.network, measured.network),
        "one frame": _paired(first.whole, measured.whole),
        "end to end": measured.fps / first.fps if first.fps else None,
        "start-up": first.start_up / measured.start_up if measured.start_up else None,
    }


def _paired(theirs: Seconds, own: Seconds) -> float | None:
    return float(np.median(theirs / own)) if own.all() else None


def comparison(all_measured: Sequence[Measured]) -> str:
    """A line for each engine but the first: how many times as fast it is."""
    first, *others = all_measured
    width = max(WIDTH, *(len(measured.engine) + 2 for measured in others))
    lines = [f"{'':{width}}" + "".join(f"{name:>12}" for name in ratios(first, first))]
    for measured in others:
        cells = (
            f"{'-' if value is None else f'{value:.2f}x':>12}" for value in ratios(measured, first).values()
        )
        lines.append(f"{measured.engine:{width}}" + "".join(cells))
    return "\n".join([f"times as fast as {first.engine}", *lines])


def figures(all_measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """All of it for JSON, engine by engine: names tell the units."""
    return [
        {
            "engine": measured.engine,
            "device": measured.device,
            "stages": {
                name: {
                    "median_ms": _ms(seconds, 50),
                    "p95_ms": _ms(seconds, 95),
                    "mean_ms": 1000 * float(seconds.mean()),
                }
                for name, seconds in (
                    measured.stages | {"network": measured.network, "all": measured.whole}
                ).items()
            },
            "network_fps": measured.network_fps,
            "end_to_end_fps": measured.fps,
            "start_up_seconds": measured.start_up,
            "peak_memory_bytes": measured.peak,
            "times_as_fast_as_first": ratios(measured, all_measured[0]),
        }
        for measured in all_measured
    ]
