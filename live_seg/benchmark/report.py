"""Measurements as text and as JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from live_seg.benchmark.measurement import Measurement, Seconds

WIDTH = 15
"""Characters in the column of stage names."""


def table(measurement: Measurement) -> str:
    """Format one engine: a line per stage, the network's parts indented below it, then the summary."""
    total = float(measurement.total.sum())

    def line(name: str, seconds: Seconds) -> str:
        share = float(seconds.sum()) / total if total else 0.0
        return f"{name:{WIDTH}}{_ms(seconds, 50):10.1f}{_ms(seconds, 95):9.1f}{share:8.0%}"

    lines = [
        f"{measurement.engine}, runs on {measurement.device}",
        f"{'stage':{WIDTH}} median ms   p95 ms   share",
    ]
    for stage, seconds in measurement.stages.items():
        if stage in measurement.parts:
            if stage == measurement.parts[0]:
                lines.append(line("network", measurement.network))
            lines.append(line(f"  {stage}", seconds))
        else:
            lines.append(line(stage, seconds))
    lines.append(line("all", measurement.total))
    return "\n".join([*lines, *_summary(measurement)])


def _summary(measurement: Measurement) -> list[str]:
    alone = measurement.network_fps
    share = f" (network alone {alone:.1f} fps: {measurement.fps / alone:.2f} of it)" if alone else ""
    peak = "unknown" if measurement.peak_memory is None else f"{measurement.peak_memory / 2**20:.0f} MiB"
    return [
        f"end to end {measurement.fps:.1f} fps{share}",
        f"start-up {measurement.start_up:.1f} s",
        f"peak memory {peak}",
    ]


def _ms(seconds: Seconds, percent: float) -> float:
    """Return a percentile in milliseconds."""
    return 1000 * float(np.percentile(seconds, percent))


def speedups(measurement: Measurement, baseline: Measurement) -> dict[str, float | None]:
    """Return how many times as fast as `baseline` an engine is; below 1 is slower, None is unknown.

    "network" and "one frame" are medians of the ratios frame by frame, which cancels slow phases of the
    machine. "end to end" and "start-up" are ratios of the totals.
    """
    return {
        "network": _median_ratio(baseline.network, measurement.network),
        "one frame": _median_ratio(baseline.total, measurement.total),
        "end to end": measurement.fps / baseline.fps if baseline.fps else None,
        "start-up": baseline.start_up / measurement.start_up if measurement.start_up else None,
    }


def _median_ratio(baseline: Seconds, seconds: Seconds) -> float | None:
    return float(np.median(baseline / seconds)) if seconds.all() else None


def comparison(measurements: Sequence[Measurement]) -> str:
    """Format the speed of each engine relative to the first one, a line per engine."""
    first, *others = measurements
    width = max(WIDTH, *(len(measurement.engine) + 2 for measurement in others))
    lines = [f"{'':{width}}" + "".join(f"{name:>12}" for name in speedups(first, first))]
    for measurement in others:
        cells = (
            f"{'-' if value is None else f'{value:.2f}x':>12}"
            for value in speedups(measurement, first).values()
        )
        lines.append(f"{measurement.engine:{width}}" + "".join(cells))
    return "\n".join([f"times as fast as {first.engine}", *lines])


def as_json(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return a JSON object per engine; the keys name the units."""
    return [
        {
            "engine": measurement.engine,
            "device": measurement.device,
            "stages": {
                name: {
                    "median_ms": _ms(seconds, 50),
                    "p95_ms": _ms(seconds, 95),
                    "mean_ms": 1000 * float(seconds.mean()),
                }
                for name, seconds in (
                    measurement.stages | {"network": measurement.network, "all": measurement.total}
                ).items()
            },
            "network_fps": measurement.network_fps,
            "end_to_end_fps": measurement.fps,
            "start_up_seconds": measurement.start_up,
            "peak_memory_bytes": measurement.peak_memory,
            "times_as_fast_as_first": speedups(measurement, measurements[0]),
        }
        for measurement in measurements
    ]
