"""The page in browsers: shows the drawn pictures and the figures, hands on the keys."""

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
from live_seg.ui.hud import Figures, clock, rows
from live_seg.ui.web.server import LOOPBACK, Server, Site

PAGE = Path(__file__).with_name("page.html")
"""The page, with places for the title and the keys."""

DEFAULT_ADDRESS = "127.0.0.1:8460"
"""Seen from this machine alone."""

JPEG_QUALITY = 80
"""Of 100. Drawn outlines keep their edges, at about 100 kB for a picture of 720p."""

TOKEN_BYTES = 16
"""Random bytes in the address of a page that other machines can reach: cannot be guessed in any time."""


class WebPage(Sink):
    """A page, at `url`, that shows the drawn pictures and the figures, and hands its keys to `controls`.

    `address` is "HOST:PORT", with port 0 for any free one. On this machine's own addresses whoever is logged
    in here may watch; elsewhere only who knows the random token in `url`, which like the pictures travels
    unencrypted. Nothing is sent before a browser asks for it. Browsers get the newest picture alone, so that
    a slow one holds nobody up; each picture is encoded at most once, in a thread of the server.

    Raises UsageError for an `address` that is none, SinkError for one that cannot be had.
    """

    def __init__(
        self, title: str = "live-seg", controls: Controls | None = None, address: str = DEFAULT_ADDRESS
    ) -> None:
        host, port = parse_address(address)
        self._controls = controls or Controls()
        self._closed = False
        own = host in LOOPBACK
        self._site = Site(
            html=_page(title),
            characters="".join(key.characters for key in KEYS),
            token="" if own else secrets.token_urlsafe(TOKEN_BYTES),
        )
        try:
            self._server = Server(self._site, host, port)
        except OSError as error:
            raise SinkError(
                f"Cannot open a web page at {address}: {error.strerror or error}. "
                f"Choose another address, or {address.rpartition(':')[0]}:0 for any free port: --web-address."
            ) from error
        name = host if own or not _is_any(host) else _own_name(host)
        self.url = f"http://{f'[{name}]' if ':' in name else name}:{self._server.port}{self._site.root}"
        """Where to point a browser."""

    def write(
        self,
        frame: Frame,  # noqa: ARG002
        image: Image,
        instances: Instances,  # noqa: ARG002
        figures: Figures | None = None,
        message: str = "",
    ) -> bool:
        """Show a picture, which nobody may change from now on, and figures; press the keys that came.

        False once the controls have ended.
        """
        if self._controls.ended:
            return False
        self._site.pictures.put(_Picture(image))
        self._site.figures.put(_state(self._controls, figures, message))
        return self.wait(0)

    def wait(self, seconds: float) -> bool:
        """Press the keys that have come, or the first one that comes within `seconds`. Returns as `write`."""
        with contextlib.suppress(Empty):
            self._controls.press(self._site.keys.get(timeout=seconds))
            while True:
                self._controls.press(self._site.keys.get_nowait())
        return not self._controls.ended

    def close(self, complete: bool = True) -> None:  # noqa: ARG002
        """Hang up on all browsers; every thread has ended when this returns."""
        self._controls.ended = True
        if not self._closed:
            self._closed = True
            self._server.close()


class _Picture:
    """A picture that becomes a JPEG when somebody wants it, and then once for all."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._lock = Lock()
        self._jpeg = b""

    def __call__(self) -> bytes:
        with self._lock:
            if not self._jpeg:
                how = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
                self._jpeg = cv2.imencode(".jpg", self._image, how)[1].tobytes()
            return self._jpeg


def parse_address(text: str) -> tuple[str, int]:
    """Read "HOST:PORT", IPv6 in brackets, as host and port 0..65535. Raises UsageError."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or (":" in bare) != (bare != host) or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"An address is written as {DEFAULT_ADDRESS}, host and port. Got {text!r}.")
    return bare, int(port)


def _state(controls: Controls, figures: Figures | None, message: str) -> str:
    """What the page shows beside the picture, as JSON."""
    recorded = None if figures is None else figures.recorded
    return json.dumps(
        {
            "figures": [] if figures is None else rows(controls, figures),
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


def _is_any(host: str) -> bool:
    """Whether an address stands for all that this machine has."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _own_name(host: str) -> str:
    """The address by which others reach this machine; its name where that cannot be found out."""
    family, far = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))  # sends nothing: it only chooses the way, to a documentation address
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()
