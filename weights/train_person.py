"""Train the bundled person model anew: how person.weights.h5 and person.json beside this file were made.

python weights/train_person.py DATA BACKBONE RUN

DATA holds COCO photos, longest side about 480: instances_train.json with train/ (masks), boxes.json with
boxes/ (boxes alone), instances_val.json with val/. BACKBONE is a weights file of MobileNetV2 without top from
keras.applications, trained on ImageNet. RUN is a new folder for both runs: logs, curves, states, models.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from live_seg.augment import Augmentation
from live_seg.checkpoint import save
from live_seg.evaluate import evaluate
from live_seg.maskrcnn.model import MOBILE
from live_seg.segmenter import load
from live_seg.settings import Settings
from live_seg.threshold import best_threshold
from live_seg.train import train
from live_seg.truth import Truth

SIDE = 384
"""Of training pictures. The network then sees more (`MOBILE.size`): small people gain, large ones keep."""

CALM = Augmentation(scale=(0.7, 1.4), mosaic=0.0, pasted=1)
"""For the last epochs: photos more as they will be (YOLOX, arXiv 2107.08430, section 2.1)."""


def learn(data: Path, backbone: Path, run: Path) -> Path:
    """Train on the photos in `data`: 22 epochs with all augmentation, 3 with less. Returns the model."""
    run.mkdir()
    photos = tuple((data / name, data / f"{file}.json") for name, file in FOLDERS.items())
    first = Settings(
        photos, start=f"backbone:{backbone}", epochs=22, size=SIDE, learning_rate=4e-4, layers="3+"
    )
    train(first, run / "first", tell=print)
    start = str(run / "first" / "model.weights.h5")
    last = replace(first, start=start, epochs=3, learning_rate=1.2e-4, augmentation=CALM)
    train(last, run / "last", tell=print)
    return run / "last" / "model.weights.h5"


FOLDERS = {"train": "instances_train", "boxes": "boxes"}


def publish(weights: Path, data: Path) -> None:
    """Measure a model on the val photos, choose its threshold, and write it here with its card."""
    here = Path(__file__).parent
    truth = Truth(data / "val", data / "instances_val.json")
    segment = load(weights, size=MOBILE.size, min_score=0.05)
    found = evaluate(segment, truth)
    threshold, f1 = best_threshold(truth, found) or (0.7, 0.0)
    measured = {
        "data": f"{found.photos} COCO 2017 val photos, "
        f"{found.classes['person'].objects} persons, longest side 480",
        "box": {name: round(value, 3) for name, value in found.box.items()},
        "mask": {name: round(value, 3) for name, value in found.mask.items()},
        "threshold": f"min_score has the best F1 of masks at IoU 0.5 on these photos: {f1:.3f}",
    }
    facts = {**FACTS, "measured": measured}
    save(segment.model, segment.class_names, here / "person.weights.h5", facts, round(threshold, 2))
    print(json.dumps(measured, indent=2))
    print(found.report())


FACTS = {
    "origin": (
        "MobileNetV2 backbone from TensorFlow's mobilenet_v2_1.0_224 (ImageNet), Mask R-CNN trained by "
        "weights/train_person.py on 2,823 COCO 2017 photos: 1,239 with person masks, 1,584 with person boxes"
    ),
    "licence": "MIT; backbone Apache-2.0; COCO annotations CC BY 4.0, photos not shipped",
}


if __name__ == "__main__":
    folder, weights, out = map(Path, sys.argv[1:])
    publish(learn(folder, weights, out), folder)
