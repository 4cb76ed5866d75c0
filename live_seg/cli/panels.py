"""The panels that group a command's options in its help text."""

import re
from collections.abc import Iterable
from inspect import Parameter
from pathlib import Path
from typing import Any, get_args

import typer
from typer.core import TyperCommand

from live_seg.urls import redacted

INPUT, MODEL, OUTPUT, LIVE, ADVANCED = PANELS = ("Input", "Model", "Output", "Live", "Advanced")
"""In the order of the help text."""

STREAM = re.compile(r"(https?|rtmps?|rtsps?|srt|tcp|udp):/", re.IGNORECASE)
"""Start of the URL of a stream; a path object joins its slashes to one."""


def option(panel: str, help_text: str, *names: str, **settings: Any) -> Any:
    """Return a typer option that the help text lists in `panel`. Those of OUTPUT refuse streams."""
    if panel == OUTPUT:
        settings.setdefault("callback", refuse_url)
    return typer.Option(*names, help=help_text, rich_help_panel=panel, **settings)


def refuse_url(value: Any) -> Any:
    """Return the value of an option. Raises BadParameter for the URL of a stream, which may hold secrets."""
    if isinstance(value, str | Path) and STREAM.match(str(value)):
        raise typer.BadParameter(f"{redacted(value)} is a URL. Give a file or folder.")
    return value


class PanelCommand(TyperCommand):
    """A command whose `--help` option is listed in the last panel, if it has panels."""

    def get_help_option(self, ctx: Any) -> Any:
        """Return the help option, or None where the command has none."""
        option = super().get_help_option(ctx)
        if option is not None and any(getattr(one, "rich_help_panel", None) for one in self.params):
            option.rich_help_panel = ADVANCED
        return option


def in_panel_order(parameters: Iterable[Parameter]) -> list[Parameter]:
    """Sort a command's parameters by panel, arguments first. The order within a panel is kept."""
    return sorted(parameters, key=_rank)


def _rank(parameter: Parameter) -> int:
    panels = [getattr(info, "rich_help_panel", None) for info in get_args(parameter.annotation)]
    return max((PANELS.index(panel) for panel in panels if panel in PANELS), default=-1)
