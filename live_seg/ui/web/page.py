"""Web page: shows drawn frames and metrics in browsers, and receives keys."""

import contextlib
import html
import json
from pathlib import Path
from queue import Empty
from threading import Lock

import cv2

from live_seg.errors import SinkError
from live_seg.types import Frame, Image, Instances, Sink
from live_seg.ui.controls import KEYS, Controls
from live_seg.ui.hud import clock, rows
from live_seg.ui.metrics import Metrics
from live_seg.ui.web.address import DEFAULT_ADDRESS, new_token, parse_address, public_name
from live_seg.ui.web.server import Server, Site

PAGE = Path(__file__).with_name("page.html")
"""HTML template with placeholders for the title and the keys."""

JPEG_QUALITY = 80
"""JPEG quality, 0 to 100. Keeps drawn outlines sharp at about 100 kB per 720p frame."""


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
        self._site = Site(
            html=_page(title),
            characters="".join(key.characters for key in KEYS),
            token=new_token(host),
        )
        try:
            self._server = Server(self._site, host, port)
        except OSError as error:
            raise SinkError(
                f"Cannot open a web page at {address}: {error.strerror or error}. "
                f"Choose another address, or {address.rpartition(':')[0]}:0 for any free port: --web-address."
            ) from error
        self.url = f"http://{public_name(host)}:{self._server.port}{self._site.root}"
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
