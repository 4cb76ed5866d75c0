"""The command `live-seg serve`."""

import contextlib
import ssl
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from live_seg.cli.expand import with_options
from live_seg.cli.options import ModelOptions
from live_seg.cli.panels import ADVANCED, LIVE, option
from live_seg.errors import LiveSegError, UsageError


@with_options
def serve(
    options: ModelOptions,
    address: Annotated[
        str,
        option(LIVE, "HOST:PORT of the page. With 0.0.0.0 everyone who knows its URL can use it."),
    ] = "127.0.0.1:8460",
    visitors: Annotated[
        int, option(LIVE, "Largest number of visitors at a time. Others wait.", min=1, max=256)
    ] = 4,
    certificate: Annotated[
        Path | None,
        option(LIVE, "TLS certificate (PEM). Browsers need one for cameras, except on localhost.", "--cert"),
    ] = None,
    key: Annotated[Path | None, option(LIVE, "Private key of the certificate (PEM).")] = None,
    ice: Annotated[
        list[str] | None,
        option(
            ADVANCED,
            "STUN or TURN server: stun:HOST:PORT or turn:USER:PASSWORD@HOST:PORT; may be repeated.",
            "--ice",
        ),
    ] = None,
) -> None:
    """Segment the cameras of browsers: open the page, allow the camera, see the result.

    Needs the extra packages of live-seg[web]. Nothing is stored.
    """
    from live_seg.ui.web.address import new_token, parse_address

    host, port = parse_address(address)
    if (certificate is None) != (key is None):
        raise UsageError("--cert and --key belong together: give both or neither.")
    context = None if certificate is None or key is None else tls_settings(certificate, key)
    with _needing_packages():  # before the model: loaded after TensorFlow, aiortc's pylibsrtp crashes
        from live_seg.ui.serve.app import Service, serving_cameras
        from live_seg.ui.serve.ice import ice_server

        servers = tuple(map(ice_server, ice or ()))
    from live_seg.pipeline.shared import SharedModel

    threshold = options.score_threshold()
    segment = replace(options, conf=threshold / 2).load()
    with SharedModel(segment, options.batch) as shared:
        service = Service(
            shared,
            segment.class_names,
            threshold,
            threshold / 2,
            visitors=visitors,
            token=new_token(host),
            ice=servers,
        )
        with serving_cameras(service, host, port, certificate=context) as (server, url):
            if not options.quiet:
                print(f"live-seg: open {url}", file=sys.stderr)
            server.wait()


def tls_settings(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the TLS settings of the server. Raises UsageError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise UsageError(
            f"Cannot read {certificate} and {key}: {error.strerror or error}. Expected a certificate and its "
            "unencrypted private key in PEM format."
        ) from error
    return context


@contextlib.contextmanager
def _needing_packages() -> Iterator[None]:
    """Raise LiveSegError that names the extra if a package is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise LiveSegError(
            f"The package {error.name} is missing. Install it with: pip install 'live-seg[web]'"
        ) from error
