"""Measure frames per second of Mask R-CNN on a GPU.

    KERAS_BACKEND=jax python benchmarks/measure_gpu.py [--help]

A network with the architecture of the COCO model and random weights processes random images with up to 100
detections each, the maximum load of the mask head. If torchvision is installed, its maskrcnn_resnet50_fpn_v2
is measured alternately with it. Also runs on a CPU, with a smaller --size.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

Step = Callable[[], object]


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="side of the images, a multiple of 64 (1024)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="batch sizes (1 8)")
    parser.add_argument("--backbone", default="resnet101", help="resnet101 or resnet50")
    parser.add_argument("--dtype", default="mixed_bfloat16", help="Keras dtype policy (mixed_bfloat16)")
    parser.add_argument("--rounds", type=int, default=20, help="batches measured (20)")
    options = parser.parse_args()
    for batch in options.batch:
        steps = {"live_seg": live_seg_step(options.backbone, options.dtype, options.size, batch)}
        if find_spec("torchvision") is not None:
            steps["torchvision"] = torchvision_step(options.dtype, options.size, batch)
        for name, seconds in measured(steps, options.rounds).items():
            rate = batch / statistics.median(seconds)
            print(f"{name}: batch {batch}, {rate:.1f} frames per second, {1000 / rate:.1f} ms per frame")


def measured(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each step, run alternately; the first round, which compiles, is excluded."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def live_seg_step(backbone: Any, dtype: str, size: int, batch: int) -> Step:
    """Return a step that runs a KerasEngine on a batch of random images."""
    from live_seg.engines.keras import KerasEngine
    from live_seg.maskrcnn.config import MaskRCNNConfig
    from live_seg.maskrcnn.model import MaskRCNN, computing_in

    config = MaskRCNNConfig(backbone=backbone, size=size, min_side=size, min_score=0.0)
    with computing_in(dtype):
        engine = KerasEngine(MaskRCNN(config))
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
    windows = np.tile(np.array([0, 0, 1, 1], np.float32), (batch, 1))
    print(engine.device)

    def step() -> None:
        maps, found = engine.detect(images, windows)
        if len(found.rows):
            engine.masks(maps, found)

    return step


def torchvision_step(dtype: str, size: int, batch: int) -> Step:
    """Return a step that runs torchvision's network, with its default settings except the image size."""
    import torch
    from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = maskrcnn_resnet50_fpn_v2(
        weights=None, weights_backbone=None, min_size=size, max_size=size, box_score_thresh=0.0
    )
    network.eval().to(device)
    images = list(torch.rand(batch, 3, size, size, device=device))
    low = torch.bfloat16 if "bfloat16" in dtype else torch.float16

    def step() -> None:
        with torch.inference_mode(), torch.autocast(device, dtype=low, enabled=dtype != "float32"):
            network(images)
        if device == "cuda":
            torch.cuda.synchronize()

    return step


if __name__ == "__main__":
    main()
