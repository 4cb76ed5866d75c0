"""The web page, tested with real connections on this machine and in a real browser."""

import asyncio
import base64
import contextlib
import http.client
import itertools
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import cv2
import numpy as np
import pytest

from live_seg.errors import SinkError, UsageError
from live_seg.types import Frame, Image, Instances
from live_seg.ui.controls import KEYS, Controls
from live_seg.ui.metrics import Metrics
from live_seg.ui.web import background, gate
from live_seg.ui.web.address import parse_address
from live_seg.ui.web.feed import Feed
from live_seg.ui.web.page import PAGE, ZONE_SCRIPT, WebPage
from tests.clips import decode_frames, names
from tests.stand_ins import ROOT

METRICS = Metrics(29.97, 12.34, 0.083, instances=2, dropped=7, recorded=75.0)
ANY_PORT = "127.0.0.1:0"


def grey(level: int, height: int = 48, width: int = 64) -> Image:
    return np.full((height, width, 3), level, np.uint8)


def show(page: WebPage, level: int, metrics: Metrics = METRICS, message: str = "") -> bool:
    return page.write(Frame(level, 0.0, grey(level)), grey(level), Instances.empty(), metrics, message)


def ask(
    url: str, path: str = "", *, method: str = "GET", body: str | None = None, **headers: str
) -> http.client.HTTPResponse:
    """Send a request. The caller reads the response."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=20)
    connection.request(method, place.path + path, body, headers)
    return connection.getresponse()


def press(url: str, key: str, **headers: str) -> int:
    """Press a key as the page does. Return the HTTP status."""
    return post(url, "key", key, **headers)


def post(url: str, path: str, body: str, **headers: str) -> int:
    """Send a request as the page does. Return the HTTP status."""
    headers = {"Origin": url[: url.index("/", 7)]} | headers
    with ask(url, path, method="POST", body=body, **headers) as response:
        return response.status


def next_jpeg(response: http.client.HTTPResponse) -> Image:
    """Read one image of a stream, (H, W, 3) uint8 BGR."""
    assert response.readline() == b"--frame\r\n"
    assert response.readline() == b"Content-Type: image/jpeg\r\n"
    size = int(response.readline().removeprefix(b"Content-Length: "))
    assert response.readline() == b"\r\n"
    image = cv2.imdecode(np.frombuffer(response.read(size), np.uint8), cv2.IMREAD_COLOR)
    assert response.readline() == b"\r\n"
    assert image is not None
    return np.asarray(image, np.uint8)


def next_state(response: http.client.HTTPResponse) -> dict[str, Any]:
    line = response.readline()
    assert response.readline() == b"\n"
    return dict(json.loads(line.removeprefix(b"data: ")))


@pytest.fixture
def controls() -> Controls:
    return Controls(threshold=0.5, minimum=0.25)


@pytest.fixture
def page(controls: Controls) -> Iterator[WebPage]:
    with WebPage("live-seg <cam & co>", controls, ANY_PORT) as page:
        yield page


class TestFeed:
    def test_a_late_watcher_gets_the_newest_item(self) -> None:
        async def check() -> None:
            feed: Feed[int] = Feed()
            feed.put(1)
            feed.put(2)
            watcher = feed.watch()
            assert await anext(watcher) == 2
            feed.put(3)
            feed.put(4)
            assert await anext(watcher) == 4

        asyncio.run(check())

    def test_a_slow_watcher_blocks_nothing_and_gets_the_newest_item(self) -> None:
        async def check() -> None:
            feed: Feed[int] = Feed()
            quick, asleep = feed.watch(), feed.watch()
            feed.put(-1)
            assert await anext(quick) == await anext(asleep) == -1
            for number in range(1000):
                feed.put(number)
                assert await anext(quick) == number
            assert await anext(asleep) == 999

        asyncio.run(check())

    @pytest.mark.parametrize("waiting", [False, True])
    def test_closing_ends_all_watchers(self, waiting: bool) -> None:
        seen: list[int] = []

        async def watch(feed: Feed[int]) -> None:
            seen.extend([item async for item in feed.watch()])

        async def check() -> None:
            feed: Feed[int] = Feed()
            watchers = [asyncio.create_task(watch(feed)) for _ in range(3)]
            if waiting:
                await asyncio.sleep(0)
            feed.close()
            await asyncio.gather(*watchers)

        asyncio.run(check())
        assert seen == []


class TestThePage:
    def test_it_contains_title_and_keys_and_loads_nothing_from_other_sites(self, page: WebPage) -> None:
        with ask(page.url) as response:
            text = response.read().decode()
        assert (response.status, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "<h1>live-seg &lt;cam &amp; co&gt;</h1>" in text
        assert "{{" not in text
        assert all(key.meaning in text for key in KEYS)
        assert set(re.findall(r"https?://[^ '\"]*", text)) == {"http://www.w3.org/2000/svg"}
        assert response.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]

    def test_its_buttons_are_existing_keys_and_switches(self) -> None:
        found: list[tuple[str | None, str | None]] = []
        zones = set[str | None]()

        class Buttons(HTMLParser):
            def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
                state = dict(attrs)
                if tag == "button" and "data-zone" in state:
                    zones.add(state["data-zone"])
                elif tag == "button":
                    found.append((state["data-key"], state.get("data-switch")))

        Buttons().feed(PAGE.read_text(encoding="utf-8"))
        assert len(found) == len(KEYS) - 1  # those of several sources have no button
        script = ZONE_SCRIPT.read_text(encoding="utf-8")
        assert zones == set(re.findall(r"^  (\w+): ", script.partition("ZONE_BUTTONS = {")[2], re.MULTILINE))
        for key, switch in found:
            controls = Controls(0.5)
            controls.press(str(key))
            assert controls != Controls(0.5)
            assert switch is None or getattr(controls, switch) != getattr(Controls(), switch)

    def test_its_script_uses_existing_paths_and_fields(self, page: WebPage) -> None:
        script = PAGE.read_text(encoding="utf-8") + ZONE_SCRIPT.read_text(encoding="utf-8")
        paths = re.findall(r'(?:EventSource|fetch)\("(\w+)"', script) + re.findall(r'"(\w+)\?"', script)
        assert sorted(set(paths)) == ["click", "images", "key", "states", "zone"]
        for path in paths:
            with ask(page.url, path) as response:
                assert response.status == (200 if path in ("images", "states") else 405)
        show(page, 0)
        with ask(page.url, "states") as response:
            fields = re.findall(r"function show\(\{ (.*) \}\)", script)[0].split(", ")
            assert set(fields) == set(next_state(response))

    def test_it_streams_images_as_they_are_shown(self, page: WebPage) -> None:
        show(page, 50)
        with ask(page.url, "images?12345") as response:
            assert response.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
            np.testing.assert_allclose(next_jpeg(response), 50, atol=2)
            for level in (10, 90, 200):
                show(page, level)
                np.testing.assert_allclose(next_jpeg(response), level, atol=2)

    def test_it_streams_states_as_they_change(self, page: WebPage, controls: Controls) -> None:
        show(page, 0, message="saved a.png")
        with ask(page.url, "states") as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            state = next_state(response)
            assert state["metrics"][:2] == [["camera", "30.0 fps"], ["network", "12.3 fps"]]
            assert (state["recorded"], state["message"]) == ("01:15", "saved a.png")
            assert state["controls"] == vars(controls)
            controls.press("m")
            show(page, 0, replace(METRICS, recorded=None))
            state = next_state(response)
            assert (state["recorded"], state["message"], state["controls"]["masks"]) == (None, "", False)

    def test_an_image_is_encoded_once_and_only_on_request(
        self, page: WebPage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encoded: list[int] = []
        encode = cv2.imencode

        def counted(kind: str, image: Image, how: list[int]) -> Any:
            encoded.append(int(image[0, 0, 0]))
            return encode(kind, image, how)

        monkeypatch.setattr(cv2, "imencode", counted)
        for level in range(5):
            show(page, level)
        assert encoded == []
        with ask(page.url, "images") as one, ask(page.url, "images") as other:
            next_jpeg(one), next_jpeg(other)
            show(page, 9)
            next_jpeg(one), next_jpeg(other)
        assert encoded == [4, 9]

    def test_a_browser_that_stops_reading_blocks_nothing(self, page: WebPage) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
        with ask(page.url, "images"):
            for index in range(200):  # some 20 MB, if all were sent
                assert page.write(Frame(index, 0.0, noise), noise, Instances.empty())


class TestKeys:
    def test_are_handled_by_the_thread_that_shows(self, page: WebPage, controls: Controls) -> None:
        assert [press(page.url, key) for key in "m+r"] == [204] * 3
        assert controls == Controls(threshold=0.5, minimum=0.25)
        assert show(page, 0)
        assert (controls.masks, controls.threshold, controls.recording) == (False, 0.55, True)

    def test_end_a_wait(self, page: WebPage, controls: Controls) -> None:
        assert page.wait(0.001)
        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.append(press(page.url, " ")))
        thread.start()
        assert page.wait(20)
        thread.join()
        assert (controls.paused, answers) == (True, [204])

    @pytest.mark.parametrize("key", ["q", "\x1b"])
    def test_q_and_escape_quit(self, page: WebPage, controls: Controls, key: str) -> None:
        assert press(page.url, key) == 204
        assert not show(page, 0)
        assert controls.ended
        assert not page.wait(0)

    @pytest.mark.parametrize("key", ["", "x", "mm", "ß", "\n", "m" * 5000])
    def test_other_keys_are_rejected(self, page: WebPage, controls: Controls, key: str) -> None:
        assert press(page.url, key) == 400
        assert show(page, 0)
        assert controls == Controls(threshold=0.5, minimum=0.25)

    @pytest.mark.parametrize("length", ["-1", "1e3", "", "²", "99999999999"])
    def test_an_invalid_content_length_is_rejected(self, page: WebPage, length: str) -> None:
        with socket.create_connection(("127.0.0.1", urlsplit(page.url).port or 0), timeout=20) as raw:
            head = (
                f"POST /key HTTP/1.0\r\nHost: a.b\r\nOrigin: http://a.b\r\nContent-Length: {length}\r\n\r\n"
            )
            raw.sendall(head.replace("a.b", "localhost").encode("latin-1") + b"m")
            assert b" 400 " in raw.recv(100)

    @pytest.mark.parametrize(
        "origin",
        ["http://evil.example", "null", "", "http://127.0.0.1:1", "127.0.0.1", "http://[", "http://a:b"],
    )
    def test_are_accepted_from_this_page_only(self, page: WebPage, controls: Controls, origin: str) -> None:
        assert press(page.url, "q", Origin=origin) == 403
        assert show(page, 0)
        assert not controls.ended

    def test_a_request_without_origin_is_rejected(self, page: WebPage) -> None:
        with ask(page.url, "key", method="POST", body="q") as response:
            assert response.status == 403

    def test_are_accepted_as_posts_to_key_only(self, page: WebPage, controls: Controls) -> None:
        for path in ("key", "key?q", "key/q"):
            with ask(page.url, path) as response:
                assert response.status in (404, 405)
        with ask(page.url, method="POST", body="q", Origin=page.url[:-1]) as response:
            assert response.status == 405
        assert show(page, 0)
        assert not controls.ended

    def test_are_accepted_through_a_tunnel(self, page: WebPage) -> None:
        """`ssh -L 9000:localhost:8460` uses another port in the browser."""
        assert press(page.url, "m", Host="localhost:9000", Origin="http://localhost:9000") == 204


class TestPointer:
    def test_a_zone_is_set_and_removed(self, page: WebPage, controls: Controls) -> None:
        controls.zone = ()
        assert post(page.url, "zone", "[[0, 0.5], [1, 0.5], [1, 1]]") == 204
        assert show(page, 0)
        assert list(controls.zone) == [(0.0, 0.5), (1.0, 0.5), (1.0, 1.0)]
        assert show(page, 0)
        with ask(page.url, "states") as response:
            assert next_state(response)["controls"]["zone"] == [[0, 0.5], [1, 0.5], [1, 1]]
        assert post(page.url, "zone", "[]") == 204
        assert show(page, 0)
        assert controls.zone == ()

    @pytest.mark.parametrize(
        "body",
        [
            "",
            "7",
            "{}x",
            "[[0, 0]]",
            "[[0, 0], [1, 1]]",
            "[[0, 0], [1, 1], [0, 2]]",
            "[[0, 0], [1, 1], [0, NaN]]",
            "[[0, 0], [1, 1], [0]]",
            "[[0, 0], [1, 1], 3]",
            '[["a", 0], [1, 1], [0, 1]]',
            json.dumps([[0, 0]] * 51),
            "[" * 4000,
        ],
    )
    def test_other_zones_are_refused(self, page: WebPage, controls: Controls, body: str) -> None:
        controls.zone = ()
        assert post(page.url, "zone", body) == 400
        assert show(page, 0)
        assert controls.zone == ()

    def test_a_long_body_is_refused(self, page: WebPage) -> None:
        assert post(page.url, "zone", json.dumps([[0.123456, 0.123456]] * 500)) == 413

    def test_a_session_that_needs_no_zone_takes_none(self, page: WebPage, controls: Controls) -> None:
        assert post(page.url, "zone", "[[0, 0], [1, 0], [1, 1]]") == 400
        assert show(page, 0)
        assert controls.zone is None

    def test_a_click_enlarges_a_source(self, page: WebPage, controls: Controls) -> None:
        controls.sources = 2
        assert post(page.url, "click", "[[0.75, 0.5]]") == 204
        assert show(page, 0)
        assert controls.enlarged == 2
        for body in ("[]", "[[2, 0]]", "[[0, 0], [1, 1]]"):
            assert post(page.url, "click", body) == 400

    @pytest.mark.parametrize("path", ["click", "zone"])
    def test_other_sites_are_refused(self, page: WebPage, controls: Controls, path: str) -> None:
        controls.zone = ()
        assert post(page.url, path, "[]", Origin="http://evil.example") == 403


class TestAccess:
    @pytest.mark.parametrize("host", ["evil.example", "evil.example:8460", "127.0.0.1.evil.example", "[", ""])
    @pytest.mark.parametrize("path", ["", "images", "states", "nothing"])
    def test_a_foreign_host_name_is_refused(self, page: WebPage, host: str, path: str) -> None:
        with ask(page.url, path, Host=host) as response:
            assert response.status == 403
        assert press(page.url, "q", Host=host, Origin=f"http://{host}") == 403

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1", "[::1]:8460"])
    def test_names_of_this_machine_are_accepted(self, page: WebPage, host: str) -> None:
        with ask(page.url, Host=host) as response:
            assert response.status == 200

    @pytest.mark.parametrize("path", ["nothing", "images/", "../key", "page.html"])
    def test_other_paths_do_not_exist(self, page: WebPage, path: str) -> None:
        with ask(page.url, path) as response:
            assert response.status == 404
        assert "Python" not in str(response.headers)

    @pytest.mark.parametrize("address", ["0.0.0.0:0", "127.0.0.2:0"])
    def test_other_addresses_need_the_token(self, address: str, controls: Controls) -> None:
        with WebPage("seen", controls, address) as page:
            place = urlsplit(page.url)
            token = place.path.strip("/")
            assert len(token) >= 20
            base = f"http://{'127.0.0.1' if address.startswith('0') else place.hostname}:{place.port}"
            with ask(f"{base}/{token}/", Host="my.machine.example") as response:
                assert response.status == 200
            assert press(f"{base}/{token}/", "m") == 204
            for wrong in ("/", f"/{token}", f"/{token[:-1]}/", f"/{token[:-1]}ß/", "/%00/", f"/x{token}/"):
                for path in ("", "images", "states", "key"):
                    with ask(base, quote(wrong + path)) as response:
                        assert response.status == 403
                        assert token not in response.read().decode()
            assert press(f"{base}/", "q") == 403
            assert page.wait(0)
            assert not controls.masks

    @pytest.mark.parametrize(
        "text", [b"\x16\x03\x01\0\0", b"GET / HTTP/9\r\n\r\n", b"GET /\0 HTTP/1.1\r\n\r\n"]
    )
    def test_malformed_requests_tell_no_version_and_are_not_logged(
        self, page: WebPage, text: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        with connected(page) as raw:
            raw.sendall(text)
            answer = raw.makefile("rb").read()
        assert b" 400 " in answer.splitlines()[0]
        assert b"Server: live-seg\r\n" in answer
        assert b"no-store" in answer
        assert b"ython" not in answer
        assert caplog.messages == []

    def test_each_page_has_a_new_token(self) -> None:
        with WebPage(address="127.0.0.2:0") as one, WebPage(address="127.0.0.2:0") as other:
            assert urlsplit(one.url).path != urlsplit(other.url).path

    def test_ipv6(self) -> None:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("this machine has no IPv6")
        with WebPage(address="[::1]:0") as page, ask(page.url) as response:
            assert page.url.startswith("http://[::1]:")
            assert response.status == 200


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("127.0.0.1:8460", ("127.0.0.1", 8460)),
            ("camera.local:0", ("camera.local", 0)),
            ("[::1]:65535", ("::1", 65535)),
        ],
    )
    def test_host_and_port(self, text: str, address: tuple[str, int]) -> None:
        assert parse_address(text) == address

    @pytest.mark.parametrize(
        "text", ["", "8460", ":8460", "host:", "host:x", "host:65536", "::1:80", "[a]:1", "a:²"]
    )
    def test_an_invalid_address(self, text: str) -> None:
        with pytest.raises(UsageError, match=r"HOST:PORT, for example 127\.0\.0\.1:8460"):
            WebPage(address=text)

    def test_an_address_in_use(self, page: WebPage) -> None:
        address = f"127.0.0.1:{urlsplit(page.url).port}"
        with pytest.raises(SinkError, match=rf"{address}: Address already in use.*127\.0\.0\.1:0"):
            WebPage(address=address)

    def test_an_unknown_host(self) -> None:
        with pytest.raises(SinkError, match=r"Cannot open a web page at nowhere\.invalid:80"):
            WebPage(address="nowhere.invalid:80")


class TestClosing:
    def test_with_streams_open_and_half_a_request(self, controls: Controls) -> None:
        """Relies on the autouse fixture that no thread is left."""
        noise = np.random.default_rng(0).integers(0, 255, (600, 800, 3), np.uint8)
        with WebPage("seen", controls, ANY_PORT) as page:
            port = urlsplit(page.url).port or 0
            half, silent = (socket.create_connection(("127.0.0.1", port)) for _ in range(2))
            half.sendall(b"POST /key HTTP/1.0\r\nContent-Le")
            unread = [ask(page.url, path) for path in ("images", "images", "states")]
            for index in range(50):
                page.write(Frame(index, 0.0, noise), noise, Instances.empty(), METRICS)
        assert controls.ended
        for connection in (half, silent):
            with connection:
                assert connection.recv(1) == b""
        for response in unread:
            # Not a timeout after 20 s.
            with response, contextlib.suppress(ConnectionError, http.client.IncompleteRead):
                while response.read(65536):
                    pass
        with pytest.raises(ConnectionRefusedError):
            ask(page.url)

    def test_twice_and_without_a_browser(self) -> None:
        page = WebPage(address=ANY_PORT)
        page.close()
        page.close()
        assert not show(page, 0)

    def test_a_thread_that_cannot_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Unstartable(threading.Thread):
            def start(self) -> None:
                raise RuntimeError("can't start new thread")

        monkeypatch.setattr(background, "Thread", Unstartable)
        with pytest.raises(RuntimeError, match="start new thread"):
            WebPage(address=ANY_PORT)

    def test_a_silent_connection_is_closed(self, monkeypatch: pytest.MonkeyPatch, page: WebPage) -> None:
        monkeypatch.setattr(gate, "REQUEST_TIMEOUT", 0.05)
        with socket.create_connection(("127.0.0.1", urlsplit(page.url).port or 0), timeout=20) as silent:
            assert silent.recv(1) == b""

    def test_an_error_of_one_request_is_logged_and_affects_no_other(
        self, page: WebPage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_: object) -> None:
            raise ZeroDivisionError("no such number")

        show(page, 0)
        with monkeypatch.context() as broken:
            broken.setattr(cv2, "imencode", fail)
            with ask(page.url, "images") as response, pytest.raises(http.client.IncompleteRead):
                response.read()
        with ask(page.url) as response:
            assert response.status == 200
        assert caplog.messages == ["A request to the web page failed."]


class TestLimits:
    def test_a_request_has_a_deadline_however_slowly_it_is_sent(
        self, page: WebPage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gate, "REQUEST_TIMEOUT", 0.2)
        with connected(page) as slow, contextlib.suppress(ConnectionError):
            while True:
                slow.sendall(b"a")
                time.sleep(0.01)

    def test_streams_have_none(self, page: WebPage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gate, "REQUEST_TIMEOUT", 0.05)
        with ask(page.url, "states") as response:
            for index in range(30):
                show(page, index)
                next_state(response)
                time.sleep(0.01)

    def test_half_sent_requests_give_way(self, page: WebPage) -> None:
        """Far more clients than connections: each browser is still answered at once."""
        show(page, 50)
        with contextlib.ExitStack() as stack, ask(page.url, "images") as stream:
            for _ in range(200):
                stack.enter_context(connected(page)).sendall(b"GET /images HTTP/1.0\r\nHo")
            with ask(page.url) as response:
                assert response.status == 200
            assert press(page.url, "m") == 204
            next_jpeg(stream)
            show(page, 90)
            np.testing.assert_allclose(next_jpeg(stream), 90, atol=2)

    def test_too_many_streams_are_refused(self, page: WebPage) -> None:
        show(page, 0)
        with contextlib.ExitStack() as stack:
            answers = [stack.enter_context(ask(page.url, "states")) for _ in range(gate.MAX_STREAMS + 3)]
            assert [answer.status for answer in answers] == [200] * gate.MAX_STREAMS + [503] * 3
            with ask(page.url) as response:
                assert response.status == 200
            assert press(page.url, "m") == 204
        for level in range(100):  # the server notices that they left when it sends
            show(page, level)
            with ask(page.url, "states") as response:
                if response.status == 200:
                    return
        pytest.fail("the streams were not given back")

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform == "win32", reason="no limit of file descriptors")
    @pytest.mark.parametrize("end", ["HTTP/1.0\r\nHost: a", "HTTP/1.0\r\n\r\n"], ids=["half", "unread"])
    def test_a_recording_goes_on(self, tmp_path: Path, end: str) -> None:
        """With 64 file descriptors, 200 clients that send half a request, or do not read the answer."""
        program = [sys.executable, "-c", RECORDING, str(tmp_path)]
        with subprocess.Popen(
            program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as recording:
            assert recording.stdin is not None
            assert recording.stdout is not None
            url = recording.stdout.readline().strip()
            place = urlsplit(url)
            with contextlib.ExitStack() as stack:
                for _ in range(200):
                    client = socket.create_connection((place.hostname, place.port), timeout=20)
                    stack.enter_context(client).sendall(f"GET {place.path}images {end}".encode())
                for _ in range(10):
                    with ask(url) as response:
                        assert response.status == 200
                recording.stdin.close()
                assert recording.wait(60) == 0
        counts = [len(decode_frames(tmp_path / name)) for name in names(tmp_path)]
        assert counts == [20] * len(counts)
        assert counts


RECORDING = """
import itertools, resource, sys, threading
from pathlib import Path

import numpy as np

from live_seg.sinks.video_writer import VideoWriter
from live_seg.types import Frame, Instances
from live_seg.ui.web.page import WebPage

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
with WebPage("seen", address="127.0.0.2:0") as page:
    print(page.url, flush=True)
    attack = threading.Thread(target=sys.stdin.read)
    attack.start()
    for part in itertools.count():
        with VideoWriter(Path(sys.argv[1], f"{part}.mp4"), 30) as video:
            for index in range(20):
                frame = Frame(index, index / 30, image)
                video.write(frame, image, Instances.empty())
                page.write(frame, image, Instances.empty())
        if not attack.is_alive():
            break
"""


@contextlib.contextmanager
def connected(page: WebPage) -> Iterator[socket.socket]:
    """Connect to the page without sending anything."""
    with socket.create_connection(("127.0.0.1", urlsplit(page.url).port or 0), timeout=20) as connection:
        yield connection


class Browser:
    """A headless Chromium, driven by chromedriver (W3C WebDriver)."""

    FLAGS = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "window-size=1360,860")
    QUIET = ("disable-background-networking", "disable-component-update", "disable-sync")

    def __init__(self, driver: str, folder: Path) -> None:
        flags = [f"--{flag}" for flag in (*self.FLAGS, *self.QUIET, f"user-data-dir={folder}")]
        options = {"browserName": "chrome", "goog:chromeOptions": {"args": flags}}
        session = self._ask(driver, "POST", capabilities={"alwaysMatch": options})
        self._address = f"{driver}/{session['sessionId']}"

    def _ask(self, address: str, method: str, **state: Any) -> Any:
        body = json.dumps(state).encode() if method == "POST" else None
        with urllib.request.urlopen(
            urllib.request.Request(address, body, method=method), timeout=60
        ) as response:
            return json.load(response)["value"]

    def open(self, url: str) -> None:
        self._ask(f"{self._address}/url", "POST", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        return self._ask(f"{self._address}/execute/sync", "POST", script=script, args=arguments)

    def press(self, key: str) -> None:
        """Press and release a key on the keyboard."""
        keys = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self._ask(f"{self._address}/actions", "POST", actions=[{"type": "key", "id": "k", "actions": keys}])

    def click(self, selector: str) -> None:
        element = self._ask(f"{self._address}/element", "POST", using="css selector", value=selector)
        (identity,) = element.values()
        self._ask(f"{self._address}/element/{identity}/click", "POST")

    def point(self, *places: tuple[float, float]) -> None:
        """Click at places (x, y) of the window in pixels."""
        actions: list[dict[str, Any]] = []
        for x, y in places:
            actions.append({"type": "pointerMove", "x": round(x), "y": round(y)})
            actions += [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")]
        self._ask(
            f"{self._address}/actions", "POST", actions=[{"type": "pointer", "id": "p", "actions": actions}]
        )

    def screenshot(self) -> Image:
        taken = base64.b64decode(self._ask(f"{self._address}/screenshot", "GET"))
        image = cv2.imdecode(np.frombuffer(taken, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        return np.asarray(image, np.uint8)

    def close(self) -> None:
        self._ask(self._address, "DELETE")


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    for needed in ("chromium", "chromedriver"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed (Debian: chromium, chromium-driver)")
    command = ["chromedriver", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as driver:
        try:
            assert driver.stdout is not None
            state = itertools.chain.from_iterable(
                re.findall(r"successfully on port (\d+)", line) for line in driver.stdout
            )
            opened = Browser(f"http://127.0.0.1:{next(state)}/session", folder)
            try:
                yield opened
            finally:
                opened.close()
        finally:
            driver.terminate()


class Session(threading.Thread):
    """Show a new grey level every 0.03 s until a key quits."""

    def __init__(self, page: WebPage, controls: Controls) -> None:
        super().__init__()
        self.page, self.controls = page, controls
        self.snapshots = 0

    def run(self) -> None:
        for index in itertools.count():
            image = grey(80 + index % 100, 360, 640)
            metrics = replace(METRICS, recorded=75.0 if self.controls.recording else None)
            self.page.write(Frame(index, 0.0, image), image, Instances.empty(), metrics, "hello")
            if not self.page.wait(0.03):
                return
            self.snapshots += self.controls.take_snapshot()


@pytest.mark.timeout(60)
def test_in_a_real_browser(tmp_path: Path, controls: Controls) -> None:
    with browser(tmp_path / "profile") as chromium, WebPage("live-seg", controls, ANY_PORT) as page:
        session = Session(page, controls)
        session.start()
        try:
            chromium.open(page.url)
            wait = "return document.getElementById(arguments[0])?.textContent"
            until(lambda: chromium.run(wait, "message") == "hello")
            until(lambda: len({shades(chromium) for _ in range(3)}) > 1)
            chromium.click("[data-key=r]")
            until(lambda: chromium.run(wait, "clock") == "01:15")
            assert controls.recording
            chromium.click("[data-key=s]")
            until(lambda: session.snapshots == 1)
            chromium.press(" ")
            until(lambda: chromium.run(wait, "state") == "paused")
            assert controls.paused
            chromium.press("?")
            until(lambda: not chromium.run("return document.getElementById('help').hidden"))
            chromium.press("q")
            session.join()
        finally:
            controls.ended = True
            session.join()
    assert controls.ended


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_zone_is_drawn_in_a_real_browser(tmp_path: Path) -> None:
    controls = Controls(0.5, zone=())
    with browser(tmp_path / "profile") as chromium, WebPage("live-seg", controls, ANY_PORT) as page:
        session = Session(page, controls)
        session.start()
        try:
            chromium.open(page.url)
            until(lambda: chromium.run("return document.getElementById('message')?.textContent") == "hello")
            chromium.click("[data-zone=draw]")  # first, as it enlarges the picture of a low window
            left, top, scale = chromium.run(
                "const m = document.getElementById('overlay').getScreenCTM(); return [m.e, m.f, m.a]"
            )

            def at(x: float, y: float) -> tuple[float, float]:
                return left + x * 640 * scale, top + y * 360 * scale

            chromium.point(at(0.1, 0.1), at(0.9, 0.1), at(0.9, 0.8), at(0.1, 0.1))
            until(lambda: controls.zone)
            assert np.array(controls.zone) == pytest.approx(
                np.array([(0.1, 0.1), (0.9, 0.1), (0.9, 0.8)]), abs=0.01
            )
            chromium.click("[data-zone=remove]")
            until(lambda: controls.zone == ())
            chromium.click("[data-zone=draw]")
            up, down, right, enter = "\ue013", "\ue015", "\ue014", "\ue007"
            for key in (*(10 * up), enter, *(10 * right), " ", *(10 * down), " ", "\ue003", enter, "q"):
                chromium.press(key)
            chromium.click("[data-zone=finish]")
            until(lambda: controls.zone)
            assert np.array(controls.zone) == pytest.approx(
                np.array([(0.5, 0.4), (0.6, 0.4), (0.6, 0.5)]), abs=0.001
            )
            assert not controls.paused
            chromium.click("[data-zone=draw]")
            chromium.press("\ue00c")
            assert chromium.run("return document.getElementById('hint').hidden")
            assert not controls.ended
        finally:
            controls.ended = True
            session.join()


def shades(chromium: Browser) -> int:
    """Return the grey level near the centre of the browser window."""
    image = chromium.screenshot()
    return int(image[image.shape[0] // 3, image.shape[1] // 3, 0])


def until(happens: Any) -> None:
    """Repeat until `happens` returns true. The time limit of the test ends an endless wait."""
    while not happens():
        pass
