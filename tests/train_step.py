"""Some training steps in the tiny world, on the backend that Keras runs on."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import keras
import numpy as np

from live_seg.training.augment import NO_AUGMENTATION
from live_seg.training.batches import Batches
from live_seg.training.initial_weights import build
from live_seg.training.photos import AnnotatedPhoto, read_all
from live_seg.training.trainer import Trainer
from tests.tiny_world import CONFIG, EASY, draw_shapes, small_backbone

STEPS = 15


def batches_of(photos: list[AnnotatedPhoto]) -> Batches:
    return Batches(photos, side=CONFIG.size, batch=4, seed=0, augmentation=NO_AUGMENTATION)


def steps(folder: Path) -> dict[str, Any]:
    """Take steps on one batch, then one on a batch without objects."""
    keras.utils.set_random_seed(0)
    columns = batches_of(read_all([draw_shapes(folder, 4)])[0]).make(0, 0)
    model = build(replace(CONFIG, num_classes=3), "float32")
    trainer = Trainer(model, EASY["sampling"], seed=0)
    trainer.prepare(STEPS, 3e-3)
    found = [trainer.step(columns)["loss"] for _ in range(STEPS)]
    finite = all(np.isfinite(keras.ops.convert_to_numpy(variable)).all() for variable in model.variables)
    nothing = {
        name: values if name == "images" else np.zeros_like(values) for name, values in columns.items()
    }
    return {
        "backend": keras.backend.backend(),
        "losses": found,
        "finite": bool(finite),
        "empty": trainer.step(nothing),
    }


if __name__ == "__main__":
    with patch("live_seg.maskrcnn.model.build_backbone", small_backbone):
        print(json.dumps(steps(Path(sys.argv[1]))))
