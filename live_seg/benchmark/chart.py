"""A bar chart of the stages of a frame, one bar per engine."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from live_seg.benchmark.measurement import Measurement
from live_seg.files import replacing
from live_seg.timing import AFTER, BEFORE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OUTER_COLOURS = dict(
    zip((*BEFORE, *AFTER), ("#B8860B", "#E6C15A", "#7FC8A9", "#3E9C78", "#E08A5B", "#B5533C"), strict=True)
)
"""Colours of the stages before the network (yellow) and after it (green and red)."""

NETWORK_COLOURS = ("#08306B", "#2171B5", "#4F9BD0", "#86BCDC", "#BDD7EA", "#DCE9F5")
"""Colours of the network's parts, from dark to light blue; repeated if there are more parts."""

MIN_LABELLED = 0.03
"""Smallest fraction of the longest bar that has room for a number."""


def draw_chart(measurements: Sequence[Measurement], title: str, path: Path) -> None:
    """Draw the median milliseconds of each stage as stacked bars to the PNG file `path`. Raises SinkError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(11, 2.4 + 0.8 * len(measurements)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colours = _colours(measurements)
    bars = [_medians(measurement) for measurement in measurements]
    longest = max(sum(bar.values()) for bar in bars)
    for place, (measurement, bar) in enumerate(zip(measurements, bars, strict=True)):
        _stack(axes, place, bar, colours, longest)
        label = f"{sum(bar.values()):.1f} ms\n{measurement.fps:.1f} fps end to end"
        axes.text(sum(bar.values()) + 0.01 * longest, place, label, va="center", fontsize=9)
    axes.set_yticks(range(len(measurements)), [measurement.engine for measurement in measurements])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.17 * longest), xlabel="milliseconds per frame, median of each stage", title=title)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    legend = [Patch(color=colour, label=stage) for stage, colour in colours.items()]
    figure.legend(handles=legend, ncols=(len(legend) + 1) // 2, loc="outside lower center", frameon=False)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=130)


def _medians(measurement: Measurement) -> dict[str, float]:
    """Return milliseconds by stage."""
    return {stage: 1000 * float(np.median(seconds)) for stage, seconds in measurement.stages.items()}


def _colours(measurements: Sequence[Measurement]) -> dict[str, str]:
    """Return a colour for each stage of any engine, in the order in which a frame passes them."""
    parts = dict.fromkeys(part for measurement in measurements for part in measurement.parts)
    blues = dict(zip(parts, itertools.cycle(NETWORK_COLOURS), strict=False))
    return {stage: (OUTER_COLOURS | blues)[stage] for stage in (*BEFORE, *parts, *AFTER)}


def _stack(axes: "Axes", place: int, bar: dict[str, float], colours: dict[str, str], longest: float) -> None:
    """Draw one bar, with numbers where there is room."""
    left = 0.0
    for stage, width in bar.items():
        colour = colours[stage]
        drawn = axes.barh(
            place, width, left=left, height=0.62, color=colour, edgecolor="white", linewidth=0.6
        )
        if width >= MIN_LABELLED * longest:
            ink = "white" if colour in NETWORK_COLOURS[:2] else "black"
            axes.bar_label(drawn, fmt="{:.1f}", label_type="center", color=ink, fontsize=8)
        left += width
