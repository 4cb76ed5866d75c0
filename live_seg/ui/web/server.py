"""Web server for one page with live images, metrics and keys, and its access control.

Feed --newest item--> Channel per connection --> one handler thread per connection --> browser
"""

import contextlib
import logging
import math
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from queue import SimpleQueue
from socketserver import BaseServer, TCPServer, ThreadingMixIn
from threading import Condition, Thread
from typing import Any

from live_seg.ui.web.address import refusal, root_path, same_origin
from live_seg.ui.web.feed import Feed

logger = logging.getLogger(__name__)

POLL_INTERVAL = 0.1
"""Seconds between checks of the accepting thread whether the server is closing."""

IDLE_TIMEOUT = 10.0
"""Seconds that a browser may take to read an image or state before its connection is closed."""

REQUEST_TIMEOUT = 5.0
"""Seconds from connecting until a request must be answered, or an image or state stream begin."""

MAX_CONNECTIONS = 20
"""Connections at once. They share the process' file descriptors with the recording."""

MAX_STREAMS = 16
"""Image and state streams at once: each open page has two."""

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

    One thread accepts connections, and each connection has a thread of its own. Connections above
    MAX_CONNECTIONS replace the oldest one whose request is not answered yet. Raises OSError when the address
    is not available.
    """

    allow_reuse_address = True
    request_queue_size = 128
    daemon_threads = False

    def __init__(self, site: Site, host: str, port: int) -> None:
        self.site = site
        self._connections: dict[Any, float] = {}  # with the deadline of the request; infinite for a stream
        self._changed = Condition()
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
        with self._changed:
            for connection in self._connections:
                _disconnect(connection)
        self.server_close()

    def get_request(self) -> Any:
        """Accept a connection. Pause if that fails, because all file descriptors may be in use."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(POLL_INTERVAL)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Register a connection. Return False if there are too many, even without the oldest request."""
        with self._changed:
            if len(self._connections) >= MAX_CONNECTIONS:
                _disconnect(min(self._connections, key=self._connections.__getitem__))
                self._changed.wait_for(lambda: len(self._connections) < MAX_CONNECTIONS, POLL_INTERVAL)
            accepted = len(self._connections) < MAX_CONNECTIONS
            if accepted:
                self._connections[request] = time.monotonic() + REQUEST_TIMEOUT
            return accepted

    def service_actions(self) -> None:
        """Disconnect where a request was not answered in time. Called every POLL_INTERVAL."""
        with self._changed:
            for connection, deadline in self._connections.items():
                if deadline < time.monotonic():
                    _disconnect(connection)

    def begin_stream(self, request: Any) -> bool:
        """Remove the deadline of a connection. Return False if MAX_STREAMS have none already."""
        with self._changed:
            free = sum(map(math.isinf, self._connections.values())) < MAX_STREAMS
            if free:
                self._connections[request] = math.inf
            return free

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and unregister it."""
        super().shutdown_request(request)
        with self._changed:
            self._connections.pop(request, None)
            self._changed.notify_all()

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
        self._site, self._server = server.site, server
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
        if not self._begin_stream("multipart/x-mixed-replace; boundary=frame"):
            return
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.wfile.write(b"--frame\r\n")
        with contextlib.closing(self._site.images.watch()) as images:
            for encode in images:
                jpeg = encode()
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                # Send the next boundary at once: Chromium shows an image only after it.
                self.wfile.write(head.encode() + jpeg + b"\r\n--frame\r\n")

    def _stream_states(self) -> None:
        if not self._begin_stream("text/event-stream"):
            return
        with contextlib.closing(self._site.states.watch()) as states:
            for state in states:
                self.wfile.write(f"data: {state}\n\n".encode())

    def _begin_stream(self, kind: str) -> bool:
        """Begin a response without end. Return False after refusing it."""
        free = self._server.begin_stream(self.connection)
        if free:
            self._begin(kind)
        else:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "Too many browsers are connected")
        return free

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


def _disconnect(connection: socket.socket) -> None:
    """Wake the thread that serves a connection."""
    with contextlib.suppress(OSError):  # disconnected already
        connection.shutdown(socket.SHUT_RDWR)
