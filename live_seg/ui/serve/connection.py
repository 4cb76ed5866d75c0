"""The WebRTC connection of one visitor: camera in, drawn images out, metrics and choices by data channel."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from av import VideoFrame

from live_seg.errors import UsageError
from live_seg.types import Image, Segment
from live_seg.ui.serve.camera import BrowserCamera
from live_seg.ui.serve.choices import Choices
from live_seg.ui.serve.visit import Visit

CLOCK = Fraction(1, 90000)
"""Time base of video in RTP (RFC 3551)."""

CONNECT_SECONDS = 15.0
"""Time from the answer until the connection must stand. aiortc tries for more than a minute."""

METRICS_INTERVAL = 0.2
"""Seconds between two messages with metrics."""


class DrawnTrack(MediaStreamTrack):
    """Video track of the newest drawn image."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self._newest: asyncio.Queue[VideoFrame | None] = asyncio.Queue(maxsize=1)

    def put(self, frame: VideoFrame | None) -> None:
        """Send `frame` next, instead of one that has not been sent yet. None ends the track."""
        with contextlib.suppress(asyncio.QueueEmpty):
            self._newest.get_nowait()
        self._newest.put_nowait(frame)

    async def recv(self) -> VideoFrame:
        """Wait for the next image. Raises MediaStreamError at the end."""
        frame = await self._newest.get()
        if frame is None:
            raise MediaStreamError
        # The time of sending, not of capture: browsers delay all frames by how much their delays vary.
        frame.pts, frame.time_base = round(time.monotonic() / CLOCK), CLOCK
        return frame


class Connection:
    """Connection to the browser that made an offer, and the session that segments its camera.

    `ended` is called in the event loop once, when the connection is closed or lost. Used in one event loop.
    """

    def __init__(
        self,
        name: str,
        segment: Segment,
        choices: Choices,
        ended: Callable[[], None],
        *,
        ice: Sequence[RTCIceServer],
    ) -> None:
        self._camera = BrowserCamera(name)
        self._segment, self._choices, self._ended = segment, choices, ended
        self._loop = asyncio.get_running_loop()
        self._peer = RTCPeerConnection(RTCConfiguration(list(ice)))
        self._drawn = DrawnTrack()
        self._visit: Visit | None = None
        self._receiver: asyncio.Task[None] | None = None
        self._channel: RTCDataChannel | None = None
        self._reported_at = 0.0
        self._closing: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._peer.on("track", self._begin)
        self._peer.on("datachannel", self._listen)
        self._peer.on("connectionstatechange", self._check_state)

    async def answer(self, sdp: str) -> str:
        """Return the answer to the offer `sdp`. Raises UsageError if it is not a valid offer of a video."""
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
            if self._receiver is None:
                raise ValueError("it has no video track")
            self._peer.addTrack(self._drawn)
            await self._peer.setLocalDescription(await self._peer.createAnswer())
        except asyncio.CancelledError:
            self._begin_closing()
            raise
        except Exception as error:  # aiortc raises many kinds for a malformed offer
            await self.close()
            raise UsageError(f"Cannot answer the offer of the browser: {error}.") from error
        self._deadline = self._loop.call_later(CONNECT_SECONDS, self._begin_closing)
        return self._peer.localDescription.sdp

    async def close(self) -> None:
        """End the session, close the connection and wait for both. May be called repeatedly."""
        await asyncio.shield(self._begin_closing())

    def _begin_closing(self) -> asyncio.Task[None]:
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
        return self._closing

    async def _close(self) -> None:
        self._cancel_deadline()
        if self._receiver is not None:
            self._receiver.cancel()
        if self._visit is not None:
            await asyncio.to_thread(self._visit.close)
        self._drawn.stop()
        await self._peer.close()
        self._ended()

    def _begin(self, track: MediaStreamTrack) -> None:
        """Start the session with the first video track."""
        if track.kind != "video" or self._receiver is not None:
            return
        self._visit = Visit(
            self._camera, self._segment, self._choices, show=self._show, report=self._report, end=self._end
        )
        self._receiver = self._loop.create_task(self._receive(track))

    async def _receive(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if isinstance(frame, VideoFrame):
                    self._camera.put(frame)
        self._camera.close()

    def _listen(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        channel.on("message", self._choose)

    def _choose(self, message: str | bytes) -> None:
        """Apply the choices of the page. Messages that the page does not send are ignored."""
        with contextlib.suppress(UsageError):
            self._choices.update(message if isinstance(message, str) else "")

    async def _check_state(self) -> None:
        if self._peer.connectionState == "connected":
            self._cancel_deadline()
        elif self._peer.connectionState in ("failed", "closed"):
            await self.close()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _show(self, image: Image) -> None:
        """Send a drawn image. Called in the thread of the session."""
        self._call(self._drawn.put, _video_frame(image))

    def _report(self, text: str) -> None:
        now = time.monotonic()
        if now - self._reported_at >= METRICS_INTERVAL:
            self._reported_at = now
            self._call(self._send, text)

    def _send(self, text: str) -> None:
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.send(text)

    def _end(self) -> None:
        self._call(self._begin_closing)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function, *arguments)


def _video_frame(image: Image) -> VideoFrame:
    """Convert an image (H, W, 3) uint8 BGR for the encoder, cropped to even sides."""
    height, width = (side // 2 * 2 for side in image.shape[:2])
    even = np.ascontiguousarray(image[:height, :width])
    return VideoFrame.from_ndarray(even, format="bgr24").reformat(format="yuv420p")
