"""The model card, a JSON file beside a weights file: config, class names and origin of the network."""

import json
from pathlib import Path
from typing import Any

from live_seg.errors import WeightsError
from live_seg.models.classes import BACKGROUND, COCO_CLASSES


def card_of(path: Path) -> Path:
    """Return the path of the model card of a weights file: NAME.json for NAME.weights.h5 and NAME.h5."""
    return path.with_name(path.name.removesuffix(".h5").removesuffix(".weights") + ".json")


def read_card(path: Path) -> dict[str, Any]:
    """Read the model card of the weights file `path`; {} if it has none. Raises WeightsError."""
    card = card_of(path)
    if not card.exists():
        return {}
    try:
        content = json.loads(card.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"Cannot read the model card {card} as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise WeightsError(f"The model card {card} holds no JSON object.")
    return content


def class_names(path: Path, count: int, card: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the `count` classes, background first, of the weights file `path`.

    Without names on its `card`, as with Matterport's files, they are COCO's if there are as many, else
    numbered. Raises WeightsError when the card has another number of names.
    """
    names = card.get("class_names")
    if names is None:
        numbered = (BACKGROUND, *(f"class {i}" for i in range(1, count)))
        return COCO_CLASSES if count == len(COCO_CLASSES) else numbered
    if len(names) != count:
        raise WeightsError(f"{card_of(path)} names {len(names)} classes, but {path} has {count}.")
    return tuple(names)


def sha256_on_card(path: Path) -> str | None:
    """Return the hex digest on the card of a bundled weights file, if there is one. Raises WeightsError."""
    card = card_of(path)
    try:
        digest = json.loads(card.read_text(encoding="utf-8")).get("sha256")
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"The card {card} cannot be read: {error}. Reinstall live_seg.") from error
    return None if digest is None else str(digest)
