"""The command `live-seg eval`."""

from pathlib import Path
from typing import Annotated

from live_seg.cli.expand import with_options
from live_seg.cli.messages import clean
from live_seg.cli.options import ModelOptions
from live_seg.cli.panels import INPUT, OUTPUT, option

EVAL_OPTIONS = ModelOptions(conf=0.01, batch=1, engine="keras")
"""COCO's metrics need detections of low score. One photo at a time makes the measured speed a latency. Keras
runs the network as it was trained."""


@with_options
def evaluate_model(
    images: Annotated[Path, option(INPUT, "Folder of photos.")],
    annotations: Annotated[Path, option(INPUT, "COCO instances file of these photos.")],
    json: Annotated[Path | None, option(OUTPUT, "Write the metrics to this file.")] = None,
    results: Annotated[
        Path | None,
        option(OUTPUT, "Write the detections to this file as COCO results."),
    ] = None,
    options: ModelOptions = EVAL_OPTIONS,
) -> None:
    """Measure a model on annotated photos: COCO's average precision of boxes and masks."""
    from live_seg.evaluation.evaluate import evaluate, save
    from live_seg.evaluation.ground_truth import GroundTruth

    inputs = [annotations, *images.glob("*")]
    outputs = options.claim_outputs(
        json, results, inputs=inputs, expected="--json OUT.json or --results OUT.json"
    )
    truth = GroundTruth(images, annotations)
    evaluation = evaluate(
        options.load(), truth, batch=options.batch, classes=options.class_list, quiet=options.quiet
    )
    if json is not None:
        save(evaluation.metrics(), json, indent=2)
    if results is not None:
        save(evaluation.detections, results)
    if not options.quiet:
        print(clean("\n".join([evaluation.report(), *(f"-> {path}" for path in outputs)])))
