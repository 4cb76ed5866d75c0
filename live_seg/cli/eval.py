"""The command `live-seg eval`."""

from pathlib import Path
from typing import Annotated

import typer

from live_seg.cli.options import ModelOptions, with_options
from live_seg.errors import UsageError

EVAL_OPTIONS = ModelOptions(conf=0.05, batch=1, engine="keras")
"""COCO's figures want unsure detections, too; one photo at a time, the speed is a latency. And Keras: what
is measured is the network as it was trained, unless another engine is asked for."""


@with_options
def evaluate_model(
    images: Annotated[Path, typer.Option(help="Folder of the photos.")],
    annotations: Annotated[Path, typer.Option(help="COCO instances file of these photos.")],
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    results: Annotated[Path | None, typer.Option(help="Write the detections here, as COCO results.")] = None,
    options: ModelOptions = EVAL_OPTIONS,
) -> None:
    """Measure a model on annotated photos: COCO's average precision of boxes and masks."""
    from live_seg.evaluation.evaluate import evaluate, save
    from live_seg.evaluation.ground_truth import GroundTruth

    if json is not None and json == results:
        raise UsageError(f"--json and --results both name {json}. Give each a file of its own.")
    outputs = options.claimed(json, results, otherwise="--json OUT.json or --results OUT.json")
    truth = GroundTruth(images, annotations)
    found = evaluate(options.load(), truth, batch=options.batch, classes=options.wanted, quiet=options.quiet)
    if json is not None:
        save(found.metrics(), json, indent=2)
    if results is not None:
        save(found.detections, results)
    if not options.quiet:
        print("\n".join([found.report(), *(f"-> {path}" for path in outputs)]))
