"""Build the bundled model: small.weights.h5, its card small.json and its converted forms beside this file.

python weights/build_small.py DATA DETECTOR RUN

DATA is the folder of photos and annotations that `gather.py` reads. DETECTOR is the ONNX file of YOLOX-Nano.
RUN is a new folder for annotations, logs, curves, states and models of all stages.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gather import gather, gather_val

from live_seg.engines.openvino.forms import converted, quantized
from live_seg.engines.table import create
from live_seg.evaluation.evaluate import Evaluation, evaluate
from live_seg.evaluation.ground_truth import GroundTruth
from live_seg.files import read_image, sha256_of
from live_seg.maskrcnn.checkpoint import read_network
from live_seg.maskrcnn.config import SMALL
from live_seg.models.card import card_of
from live_seg.models.classes import COCO_CLASSES
from live_seg.models.load import load
from live_seg.models.spec import resolve
from live_seg.segmenter import Segmenter
from live_seg.training.augment import Augmentation
from live_seg.training.checkpoint import save
from live_seg.training.settings import SAMPLING, Settings
from live_seg.training.train import train

SIDE = 512
"""Side of training images, and longest side of the input later."""

SAMPLES = replace(SAMPLING, masks=8)

AUGMENTATION = Augmentation(scale=(0.6, 1.5), mosaic=0.3)

STAGES: tuple[dict[str, Any], ...] = (
    {"epochs": 4, "layers": "heads", "learning_rate": 2e-3},
    {"epochs": 2, "layers": "all", "learning_rate": 1.2e-3, "detector_rate": 0.02},
)
"""The mask branch alone, and the whole network with a slow detector.

The shipped weights are the average of both stages (Wortsman et al., arXiv 2109.01903). Their second stage was
stopped after 2 of 8 scheduled epochs.
"""

MIN_SCORE = 0.35
"""Score threshold of the card."""

CALIBRATED_WITH = 128
"""Training photos that int8 is calibrated with."""

SMALL_FILE = Path(__file__).parent / "small.weights.h5"

FACTS = {
    "origin": (
        "Mask R-CNN whose first stage has the layers of YOLOX-Nano and began with its weights (Megvii, "
        "Apache-2.0, trained on COCO train2017); the whole network was trained by weights/build_small.py on "
        "3,044 photos of COCO 2017 with boxes of 80 classes and 6,796 masks, some of them pseudo masks"
    ),
    "licence": "MIT; detector's initial weights Apache-2.0; COCO annotations CC BY 4.0, photos not shipped",
}


def learn(data: Path, detector: Path, run: Path) -> Path:
    """Train all stages on the photos in `data`. Return the average of their models."""
    run.mkdir(parents=True)
    (run / "train.json").write_text(json.dumps(gather(data)), encoding="utf-8")
    start, models = f"yolox:{detector}", list[Path]()
    for number, stage in enumerate(STAGES, start=1):
        settings = Settings(
            ((data, run / "train.json"),),
            val=(data / "person/val", data / "person/instances_val.json"),
            start=start,
            size=SIDE,
            heads_first=0,
            val_every=2,
            sampling=SAMPLES,
            augmentation=AUGMENTATION,
            **stage,
        )
        train(settings, run / f"stage{number}", report=print)
        models.append(run / f"stage{number}" / "model.weights.h5")
        start = str(models[-1])
    average = run / "average.weights.h5"
    networks = [read_network(model, SMALL) for model in models]
    for weights in zip(*(network.weights for network in networks), strict=True):
        weights[0].assign(sum(weights) / len(weights))
    networks[0].save_weights(average)
    return average


def ground_truths(data: Path, run: Path) -> dict[str, GroundTruth]:
    """Return both validation sets: persons, and all 80 classes."""
    path = run / "val.json"
    path.write_text(json.dumps(gather_val(data)), encoding="utf-8")
    return {
        "person": GroundTruth(data / "person/val", data / "person/instances_val.json"),
        "80 classes": GroundTruth(data, path),
    }


def publish(model: Path, data: Path, run: Path) -> None:
    """Write the model, its card and its converted forms beside this file, and evaluate both forms."""
    network = read_network(model, SMALL)
    save(network, COCO_CLASSES, run / SMALL_FILE.name, FACTS, MIN_SCORE)
    store_as_float16(run / SMALL_FILE.name, SMALL_FILE)
    spec = resolve(SMALL_FILE)
    converted(spec, beside=True)
    segment = Segmenter(create("openvino", spec), COCO_CLASSES)
    photos = sorted((data / "person/train").glob("*.jpg"))
    images = [segment.prepared(read_image(path)) for path in photos[:: len(photos) // CALIBRATED_WITH]]
    quantized(spec, images[:CALIBRATED_WITH], beside=True)
    truths = ground_truths(data, run)
    measured = {
        form: {name: figures(evaluate(load_form(engine), truth)) for name, truth in truths.items()}
        for form, engine in (("float32", "openvino"), ("int8", "openvino-int8"))
    }
    card = json.loads(card_of(SMALL_FILE).read_text(encoding="utf-8")) | {"measured": measured}
    card_of(SMALL_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(measured, indent=2))


def store_as_float16(source: Path, target: Path) -> None:
    """Copy weights and card of a model, with the weights rounded to float16. This halves the file."""
    with h5py.File(source) as old, h5py.File(target, "w") as new:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset):
                new.create_dataset(name, data=item[()].astype(np.float16))
            else:
                new.require_group(name).attrs.update(item.attrs)

        old.visititems(copy)
        new.attrs.update(old.attrs)
    card = json.loads(card_of(source).read_text(encoding="utf-8"))
    card["sha256"] = sha256_of(target)
    card_of(target).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def load_form(engine: Any) -> Segmenter:
    """Load one form of the published model with the threshold of COCO's evaluation."""
    return load(SMALL_FILE, engine=engine, min_score=0.01)


def figures(found: Evaluation) -> dict[str, Any]:
    """Return COCO's metrics of boxes and masks, rounded."""
    rounded = {
        kind: {name: round(value, 3) for name, value in values.items()}
        for kind, values in (("box", found.box), ("mask", found.mask))
    }
    objects = sum(one.objects for one in found.classes.values())
    return {"data": f"{found.photos} photos of COCO 2017 val, {objects} objects, longest side 480", **rounded}


if __name__ == "__main__":
    folder, weights, out = map(Path, sys.argv[1:])
    publish(learn(folder, weights, out), folder, out)
