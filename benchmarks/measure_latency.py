"""Measure the latency of `live-seg serve`, from a frame of the browser's camera to its drawn image.

Starts the server and a headless Chromium whose camera plays frames with a counter. A script in the page reads
the counter of the camera's frames and of the returned video. The latency of a frame is the time from its
capture to its display, as Chromium reports them (`requestVideoFrameCallback`). Needs chromium on the PATH.

    python benchmarks/measure_latency.py --clip webcam.mkv --seconds 20
"""

import argparse
import asyncio
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import numpy as np

from live_seg.types import Image

WIDTH, HEIGHT = 640, 480
BITS = 8
CELL = 40
"""Side of a cell in pixels: a bit of the counter in the upper row, its opposite below."""

FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
    *("disable-background-networking", "disable-component-update", "remote-debugging-port=0"),
    *("use-fake-ui-for-media-stream", "use-fake-device-for-media-stream", "window-size=1280,800"),
)

PROGRAM = "from live_seg.cli.start import main; main()"

WARM_UP = 5.0
"""Seconds before the measurement, in which bitrates and the jitter buffer settle."""

SCRIPT = """
(async () => {
  const [width, cell, bits, seconds] = ARGUMENTS;
  const captured = new Map(), seen = new Set(), latencies = [];
  const canvas = new OffscreenCanvas(cell * bits, cell * 2);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const read = (video) => {
    const scale = video.videoWidth / width;
    context.drawImage(video, 0, 0, cell * bits * scale, cell * 2 * scale, 0, 0, cell * bits, cell * 2);
    const { data } = context.getImageData(0, 0, cell * bits, cell * 2);
    const bright = (bit, row) => data[4 * ((row + .5) * cell * cell * bits + (bit + .5) * cell) + 1] > 127;
    let count = 0;
    for (let bit = 0; bit < bits; bit++) {
      if (bright(bit, 0) === bright(bit, 1)) return null;
      count += bright(bit, 0) << bit;
    }
    return count;
  };
  const preview = document.createElement("video");
  preview.muted = true;
  preview.srcObject = camera;
  await preview.play();
  const drawn = document.getElementById("drawn");
  const ends = performance.now() + 1000 * seconds;
  let sent = 0, shown = 0, unread = 0;
  const follow = (video, each) => new Promise((done) => {
    const next = (now, frame) => {
      if (now > ends) return done();
      each(read(video), frame);
      video.requestVideoFrameCallback(next);
    };
    video.requestVideoFrameCallback(next);
  });
  await Promise.all([
    follow(preview, (count, frame) => {
      sent += 1;
      if (count !== null) captured.set(count, frame.captureTime ?? frame.presentationTime);
    }),
    follow(drawn, (count, frame) => {
      shown += 1;
      if (count === null) unread += 1;
      else if (captured.has(count)) {
        latencies.push(frame.expectedDisplayTime - captured.get(count));
        captured.delete(count);
      }
    }),
  ]);
  const metrics = document.getElementById("metrics").innerText.split("\\n").filter(Boolean);
  return { latencies, sent, shown, unread, metrics };
})()
"""


def counted(clip: Path | None) -> Iterator[Image]:
    """Yield 2 ** BITS frames (HEIGHT, WIDTH, 3) uint8 BGR of `clip`, again from its start, with a counter."""
    video = cv2.VideoCapture(str(clip)) if clip else None
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for count in range(2**BITS):
        image = np.repeat(((x + y + 4 * count) % 256)[..., None], 3, axis=2).astype(np.uint8)
        if video is not None:
            read, frame = video.read()
            if not read:
                video.set(cv2.CAP_PROP_POS_FRAMES, 0)
                _, frame = video.read()
            image = np.asarray(cv2.resize(frame, (WIDTH, HEIGHT)), np.uint8)
        for bit in range(BITS):
            for row in range(2):
                level = 255 * ((count >> bit & 1) ^ row)
                image[row * CELL : (row + 1) * CELL, bit * CELL : (bit + 1) * CELL] = level
        yield image


def write_camera(path: Path, clip: Path | None) -> None:
    """Write the frames of the camera as MJPEG, which Chromium plays at 30 frames a second without end."""
    with path.open("wb") as file:
        for image in counted(clip):
            file.write(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())


@contextlib.contextmanager
def started(command: list[str], pattern: str) -> Iterator[str]:
    """Run a program inside a `with` block; yield what `pattern` finds in its first lines on stderr."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = (match[1] for line in process.stderr if (match := re.search(pattern, line)))
            yield next(found)
        finally:
            process.terminate()


class Browser:
    """A page of Chromium, driven by the DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._count = 0

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._count += 1
        await self._socket.send_json({"id": self._count, "method": method, "params": parameters})
        while (answer := await self._socket.receive_json()).get("id") != self._count:
            pass
        return dict(answer["result"])

    async def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        result = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"]))
        return result["result"].get("value")


@contextlib.asynccontextmanager
async def opened(address: str) -> AsyncIterator[Browser]:
    """Connect to the first page of the Chromium that listens at `address`, HOST:PORT."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://{address}/json") as response:
            pages = [one for one in await response.json() if one["type"] == "page"]
        async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            yield Browser(socket)


async def measure(devtools: str, url: str, seconds: float) -> dict[str, Any]:
    """Open the page, start the camera, and return the latencies in milliseconds and counts of frames."""
    async with opened(devtools) as browser:
        await browser.call("Page.navigate", url=url)
        while await browser.run("document.readyState") != "complete":
            await asyncio.sleep(0.1)
        await browser.run("document.getElementById('start').click()")
        while await browser.run("document.getElementById('state').textContent") != "live":
            await asyncio.sleep(0.1)
        await asyncio.sleep(WARM_UP)
        arguments = json.dumps([WIDTH, CELL, BITS, seconds])
        return dict(await browser.run(SCRIPT.replace("ARGUMENTS", arguments)))


def report(found: dict[str, Any], seconds: float) -> None:
    """Print the latencies and rates."""
    latencies = np.array(found["latencies"], float)
    median, most = np.percentile(latencies, [50, 95])
    print(f"latency: median {median:.0f} ms, 95 % within {most:.0f} ms, {len(latencies)} frames")
    print(f"camera {found['sent'] / seconds:.1f} fps, shown {found['shown'] / seconds:.1f} fps, ", end="")
    print(f"{found['unread']} not readable; on the page: {' '.join(found['metrics'])}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, help="what the camera shows; a moving gradient by default")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("options", nargs="*", help="options of live-seg serve, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        camera = Path(folder, "camera.mjpeg")
        write_camera(camera, given.clip)
        serve = [sys.executable, "-c", PROGRAM, "serve", "--address", "127.0.0.1:0", *given.options]
        url = stack.enter_context(started(serve, r"open (http\S+)"))
        flags = [f"--{flag}" for flag in (*FLAGS, f"use-file-for-fake-video-capture={camera}")]
        browser = ["chromium", *flags, f"--user-data-dir={folder}/profile", "about:blank"]
        devtools = stack.enter_context(started(browser, r"DevTools listening on ws://([^/]+)/"))
        report(asyncio.run(measure(devtools, url, given.seconds)), given.seconds)


if __name__ == "__main__":
    main()
