"""Reproduce the bundled person model: person.weights.h5 and person.json beside this file.

python weights/train_person.py DATA BACKBONE RUN

DATA holds COCO photos, longest side about 480: instances_train.json with train/ (masks), boxes.json with
boxes/ (boxes alone), instances_val.json with val/. BACKBONE is a weights file of MobileNetV2 without top from
keras.applications, trained on ImageNet. RUN is a new folder for both runs: logs, curves, states, models.
"""

import json
import sys
from pathlib import Path

from live_seg.engines.keras import KerasEngine
from live_seg.engines.openvino.forms import quantized
from live_seg.engines.table import create
from live_seg.evaluation.evaluate import evaluate
from live_seg.evaluation.ground_truth import GroundTruth
from live_seg.evaluation.threshold import best_threshold
from live_seg.files import read_image
from live_seg.maskrcnn.checkpoint import read_network
from live_seg.maskrcnn.config import MOBILE
from live_seg.maskrcnn.model import MaskRCNN
from live_seg.models.classes import BACKGROUND
from live_seg.models.load import load
from live_seg.models.spec import resolve
from live_seg.segmenter import Segmenter
from live_seg.training.augment import Augmentation
from live_seg.training.checkpoint import save
from live_seg.training.settings import Settings
from live_seg.training.train import train

FOLDERS = {"train": "instances_train", "boxes": "boxes"}
"""Folders of training photos, with the names of their annotation files."""

SIDE = 384
"""Side of training images. Inference uses `MOBILE.size`: small people improve, large ones are unaffected."""

STAGES = (
    (22, 4e-4, Augmentation()),
    (3, 1.2e-4, Augmentation(scale=(0.7, 1.4), mosaic=0.0, pasted=1)),
    (2, 1.5e-4, Augmentation(scale=(0.6, 1.5), mosaic=0.4, pasted=3)),
)
"""Epochs, learning rate and augmentation of each stage. Each has its own learning rate schedule."""


def learn(data: Path, backbone: Path, run: Path) -> tuple[Path, Path]:
    """Train all stages on the photos in `data`. Return the models of the last two."""
    run.mkdir()
    photos = tuple((data / name, data / f"{file}.json") for name, file in FOLDERS.items())
    start = f"backbone:{backbone}"
    for number, (epochs, rate, augmentation) in enumerate(STAGES, start=1):
        settings = Settings(
            photos,
            start=start,
            epochs=epochs,
            size=SIDE,
            learning_rate=rate,
            layers="3+",
            heads_first=0,
            augmentation=augmentation,
        )
        train(settings, run / f"stage{number}", report=print)
        start = str(run / f"stage{number}" / "model.weights.h5")
    return run / f"stage{len(STAGES) - 1}" / "model.weights.h5", Path(start)


def averaged(one: Path, other: Path) -> MaskRCNN:
    """Read two models and average their weights (Wortsman et al., arXiv 2203.05482)."""
    specs = [resolve(path, size=MOBILE.size, min_score=0.05) for path in (one, other)]
    networks = [read_network(spec.weights, spec.config) for spec in specs]
    for variables in zip(*(network.weights for network in networks), strict=True):
        variables[0].assign((variables[0] + variables[1]) / 2)
    return networks[0]


MIN_SCORE = 0.75
"""On a motorway without people, 1 frame in 110 has a false positive; at the best F1 on val, 1 in 7."""


PERSON = Path(__file__).parent / "person.weights.h5"


def publish(network: MaskRCNN, data: Path) -> None:
    """Evaluate a network on the validation photos, and write it with its card beside this file."""
    truth = GroundTruth(data / "val", data / "instances_val.json")
    segment = Segmenter(KerasEngine(network), (BACKGROUND, "person"))
    found = evaluate(segment, truth)
    best, f1 = best_threshold(truth, found) or (0.0, 0.0)
    measured = {
        "data": f"{found.photos} COCO 2017 val photos, "
        f"{found.classes['person'].objects} persons, longest side 480",
        "box": {name: round(value, 3) for name, value in found.box.items()},
        "mask": {name: round(value, 3) for name, value in found.mask.items()},
        "threshold": (
            f"F1 of masks at IoU 0.5 is best at {best:.2f} ({f1:.3f}) and flat up to 0.85; "
            f"min_score {MIN_SCORE} is higher, for fewer false positives"
        ),
    }
    facts = {**FACTS, "measured": measured}
    save(network, segment.class_names, PERSON, facts, MIN_SCORE)
    print(json.dumps(measured, indent=2))
    print(found.report())


CALIBRATED_WITH = 128
"""Number of training photos for calibration."""


def publish_int8(data: Path) -> None:
    """Quantize the published model, write its int8 form beside it, and evaluate that form."""
    spec = resolve(PERSON)
    segment = Segmenter(create("openvino", spec), spec.class_names)
    photos = sorted((data / "train").glob("*.jpg"))
    images = [segment.prepared(read_image(path)) for path in photos[:: len(photos) // CALIBRATED_WITH]]
    quantized(spec, images[:CALIBRATED_WITH], beside=True)
    truth = GroundTruth(data / "val", data / "instances_val.json")
    print(evaluate(load("person", engine="openvino-int8", min_score=0.05), truth).report())


FACTS = {
    "origin": (
        "MobileNetV2 backbone from TensorFlow's mobilenet_v2_1.0_224 (ImageNet), Mask R-CNN trained by "
        "weights/train_person.py on 2,823 COCO 2017 photos: 1,239 with person masks, 1,584 with person boxes"
    ),
    "licence": "MIT; backbone Apache-2.0; COCO annotations CC BY 4.0, photos not shipped",
}


if __name__ == "__main__":
    folder, weights, out = map(Path, sys.argv[1:])
    publish(averaged(*learn(folder, weights, out)), folder)
    publish_int8(folder)
