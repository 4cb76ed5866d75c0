"""Measure how far slow and hostile clients of the page of `--show web` slow down the session.

A session shows frames at a camera's rate, and one browser watches. The frames shown and watched per second
are counted alone, and while clients in another process send nothing, half a request, a request byte by
byte, or do not read the images that they asked for. A disconnected client connects again after half a second.

    python benchmarks/measure_web_load.py --clients 200 --seconds 20
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.sharedctypes import Synchronized
from urllib.parse import urlsplit

import cv2
import numpy as np

from live_seg.types import Frame, Instances
from live_seg.ui.web.page import WebPage

SIZE = (1280, 720)
RETRY_SECONDS = 0.5
BYTE_SECONDS = 0.2
WARM_UP = 2.0
"""Seconds until the clients are connected."""


async def attack(host: str, port: int, kind: int) -> None:
    """Connect again and again, and misbehave."""
    request = f"GET /images HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    bytewise = [request[at : at + 1] for at in range(len(request) - 1)]
    parts: tuple[list[bytes], ...] = ([], [request[:20]], bytewise, [request])
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port, limit=1024)
            try:
                for part in parts[kind % len(parts)]:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(BYTE_SECONDS)
                if kind % len(parts) < 3:
                    await reader.read()
                else:
                    await asyncio.sleep(3600)
            finally:
                writer.close()
        await asyncio.sleep(RETRY_SECONDS)


async def attack_all(host: str, port: int, clients: int) -> None:
    """Run all clients."""
    await asyncio.gather(*(attack(host, port, kind) for kind in range(clients)))


def attacking(url: str, clients: int) -> None:
    """Run all clients in this process."""
    place = urlsplit(url)
    asyncio.run(attack_all(str(place.hostname), int(place.port or 0), clients))


async def watch(host: str, port: int, images: "Synchronized[int]") -> None:
    """Read the images of the page and count them."""
    reader, writer = await asyncio.open_connection(host, port, limit=2**22)
    writer.write(f"GET /images HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
    while True:
        await reader.readuntil(b"--frame\r\n")
        images.value += 1


def watching(url: str, images: "Synchronized[int]") -> None:
    """Watch the page in this process."""
    place = urlsplit(url)
    asyncio.run(watch(str(place.hostname), int(place.port or 0), images))


@contextlib.contextmanager
def beside(target: object, *arguments: object) -> Iterator[None]:
    """Run `target` in a process of its own inside a `with` block."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)  # type: ignore[arg-type]
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def show(page: WebPage, fps: float, seconds: float) -> int:
    """Blur and show frames for `seconds`, `fps` per second. Return how many were shown in time."""
    noise = np.random.default_rng(0).integers(0, 255, (SIZE[1] // 8, SIZE[0] // 8, 3)).astype(np.uint8)
    image = np.asarray(cv2.resize(noise, SIZE), np.uint8)
    began = time.monotonic()
    for index in range(round(fps * seconds)):
        ahead = began + index / fps - time.monotonic()
        if time.monotonic() - began >= seconds:
            return index
        time.sleep(max(ahead, 0))
        drawn = np.asarray(cv2.GaussianBlur(image, (5, 5), 0), np.uint8)
        page.write(Frame(index, index / fps, drawn), drawn, Instances.empty())
    return round(fps * seconds)


def measure(page: WebPage, images: "Synchronized[int]", fps: float, seconds: float) -> tuple[float, float]:
    """Return the frames shown and the images watched per second."""
    show(page, fps, WARM_UP)
    before = images.value
    shown = show(page, fps, seconds)
    return shown / seconds, (images.value - before) / seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--fps", type=float, default=30, help="frame rate of the session")
    given = parser.parse_args()
    images = multiprocessing.get_context("spawn").Value("i", 0)
    with WebPage(address="127.0.0.1:0") as page, beside(watching, page.url, images):
        while not images.value:
            show(page, given.fps, 0.1)
        for clients in (0, given.clients, 0):
            with contextlib.ExitStack() as stack:
                if clients:
                    stack.enter_context(beside(attacking, page.url, clients))
                shown, watched = measure(page, images, given.fps, given.seconds)
            print(f"{clients:4} clients: shown {shown:.2f} fps, watched {watched:.2f} fps", flush=True)


if __name__ == "__main__":
    main()
