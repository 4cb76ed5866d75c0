"""Options that the commands share: declared once, given to each."""

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from live_seg.segmenter import Segmenter
    from live_seg.structures import Frame, Image, Instances


class Layout(StrEnum):
    """How a frame is laid into the network's input."""

    FIT = "fit"
    SQUARE = "square"


class Policy(StrEnum):
    """What to do with frames that come faster than they are segmented."""

    ALL = "all"
    LATEST = "latest"


@dataclass(frozen=True)
class ModelOptions:
    """What every command that runs a model takes."""

    model: Annotated[str, typer.Option(help="person, coco, or a weights file.")] = "person"
    classes: Annotated[str | None, typer.Option(help="Only these: person,dog.")] = None
    conf: Annotated[float | None, typer.Option(min=0, max=1, help="Least score of a detection.")] = None
    size: Annotated[int | None, typer.Option(help="Longest side of the network's input, pixels.")] = None
    batch: Annotated[int, typer.Option(min=1, help="Most frames segmented at once.")] = 4
    layout: Annotated[Layout, typer.Option(help="square: Matterport's; fit: hardly any padding.")] = (
        Layout.FIT
    )
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", help="Neither progress nor summary.")] = False

    def load(self) -> "Segmenter":
        """Load the model. Raises UsageError and WeightsError."""
        from live_seg.weights import find

        path = find(self.model, quiet=self.quiet)  # a misspelt name is told before TensorFlow loads
        with _stderr_silenced():
            from live_seg.segmenter import load
        return load(
            path,
            layout=self.layout.value,
            size=self.size,
            min_score=self.conf,
            classes=self.wanted,
        )

    @property
    def wanted(self) -> list[str] | None:
        """The names in `classes`; None for all."""
        return self.classes.split(",") if self.classes else None


@dataclass(frozen=True)
class Options(ModelOptions):
    """What every command takes that draws what it finds, apart from its source and its output."""

    labels: Annotated[bool, typer.Option(help="Write class, score and id.")] = True
    boxes: Annotated[bool, typer.Option(help="Draw boxes.")] = True
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Share of colour in a mask.")] = 0.45
    json: Annotated[Path | None, typer.Option(help="Write one JSON object per frame here.")] = None

    def drawing(self, segment: "Segmenter") -> "Callable[[Frame, Instances], Image]":
        """Make the function that draws what `segment` found."""
        from live_seg.render import draw

        def picture(frame: "Frame", instances: "Instances") -> "Image":
            names = segment.class_names
            return draw(frame.image, instances, names, alpha=self.alpha, labels=self.labels, boxes=self.boxes)

        return picture


@contextlib.contextmanager
def _stderr_silenced() -> Iterator[None]:
    """Send stderr nowhere: TensorFlow's C++ side tells of itself there at any log level."""
    saved = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command`, in place of its parameter `options`, that dataclass's fields as parameters of its own.

    Their defaults are those of the default of `options` where it has one, else the dataclass's.
    """
    signature = inspect.signature(command)
    given = signature.parameters["options"]
    kind = given.annotation
    standard = kind() if given.default is inspect.Parameter.empty else given.default
    hints = get_type_hints(kind, include_extras=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "options"]
    shared = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=getattr(standard, field.name),
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> None:
        options = kind(**{parameter.name: arguments.pop(parameter.name) for parameter in shared})
        command(**arguments, options=options)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper
