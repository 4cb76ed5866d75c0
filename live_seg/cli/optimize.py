"""The command `live-seg optimize`."""

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from live_seg.cli.messages import clean
from live_seg.cli.native_messages import hidden_native_messages
from live_seg.cli.options import InputSize, LayoutChoice, ModelName, Quiet
from live_seg.cli.panels import INPUT, option
from live_seg.errors import SourceError

if TYPE_CHECKING:
    from live_seg.types import Image


def optimize(
    calibrate: Annotated[
        str,
        option(INPUT, "A video, folder or image like those to be segmented.", metavar="VIDEO"),
    ],
    frames: Annotated[int, option(INPUT, "Maximum number of frames to calibrate with.", min=1, max=512)] = 64,
    model: ModelName = "small",
    size: InputSize = None,
    quiet: Quiet = False,
    layout: LayoutChoice = "fit",
) -> None:
    """Quantize a model to int8, which is faster on CPUs; `--engine auto` then uses it.

    Weights and activations are reduced to 8 bits. The range of the activations is measured on frames of
    VIDEO, so choose a video like those to be segmented. Takes minutes, once.
    """
    from live_seg.models.download import find

    path = find(model, quiet=quiet)
    images = _evenly_spaced(calibrate, frames)
    with _bars_on_stderr(shown=not quiet), hidden_native_messages():
        from live_seg.models.load import quantized

        folder = quantized(path, images, layout=layout, size=size)
    if not quiet:
        print(clean(f"{path.name} in int8 -> {folder}; live-seg now uses it for --engine auto."))


@contextlib.contextmanager
def _bars_on_stderr(*, shown: bool) -> Iterator[None]:
    """Redirect stdout, where NNCF draws its progress bars, to stderr if that is a terminal and `shown`.

    Otherwise the bars are discarded.
    """
    with contextlib.ExitStack() as stack:
        visible = shown and sys.stderr.isatty()
        stream = sys.stderr if visible else stack.enter_context(Path(os.devnull).open("w"))
        stack.enter_context(contextlib.redirect_stdout(stream))
        yield


def _evenly_spaced(spec: str, count: int) -> list["Image"]:
    """Return at most `count` frames of the source `spec`, evenly spaced if its length is known.

    Raises SourceError, and UsageError for an unusable `spec`.
    """
    from live_seg.sources.opening import open_source

    with open_source(spec, wait=False, reconnect=False) as source:
        step = max(1, (source.frames or count) // count)
        spaced = (frame.image for frame in source if frame.index % step == 0)
        images = list(itertools.islice(spaced, count))
    if not images:
        raise SourceError(f"{spec} contains no frame to calibrate with. Give a video, folder or image.")
    return images
