"""A small web server for one page: its live picture, its figures, its keys; and who may see them.

Feed --newest thing--> Channel per viewer --> one handler thread per connection --> browser
"""

import contextlib
import hmac
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
from urllib.parse import urlsplit

from live_seg.channel import Channel

logger = logging.getLogger(__name__)

T = TypeVar("T")

ENDS_WITHIN = 0.1
"""Seconds after which the thread that takes callers in sees that it shall end."""

PATIENCE = 10.0
"""Seconds that a browser may leave a connection unread, or say nothing on it, before it is given up."""

MOST_UNREAD = 256 * 1024
"""Bytes of pictures on their way to one browser, about three of 720p: what waits longer is no longer live."""

LONGEST_KEY = 4
"""Bytes of one character in UTF-8."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine that no other machine can take. A site that lets its own name point to this machine
(DNS rebinding) is told apart by them: the browser sends the name it was asked for."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Sent with everything: nothing is kept, and no other site may load, frame or learn of it."""


class Feed(Generic[T]):
    """The newest of a row of things, for any number of watchers, none of whom holds up the one who puts."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._watchers: set[Channel[T]] = set()
        self._newest: list[T] = []
        self._closed = False

    def put(self, thing: T) -> None:
        """Hand `thing` to all who watch; what a slow one has not taken yet is dropped for it."""
        with self._lock:
            self._newest = [thing]
            for watcher in self._watchers:
                watcher.put(thing)

    def watch(self) -> Generator[T]:
        """Yield the newest thing, if there is one, and those to come that there is time for; until closed."""
        channel: Channel[T] = Channel(1, drop_oldest=True)
        with self._lock:
            if self._closed:
                return
            self._watchers.add(channel)
            for thing in self._newest:
                channel.put(thing)
        try:
            while things := channel.take():
                yield from things
        finally:
            with self._lock:
                self._watchers.discard(channel)

    def close(self) -> None:
        """Send all watchers away."""
        with self._lock:
            self._closed = True
            for watcher in self._watchers:
                watcher.abandon()


@dataclass(frozen=True)
class Site:
    """What is served, and to whom."""

    html: str
    """The page."""
    characters: str
    """The keys it may send."""
    token: str = ""
    """Part of every address, so that only those who were told it may watch; empty: only LOOPBACK may."""
    pictures: Feed[Callable[[], bytes]] = field(default_factory=Feed)
    """Each makes its JPEG when called."""
    figures: Feed[str] = field(default_factory=Feed)
    """Each as JSON, in one line."""
    keys: SimpleQueue[str] = field(default_factory=SimpleQueue)
    """Pressed and not yet acted on."""

    @property
    def root(self) -> str:
        """The path of the page."""
        return f"/{self.token}/" if self.token else "/"


class Server(ThreadingMixIn, TCPServer):
    """Serves `site` at (host, port), port 0 for any free one, from the start on until `close`.

    One thread takes callers in, and each has a thread of its own. Raises OSError for an address that cannot
    be had.
    """

    allow_reuse_address = True
    daemon_threads = False

    def __init__(self, site: Site, host: str, port: int) -> None:
        self.site = site
        self._callers: set[Any] = set()
        self._lock = Lock()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        self._thread = Thread(target=self.serve_forever, args=(ENDS_WITHIN,), name="web page")
        try:
            self._thread.start()
        except BaseException:
            self.server_close()
            raise

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.socket.getsockname()[1])

    def close(self) -> None:
        """Hang up on everybody, and wait for the threads. May be repeated."""
        self.shutdown()
        self._thread.join()
        self.site.pictures.close()
        self.site.figures.close()
        with self._lock:
            for caller in self._callers:
                with contextlib.suppress(OSError):  # hung up already
                    caller.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the caller, and serve it in a thread."""
        with self._lock:
            self._callers.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Hang up on a caller, and forget it."""
        with self._lock:
            self._callers.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log what went wrong with one caller; that it hung up is nothing wrong."""
        if not isinstance(sys.exception(), OSError):
            logger.error("The web page failed for a caller.", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One request of a browser."""

    timeout = PATIENCE
    disable_nagle_algorithm = True

    def __init__(self, request: Any, client_address: Any, server: BaseServer) -> None:
        assert isinstance(server, Server)
        self._site = server.site
        super().__init__(request, client_address, server)

    def do_GET(self) -> None:
        """Send the page, the live picture as MJPEG, or the figures as server-sent events."""
        pages = {"": self._send_page, "picture": self._stream_pictures, "figures": self._stream_figures}
        path = self._path()
        if path in pages:
            pages[path]()
        elif path is not None:
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED if path == "key" else HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """Take the key that somebody pressed on the page: one character in UTF-8, POSTed by it to `key`."""
        path = self._path()
        if path is None:
            return
        if _host(self.headers["Origin"]) != _host(f"//{self.headers['Host']}"):
            self.send_error(HTTPStatus.FORBIDDEN, "Keys are taken from this page alone")
        elif path != "key":
            self.send_error(HTTPStatus.NOT_FOUND)
        elif (key := self._key()) is None:
            self.send_error(HTTPStatus.BAD_REQUEST, "There is no such key")
        else:
            self._site.keys.put(key)
            self.send_response(HTTPStatus.NO_CONTENT)
            self.end_headers()

    def _path(self) -> str | None:
        """What is asked for, below the page's root; None, with a refusal sent, where it may not be had."""
        site, path = self._site, self.path.partition("?")[0]
        given, rest = path[: len(site.root)], path[len(site.root) :]
        if not hmac.compare_digest(given.encode(), site.root.encode()):
            refused = "Open the address that live-seg told, all of it" if site.token else "No such page"
        elif not site.token and (_host(f"//{self.headers['Host']}") or ("",))[0] not in LOOPBACK:
            refused = "Open it as 127.0.0.1 or localhost"
        else:
            return rest
        self.send_error(HTTPStatus.FORBIDDEN, refused)
        return None

    def _key(self) -> str | None:
        length = self.headers.get("Content-Length", "")
        if not (length.isdecimal() and 0 < int(length) <= LONGEST_KEY):
            return None
        key = self.rfile.read(int(length)).decode(errors="replace")
        return key if len(key) == 1 and key in self._site.characters else None

    def _send_page(self) -> None:
        self._begin("text/html; charset=utf-8")
        self.wfile.write(self._site.html.encode())

    def _stream_pictures(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MOST_UNREAD)
        self._begin("multipart/x-mixed-replace; boundary=picture")
        self.wfile.write(b"--picture\r\n")
        with contextlib.closing(self._site.pictures.watch()) as pictures:
            for encoded in pictures:
                jpeg = encoded()
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                # The next boundary at once: Chromium shows a picture when it sees that, not before.
                self.wfile.write(head.encode() + jpeg + b"\r\n--picture\r\n")

    def _stream_figures(self) -> None:
        self._begin("text/event-stream")
        with contextlib.closing(self._site.figures.watch()) as figures:
            for told in figures:
                self.wfile.write(f"data: {told}\n\n".encode())

    def _begin(self, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def end_headers(self) -> None:
        """End the headers of any answer with those that every one has."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def version_string(self) -> str:
        """Name the server, without the versions of what it is made of."""
        return "live-seg"

    def log_message(self, *_: object) -> None:
        """Write no log: the addresses in it would hold the token."""


def _host(url: str | None) -> tuple[str | None, int | None] | None:
    """The lower-case name and the port in an address; None where it is none."""
    try:
        parts = urlsplit(url or "")
        return (parts.hostname, parts.port) if parts.netloc else None
    except ValueError:  # a port that is no number, brackets left open
        return None
