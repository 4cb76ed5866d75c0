"""Measure frames per second of the COCO models' networks on a GPU.

    KERAS_BACKEND=jax python benchmarks/measure_gpu.py [--help]

JAX compiles with XLA; the default backend, TensorFlow, runs its own kernels. Weights and images are random,
with up to 100 detections in each image, the maximum load of the mask head. If torchvision is installed, its
maskrcnn_resnet50_fpn_v2 is measured alternately with coco-v2, both with the same weights, images and
settings. Also runs on a CPU, with a smaller --size.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]

SPREAD = 3.0
"""Standard deviation of torchvision's random class logits: some scores then exceed its threshold, 0.05."""


class Step(NamedTuple):
    """What is measured."""

    name: str
    run: Callable[[], int]
    """Processes a batch and returns the number of detections."""


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="side of the images, a multiple of 64 (1024)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="batch sizes (1 8)")
    parser.add_argument("--model", nargs="+", default=["coco", "coco-v2"], help="models (coco coco-v2)")
    parser.add_argument("--dtype", default="mixed_float16", help="Keras dtype policy (mixed_float16)")
    parser.add_argument("--rounds", type=int, default=20, help="batches measured (20)")
    options = parser.parse_args()
    for model in options.model:
        for batch in options.batch:
            shape = (batch, options.size, options.size, 3)
            images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
            report(batch, measured(steps(model, options.dtype, images), options.rounds))


def steps(model: str, dtype: str, images: Images) -> list[Step]:
    """Return what is measured for `model` with `images` (B, S, S, 3)."""
    if model == "coco-v2" and find_spec("torchvision") is not None:
        network, step = torchvision_step(dtype, images)
        tensors = {name: value.cpu().numpy() for name, value in network.state_dict().items()}
        return [live_seg_step(model, dtype, images, tensors), step]
    return [live_seg_step(model, dtype, images)]


def measured(steps: list[Step], rounds: int) -> dict[str, tuple[list[float], int]]:
    """Return the seconds of each step, run alternately, and its detections.

    The first round, which compiles, is excluded.
    """
    seconds: dict[str, list[float]] = {step.name: [] for step in steps}
    found = dict.fromkeys(seconds, 0)
    for number in range(rounds + 1):
        for step in steps:
            start = time.perf_counter()
            found[step.name] = step.run()
            if number:
                seconds[step.name].append(time.perf_counter() - start)
    return {name: (seconds[name], found[name]) for name in seconds}


def report(batch: int, results: dict[str, tuple[list[float], int]]) -> None:
    """Print one line for each step."""
    for name, (seconds, found) in results.items():
        rate = batch / statistics.median(seconds)
        print(
            f"{name}: batch {batch}, {rate:.1f} frames per second, {1000 / rate:.1f} ms per frame, "
            f"{found / batch:.0f} detections"
        )


def live_seg_step(
    model: str, dtype: str, images: Images, tensors: dict[str, NDArray[Any]] | None = None
) -> Step:
    """Return a step that runs a KerasEngine, with torchvision's `tensors` or random weights."""
    from live_seg.engines.keras import KerasEngine
    from live_seg.maskrcnn import torchvision
    from live_seg.maskrcnn.config import TORCHVISION, MaskRCNNConfig
    from live_seg.maskrcnn.model import MaskRCNN, computing_in

    # Random weights without a spread of scores: every score counts.
    config = replace({"coco": MaskRCNNConfig(), "coco-v2": TORCHVISION}[model], min_score=0.0)
    with computing_in(dtype):
        network = MaskRCNN(config if tensors is None else torchvision.exact(config))
    if tensors is not None:
        torchvision.load(network, tensors)
    engine = KerasEngine(network)
    windows = np.tile(np.array([0, 0, 1, 1], np.float32), (len(images), 1))

    def run() -> int:
        maps, found = engine.detect(images, windows)
        if len(found.rows):
            engine.masks(maps, found)
        return len(found.rows)

    return Step(f"{model}, live_seg, {engine.device}", run)


def torchvision_step(dtype: str, images: Images) -> tuple[Any, Step]:
    """Return torchvision's network with random weights, and a step that runs it.

    Batch norms get the statistics of the first image, so that activations stay of order one.
    """
    import torch
    from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

    device = "cuda" if torch.cuda.is_available() else "cpu"
    side = images.shape[1]
    torch.manual_seed(0)
    network = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, min_size=side, max_size=side)
    network.eval().to(device)
    tensors = list(torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255)
    low = torch.bfloat16 if "bfloat16" in dtype else torch.float16
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train()
            module.momentum = 1.0
    classes, spread = network.roi_heads.box_predictor.cls_score, []
    hook = classes.register_forward_hook(lambda _, __, logits: spread.append(float(logits.std())))
    with torch.no_grad():
        network(tensors[:1])
        classes.weight.mul_(SPREAD / spread[0])
    hook.remove()
    network.eval()

    def run() -> int:
        with torch.inference_mode(), torch.autocast(device, dtype=low, enabled=dtype != "float32"):
            found = network(tensors)
        if device == "cuda":
            torch.cuda.synchronize()
        return sum(len(one["scores"]) for one in found)

    return network, Step(f"coco-v2, torchvision, {dtype} on {device}", run)


if __name__ == "__main__":
    main()
