"""The commands `live-seg weights list | download | verify`."""

from typing import Annotated

import typer


def list_weights() -> None:
    """Show the known weights and where they are."""
    from live_seg.models.registry import WEIGHTS, status

    for name, weights in WEIGHTS.items():
        size = f"{weights.size / 1e6:.0f} MB" if weights.size else ""
        print(f"{name:8} {len(weights.classes) - 1:3} classes  {size:>7}  {status(name)}; {weights.origin}")


def download_weights(name: Annotated[str, typer.Argument(help="As shown by `weights list`.")]) -> None:
    """Download weights into the cache folder, or go on where a download broke off."""
    from live_seg.models.download import download

    print(download(name))


def verify_weights(name: Annotated[str, typer.Argument(help="As shown by `weights list`.")]) -> None:
    """Check size and hash of weights that are here."""
    from live_seg.models.registry import verify

    print(f"{verify(name)} is valid.")
