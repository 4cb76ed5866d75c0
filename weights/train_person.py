"""Train the bundled person model anew: how person.weights.h5 and person.json beside this file were made.

python weights/train_person.py DATA BACKBONE RUN

DATA holds COCO photos, longest side about 480: instances_train.json with train/ (masks), boxes.json with
boxes/ (boxes alone), instances_val.json with val/. BACKBONE is a weights file of MobileNetV2 without top from
keras.applications, trained on ImageNet. RUN is a new folder for the log and the averaged weights.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import keras

from live_seg.evaluate import evaluate
from live_seg.maskrcnn.model import MOBILE, MaskRCNN
from live_seg.maskrcnn.training import Sampling
from live_seg.segmenter import Segmenter
from live_seg.train import Batches, fit, load_backbone, read_coco, save

NAMES = ("background", "person")
EPOCHS = 12
LEARNING_RATE = 3e-4
SIDE = 384
BATCH = 8
SAMPLING = Sampling(anchors=128, positive_anchors=64, proposals=64, positive_proposals=16)


def train(data: Path, backbone: Path, run: Path) -> None:
    """Fit the model to the photos in `data`; the averaged weights come to lie in `run`."""
    keras.utils.set_random_seed(1)
    photos = read_coco(data / "train", data / "instances_train.json")
    photos += read_coco(data / "boxes", data / "boxes.json")
    model = MaskRCNN(replace(MOBILE, proposals=150))
    load_backbone(model, backbone, freeze_until="block_2_add")
    batches = Batches(photos, MOBILE.mean_pixel, side=SIDE, batch=BATCH, seed=0)
    fit(model, batches, epochs=EPOCHS, learning_rate=LEARNING_RATE, sampling=SAMPLING, run=run)


def publish(data: Path, run: Path) -> None:
    """Measure the averaged weights on the val photos and write them here, with their card."""
    here = Path(__file__).parent
    model = MaskRCNN(replace(MOBILE, min_score=0.05))
    model.load_weights(run / "averages.weights.h5")
    figures = evaluate(Segmenter(model, NAMES), data / "val", data / "instances_val.json")
    model.config = replace(model.config, min_score=MIN_SCORE)
    save(model, NAMES, here / "person.weights.h5", {**FACTS, "measured": measured(figures)})
    print(json.dumps(figures, indent=2))


MIN_SCORE = 0.7

FACTS = {
    "origin": (
        "MobileNetV2 backbone from TensorFlow's mobilenet_v2_1.0_224 (ImageNet), Mask R-CNN trained by "
        "weights/train_person.py on 2,823 COCO 2017 photos: 1,239 with person masks, 1,584 with person boxes"
    ),
    "licence": "MIT; backbone Apache-2.0; COCO annotations CC BY 4.0, photos not shipped",
}


def measured(figures: dict[str, dict[str, float]]) -> dict[str, object]:
    """What the card says of the model's worth."""
    rounded = {kind: {k: round(v, 3) for k, v in values.items()} for kind, values in figures.items()}
    return {"data": "150 COCO 2017 val photos, 329 persons, longest side 480", "figures": rounded}


if __name__ == "__main__":
    folder, weights, out = map(Path, sys.argv[1:])
    train(folder, weights, out)
    publish(folder, out)
