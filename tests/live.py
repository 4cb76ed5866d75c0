"""Test doubles of cameras and servers: fake captures, an HTTP server and ffmpeg as a sender."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from live_seg.sources import cameras, sound_capture, streams
from live_seg.types import Image
from tests.clips import FFMPEG

FRAMES, WIDTH, HEIGHT = 6, 160, 120

HTTP = b"HTTP/1.0 200 OK\r\n\r\n"
"""Response header of a stream without declared length."""


class FakeCapture:
    """A fake cv2.VideoCapture that delivers `frames` frames, or a SoundCapture without sound."""

    has_sound = False

    def __init__(
        self, frames: int = FRAMES, *, opens: bool = True, fps: float = 30.0, declared: int = -1
    ) -> None:
        self.left, self.opens = frames, opens
        self.reads = 0
        self.released = False
        self.image: Image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        self.known: dict[int, float] = {
            cv2.CAP_PROP_FRAME_WIDTH: WIDTH,
            cv2.CAP_PROP_FRAME_HEIGHT: HEIGHT,
            cv2.CAP_PROP_FPS: fps,
            cv2.CAP_PROP_FRAME_COUNT: declared,
        }

    def isOpened(self) -> bool:  # noqa: N802
        return self.opens

    def get(self, prop: int) -> float:
        return self.known.get(prop, 0.0)

    def set(self, prop: int, value: float) -> bool:
        self.known[prop] = value
        return True

    def read(self) -> tuple[bool, Image | None]:
        assert not self.released
        self.reads += 1
        delivered = self.left > 0
        self.left -= 1
        return delivered, self.image.copy() if delivered else None

    def release(self) -> None:
        self.released = True


class StuckCapture(FakeCapture):
    """A capture whose reads block until `ready` is set."""

    def __init__(self) -> None:
        super().__init__(frames=10**9)
        self.reading, self.ready = threading.Event(), threading.Event()

    def read(self) -> tuple[bool, Image | None]:
        self.reading.set()
        self.ready.wait()
        assert not self.released, "released while it reads"
        return super().read()


def put_captures(monkeypatch: pytest.MonkeyPatch, *captures: FakeCapture) -> None:
    """Make cameras and streams open these captures in order; the last one is used repeatedly."""
    left = list(captures)

    def open_capture(*_: object) -> FakeCapture:
        return left.pop(0) if len(left) > 1 else left[0]

    for module in (cameras, streams):
        monkeypatch.setattr(module, "open_capture", open_capture)
    monkeypatch.setattr(sound_capture, "SoundCapture", open_capture)


class ServingFolder(ThreadingHTTPServer):
    daemon_threads = False


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the files of `folder` over HTTP. Yields the address."""
    with ServingFolder(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def talking(words: bytes) -> Iterator[int]:
    """Send `words` to one client, then nothing until it disconnects. Yields the port."""

    def talk(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(words)
            while connection.recv(4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=talk, args=(server,))
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def sending(*to: str, size: str = f"{WIDTH}x{HEIGHT}", out: int | None = None) -> subprocess.Popen[bytes]:
    """Start an ffmpeg that sends an endless MPEG-TS in real time; `to` are its last arguments."""
    video = ("-re", "-f", "lavfi", "-i", f"testsrc=rate=50:size={size}", "-threads", "1")
    encode = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "10", "-f", "mpegts")
    command = (FFMPEG, "-hide_banner", "-loglevel", "quiet", "-nostdin", *video, *encode, *to)
    return subprocess.Popen(command, stdout=out)


class Sender:
    """A server on `port` that sends `greeting` and the output of an ffmpeg, of `size`, to each client."""

    def __init__(self, greeting: bytes) -> None:
        self.size = f"{WIDTH}x{HEIGHT}"
        self.senders: list[subprocess.Popen[bytes]] = []
        self._greeting = greeting
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._ending = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._server.accept()
            with connection:
                if self._ending:
                    return
                if self._greeting and connection.recv(4096).startswith(b"HEAD"):
                    connection.sendall(self._greeting)
                    continue
                connection.sendall(self._greeting)
                self.senders.append(sending("pipe:1", size=self.size, out=connection.fileno()))

    def stall(self) -> None:
        """Stop the latest sender; it stays connected."""
        if sys.platform == "win32":
            pytest.skip("needs SIGSTOP")
        os.kill(self.senders[-1].pid, signal.SIGSTOP)

    def kill(self) -> None:
        """Kill the latest sender."""
        self.senders[-1].kill()

    def end(self) -> None:
        self._ending = True
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            pass
        self._thread.join()
        self._server.close()
        for sender in self.senders:
            sender.kill()
            sender.wait()


class When(logging.Handler):
    """Call `act` the first time live_seg.sources.live logs a message with `words`."""

    def __init__(self, words: str, act: Callable[[], object]) -> None:
        super().__init__()
        self._words, self._act = words, act

    def emit(self, record: logging.LogRecord) -> None:
        if self._words in record.getMessage():
            self._words = "nothing any more\0"
            self._act()

    def __enter__(self) -> None:
        logging.getLogger("live_seg.sources.live").addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("live_seg.sources.live").removeHandler(self)
