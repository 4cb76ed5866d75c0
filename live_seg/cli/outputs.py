"""Check the outputs of a command against its inputs."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from live_seg.errors import UsageError

if TYPE_CHECKING:
    from live_seg.cli.options import Options
    from live_seg.fleet.jobs import Job
    from live_seg.types import Source

STANDARD_OUTPUT = Path("-")
"""The path given for standard output."""


def refuse_standard_output(path: Path | None) -> None:
    """Raise UsageError if the file `path` is `-`: videos, images and converted files need a name."""
    if path == STANDARD_OUTPUT:
        raise UsageError("-o - is not possible, only --json - writes to standard output. Give a file name.")


def check_outputs(outputs: Sequence[Path | None], inputs: Iterable[Path]) -> None:
    """Raise UsageError if one of `outputs` would replace one of `inputs` or another output.

    It does not matter whether existing files may be replaced. A folder that exists must hold none of the
    input images.
    """
    from live_seg.files import file_key
    from live_seg.sources.image_files import READABLE_SUFFIXES

    inputs = list(inputs)
    sources = {file_key(path): path for path in inputs}
    images = (path for path in inputs if path.suffix.lower() in READABLE_SUFFIXES and path.exists())
    folders = {file_key(path.parent): path for path in images}
    taken: dict[object, Path] = {}
    for path in outputs:
        if path is None or path == STANDARD_OUTPUT:
            continue
        key = file_key(path)
        if source := sources.get(key) or folders.get(key):
            raise UsageError(f"Writing {path} would replace the input {source}. Choose another name.")
        if other := taken.get(key):
            raise UsageError(f"Two outputs name one file: {other} and {path}. Give each its own name.")
        taken[key] = path


def check_jobs(jobs: "Sequence[Job]", options: "Options") -> None:
    """Check the outputs of `jobs` as `check_outputs` does. Raises UsageError."""
    sources = [Path(job.source) for job in jobs]  # addresses of object stores are compared as names
    check_outputs([path for job in jobs for path in job.outputs], [*sources, *fixed_inputs(options)])


def inputs_of(source: "Source", options: "Options") -> list[Path]:
    """Return the files that are read: those of `source`, and those that `options` name."""
    from live_seg.sources.image_files import ImageFiles

    images = source.paths if isinstance(source, ImageFiles) else ()
    video = [] if source.audio is None else [source.audio]
    return [*images, *video, *fixed_inputs(options)]


def fixed_inputs(options: "Options") -> list[Path]:
    """Return the files that are read for every source: the background, the model and its card."""
    from live_seg.drawing.effects import background_of

    background = background_of(options.effect)
    return [*([] if background is None else [background]), *model_files(options.model)]


def model_files(model: str) -> list[Path]:
    """Return the paths of a model, given by name or path, and of its card. They may not exist."""
    from live_seg.files import expand_user
    from live_seg.models.card import card_of
    from live_seg.models.registry import WEIGHTS, path_of

    path = path_of(WEIGHTS[model]) if model in WEIGHTS else expand_user(model)
    return [path, card_of(path)]
