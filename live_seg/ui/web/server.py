"""Web server for one page with live images, metrics and keys, and its access control.

Feed --newest item--> Channel per connection --> one handler thread per connection --> browser
"""

import contextlib
import logging
import socket
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from queue import SimpleQueue
from socketserver import BaseServer, TCPServer, ThreadingMixIn
from threading import Lock, Thread
from typing import Any, Generic, TypeVar

from live_seg.channel import Channel
from live_seg.ui.web.address import refusal, root_path, same_origin

logger = logging.getLogger(__name__)

T = TypeVar("T")

POLL_INTERVAL = 0.1
"""Seconds between checks of the accepting thread whether the server is closing."""

IDLE_TIMEOUT = 10.0
"""Seconds after which a connection is closed if the browser neither reads nor sends anything."""

SEND_BUFFER = 256 * 1024
"""Send buffer of a connection in bytes, about three 720p frames. A larger one would add latency."""

MAX_KEY_BYTES = 4
"""Length of the longest character in UTF-8."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every response: no caching, and no access by other sites."""


class Feed(Generic[T]):
    """Broadcast of the newest item to any number of watchers. A slow watcher never blocks `put`."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._watchers: set[Channel[T]] = set()
        self._newest: list[T] = []
        self._closed = False

    def put(self, item: T) -> None:
        """Send `item` to all watchers; it replaces an item that a watcher has not taken yet."""
        with self._lock:
            self._newest = [item]
            for watcher in self._watchers:
                watcher.put(item)

    def watch(self) -> Generator[T]:
        """Yield the newest item, if any, then later ones. Skip items while the caller is busy."""
        channel: Channel[T] = Channel(1, drop_oldest=True)
        with self._lock:
            if self._closed:
                return
            self._watchers.add(channel)
            for item in self._newest:
                channel.put(item)
        try:
            while items := channel.take():
                yield from items
        finally:
            with self._lock:
                self._watchers.discard(channel)

    def close(self) -> None:
        """End the iteration of all watchers."""
        with self._lock:
            self._closed = True
            for watcher in self._watchers:
                watcher.abandon()


@dataclass(frozen=True)
class Site:
    """Content of the page, its feeds, and who may access it."""

    html: str
    """The page."""
    characters: str
    """Characters that it may send as keys."""
    token: str = ""
    """Secret first part of every path. If empty, only LOOPBACK host names are accepted."""
    images: Feed[Callable[[], bytes]] = field(default_factory=Feed)
    """Functions that return a JPEG."""
    states: Feed[str] = field(default_factory=Feed)
    """Metrics, message and controls as one line of JSON."""
    keys: SimpleQueue[str] = field(default_factory=SimpleQueue)
    """Pressed keys that have not been handled yet."""

    @property
    def root(self) -> str:
        """Path of the page."""
        return root_path(self.token)


class Server(ThreadingMixIn, TCPServer):
    """Serve `site` at (host, port) until `close`. Port 0 selects any free port.

    One thread accepts connections, and each connection has a thread of its own. Raises OSError when the
    address is not available.
    """

    allow_reuse_address = True
    daemon_threads = False

    def __init__(self, site: Site, host: str, port: int) -> None:
        self.site = site
        self._connections: set[Any] = set()
        self._lock = Lock()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        self._thread = Thread(target=self.serve_forever, args=(POLL_INTERVAL,), name="web page")
        try:
            self._thread.start()
        except BaseException:
            self.server_close()
            raise

    @property
    def port(self) -> int:
        """Port on which the server listens."""
        return int(self.socket.getsockname()[1])

    def close(self) -> None:
        """Disconnect all browsers and wait for the threads. May be called repeatedly."""
        self.shutdown()
        self._thread.join()
        self.site.images.close()
        self.site.states.close()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # disconnected already
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Register the connection and serve it in a thread."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and unregister it."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log an error of one connection. A disconnect is not an error."""
        if not isinstance(sys.exception(), OSError):
            logger.error("A request to the web page failed.", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """Handler of one connection."""

    timeout = IDLE_TIMEOUT
    disable_nagle_algorithm = True

    def __init__(self, request: Any, client_address: Any, server: BaseServer) -> None:
        assert isinstance(server, Server)
        self._site = server.site
        super().__init__(request, client_address, server)

    def do_GET(self) -> None:
        """Send the page, the images as MJPEG, or the states as server-sent events."""
        pages = {"": self._send_page, "images": self._stream_images, "states": self._stream_states}
        path = self._path()
        if path in pages:
            pages[path]()
        elif path is not None:
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED if path == "key" else HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """Receive a key pressed on the page: one character in UTF-8, posted to `key`."""
        path = self._path()
        if path is None:
            return
        if not same_origin(self.headers["Origin"], self.headers["Host"]):
            self.send_error(HTTPStatus.FORBIDDEN, "Keys are accepted from this page only")
        elif path != "key":
            self.send_error(HTTPStatus.NOT_FOUND)
        elif (key := self._key()) is None:
            self.send_error(HTTPStatus.BAD_REQUEST, "Unknown key")
        else:
            self._site.keys.put(key)
            self.send_response(HTTPStatus.NO_CONTENT)
            self.end_headers()

    def _path(self) -> str | None:
        """Return the requested path relative to the page, or None after refusing access."""
        site, path = self._site, self.path.partition("?")[0]
        refused = refusal(path, self.headers["Host"], site.token)
        if refused:
            self.send_error(HTTPStatus.FORBIDDEN, refused)
            return None
        return path[len(site.root) :]

    def _key(self) -> str | None:
        length = self.headers.get("Content-Length", "")
        if not (length.isdecimal() and 0 < int(length) <= MAX_KEY_BYTES):
            return None
        key = self.rfile.read(int(length)).decode(errors="replace")
        return key if len(key) == 1 and key in self._site.characters else None

    def _send_page(self) -> None:
        self._begin("text/html; charset=utf-8")
        self.wfile.write(self._site.html.encode())

    def _stream_images(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._begin("multipart/x-mixed-replace; boundary=frame")
        self.wfile.write(b"--frame\r\n")
        with contextlib.closing(self._site.images.watch()) as images:
            for encode in images:
                jpeg = encode()
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                # Send the next boundary at once: Chromium shows an image only after it.
                self.wfile.write(head.encode() + jpeg + b"\r\n--frame\r\n")

    def _stream_states(self) -> None:
        self._begin("text/event-stream")
        with contextlib.closing(self._site.states.watch()) as states:
            for state in states:
                self.wfile.write(f"data: {state}\n\n".encode())

    def _begin(self, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def end_headers(self) -> None:
        """Add HEADERS to every response."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def version_string(self) -> str:
        """Return the server name, without version numbers."""
        return "live-seg"

    def log_message(self, *_: object) -> None:
        """Suppress the request log, which would contain the token."""
