"""The JSON card beside a weights file: what the network is, what it finds, where it comes from."""

import json
from pathlib import Path
from typing import Any

from live_seg.errors import WeightsError
from live_seg.models.classes import BACKGROUND, COCO_CLASSES


def card_of(path: Path) -> Path:
    """Where the JSON card of the weights file at `path` lies: NAME.json beside NAME.weights.h5 or NAME.h5."""
    return path.with_name(path.name.removesuffix(".h5").removesuffix(".weights") + ".json")


def read_card(path: Path) -> dict[str, Any]:
    """Read the card of the weights file at `path`: {} where there is none. Raises WeightsError."""
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


def class_names(path: Path, count: int) -> tuple[str, ...]:
    """Names of the `count` classes, background first, of the weights file at `path`.

    From its card; without one COCO's names where the number is COCO's, else numbers: Matterport's files
    hold no names. Raises WeightsError where the card names more or fewer.
    """
    names = read_card(path).get("class_names")
    if names is None:
        numbered = (BACKGROUND, *(f"class {i}" for i in range(1, count)))
        return COCO_CLASSES if count == len(COCO_CLASSES) else numbered
    if len(names) != count:
        raise WeightsError(f"{card_of(path)} names {len(names)} classes, but {path} has {count}.")
    return tuple(names)


def sha256_on_card(path: Path) -> str | None:
    """The hex digest that a bundled file's card (NAME.json beside NAME.weights.h5) gives, if it does."""
    card = card_of(path)
    try:
        digest = json.loads(card.read_text(encoding="utf-8")).get("sha256")
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"The card {card} cannot be read: {error}. Install live_seg anew.") from error
    return None if digest is None else str(digest)
