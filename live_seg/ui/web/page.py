"""Web page: shows drawn frames and metrics in browsers, and receives keys."""

import contextlib
import html
import ipaddress
import json
import secrets
import socket
from pathlib import Path
from queue import Empty
from threading import Lock

import cv2

from live_seg.errors import SinkError, UsageError
from live_seg.types import Frame, Image, Instances, Sink
from live_seg.ui.controls import KEYS, Controls
from live_seg.ui.hud import clock, rows
from live_seg.ui.metrics import Metrics
from live_seg.ui.web.server import LOOPBACK, Server, Site

PAGE = Path(__file__).with_name("page.html")
"""HTML template with placeholders for the title and the keys."""

DEFAULT_ADDRESS = "127.0.0.1:8460"
"""Reachable from this machine only."""

JPEG_QUALITY = 80
"""JPEG quality, 0 to 100. Keeps drawn outlines sharp at about 100 kB per 720p frame."""

TOKEN_BYTES = 16
"""Random bytes in the URL of a page that other machines can reach; too many to guess."""


class WebPage(Sink):
    """Web page at `url` that shows drawn frames and metrics, and passes its keys to `controls`.

    `address` is "HOST:PORT"; port 0 selects any free port. On loopback addresses, every user of this machine
    may watch. On other addresses, only users who know the random token in `url` may watch; the token and the
    images are transmitted unencrypted. Browsers get only the newest frame, so a slow one does not delay
    others. Frames are encoded on request, at most once each, in a thread of the server.

    Raises UsageError for an invalid `address`, SinkError when it is not available.
    """

    def __init__(
        self, title: str = "live-seg", controls: Controls | None = None, address: str = DEFAULT_ADDRESS
    ) -> None:
        host, port = parse_address(address)
        self._controls = controls or Controls()
        self._closed = False
        loopback = host in LOOPBACK
        self._site = Site(
            html=_page(title),
            characters="".join(key.characters for key in KEYS),
            token="" if loopback else secrets.token_urlsafe(TOKEN_BYTES),
        )
        try:
            self._server = Server(self._site, host, port)
        except OSError as error:
            raise SinkError(
                f"Cannot open a web page at {address}: {error.strerror or error}. "
                f"Choose another address, or {address.rpartition(':')[0]}:0 for any free port: --web-address."
            ) from error
        name = host if loopback or not _is_unspecified(host) else _local_address(host)
        self.url = f"http://{f'[{name}]' if ':' in name else name}:{self._server.port}{self._site.root}"
        """URL of the page, including the token."""

    def write(
        self,
        frame: Frame,  # noqa: ARG002
        image: Image,
        instances: Instances,  # noqa: ARG002
        metrics: Metrics | None = None,
        message: str = "",
    ) -> bool:
        """Show `image`, which must not change afterwards, with metrics and message; handle pressed keys.

        Returns False once the controls have ended.
        """
        if self._controls.ended:
            return False
        self._site.images.put(_LazyJpeg(image))
        self._site.states.put(_state(self._controls, metrics, message))
        return self.wait(0)

    def wait(self, seconds: float) -> bool:
        """Handle all waiting keys, or the first one within `seconds`. Return as `write` does."""
        with contextlib.suppress(Empty):
            self._controls.press(self._site.keys.get(timeout=seconds))
            while True:
                self._controls.press(self._site.keys.get_nowait())
        return not self._controls.ended

    def close(self, complete: bool = True) -> None:  # noqa: ARG002
        """Disconnect all browsers and wait for the threads of the server."""
        self._controls.ended = True
        if not self._closed:
            self._closed = True
            self._server.close()


class _LazyJpeg:
    """Image that is encoded as JPEG on the first call. Thread-safe."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._lock = Lock()
        self._jpeg = b""

    def __call__(self) -> bytes:
        with self._lock:
            if not self._jpeg:
                parameters = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
                self._jpeg = cv2.imencode(".jpg", self._image, parameters)[1].tobytes()
            return self._jpeg


def parse_address(text: str) -> tuple[str, int]:
    """Parse "HOST:PORT", with IPv6 in brackets, into host and port, 0 to 65535. Raises UsageError."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or (":" in bare) != (bare != host) or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"Expected an address as HOST:PORT, for example {DEFAULT_ADDRESS}. Got {text!r}.")
    return bare, int(port)


def _state(controls: Controls, metrics: Metrics | None, message: str) -> str:
    """Encode what the page shows beside the frame as JSON."""
    recorded = None if metrics is None else metrics.recorded
    return json.dumps(
        {
            "metrics": [] if metrics is None else rows(controls, metrics),
            "recorded": None if recorded is None else clock(recorded),
            "message": message,
            "controls": vars(controls),
        }
    )


def _page(title: str) -> str:
    keys = "".join(
        f'<div data-characters="{html.escape(key.characters)}"><dt><kbd>{html.escape(key.name)}</kbd></dt>'
        f"<dd>{html.escape(key.meaning)}</dd></div>"
        for key in KEYS
    )
    page = PAGE.read_text(encoding="utf-8")
    return page.replace("{{title}}", html.escape(title)).replace("{{keys}}", keys)


def _is_unspecified(host: str) -> bool:
    """Return whether `host` is the unspecified address (0.0.0.0 or ::), which means all interfaces."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _local_address(host: str) -> str:
    """Return the address at which other machines reach this one, or its host name if that is unknown."""
    family, far = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))  # sends nothing, only selects the interface; the address is reserved
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()
