"""A web server in a thread."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from ssl import SSLContext
from threading import Thread

from aiohttp import web

from live_seg.ui.web.server import serving

WAIT_INTERVAL = 0.2
"""Seconds between checks of `wait`."""


class BackgroundServer:
    """Serve `app` on `listener` in a thread with an event loop of its own, until `close`.

    A Ctrl-C, which is raised in the main thread, cannot interrupt the event loop halfway. Connections are
    encrypted if there is a certificate.
    """

    def __init__(
        self, app: web.Application, listener: socket.socket, certificate: SSLContext | None = None
    ) -> None:
        self._app, self._listener, self._certificate = app, listener, certificate
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._started: Future[None] = Future()
        self._thread = Thread(target=self._run, name="web page")
        try:
            self._thread.start()
        except BaseException:
            self._loop.close()
            listener.close()
            raise
        self._started.result()

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call `function` in the event loop, soon. Do nothing after `close`."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function, *arguments)

    def wait(self) -> None:
        """Wait until the server has ended. A Ctrl-C ends the wait."""
        while self._thread.is_alive():
            time.sleep(WAIT_INTERVAL)

    def close(self) -> None:
        """Disconnect all browsers and wait for the thread. May be called repeatedly."""
        self.call(self._end.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        async with serving(self._app, self._listener, self._certificate):
            self._started.set_result(None)
            await self._end.wait()
