"""The table of known weights, their location and verification."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from live_seg.errors import WeightsError, nearest
from live_seg.files import cache_folder
from live_seg.models.card import card_of, read_card
from live_seg.models.classes import COCO_CLASSES

logger = logging.getLogger(__name__)

BUNDLED_FOLDERS = (Path(__file__).parents[1] / "bundled", Path(__file__).parents[2] / "weights")
"""Folders of bundled files: in an installed wheel, and in a checkout."""


@dataclass(frozen=True)
class Weights:
    """Weights known by name: bundled without a `url`, else downloaded into the cache."""

    name: str
    file: str
    """File name in the bundled or the cache folder. A bundled file has its card, NAME.json, beside it."""
    classes: tuple[str, ...]
    """Class names by id, background first."""
    origin: str
    """Author, training data and license, in one line."""
    url: str | None = None
    size: int | None = None
    """Bytes; None for bundled files."""
    rounding: int = 0
    """Bytes by which the true size may differ from `size`, where its source rounds it."""
    md5: str | None = None
    """Hex digest."""
    sha256: str | None = None
    """Hex digest or its beginning; a bundled file has it on its card instead."""
    restricted_to: tuple[str, ...] | None = None
    """The only classes that `load` detects with it; None for all."""


WEIGHTS: dict[str, Weights] = {
    weights.name: weights
    for weights in (
        Weights(
            name="small",
            file="small.weights.h5",
            classes=COCO_CLASSES,
            origin="trained on COCO; origin, license and measured AP in small.json",
        ),
        Weights(
            name="person",
            file="small.weights.h5",
            classes=COCO_CLASSES,
            origin="the model small, restricted to persons",
            restricted_to=("person",),
        ),
        Weights(
            name="coco",
            file="mask_rcnn_coco.h5",
            classes=COCO_CLASSES,
            origin="Matterport Mask_RCNN 2.0, trained on MS COCO; MIT license",
            url="https://github.com/matterport/Mask_RCNN/releases/download/v2.0/mask_rcnn_coco.h5",
            size=257_557_808,
            md5="e98aaff6f99e307b5e2a8a3ff741a518",  # given in NVIDIA TensorRT's UFF Mask R-CNN sample
        ),
        Weights(
            name="coco-v2",
            file="maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth",
            classes=COCO_CLASSES,
            origin="torchvision, MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1; BSD-3-Clause license",
            url="https://download.pytorch.org/models/maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth",
            size=185_827_590,  # 177.219 MiB in torchvision's metadata of the weights
            rounding=1_049,
            sha256="73cbd019",  # torchvision puts the beginning of the digest into the file name
            restricted_to=COCO_CLASSES[1:],  # of 91 category ids
        ),
    )
}


def verify(name: str) -> Path:
    """Check the size and the hash of the weights called `name`, and return their path.

    Raises WeightsError when the name is unknown, or the file is missing or damaged.
    """
    weights = known(name)
    path = path_of(weights)
    fault = fault_of(weights, path)
    if fault is not None:
        fix = "Reinstall live_seg" if weights.url is None else f"Run: live-seg weights download {name}"
        raise WeightsError(f"The weights {name!r} cannot be used: {fault}. {fix}.")
    return path


def status(name: str) -> str:
    """Return a short description of the state of the weights called `name`, without checking hashes.

    Raises WeightsError when the name is unknown.
    """
    weights = known(name)
    if weights.url is None:
        return "bundled" if _bundled(weights) else "missing"
    path = path_of(weights)
    if not path.is_file():
        return "not downloaded"
    return f"cached at {path}" if size_fault(weights, path) is None else f"damaged at {path}"


def known(name: str) -> Weights:
    """Return the weights called `name`. Raises WeightsError for an unknown name."""
    if name not in WEIGHTS:
        raise WeightsError(f"There are no weights named {name!r}. {nearest(name, WEIGHTS)}")
    return WEIGHTS[name]


def path_of(weights: Weights) -> Path:
    """Return the path of the file, existing or not. Raises WeightsError for a missing bundled file."""
    if weights.url is not None:
        return cache_folder() / weights.file
    if found := _bundled(weights):
        return found
    folders = " or ".join(map(str, BUNDLED_FOLDERS))
    raise WeightsError(f"{weights.file} is missing: expected in {folders}. Reinstall live_seg.")


def _bundled(weights: Weights) -> Path | None:
    files = (folder / weights.file for folder in BUNDLED_FOLDERS)
    return next((file for file in files if file.is_file()), None)


def size_fault(weights: Weights, path: Path) -> str | None:
    """Describe a fault in existence or size of the file `path`; None without one."""
    if not path.is_file():
        return f"there is no {path}"
    size = path.stat().st_size
    if weights.size is not None and abs(size - weights.size) > weights.rounding:
        return f"{path} has {size:,} bytes instead of {expected_size(weights)}"
    return None


def expected_size(weights: Weights) -> str:
    """Return the size of the file in bytes for a message, as "1,000", or "about 1,000" when it is rounded."""
    return f"{'about ' if weights.rounding else ''}{weights.size:,}"


def fault_of(weights: Weights, path: Path) -> str | None:
    """Describe a fault in existence, size or hash of the file `path`; None if it is valid."""
    fault = size_fault(weights, path)
    if fault is not None:
        return fault
    algorithm, expected = (
        ("md5", weights.md5) if weights.md5 else ("sha256", weights.sha256 or _sha256_on_card(path))
    )
    if expected is None:
        logger.warning("The card of %s gives no sha256: its bytes are not checked.", path)
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, algorithm).hexdigest()
    if digest.startswith(expected):
        return None
    return f"the {algorithm} of {path} is {digest} instead of {expected}"


def _sha256_on_card(path: Path) -> str | None:
    """Return the hex digest on the card of a bundled weights file, if it has one. Raises WeightsError."""
    if not card_of(path).is_file():
        raise WeightsError(f"The card {card_of(path)} is missing. Reinstall live_seg.")
    digest: str | None = read_card(path).get("sha256")
    return digest
