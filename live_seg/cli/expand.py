"""Expand a dataclass of options into the parameters of a command, as typer reads them."""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_type_hints

import typer.models

from live_seg.cli.panels import in_panel_order


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameter `options` of `command` by the fields of its dataclass.

    Defaults come from the default of `options` if there is one, else from the dataclass.
    """
    signature = inspect.signature(command)
    placeholder = signature.parameters["options"]
    kind = placeholder.annotation
    defaults = kind() if placeholder.default is inspect.Parameter.empty else placeholder.default
    hints = get_type_hints(kind, include_extras=True)
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in signature.parameters.items()
        if name != "options"
    ]
    # The options of a subclass are more specific, so the help lists them first.
    names = [name for cls in kind.__mro__ for name in inspect.get_annotations(cls)]
    shared = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=getattr(defaults, name),
            annotation=_showing(hints[name], getattr(defaults, name)),
        )
        for name in names
    ]

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> None:
        options = kind(**{parameter.name: arguments.pop(parameter.name) for parameter in shared})
        command(**arguments, options=options)

    parameters = in_panel_order([*own, *shared])
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


def _showing(hint: Any, default: object) -> Any:
    """Return `hint` for a parameter with this default: its words for "no value" describe None alone."""
    kind, *extras = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
    for place, info in enumerate(extras):
        if default is not None and isinstance(info, typer.models.OptionInfo):
            extras[place] = copy.copy(info)
            if isinstance(info.show_default, str):
                extras[place].show_default = True
    return Annotated[kind, *extras] if extras else hint
