"""Where events go: a URL by HTTP POST, or a command that reads them."""

import base64
import contextlib
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Timer
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from live_seg.errors import SinkError, UsageError
from live_seg.processes import OWN_GROUP, shielded
from live_seg.urls import redacted

HTTP_TIMEOUT = 10.0
"""Seconds that a request may take, from connection to answer."""

COMMAND_TIMEOUT = 30.0
"""Seconds after which a command is killed."""

RETRY_DELAYS = (0.5, 2.0)
"""Seconds before each further attempt of a request."""

SUCCESS = range(200, 300)


class EventTarget(Protocol):
    """A receiver of events. `send` is called in one thread."""

    name: str
    """Name for messages, without credentials."""

    def send(self, event: Mapping[str, Any], ending: Event) -> None:
        """Deliver `event`. Once `ending` is set, try once more at most. Raises SinkError."""

    def stop(self) -> None:
        """Make a `send` in progress fail soon. Called from another thread."""


def event_target(spec: str) -> EventTarget:
    """Return the target that `spec` names: an http or https URL, or a command. Raises UsageError."""
    return Post(spec) if "://" in spec.split(" ", 1)[0] else Command(spec)


class Post:
    """Send each event as the JSON body of an HTTP POST.

    A request that fails or is not answered with a status 2xx within HTTP_TIMEOUT is repeated after each of
    RETRY_DELAYS, unless the status is 4xx, which a repetition does not change. Redirects are not followed.
    Raises UsageError for an invalid URL.
    """

    def __init__(self, url: str) -> None:
        self.name = redacted(url)
        self._connection: http.client.HTTPConnection | None = None
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError as error:
            raise UsageError(f"{self.name} is not a valid URL: {error}.") from error
        if parts.scheme.lower() not in ("http", "https") or not self._host:
            raise UsageError(f"Events are sent to an http or https URL, or to a command. Got {self.name}.")
        self._secure = parts.scheme.lower() == "https"
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {"Content-Type": "application/json", "User-Agent": "live-seg"}
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"

    def send(self, event: Mapping[str, Any], ending: Event) -> None:
        """Post `event`. Raises SinkError with the reason of the last attempt."""
        body = json.dumps(event).encode()
        for delay in (*RETRY_DELAYS, None):
            reason, final = self._attempt(body)
            if not reason:
                return
            if delay is None or final or ending.is_set():
                break
            ending.wait(delay)
        raise SinkError(reason)

    def stop(self) -> None:
        """Disconnect."""
        connection = self._connection
        link = None if connection is None else connection.sock
        if link is not None:
            with contextlib.suppress(OSError):  # disconnected already
                link.shutdown(socket.SHUT_RDWR)

    def _attempt(self, body: bytes) -> tuple[str, bool]:
        """Post once. Return the reason of a failure, or an empty string; and whether it is final."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        self._connection = kind(self._host, self._port, timeout=HTTP_TIMEOUT)
        # The socket's own timeout restarts with every byte.
        limit = Timer(HTTP_TIMEOUT, self.stop)
        limit.start()
        try:
            self._connection.request("POST", self._path, body, self._headers)
            status = self._connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return str(error) or type(error).__name__, False
        finally:
            limit.cancel()
            limit.join()
            self._connection.close()
        if status in SUCCESS:
            return "", True
        return f"answered with status {status}", 400 <= status < 500


class Command:
    """Run a command for each event, with the JSON on its standard input. No shell is involved.

    It is killed after COMMAND_TIMEOUT, with the processes that it started. Raises UsageError if there is no
    such program.
    """

    def __init__(self, command: str) -> None:
        try:
            self._words = shlex.split(command, posix=sys.platform != "win32")
        except ValueError as error:
            raise UsageError(f"Cannot parse the command {command!r}: {error}.") from error
        self.name = self._words[0] if self._words else ""
        if shutil.which(self.name) is None:
            raise UsageError(
                f"There is no program {self.name!r} to run on events. Give a command, or an http:// URL."
            )
        self._stopped = Event()

    def send(self, event: Mapping[str, Any], ending: Event) -> None:  # noqa: ARG002
        """Run the command. Raises SinkError if it fails or takes too long."""
        with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as given:
            given.write(json.dumps(event).encode() + b"\n")
            given.seek(0)
            try:
                code = self._run(given, errors)
            except OSError as error:
                raise SinkError(error.strerror or str(error)) from error
            if code is None:
                raise SinkError(f"killed after {COMMAND_TIMEOUT:g} s")
            if code != 0:
                errors.seek(0)
                last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
                raise SinkError(": ".join([f"exit code {code}", *last]))

    def _run(self, given: Any, errors: Any) -> int | None:
        """Return the exit code; None if the command was killed."""
        with shielded():
            process = subprocess.Popen(
                self._words, stdin=given, stdout=subprocess.DEVNULL, stderr=errors, **OWN_GROUP
            )
        with _killed_at_the_end(process):
            until = time.monotonic() + COMMAND_TIMEOUT
            while time.monotonic() < until and not self._stopped.wait(0.02):
                if process.poll() is not None:
                    return process.returncode
        return None

    def stop(self) -> None:
        """Kill the command."""
        self._stopped.set()


@contextmanager
def _killed_at_the_end(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Kill `process`, and its group where there are groups, if it still runs after the `with` block."""
    try:
        yield
    finally:
        if process.poll() is None:
            if sys.platform == "win32":
                process.kill()
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
