"""Web server of all pages, and its access control."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from ssl import SSLContext

from aiohttp import web

from live_seg.errors import SinkError
from live_seg.ui.web.address import public_name, refusal, root_path, same_origin
from live_seg.ui.web.gate import HEADERS, Client, Gate

logger = logging.getLogger(__name__)

CLOSING_SECONDS = 3.0
"""Longest wait for running requests at the end."""

BACKLOG = 256
"""Connections that may wait to be accepted."""

FOLDER = Path(__file__).parent
"""Folder of the parts that all pages share."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at (host, port). Port 0 selects any free port. Raises SinkError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        place = f"[{host}]" if ":" in host else host
        raise SinkError(
            f"Cannot open a web page at {place}:{port}: {reason}. "
            f"Choose another address, or {place}:0 for any free port."
        ) from error
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket, host: str, token: str, *, secure: bool = False) -> str:
    """Return the URL of the page that is served on `listener`, which was opened for `host`."""
    port = listener.getsockname()[1]
    return f"{'https' if secure else 'http'}://{public_name(host)}:{port}{root_path(token)}"


def filled(page: Path, **texts: str) -> str:
    """Return the HTML file `page`: {{head}} becomes the head of all pages, {{name}} the text of that name."""
    html = page.read_text(encoding="utf-8")
    shared = {"head": "head.html", "style": "style.css", "common": "common.js"}
    parts = {name: (FOLDER / file).read_text(encoding="utf-8") for name, file in shared.items()}
    for name, text in {**parts, **texts}.items():
        html = html.replace(f"{{{{{name}}}}}", text)
    return html


def application(token: str, page: str, *, max_bytes: int) -> web.Application:
    """Return a web application with `page` at its root; routes can be added below `root_path(token)`.

    It refuses requests as `refusal` says, and POST requests of other sites or with more than `max_bytes`.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host")
        if reason := refusal(request.rel_url.raw_path, host, token):
            raise web.HTTPForbidden(text=reason)
        if request.method == "POST" and not same_origin(request.headers.get("Origin"), host):
            raise web.HTTPForbidden(text="Only this page may send this request")
        return await _answer(request, handler)

    async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)
        response.force_close()

    async def send_page(_: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html")

    app = web.Application(middlewares=[guard], client_max_size=max_bytes)
    app.on_response_prepare.append(add_headers)
    app.router.add_get(root_path(token), send_page, allow_head=False)
    return app


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Call `handler`. Log an error, and answer it unless the answer has begun."""
    try:
        return await handler(request)
    except (web.HTTPException, ConnectionError):
        raise
    except Exception as error:
        logger.exception("A request to the web page failed.")
        if request.writer.output_size:
            raise ConnectionError from error  # which ends the connection
        raise web.HTTPInternalServerError from error


def client_of(request: web.Request) -> Client:
    """Return the connection of `request`."""
    assert isinstance(request.protocol, Client)
    return request.protocol


@contextlib.asynccontextmanager
async def serving(
    app: web.Application, listener: socket.socket, certificate: SSLContext | None = None
) -> AsyncIterator[None]:
    """Serve `app` on `listener`, which is then closed, inside an `async with` block.

    Connections are encrypted if there is a certificate.
    """
    with listener:
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=CLOSING_SECONDS
        )
        await runner.setup()
        assert runner.server is not None
        gate = Gate(runner.server, certificate)
        accepting = asyncio.create_task(gate.accept(listener))
        try:
            yield
        finally:
            accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await accepting
            listener.close()
            await gate.close()
            await runner.cleanup()
