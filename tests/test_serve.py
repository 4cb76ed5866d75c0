"""The server for browsers' cameras: choices, places, access, and sessions over real WebRTC connections."""

import asyncio
import contextlib
import datetime
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCIceTransportPolicy, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, VideoStreamTrack
from av import VideoFrame
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from live_seg.cli.main import app
from live_seg.cli.serve import tls_settings
from live_seg.errors import SinkError, UsageError
from live_seg.types import Frame, Image, Instances
from live_seg.ui.controls import Controls
from live_seg.ui.serve import connection
from live_seg.ui.serve.app import MAX_OFFER_BYTES, Service, serving_cameras
from live_seg.ui.serve.camera import BrowserCamera
from live_seg.ui.serve.choices import OFFERED, Choices
from live_seg.ui.serve.ice import ice_server
from live_seg.ui.serve.places import MAX_WAITING, PATIENCE, Places
from live_seg.ui.web import gate
from tests.live import free_port

NAMES = ("background", "person", "<dog>")
SECONDS = 30


def found(images: list[Image]) -> list[Instances]:
    """Find a person in the left half and a dog in the right half of every image."""
    return [
        Instances(
            boxes=np.array([[0, 0, w // 2, h], [w // 2, 0, w, h]], np.float32),
            masks=np.ones((2, 28, 28), np.float32),
            class_ids=np.array([1, 2], np.int32),
            scores=np.array([0.9, 0.6], np.float32),
        )
        for h, w in (image.shape[:2] for image in images)
    ]


def service(**changes: Any) -> Service:
    return Service(found, NAMES, threshold=0.5, minimum=0.25, **changes)


def choices() -> Choices:
    return Choices(NAMES, Controls(0.5, minimum=0.25))


class TestChoices:
    def test_the_page_chooses_effect_classes_threshold_and_switches(self) -> None:
        chosen = choices()
        chosen.update('{"effect": "blur", "classes": ["<dog>"], "threshold": 0.7, "labels": false}')
        assert (chosen.effect, chosen.class_ids) == ("blur", frozenset({2}))
        assert (chosen.controls.threshold, chosen.controls.labels) == (0.7, False)
        (everything,) = found([np.zeros((8, 8, 3), np.uint8)])
        assert chosen.select(everything).class_ids.tolist() == [2]
        chosen.update('{"classes": []}')
        assert len(chosen.select(everything)) == 2
        assert chosen.effect == "blur"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "7",
            "[]",
            "{",
            '{"effect": "replace-background=/etc/passwd"}',
            '{"effect": 3}',
            '{"threshold": 0.1}',
            '{"threshold": 2}',
            '{"threshold": NaN}',
            '{"threshold": "high"}',
            '{"classes": ["cat"]}',
            '{"classes": ["background"]}',
            '{"classes": 3}',
            "[" * 100_000,
        ],
    )
    def test_anything_else_is_refused_and_changes_nothing(self, text: str) -> None:
        chosen = choices()
        with pytest.raises(UsageError, match="Expected"):
            chosen.update(text)
        assert chosen == choices()

    @pytest.mark.parametrize("effect", OFFERED)
    def test_every_effect_is_drawn(self, effect: str) -> None:
        chosen = choices()
        chosen.update(json.dumps({"effect": effect}))
        image = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
        drawn = chosen.draw(Frame(0, 0.0, image), found([image])[0][:1])
        assert drawn.shape[:2] == (40, 60)
        assert not np.array_equal(drawn[..., :3], image)


class TestPlaces:
    def test_the_first_are_admitted_and_others_wait_in_order(self) -> None:
        places = Places(2)
        assert [places.ask(name, 0) for name in "abcd"] == [0, 0, 1, 2]
        places.leave("b")
        assert places.ask("d", 1) == 2
        assert places.ask("c", 1) == 0
        assert places.ask("d", 1) == 1

    def test_who_does_not_ask_again_loses_the_place_in_the_queue(self) -> None:
        places = Places(1)
        assert [places.ask(name, 0) for name in "abc"] == [0, 1, 2]
        assert places.ask("c", PATIENCE) == 2
        assert places.ask("c", PATIENCE + 1) == 1

    def test_a_visitor_has_one_place(self) -> None:
        places = Places(3)
        assert places.ask("a", 0) == 0
        assert places.ask("a", 1) > 0
        places.leave("a")
        places.leave("stranger")
        assert places.ask("a", 2) == 0

    def test_the_queue_is_bounded(self) -> None:
        places = Places(0)
        for number in range(MAX_WAITING + 50):
            last = places.ask(str(number), 0)
        assert last == MAX_WAITING + 1
        assert len(places._waiting) == MAX_WAITING

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 3), st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=40))
    def test_there_are_never_more_than_the_limit(self, limit: int, steps: list[tuple[str, bool]]) -> None:
        places, inside = Places(limit), set[str]()
        for now, (name, arrives) in enumerate(steps):
            if not arrives:
                places.leave(name)
                inside.discard(name)
            elif places.ask(name, now) == 0:
                assert name not in inside
                inside.add(name)
            assert len(inside) <= limit


@pytest.mark.parametrize(
    ("text", "urls", "user"),
    [
        ("stun:stun.example.org:3478", "stun:stun.example.org:3478", None),
        ("turn:me:pass:word@turn.example.org:3478", "turn:turn.example.org:3478", "me"),
        ("turns:me:x@turn.example.org", "turns:turn.example.org", "me"),
    ],
)
def test_ice_servers_are_parsed(text: str, urls: str, user: str | None) -> None:
    server = ice_server(text)
    assert (server.urls, server.username) == (urls, user)


@pytest.mark.parametrize("text", ["", "http://x", "turn:turn.example.org", "turn:secret@host", "stun:a@b"])
def test_other_ice_servers_are_refused_without_their_password(text: str) -> None:
    with pytest.raises(UsageError, match="stun:HOST:PORT") as refused:
        ice_server(text)
    assert "secret" not in str(refused.value)


class Camera(VideoStreamTrack):
    """A grey picture 30 times a second."""

    async def recv(self) -> VideoFrame:
        pts, time_base = await self.next_timestamp()
        frame = VideoFrame.from_ndarray(np.full((120, 161, 3), 90, np.uint8), format="bgr24")
        frame.pts, frame.time_base = pts, time_base
        return frame


def test_the_newest_frame_of_the_camera_is_read() -> None:
    camera = BrowserCamera("seen")
    for level in (10, 90, 200):
        camera.put(VideoFrame.from_ndarray(np.full((720, 2560, 3), level, np.uint8), format="bgr24"))
    frame = next(iter(camera))
    assert (frame.index, frame.image.shape) == (2, (360, 1280, 3))
    assert frame.image[0, 0, 0] == pytest.approx(200, abs=2)
    assert camera.size == (1280, 360)
    camera.close()
    assert list(camera) == []


def test_images_are_stamped_when_they_are_sent() -> None:
    """Browsers would delay all images by the variation of the time from capture to sending."""

    async def check() -> None:
        track = connection.DrawnTrack()
        track.put(VideoFrame(16, 16, "yuv420p"))
        sending = time.monotonic()
        frame = await track.recv()
        assert frame.time is not None
        assert sending <= frame.time + 1e-4 <= time.monotonic() + 2e-4

    asyncio.run(check())


class Browser:
    """A browser's side of the connection: sends a camera and keeps what it receives."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        name: str,
        configuration: RTCConfiguration | None = None,
    ) -> None:
        self.peer = RTCPeerConnection(configuration)
        self._session, self._url, self._name = session, url, name
        self.channel = self.peer.createDataChannel("live-seg")
        self.messages: asyncio.Queue[str] = asyncio.Queue()
        self.channel.on("message", self.messages.put_nowait)
        self.tracks: asyncio.Queue[Any] = asyncio.Queue()
        self.peer.on("track", self.tracks.put_nowait)

    async def connect(self) -> int:
        """Make an offer. Return the HTTP status, and if it is 200 begin."""
        if not self.peer.localDescription:
            self.peer.addTrack(Camera())
            await self.peer.setLocalDescription(await self.peer.createOffer())
        offer = {"sdp": self.peer.localDescription.sdp, "visitor": self._name}
        headers = {"Origin": self._url.rstrip("/")}
        async with self._session.post(f"{self._url}offer", json=offer, headers=headers) as response:
            self.answer = await response.json()
            if response.status == 200:
                await self.peer.setRemoteDescription(RTCSessionDescription(self.answer["sdp"], "answer"))
            return response.status

    async def images(self) -> AsyncIterator[Image]:
        track = await self.tracks.get()
        while True:
            yield (await track.recv()).to_ndarray(format="bgr24")

    async def first(self, wanted: Callable[[Image], bool]) -> Image:
        """Return the first image that is as wanted."""
        async for image in self.images():
            if wanted(image):
                return image
        raise AssertionError("the track ended")


@contextlib.asynccontextmanager
async def visiting(
    url: str, name: str, configuration: RTCConfiguration | None = None
) -> AsyncIterator[Browser]:
    async with aiohttp.ClientSession() as session:
        browser = Browser(session, url, name, configuration)
        try:
            yield browser
        finally:
            await browser.peer.close()


def run(
    check: Callable[[str], Awaitable[None]], certificate: ssl.SSLContext | None = None, **changes: Any
) -> None:
    async def main(url: str) -> None:
        async with asyncio.timeout(SECONDS):
            await check(url)

    with serving_cameras(service(**changes), "127.0.0.1", 0, certificate=certificate) as (_, url):
        asyncio.run(main(url))


def certificate_of_localhost(folder: Path) -> ssl.SSLContext:
    """Create a certificate and return the settings of a server that uses it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1)
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return tls_settings(folder / "cert.pem", folder / "key.pem")


def has_mask(image: Image) -> bool:
    """Return whether a mask is drawn on the grey picture of `Camera`."""
    return bool(np.ptp(image[60, :, 0].astype(int)) > 20)


def test_a_visitor_sees_the_camera_with_masks_and_gets_metrics() -> None:
    async def check(url: str) -> None:
        async with visiting(url, "a") as browser:
            assert await browser.connect() == 200
            image = await browser.first(has_mask)
            assert image.shape == (120, 160, 3)
            told = json.loads(await browser.messages.get())
            assert [name for name, _ in told["metrics"]][:2] == ["camera", "network"]

    run(check)


@contextlib.contextmanager
def turn_server() -> Iterator[str]:
    """Run a coturn on this machine. Yields its address, with user and password."""
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("needs coturn: apt-get install coturn")
    port = free_port()
    words = (program, "-n", "-L", "127.0.0.1", "-p", str(port), "--no-tls", "--no-dtls", "--no-cli")
    access = ("--lt-cred-mech", "-u", "me:secret", "-r", "test", "--allow-loopback-peers")
    log = ("--log-file", "stdout", "--pidfile", "")
    null = subprocess.DEVNULL  # a pipe that nobody reads would stop the server once it is full
    with subprocess.Popen((*words, *access, *log), stdout=null, stderr=null) as server:
        try:
            until = time.monotonic() + SECONDS
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert server.poll() is None
                assert time.monotonic() < until
            yield f"turn:me:secret@127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.mark.slow
def test_a_visitor_is_reached_through_a_turn_server() -> None:
    """The visitor uses nothing but the relay."""
    with turn_server() as address:
        relay = ice_server(address)

        async def check(url: str) -> None:
            only = RTCConfiguration([relay], iceTransportPolicy=RTCIceTransportPolicy.RELAY)
            async with visiting(url, "a", only) as browser:
                assert await browser.connect() == 200
                candidates = [
                    line for line in browser.peer.localDescription.sdp.splitlines() if "candidate:" in line
                ]
                assert candidates
                assert all(" typ relay " in line for line in candidates)
                await browser.first(has_mask)

        run(check, ice=(relay,))


def test_choices_of_the_page_change_the_image() -> None:
    async def check(url: str) -> None:
        async with visiting(url, "a") as browser:
            await browser.connect()
            await browser.messages.get()
            browser.channel.send("nonsense")
            browser.channel.send('{"effect": "grey-background", "classes": ["person"], "threshold": 0.95}')
            plain = await browser.first(lambda image: bool(np.ptp(image[:, :, 0].astype(int)) < 20))
            assert abs(plain.astype(int).mean() - 90) < 12

    run(check)


def test_later_visitors_wait_for_a_place() -> None:
    async def check(url: str) -> None:
        async with visiting(url, "b") as second:
            async with visiting(url, "a") as first:
                assert await first.connect() == 200
                await first.messages.get()
                assert await second.connect() == 202
                assert second.answer == {"position": 1}
            while await second.connect() != 200:
                await asyncio.sleep(0.05)
            await second.messages.get()

    run(check, visitors=1)


def test_an_error_of_the_model_ends_the_visit_and_frees_the_place(caplog: pytest.LogCaptureFixture) -> None:
    calls = list[int]()

    def failing(images: list[Image]) -> list[Instances]:
        calls.append(len(images))
        if len(calls) == 1:
            raise ValueError("no such image")
        return found(images)

    async def main(url: str) -> None:
        async with (
            asyncio.timeout(SECONDS),
            visiting(url, "a") as browser,
            visiting(url, "b") as other,
        ):
            assert await browser.connect() == 200
            while await other.connect() != 200:
                await asyncio.sleep(0.05)
            await other.messages.get()

    broken = Service(failing, NAMES, threshold=0.5, minimum=0.25, visitors=1)
    with serving_cameras(broken, "127.0.0.1", 0) as (_, url):
        asyncio.run(main(url))
    assert "no such image" in caplog.text


def used(server: asyncio.AbstractEventLoop) -> tuple[int, int, int]:
    """Return the numbers of threads, but for those of asyncio's pools, of open files and of tasks."""
    threads = [thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]
    tasks = len(asyncio.all_tasks()) + len(asyncio.all_tasks(server))
    return len(threads), len(list(Path("/proc/self/fd").iterdir())), tasks


async def visit_and_leave(url: str, name: str) -> None:
    async with visiting(url, name) as browser:
        while await browser.connect() != 200:  # others are leaving
            await asyncio.sleep(0.05)
        await browser.messages.get()
        await browser.first(lambda _: True)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux lists them")
def test_sessions_leave_no_thread_file_or_task() -> None:
    """20 visits, 5 at a time, after 5 that load what the process keeps."""

    async def turn(url: str, number: int) -> None:
        await asyncio.gather(*(visit_and_leave(url, f"{number} {place}") for place in range(5)))
        while any("visitor" in thread.name for thread in threading.enumerate()):
            await asyncio.sleep(0.05)

    async def check(url: str, loop: asyncio.AbstractEventLoop) -> None:
        await turn(url, 0)
        await asyncio.sleep(1)
        before = used(loop)
        for number in range(1, 5):
            await turn(url, number)
        while any(left > at_first for left, at_first in zip(used(loop), before, strict=True)):
            await asyncio.sleep(0.05)

    with serving_cameras(service(visitors=5), "127.0.0.1", 0) as (server, url):
        asyncio.run(asyncio.wait_for(check(url, server._loop), 2 * SECONDS))


def test_closing_the_server_ends_its_visits() -> None:
    async def main() -> None:
        with contextlib.ExitStack() as stack:
            _, url = stack.enter_context(serving_cameras(service(), "127.0.0.1", 0))
            async with asyncio.timeout(SECONDS), visiting(url, "a") as one, visiting(url, "b") as other:
                for browser in (one, other):
                    assert await browser.connect() == 200
                    await browser.messages.get()
                await asyncio.to_thread(stack.close)
                with pytest.raises(MediaStreamError):
                    await one.first(lambda _: False)

    asyncio.run(main())


def test_a_visitor_who_never_connects_loses_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.2)

    async def check(url: str) -> None:
        async with visiting(url, "a") as absent:
            absent.peer.addTrack(Camera())
            await absent.peer.setLocalDescription(await absent.peer.createOffer())
            offer = {"sdp": absent.peer.localDescription.sdp, "visitor": "a"}
            headers = {"Origin": url.rstrip("/")}
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{url}offer", json=offer, headers=headers) as response,
            ):
                assert response.status == 200
            async with visiting(url, "b") as browser:
                while await browser.connect() != 200:
                    await asyncio.sleep(0.05)

    run(check, visitors=1)


class TestAccess:
    def test_the_page_holds_what_a_visitor_can_choose(self) -> None:
        async def check(url: str) -> None:
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                page = await response.text()
                assert response.status == 200
                assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
                assert response.headers["Server"] == "live-seg"
                assert "<option>&lt;dog&gt;</option>" in page
                assert '"threshold": 0.5, "minimum": 0.25' in page
                assert "{{" not in page

        run(check)

    @pytest.mark.parametrize(
        ("path", "headers", "status"),
        [
            ("", {"Host": "evil.example"}, 403),
            ("nothing", {}, 404),
            ("offer", {}, 405),
        ],
    )
    def test_other_hosts_and_paths_are_refused(self, path: str, headers: dict[str, str], status: int) -> None:
        async def check(url: str) -> None:
            async with (
                aiohttp.ClientSession() as session,
                session.get(url + path, headers=headers) as response,
            ):
                assert response.status == status

        run(check)

    @pytest.mark.parametrize(
        ("origin", "body", "status"),
        [
            ("http://evil.example", b"{}", 403),
            (None, b"{}", 403),
            ("own", b"{}", 400),
            ("own", b"[", 400),
            ("own", b'{"sdp": "v=0", "visitor": "a"}', 400),
            ("own", b'{"sdp": 1, "visitor": "a"}', 400),
            ("own", b'{"sdp": "v=0", "visitor": ""}', 400),
            ("own", b" " * (MAX_OFFER_BYTES + 1), 413),
        ],
    )
    def test_other_offers_are_refused(self, origin: str | None, body: bytes, status: int) -> None:
        async def check(url: str) -> None:
            headers = {} if origin is None else {"Origin": url.rstrip("/") if origin == "own" else origin}
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{url}offer", data=body, headers=headers) as response,
            ):
                assert response.status == status

        run(check)

    def test_a_failed_offer_leaves_its_place_free(self) -> None:
        async def check(url: str) -> None:
            headers = {"Origin": url.rstrip("/")}
            async with aiohttp.ClientSession() as session:
                for name in ("a", "b", "a"):
                    offer = {"sdp": "v=0", "visitor": name}
                    async with session.post(f"{url}offer", json=offer, headers=headers) as response:
                        assert response.status == 400

        run(check, visitors=1)

    def test_a_token_opens_the_page_from_any_host(self) -> None:
        async def check(url: str) -> None:
            assert url.endswith("/secret/")
            async with aiohttp.ClientSession() as session:
                for path, status in ((url, 200), (url.replace("secret", "secres"), 403)):
                    async with session.get(path, headers={"Host": "cam.example"}) as response:
                        assert response.status == status

        run(check, token="secret")

    def test_half_sent_requests_give_way(self) -> None:
        async def check(url: str) -> None:
            place = urlsplit(url)
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(200):
                    _, half = await asyncio.open_connection(place.hostname, place.port)
                    stack.callback(half.close)
                    half.write(b"POST /offer HTTP/1.1\r\nHo")
                session = await stack.enter_async_context(aiohttp.ClientSession())
                async with session.get(url) as response:
                    assert response.status == 200

        run(check)

    def test_an_offer_has_a_deadline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gate, "REQUEST_TIMEOUT", 0.1)

        async def check(url: str) -> None:
            place = urlsplit(url)
            reader, half = await asyncio.open_connection(place.hostname, place.port)
            host = f"Host: {place.netloc}\r\nOrigin: {url[:-1]}\r\n"
            half.write(f"POST /offer HTTP/1.1\r\n{host}Content-Length: 9\r\n\r\n{{".encode())
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            half.close()

        run(check)

    def test_https(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Clients that never finish the handshake do not stop others, and are disconnected."""
        monkeypatch.setattr(gate, "REQUEST_TIMEOUT", 1.0)

        async def check(url: str) -> None:
            assert url.startswith("https://127.0.0.1:")
            place = urlsplit(url)
            silent = [await asyncio.open_connection(place.hostname, place.port) for _ in range(5)]
            async with aiohttp.ClientSession() as session, session.get(url, ssl=False) as response:
                assert response.status == 200
                assert "live-seg" in await response.text()
            for reader, writer in silent:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()

        run(check, certificate_of_localhost(tmp_path))

    def test_a_taken_address_is_named(self) -> None:
        with serving_cameras(service(), "127.0.0.1", 0) as (_, url):
            port = int(url.split(":")[2].strip("/"))
            with pytest.raises(SinkError, match=str(port)), serving_cameras(service(), "127.0.0.1", port):
                pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--address", "nowhere"], "HOST:PORT"),
        (["--cert", "cert.pem"], "belong together"),
        (["--cert", "cert.pem", "--key", "key.pem"], "Cannot read cert.pem"),
        (["--ice", "turn:x"], "stun:HOST:PORT"),
        (["--model", "smal"], "small"),
    ],
)
def test_mistakes_on_the_command_line_are_named(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert result.exit_code in (2, 4)
    assert message in result.stderr
