"""Web page: shows drawn frames and metrics in browsers, and receives keys."""

import contextlib
import html
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

from aiohttp import web

from live_seg.types import Frame, Image, Instances, Sink
from live_seg.ui.controls import KEYS, Controls, Corners
from live_seg.ui.hud import clock, rows
from live_seg.ui.metrics import Metrics
from live_seg.ui.web.address import DEFAULT_ADDRESS, new_token, parse_address, root_path
from live_seg.ui.web.background import BackgroundServer
from live_seg.ui.web.server import application, filled, listen, url_of
from live_seg.ui.web.streams import Streams

PAGE = Path(__file__).with_name("page.html")
"""HTML template with placeholders for the style, the title and the keys."""

ZONE_SCRIPT = Path(__file__).with_name("zone.js")

MAX_KEY_BYTES = 4
"""Length of the longest character in UTF-8."""

MAX_BYTES = 4096
"""Longest body of a request."""

MAX_CORNERS = 50
"""Largest number of corners of a zone."""


class WebPage(Sink):
    """Web page at `url` that shows drawn frames and metrics, and passes keys and clicks to `controls`.

    A zone drawn on the page is passed, too, if `controls` have one.

    `address` is "HOST:PORT"; port 0 selects any free port. On loopback addresses, every user of this machine
    may watch. On other addresses, only users who know the random token in `url` may watch; the token and the
    images are transmitted unencrypted. Browsers get only the newest frame, so a slow one does not delay
    others. Frames are encoded on request, at most once each, in the thread of the server.

    Raises UsageError for an invalid `address`, SinkError when it is not available.
    """

    def __init__(
        self, title: str = "live-seg", controls: Controls | None = None, address: str = DEFAULT_ADDRESS
    ) -> None:
        host, port = parse_address(address)
        self._controls = controls or Controls()
        self._actions: SimpleQueue[Callable[[Controls], None]] = SimpleQueue()
        self._streams = Streams()
        token = new_token(host)
        listener = listen(host, port)
        self.url = url_of(listener, host, token)
        """URL of the page, including the token."""
        self._server = BackgroundServer(self._application(title, token), listener)

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
        self._server.call(self._streams.put, image, _state(self._controls, image, metrics, message))
        return self.wait(0)

    def wait(self, seconds: float) -> bool:
        """Handle all waiting keys, or the first one within `seconds`. Return as `write` does."""
        with contextlib.suppress(Empty):
            self._actions.get(timeout=seconds)(self._controls)
            while True:
                self._actions.get_nowait()(self._controls)
        return not self._controls.ended

    def close(self, complete: bool = True) -> None:  # noqa: ARG002
        """Disconnect all browsers and wait for the thread of the server."""
        self._controls.ended = True
        self._server.close()

    def _application(self, title: str, token: str) -> web.Application:
        app = application(token, _page(title), max_bytes=MAX_BYTES)
        root = root_path(token)
        app.router.add_get(f"{root}images", self._streams.send_images, allow_head=False)
        app.router.add_get(f"{root}states", self._streams.send_states, allow_head=False)
        app.router.add_post(f"{root}key", self._receive_key)
        app.router.add_post(f"{root}click", self._receive_click)
        app.router.add_post(f"{root}zone", self._receive_zone)

        async def end(_: web.Application) -> None:
            self._streams.close()

        app.on_shutdown.append(end)
        return app

    async def _receive_key(self, request: web.Request) -> web.Response:
        """Receive a key pressed on the page: one character in UTF-8."""
        key = ""
        if request.content_length is not None and request.content_length <= MAX_KEY_BYTES:
            key = (await request.read()).decode(errors="replace")
        if len(key) != 1 or not any(key in known.characters for known in KEYS):
            raise web.HTTPBadRequest(text="Unknown key")
        self._actions.put(partial(Controls.press, key=key))
        return web.Response(status=204)

    async def _receive_click(self, request: web.Request) -> web.Response:
        """Receive a click on the picture: [[x, y]]."""
        points = await _points(request)
        if len(points) != 1:
            raise web.HTTPBadRequest(text="Expected one point")
        self._actions.put(lambda controls: controls.click(*points[0]))
        return web.Response(status=204)

    async def _receive_zone(self, request: web.Request) -> web.Response:
        """Receive the corners of a zone: [[x, y], ...], or [] to remove it."""
        corners = await _points(request)
        if self._controls.zone is None or len(corners) in (1, 2) or len(corners) > MAX_CORNERS:
            raise web.HTTPBadRequest(text="Expected a zone")
        self._actions.put(lambda controls: setattr(controls, "zone", corners))
        return web.Response(status=204)


async def _points(request: web.Request) -> Corners:
    """Return the points of a request, JSON [[x, y], ...] in shares of the picture. Raises HTTPBadRequest."""
    try:
        points = tuple((float(x), float(y)) for x, y in json.loads(await request.text()))
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise web.HTTPBadRequest(text="Expected points [[x, y], ...]") from error
    if not all(0 <= value <= 1 for point in points for value in point):
        raise web.HTTPBadRequest(text="Expected shares of the picture")
    return points


def _state(controls: Controls, image: Image, metrics: Metrics | None, message: str) -> str:
    """Encode what the page shows beside the frame as JSON."""
    recorded = None if metrics is None else metrics.recorded
    return json.dumps(
        {
            "metrics": [] if metrics is None else rows(controls, metrics),
            "recorded": None if recorded is None else clock(recorded),
            "message": message,
            "size": [image.shape[1], image.shape[0]],
            "controls": vars(controls),
        }
    )


def _page(title: str) -> str:
    keys = "".join(
        f'<div data-characters="{html.escape(key.characters)}"><dt><kbd>{html.escape(key.name)}</kbd></dt>'
        f"<dd>{html.escape(key.meaning)}</dd></div>"
        for key in KEYS
    )
    return filled(PAGE, zone=ZONE_SCRIPT.read_text(encoding="utf-8"), title=html.escape(title), keys=keys)
