"""The commands `live-seg weights list`, `download` and `verify`."""

from typing import Annotated

import typer

from live_seg.cli.messages import clean

WeightsName = Annotated[str, typer.Argument(help="A name that `weights list` shows.")]


def list_weights() -> None:
    """List the known weights with their size and status."""
    from live_seg.models.registry import WEIGHTS, status

    for name, weights in WEIGHTS.items():
        size = f"{weights.size / 1e6:.0f} MB" if weights.size else ""
        count = len(weights.restricted_to or weights.classes[1:])
        found = "1 class" if count == 1 else f"{count} classes"
        print(f"{name:8} {found:>10}  {size:>7}  {status(name)}; {weights.origin}")


def download_weights(name: WeightsName) -> None:
    """Download weights into the cache folder, or resume an incomplete download."""
    from live_seg.models.download import download

    print(clean(download(name)))


def verify_weights(name: WeightsName) -> None:
    """Check the size and hash of downloaded or bundled weights."""
    from live_seg.models.registry import verify

    print(clean(f"{verify(name)} is valid."))
