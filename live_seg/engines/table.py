"""The table of engines, by the names that a user chooses from."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from live_seg.choices import EngineName
from live_seg.engines.engine import Engine
from live_seg.engines.spec import ModelSpec
from live_seg.errors import UsageError, nearest


class EngineEntry(NamedTuple):
    """A row of the table of engines."""

    module: str
    """Imported on first use. Defines `create(spec, precision)`, which returns an Engine."""
    precision: str
    """The number format that `create` is called with."""
    package: str
    """The package that must be installed, with the extra of live-seg of the same name."""


ENGINES: dict[EngineName, EngineEntry] = {
    "keras": EngineEntry("live_seg.engines.keras", "float32", "keras"),
    "keras-float16": EngineEntry("live_seg.engines.keras", "mixed_float16", "keras"),
    "openvino": EngineEntry("live_seg.engines.openvino.engine", "float32", "openvino"),
    "openvino-int8": EngineEntry("live_seg.engines.openvino.engine", "int8", "openvino"),
}
"""Engines by name. A new engine is one module and one row here, and its name in `choices.EngineName`."""


def create(name: EngineName, spec: ModelSpec) -> Engine:
    """Create the engine called `name` for the model `spec`.

    Raises UsageError for an engine that is unknown or not installed, WeightsError when the weights are
    damaged, do not fit, or have no form for this engine.
    """
    entry = ENGINES[checked(name)]
    factory: Callable[[ModelSpec, str], Engine] = import_module(entry.module).create
    return factory(spec, entry.precision)


def checked(name: EngineName) -> EngineName:
    """Return `name`, "auto" or an engine that is installed. Raises UsageError for any other."""
    if name != "auto" and name not in ENGINES:
        raise UsageError(f"Unknown engine {name!r}. {nearest(name, ('auto', *ENGINES))}")
    if name != "auto" and not installed(package := ENGINES[name].package):
        raise UsageError(
            f"The engine {name} is not installed: pip install 'live-seg[{package}]', or use --engine keras."
        )
    return name


def installed(package: str) -> bool:
    """Return whether `package` can be imported, without importing it."""
    return find_spec(package) is not None
