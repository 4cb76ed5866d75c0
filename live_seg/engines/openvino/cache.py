"""The cache of converted networks, and those bundled beside their weights."""

import contextlib
import errno
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from live_seg.engines.spec import ModelSpec
from live_seg.errors import WeightsError
from live_seg.files import cache_folder, sha256_of

logger = logging.getLogger(__name__)

Precision = Literal["float32", "int8"]

FORMATS = {"rpn": 3, "yolox": 2}
"""By first stage. Increased when the output of `convert` changes, so that older conversions are replaced."""

SOURCE = "source.json"
"""File beside the models that identifies the weights they were converted from."""


def find(spec: ModelSpec, precision: Precision) -> Path | None:
    """Return the folder of the converted form of `spec`; None if there is none.

    The cached copy takes precedence over the bundled one.
    """
    source = _source(spec)
    for folder in (_cached(spec.weights, precision, source), _beside(spec.weights, precision)):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            stored = json.loads((folder / SOURCE).read_text(encoding="utf-8"))
            if stored["source"] == source and _is_intact(folder, stored["sha256"]):
                return folder
    return None


def _is_intact(folder: Path, digests: dict[str, str]) -> bool:
    """Return whether all files have the digests that were stored with them; log the first that does not."""
    if {file.name for file in folder.iterdir()} != {SOURCE, *digests}:
        return False
    for name, digest in digests.items():
        if sha256_of(folder / name) != digest:
            logger.warning("%s is damaged and will not be used.", folder / name)
            return False
    return True


def keep(
    spec: ModelSpec, precision: Precision, write: Callable[[Path], None], *, beside: bool = False
) -> Path:
    """Call `write` to fill a folder with the converted form of `spec`, and return the folder.

    It is in the cache or `beside` the weights, and appears there complete or not at all. Raises WeightsError
    when it cannot be written.
    """
    source = _source(spec)
    weights = spec.weights
    folder = _beside(weights, precision) if beside else _cached(weights, precision, source)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as temporary:
            made = Path(temporary) / folder.name
            made.mkdir()
            write(made)
            about = {"source": source, "sha256": {file.name: sha256_of(file) for file in made.iterdir()}}
            (made / SOURCE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            _put(made, folder)
    except OSError as error:
        raise WeightsError(
            f"Cannot keep the converted network in {folder.parent}: {error}. "
            "Free disk space, set LIVE_SEG_CACHE to another folder, or use --engine keras."
        ) from error
    return folder


def compiled_folder() -> Path | None:
    """Return the folder for models compiled by OpenVINO; None if it cannot be written."""
    folder = cache_folder() / "openvino" / "compiled"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder if os.access(folder, os.W_OK) else None


def _put(made: Path, folder: Path) -> None:
    """Rename `made` to `folder`. An existing folder is moved away whole: readers see one or the other."""
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


def _source(spec: ModelSpec) -> dict[str, Any]:
    digest = sha256_of(spec.weights)
    return {
        "weights": digest,
        "card": spec.card.get("config"),
        "given": spec.made_of,
        "format": FORMATS[spec.config.first_stage],
    }
