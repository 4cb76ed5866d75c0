"""The streams of a web page: images as MJPEG, states as server-sent events."""

import asyncio
import socket
from functools import cached_property

import cv2
from aiohttp import web

from live_seg.types import Image
from live_seg.ui.web.feed import Feed
from live_seg.ui.web.server import client_of

JPEG_QUALITY = 80
"""JPEG quality, 0 to 100. Keeps drawn outlines sharp at about 100 kB per 720p frame."""

IDLE_TIMEOUT = 10.0
"""Seconds that a browser may take to read an image or state before its connection is closed."""

SEND_BUFFER = 256 * 1024
"""Send buffer of a connection in bytes, about three 720p frames. A larger one would add latency."""


class _Picture:
    """Image that is encoded as JPEG when it is first needed."""

    def __init__(self, image: Image) -> None:
        self._image = image

    @cached_property
    def jpeg(self) -> bytes:
        """The encoded image."""
        return cv2.imencode(".jpg", self._image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


class Streams:
    """Send the newest image and state to any number of browsers. Used in one event loop."""

    def __init__(self) -> None:
        self._pictures: Feed[_Picture] = Feed()
        self._states: Feed[str] = Feed()

    def put(self, image: Image, state: str) -> None:
        """Send `image`, (H, W, 3) uint8 BGR, and `state`, one line of JSON, to all browsers."""
        self._pictures.put(_Picture(image))
        self._states.put(state)

    def close(self) -> None:
        """End all streams."""
        self._pictures.close()
        self._states.close()

    async def send_images(self, request: web.Request) -> web.StreamResponse:
        """Send images as MJPEG."""
        response = await _begin(request, "multipart/x-mixed-replace; boundary=frame")
        if request.transport is not None:
            connection = request.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if await _sent(request, response, b"--frame\r\n"):
            async for picture in self._pictures.watch():
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture.jpeg)}\r\n\r\n"
                # Send the next boundary at once: Chromium shows an image only after it.
                if not await _sent(request, response, head.encode() + picture.jpeg + b"\r\n--frame\r\n"):
                    break
        return response

    async def send_states(self, request: web.Request) -> web.StreamResponse:
        """Send states as server-sent events."""
        response = await _begin(request, "text/event-stream")
        async for state in self._states.watch():
            if not await _sent(request, response, f"data: {state}\n\n".encode()):
                break
        return response


async def _begin(request: web.Request, kind: str) -> web.StreamResponse:
    """Begin an answer without end. Raises HTTPServiceUnavailable if there are too many."""
    if not client_of(request).begin_stream():
        raise web.HTTPServiceUnavailable(text="Too many browsers are connected")
    response = web.StreamResponse(headers={"Content-Type": kind})
    await response.prepare(request)
    return response


async def _sent(request: web.Request, response: web.StreamResponse, part: bytes) -> bool:
    """Send a part of an answer. Return False once the browser has left or does not read any more."""
    try:
        async with asyncio.timeout(IDLE_TIMEOUT):
            await response.write(part)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        return False
    except ConnectionError:
        return False
    return True
