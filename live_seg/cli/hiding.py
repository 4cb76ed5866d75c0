"""Hiding over time, as the options of a command ask for it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from live_seg.cli.options import StreamOptions

if TYPE_CHECKING:
    from live_seg.cli.options import DrawFunction
    from live_seg.pipeline.filling import Filling
    from live_seg.types import Frame, Image, Instances

    Results = Iterator[tuple[Frame, Instances]]


@dataclass(frozen=True)
class Hiding:
    """The function that draws a frame, and what propagates missed tracks, so that it hides them too."""

    draw: "DrawFunction"
    filling: "Filling | None"

    def fill(
        self,
        results: "Results",
        again: "Iterable[Frame] | None" = None,
        *,
        select: "Callable[[Instances], Instances] | None" = None,
    ) -> "Results":
        """Return the results of a run, delayed until missed tracks are filled in; see `Filling.fill`.

        Only the instances that `select` returns, if given, are tracks to fill in.
        """
        if self.filling is None:
            return results
        if select is not None:
            results = ((frame, select(found)) for frame, found in results)
        return self.filling.fill(results, again)


def hiding_of(options: StreamOptions, file_fps: float | None = None, *, audit: bool = False) -> Hiding:
    """Return how a file of `file_fps` frames per second, or a live session without it, is drawn.

    A file is read ahead if the effect hides. Live, tracks are propagated to earlier frames by at most
    `options.delay`; without it, only for `fail_secure` or an `audit`. Raises UsageError and SourceError for
    an invalid effect.
    """
    if not options.hides or (file_fps is None and not (options.delay or options.fail_secure or audit)):
        return Hiding(options.draw_function(), None)
    from live_seg.pipeline.filling import LOOKAHEAD, Filling
    from live_seg.propagation.gaps import HOLD, GapFiller

    if file_fps is None:
        filler = GapFiller(options.delay)
    else:  # a slow sequence of images is read at least some frames ahead
        filler = GapFiller(max(LOOKAHEAD, 4 / file_fps), hold=max(HOLD, 1 / file_fps))
    filling = Filling(filler)
    return Hiding(_drawing(options, filling), filling)


def _drawing(options: StreamOptions, filling: "Filling") -> "DrawFunction":
    """Return the function that also hides what `filling` has propagated."""
    from live_seg.drawing.effects import effect_of
    from live_seg.drawing.hiding import whole_frame

    effect = effect_of(options.effect, options.hide)

    def hidden(frame: "Frame", instances: "Instances", *_: object, **__: object) -> "Image":
        if options.fail_secure and len(filling.latest.uncertain):
            return effect(frame.image, whole_frame(frame.image.shape))
        return effect(frame.image, instances.joined(filling.latest.missed))

    return hidden
