"""Connections of a web server: their number, and the time for a request, are limited."""

import asyncio
import logging
import math
import socket
from contextlib import suppress
from http import HTTPStatus
from ssl import SSLContext
from typing import Any

from aiohttp import web

SILENT = logging.Logger("live_seg access", logging.CRITICAL + 1)
"""Replaces the access log, which would contain the token."""

REQUEST_TIMEOUT = 5.0
"""Seconds from connecting until the request must be answered and the answer read, unless extended."""

MAX_CONNECTIONS = 20
"""Connections at once. They share the process' file descriptors with the recording."""

MAX_STREAMS = 16
"""Connections at once whose answer has no end: each open page has two."""

RETRY_INTERVAL = 0.1
"""Seconds until the next try to accept a connection after all file descriptors were in use."""

HEADERS = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self)",
    "Referrer-Policy": "no-referrer",
    "Server": "live-seg",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every response: no caching, no access by other sites, one request per connection."""


class Client(web.RequestHandler):
    """One connection, for one request. It is aborted at `deadline`."""

    def __init__(self, gate: "Gate", server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop, access_log=SILENT)
        self.deadline = asyncio.timeout(REQUEST_TIMEOUT)
        self.lost = loop.create_future()
        """Done once the connection is closed."""
        self._gate = gate

    @property
    def due(self) -> float:
        """Time of the deadline on the clock of the event loop; infinite for a stream."""
        when = self.deadline.when()
        return math.inf if when is None else when

    def extend(self, seconds: float) -> None:
        """Move the deadline to `seconds` from now."""
        if not self.deadline.expired():
            self.deadline.reschedule(self._loop.time() + seconds)

    def begin_stream(self) -> bool:
        """Remove the deadline. Return False if MAX_STREAMS connections have none already."""
        free = self._gate.streams < MAX_STREAMS and not self.deadline.expired()
        if free:
            self.deadline.reschedule(None)
        return free

    def connection_lost(self, exc: BaseException | None) -> None:
        """Release the connection."""
        super().connection_lost(exc)
        if not self.lost.done():
            self.lost.set_result(None)

    def handle_error(self, request: Any, status: int = 500, *_: object, **__: object) -> web.StreamResponse:
        """Return the answer to a malformed request: without version numbers, and not logged."""
        if request.writer.output_size:
            raise ConnectionError("The answer has begun.")
        response = web.Response(status=status, text=HTTPStatus(status).phrase, headers=HEADERS)
        response.force_close()
        return response


class Gate:
    """Accept connections one by one, and pass them to `server`, of aiohttp.

    Connections above MAX_CONNECTIONS replace the one whose deadline is the next. asyncio's own servers accept
    all that wait, which can take all file descriptors of the process.
    """

    def __init__(self, server: web.Server, certificate: SSLContext | None = None) -> None:
        self._server, self._certificate = server, certificate
        self._clients: dict[asyncio.Task[None], Client] = {}

    @property
    def streams(self) -> int:
        """Number of connections without deadline."""
        return sum(math.isinf(client.due) for client in self._clients.values())

    async def accept(self, listener: socket.socket) -> None:
        """Accept connections until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError:
                await asyncio.sleep(RETRY_INTERVAL)
                continue
            self._begin(connection)
            while len(self._clients) > MAX_CONNECTIONS:
                oldest = min(self._clients, key=lambda task: self._clients[task].due)
                oldest.cancel()
                await asyncio.wait([oldest])

    async def close(self) -> None:
        """Abort all connections."""
        tasks = list(self._clients)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        client = Client(self, self._server, loop)
        task = loop.create_task(self._attend(client, connection))
        self._clients[task] = client

        def end(_: object) -> None:
            del self._clients[task]
            connection.close()  # still open if the task was cancelled before it began

        task.add_done_callback(end)

    async def _attend(self, client: Client, connection: socket.socket) -> None:
        """Serve one connection until it is closed or its deadline has passed."""
        loop = asyncio.get_running_loop()
        transport = None
        with suppress(OSError):  # which includes failed handshakes and the TimeoutError of the deadline
            try:
                async with client.deadline:
                    transport, _ = await loop.connect_accepted_socket(
                        lambda: client, connection, ssl=self._certificate
                    )
                    await client.lost
            finally:
                if transport is not None:
                    transport.abort()
