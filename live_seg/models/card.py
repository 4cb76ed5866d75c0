"""The model card, a JSON file beside a weights file: config, class names and origin of the network."""

from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec
from msgspec import Meta

from live_seg.errors import WeightsError
from live_seg.maskrcnn.config import MaskRCNNConfig
from live_seg.models.classes import BACKGROUND, COCO_CATEGORIES, COCO_CLASSES, check_names

RUN_MODEL = "model.weights.h5"
"""Name of the model in the folder of a training run."""


def card_of(path: Path) -> Path:
    """Return the path of the model card of NAME.weights.h5, NAME.h5 or NAME.pth: NAME.json."""
    return path.with_name(
        path.name.removesuffix(".pth").removesuffix(".h5").removesuffix(".weights") + ".json"
    )


class _Card(TypedDict, total=False):
    """Fields of a card that the program uses, with their types and ranges."""

    class_names: list[str]
    config: dict[str, Any]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


def read_card(path: Path) -> dict[str, Any]:
    """Read and check the model card of the weights file `path`; {} if it has none.

    Each field may be missing or null. Raises WeightsError for a wrong type, name or range.
    """
    card = card_of(path)
    if not card.exists():
        return {}
    try:
        content = msgspec.json.decode(card.read_bytes(), type=dict[str, Any])
        given = {key: value for key, value in content.items() if value is not None}
        msgspec.convert(given, _Card)
        check_names(given.get("class_names", []))
        MaskRCNNConfig.from_json(given.get("config", {}))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"The model card {card} is invalid: {error}. Correct or replace it.") from error
    return given


def class_names(path: Path, count: int, card: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the `count` classes, background first, of the weights file `path`.

    Without names on its `card`, they are COCO's if there are as many, for a `.pth` file by category id,
    else numbered. Raises WeightsError when the card has another number of names.
    """
    names = card.get("class_names")
    if names is None:
        numbered = (BACKGROUND, *(f"class {i}" for i in range(1, count)))
        coco = COCO_CATEGORIES if path.suffix == ".pth" else COCO_CLASSES
        return coco if count == len(coco) else numbered
    if len(names) != count:
        raise WeightsError(f"{card_of(path)} names {len(names)} classes, but {path} has {count}.")
    return tuple(names)
