"""Where converted networks lie: beside the weights that live_seg brings, or in the cache."""

import contextlib
import errno
import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from live_seg.errors import WeightsError
from live_seg.files import cache_folder
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.models.card import read_card

Precision = Literal["float32", "int8"]

FORMAT = 2
"""Goes up when what `conversion.convert` writes changes: older conversions are made anew."""

SOURCE = "source.json"
"""Beside the models: which weights they come from, and the config of their network."""


@dataclass(frozen=True)
class Converted:
    """A network as OpenVINO reads it: a folder of models, and what they are made of."""

    folder: Path
    config: MaskRCNNConfig


def find(weights: Path, precision: Precision, made_of: dict[str, Any]) -> Converted | None:
    """The converted form of the file `weights`, if there is one: sooner the user's own than one beside it.

    `made_of` are fields of the config that were given, rather than read from the file.
    """
    source = _source(weights, made_of)
    for folder in (_cached(weights, precision, source), _beside(weights, precision)):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            stored = json.loads((folder / SOURCE).read_text(encoding="utf-8"))
            if stored["source"] == source:
                return Converted(folder, MaskRCNNConfig.from_json(stored["config"]))
    return None


def keep(
    weights: Path,
    precision: Precision,
    made_of: dict[str, Any],
    config: MaskRCNNConfig,
    write: Callable[[Path], None],
    *,
    beside: bool = False,
) -> Converted:
    """Have `write` fill a folder with the converted form of `weights`, and keep it.

    It lies in the cache, or `beside` the weights. Nothing half-written is ever found. Raises WeightsError
    when there is no room, or no right to write.
    """
    source = _source(weights, made_of)
    folder = _beside(weights, precision) if beside else _cached(weights, precision, source)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as temporary:
            made = Path(temporary) / folder.name
            made.mkdir()
            write(made)
            stored = {"source": source, "config": asdict(config)}
            (made / SOURCE).write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
            _put(made, folder)
    except OSError as error:
        raise WeightsError(
            f"Cannot keep the converted network in {folder.parent}: {error}. "
            "Make room, name another folder in LIVE_SEG_CACHE, or use --engine keras."
        ) from error
    return Converted(folder, config)


def compiled_folder() -> Path | None:
    """Where OpenVINO keeps what it compiled; None where nothing can be kept."""
    folder = cache_folder() / "openvino" / "compiled"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder if os.access(folder, os.W_OK) else None


def _put(made: Path, folder: Path) -> None:
    """Give `made` the name `folder`. What had it is moved away whole: nobody ever finds a part of either."""
    while True:
        try:
            made.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            with contextlib.suppress(FileNotFoundError):
                folder.rename(tempfile.mkdtemp(dir=made.parent))
        else:
            return


def _beside(weights: Path, precision: Precision) -> Path:
    return weights.with_name(f"{_stem(weights)}-{precision}")


def _cached(weights: Path, precision: Precision, source: dict[str, Any]) -> Path:
    key = json.dumps([source, version("openvino")], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return cache_folder() / "openvino" / f"{_stem(weights)}-{precision}-{digest}"


def _stem(weights: Path) -> str:
    return weights.name.removesuffix(".h5").removesuffix(".weights")


def _source(weights: Path, made_of: dict[str, Any]) -> dict[str, Any]:
    status = weights.stat()
    digest = _sha256(weights, status.st_size, status.st_mtime_ns)
    return {"weights": digest, "card": read_card(weights).get("config"), "given": made_of, "format": FORMAT}


@functools.lru_cache(maxsize=8)
def _sha256(path: Path, _size: int, _modified: int) -> str:
    """Of a file as it was when it had this size and was modified then."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
