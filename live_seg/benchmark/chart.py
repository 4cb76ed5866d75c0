"""The stages of a frame as a picture: one bar for each engine."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from live_seg.benchmark.measured import AFTER, BEFORE, Measured
from live_seg.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AROUND = dict(
    zip((*BEFORE, *AFTER), ("#B8860B", "#E6C15A", "#7FC8A9", "#3E9C78", "#E08A5B", "#B5533C"), strict=True)
)
"""Colours of the stages before the network, warm yellows, and after it, greens and reds."""

NETWORK = ("#08306B", "#2171B5", "#4F9BD0", "#86BCDC", "#BDD7EA", "#DCE9F5")
"""Of the network's parts: blues, dark to light; more parts than these begin anew."""

LEGIBLE = 0.03
"""Least share of the longest bar that has room for a figure."""


def draw_chart(all_measured: Sequence[Measured], title: str, path: Path) -> None:
    """Draw the medians of the stages, in milliseconds, as stacked bars to `path`, a PNG. Raises SinkError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(11, 2.4 + 0.8 * len(all_measured)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colours = _colours(all_measured)
    bars = [_medians(measured) for measured in all_measured]
    longest = max(sum(bar.values()) for bar in bars)
    for place, (measured, bar) in enumerate(zip(all_measured, bars, strict=True)):
        _stack(axes, place, bar, colours, longest)
        told = f"{sum(bar.values()):.1f} ms\n{measured.fps:.1f} fps end to end"
        axes.text(sum(bar.values()) + 0.01 * longest, place, told, va="center", fontsize=9)
    axes.set_yticks(range(len(all_measured)), [measured.engine for measured in all_measured])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.17 * longest), xlabel="milliseconds a frame, median of each stage", title=title)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    legend = [Patch(color=colour, label=stage) for stage, colour in colours.items()]
    figure.legend(handles=legend, ncols=(len(legend) + 1) // 2, loc="outside lower center", frameon=False)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=130)


def _medians(measured: Measured) -> dict[str, float]:
    """Milliseconds by stage."""
    return {stage: 1000 * float(np.median(seconds)) for stage, seconds in measured.stages.items()}


def _colours(all_measured: Sequence[Measured]) -> dict[str, str]:
    """One for every stage of any engine, in the order of a frame's way."""
    parts = dict.fromkeys(part for measured in all_measured for part in measured.parts)
    blues = dict(zip(parts, itertools.cycle(NETWORK), strict=False))
    ordered = [*BEFORE, *parts, *AFTER]
    return {stage: (AROUND | blues)[stage] for stage in ordered}


def _stack(axes: "Axes", place: int, bar: dict[str, float], colours: dict[str, str], longest: float) -> None:
    """Draw one bar, and write its figures where there is room."""
    left = 0.0
    for stage, width in bar.items():
        paint = colours[stage]
        drawn = axes.barh(place, width, left=left, height=0.62, color=paint, edgecolor="white", linewidth=0.6)
        if width >= LEGIBLE * longest:
            ink = "white" if paint in NETWORK[:2] else "black"
            axes.bar_label(drawn, fmt="{:.1f}", label_type="center", color=ink, fontsize=8)
        left += width
