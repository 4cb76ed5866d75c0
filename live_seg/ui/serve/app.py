"""The HTTP side of the server: the page, offers of browsers, and access control."""

import asyncio
import contextlib
import html
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from ssl import SSLContext
from typing import Any

from aiohttp import web
from aiortc import RTCIceServer

from live_seg.errors import UsageError
from live_seg.types import Segment
from live_seg.ui.controls import Controls
from live_seg.ui.serve.choices import OFFERED, Choices
from live_seg.ui.serve.connection import Connection
from live_seg.ui.serve.places import Places
from live_seg.ui.web.address import root_path
from live_seg.ui.web.background import BackgroundServer
from live_seg.ui.web.server import application, client_of, filled, listen, url_of

PAGE = Path(__file__).with_name("page.html")
"""HTML template with placeholders for effects, classes and settings."""

MAX_OFFER_BYTES = 64 * 1024
"""Longest body of a request. Offers have about 5 kB."""

MAX_VISITOR_CHARACTERS = 64

ANSWER_SECONDS = 20.0
"""Time for the answer to an offer: STUN and TURN servers that do not respond are given up after 5 s each."""


@dataclass(frozen=True)
class Service:
    """The model that is served, its limits, and who has access."""

    segment: Segment
    """The model that all visitors share. Called in their threads: see `SharedModel`."""
    class_names: Sequence[str]
    """Names indexed by class id, from the background at 0."""
    threshold: float
    """Initial score threshold, 0 to 1."""
    minimum: float
    """Lowest score threshold that a visitor can choose: that of the network."""
    visitors: int = 4
    """Largest number of visitors at a time. Others wait."""
    token: str = ""
    """Secret first part of every path. If empty, only host names of this machine are accepted."""
    ice: tuple[RTCIceServer, ...] = ()
    """STUN and TURN servers, for both sides."""


class Lobby:
    """Answers offers, and knows all connections. Used in one event loop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._places = Places(service.visitors)
        self._connections: dict[str, Connection] = {}
        self._count = 0

    async def offer(self, request: web.Request) -> web.Response:
        """Answer an offer with {"sdp"}, or 202 and {"position"} while no place is free."""
        sdp, visitor = await _read_offer(request)
        client_of(request).extend(ANSWER_SECONDS)
        position = self._places.ask(visitor, time.monotonic())
        if position:
            return web.json_response({"position": position}, status=202)
        self._count += 1
        connection = Connection(
            f"visitor {self._count}",
            self._service.segment,
            self._choices(),
            lambda: self._forget(visitor),
            ice=self._service.ice,
        )
        self._connections[visitor] = connection
        try:
            return web.json_response({"sdp": await connection.answer(sdp)})
        except UsageError as error:
            raise web.HTTPBadRequest(text=str(error)) from error

    async def close(self, *_: object) -> None:
        """Close all connections and wait for their sessions."""
        await asyncio.gather(*(connection.close() for connection in list(self._connections.values())))

    def _choices(self) -> Choices:
        service = self._service
        return Choices(service.class_names, Controls(service.threshold, minimum=service.minimum))

    def _forget(self, visitor: str) -> None:
        self._connections.pop(visitor, None)
        self._places.leave(visitor)


async def _read_offer(request: web.Request) -> tuple[str, str]:
    """Return the offer and the visitor's name. Raises HTTPBadRequest for anything else."""
    try:
        values = json.loads(await request.text())
        sdp, visitor = values["sdp"], values["visitor"]
        if not isinstance(sdp, str) or not isinstance(visitor, str):
            raise TypeError
        if not 0 < len(visitor) <= MAX_VISITOR_CHARACTERS:
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise web.HTTPBadRequest(text="Expected a JSON object with sdp and visitor.") from error
    return sdp, visitor


def _application(service: Service) -> web.Application:
    lobby = Lobby(service)
    app = application(service.token, _page(service), max_bytes=MAX_OFFER_BYTES)
    app.router.add_post(f"{root_path(service.token)}offer", lobby.offer)
    app.on_shutdown.append(lobby.close)
    return app


@contextlib.contextmanager
def serving_cameras(
    service: Service, host: str, port: int, *, certificate: SSLContext | None = None
) -> Iterator[tuple[BackgroundServer, str]]:
    """Serve at (host, port) inside a `with` block. Yield the server and the URL of its page.

    Port 0 selects any free port. Raises SinkError when the address is not available.
    """
    listener = listen(host, port)
    url = url_of(listener, host, service.token, secure=certificate is not None)
    with contextlib.closing(BackgroundServer(_application(service), listener, certificate)) as server:
        yield server, url


def _page(service: Service) -> str:
    """Fill the template. Settings are JSON in a script, in which `<` must not occur."""
    settings: dict[str, Any] = {
        "ice": [{key: value for key, value in asdict(server).items() if value} for server in service.ice],
        "threshold": service.threshold,
        "minimum": service.minimum,
    }
    return filled(
        PAGE,
        effects=_options(OFFERED),
        classes=_options(sorted(service.class_names[1:])),
        settings=json.dumps(settings).replace("<", "\\u003c"),
    )


def _options(names: Sequence[str]) -> str:
    return "".join(f"<option>{html.escape(name)}</option>" for name in names)
