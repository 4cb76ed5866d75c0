"""Build the bundled model: small.weights.h5, its card small.json and its converted forms beside this file.

python weights/build_small.py DATA DETECTOR RUN

DATA is the folder of photos and annotations that `gather.py` reads. DETECTOR is the ONNX file of YOLOX-Nano.
RUN is a new folder for annotations, logs, curves, states and models of all stages.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gather import complete_masks, gather, gather_val

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

AUGMENTATION = Augmentation(scale=(0.6, 1.5), mosaic=0.3)

Stage = dict[str, Any]

ROUNDS: tuple[tuple[Stage, ...], ...] = (
    (
        {"epochs": 4, "layers": "heads", "learning_rate": 2e-3, "masks": 8, "repeats": 0},
        {
            "epochs": 2,
            "layers": "all",
            "learning_rate": 1.2e-3,
            "detector_rate": 0.02,
            "masks": 8,
            "repeats": 0,
        },
    ),
    ({"epochs": 5, "layers": "heads", "learning_rate": 2e-3, "masks": 10, "repeats": 2},),
)
"""Rounds of stages: the mask branch alone (heads), or the whole network with a slow detector (all).

A stage starts from the model of the stage before it. A round ends with the average of the models of its
stages and, except for the first round, of its initial weights (Wortsman et al., arXiv 2109.01903). `masks`
are sampled from each image. Photos with masks of all their objects occur `repeats` more times in each
epoch. Of the shipped weights, the second stage was stopped after 2 of 8 scheduled epochs.
"""

MIN_SCORE = 0.35
"""Score threshold of the card."""

CALIBRATED_WITH = 128
"""Photos that int8 is calibrated with, of those with masks of all their objects."""

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
    """Train all rounds on the photos in `data`. Return the average of the last round."""
    run.mkdir(parents=True)
    every = gather(data)
    (run / "train.json").write_text(json.dumps(every), encoding="utf-8")
    (run / "complete.json").write_text(json.dumps(complete_masks(data, every)), encoding="utf-8")
    start, average = f"yolox:{detector}", list[Path]()
    for number, stages in enumerate(ROUNDS, start=1):
        models = average[-1:]
        for position, stage in enumerate(stages, start=1):
            folder = run / f"round{number}-stage{position}"
            train(settings_of(stage, start, data, run), folder, report=print)
            models.append(folder / "model.weights.h5")
            start = str(models[-1])
        average.append(run / f"average{number}.weights.h5")
        write_average(models, average[-1])
        start = str(average[-1])
    return average[-1]


def settings_of(stage: Stage, start: str, data: Path, run: Path) -> Settings:
    """Return the training settings of a stage that starts from the weights `start`."""
    own = dict(stage)
    sampling = replace(SAMPLING, masks=own.pop("masks"))
    repeated = ((data, run / "complete.json"),) * own.pop("repeats")
    return Settings(
        ((data, run / "train.json"), *repeated),
        val=(data / "person/val", data / "person/instances_val.json"),
        start=start,
        size=SIDE,
        heads_first=0,
        val_every=2,
        sampling=sampling,
        augmentation=AUGMENTATION,
        **own,
    )


def write_average(models: Sequence[Path], target: Path) -> None:
    """Write the mean of the weights of `models` and its card."""
    networks = [read_network(model, SMALL) for model in models]
    for weights in zip(*(network.weights for network in networks), strict=True):
        weights[0].assign(sum(weights) / len(weights))
    save(networks[0], COCO_CLASSES, target, FACTS, MIN_SCORE)


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
    complete = json.loads((run / "complete.json").read_text(encoding="utf-8"))
    photos = [data / photo["file_name"] for photo in complete["images"]]
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
