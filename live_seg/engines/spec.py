"""The description of a model that engines work from."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from live_seg.maskrcnn.config import MaskRCNNConfig


@dataclass(frozen=True)
class ModelSpec:
    """A model resolved from its name or file: see `models.spec.resolve`."""

    weights: Path
    config: MaskRCNNConfig
    """Of the network, with the options that the caller gave."""
    class_names: tuple[str, ...]
    """By class id, background first."""
    class_ids: frozenset[int] | None = None
    """Classes to detect; None for all."""
    card: dict[str, Any] = field(default_factory=dict)
    """Content of the model card, {} without one."""
    made_of: dict[str, Any] = field(default_factory=dict)
    """Fields of `config` that describe the network and were given instead of read from the file."""
