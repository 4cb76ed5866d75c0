import hashlib
import json
import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from live_seg import files
from live_seg.errors import WeightsError
from live_seg.models import download, registry
from live_seg.models.classes import COCO_CLASSES
from live_seg.models.registry import Weights

pytestmark = pytest.mark.timeout(60)

CONTENT = bytes(range(256)) * 400
SIZE = len(CONTENT)
HALF = SIZE // 2
FILE = "fake.h5"

LOOKS: tuple[Callable[[str], object], ...] = (
    download.locate,
    download.download,
    registry.verify,
    registry.status,
)


@dataclass
class Server:
    """A real server on 127.0.0.1. Requests are answered by `answers` in turn, the last one for ever."""

    url: str = ""
    answers: list[Callable[["Handler"], None]] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    """The Range header of each request so far."""


class Handler(BaseHTTPRequestHandler):
    behaviour: Server

    def do_GET(self) -> None:
        answers = self.behaviour.answers
        self.behaviour.ranges.append(self.headers["Range"])
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def say(self, status: int, body: bytes, *, length: int | None = None, span: str = "") -> None:
        """Send `body`, announced as `length` bytes, and close the connection (HTTP/1.0)."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if span:
            self.send_header("Content-Range", f"bytes {span}")
        self.end_headers()
        self.wfile.write(body)

    def asked_from(self) -> int:
        return int(str(self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))

    def log_message(self, *_: object) -> None:
        pass


def right(request: Handler) -> None:
    """As a good server does: ranges, 416 past the end."""
    start = request.asked_from()
    if start >= SIZE:
        request.say(416, b"", span=f"*/{SIZE}")
    elif start:
        request.say(206, CONTENT[start:], span=f"{start}-{SIZE - 1}/{SIZE}")
    else:
        request.say(200, CONTENT)


def breaks_off(request: Handler) -> None:
    """Half of what is asked for, then the connection is closed."""
    start = request.asked_from()
    stop = start + (SIZE - start) // 2
    if start:
        span = f"{start}-{SIZE - 1}/{SIZE}"
        request.say(206, CONTENT[start:stop], length=SIZE - start, span=span)
    else:
        request.say(200, CONTENT[:stop], length=SIZE)


def ignores_range(request: Handler) -> None:
    request.say(200, CONTENT)


def ignores_range_and_breaks_off(request: Handler) -> None:
    request.say(200, CONTENT[:HALF], length=SIZE)


def resumes_elsewhere(request: Handler) -> None:
    request.say(206, CONTENT[:HALF], span=f"0-{HALF - 1}/{SIZE}")


def promises_more(request: Handler) -> None:
    request.say(200, CONTENT, length=SIZE + 1000)


def promises_less(request: Handler) -> None:
    request.say(200, CONTENT, length=HALF)


def promises_nothing(request: Handler) -> None:
    """No Content-Length: the end of the connection is the end of the file."""
    request.send_response(200)
    request.end_headers()
    request.wfile.write(CONTENT)


def gives_wrong_bytes(request: Handler) -> None:
    request.say(200, bytes(SIZE))


LOGIN_PAGE = b"<html>Welcome to the hotel</html>"


def gives_a_login_page(request: Handler) -> None:
    request.say(200, LOGIN_PAGE)


def gives_a_long_login_page(request: Handler) -> None:
    """A page of the size of the file, whose type is announced."""
    request.send_response(200)
    request.send_header("Content-Type", "text/html; charset=utf-8")
    request.send_header("Content-Length", str(SIZE))
    request.end_headers()
    request.wfile.write(LOGIN_PAGE.ljust(SIZE))


def gives_a_chunked_login_page(request: Handler) -> None:
    """A page whose length is not announced, as generated pages are sent."""
    request.send_response(200)
    request.send_header("Content-Type", "text/html")
    request.end_headers()
    request.wfile.write(LOGIN_PAGE)


def resumes_a_longer_file(request: Handler) -> None:
    """The file on the server has another length than the one whose part is there."""
    start = request.asked_from()
    request.say(206, bytes(SIZE + 1000 - start), span=f"{start}-{SIZE + 999}/{SIZE + 1000}")


def hangs_up(request: Handler) -> None:
    """Not even a status line."""
    request.close_connection = True


def redirects(request: Handler) -> None:
    """As GitHub does for the files of a release."""
    request.send_response(302)
    request.send_header("Location", f"{request.path}?elsewhere")
    request.end_headers()


def refuses(status: int) -> Callable[[Handler], None]:
    return lambda request: request.say(status, b"no")


@pytest.fixture
def server() -> Iterator[Server]:
    behaviour = Server(answers=[right])
    handler = type("BehavedHandler", (Handler,), {"behaviour": behaviour})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.daemon_threads = False
        http.block_on_close = True
        behaviour.url = f"http://127.0.0.1:{http.server_port}/{FILE}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield behaviour
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, which does not exist yet, and no waiting between tries."""
    monkeypatch.setenv("LIVE_SEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "RETRY_WAITS", (0.0, 0.0, 0.0))
    return tmp_path / "cache"


EXACT: dict[str, Any] = {"size": SIZE, "md5": hashlib.md5(CONTENT).hexdigest()}
"""Size and hash as they are known of `coco`."""

ROUNDED = {"size": SIZE + 7, "rounding": 500, "sha256": hashlib.sha256(CONTENT).hexdigest()[:8]}
"""Size and hash as they are known of `coco-v2`."""


def know(monkeypatch: pytest.MonkeyPatch, url: str | None, facts: Mapping[str, Any]) -> None:
    """Make "fake" the name of known weights."""
    fake = Weights("fake", FILE, ("background", "thing"), "made up", url=url, **facts)
    monkeypatch.setattr(registry, "WEIGHTS", {"fake": fake})


@pytest.fixture(params=[EXACT, ROUNDED], ids=["exact", "rounded"])
def fake(server: Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Server:
    """The server, known as the home of the weights "fake"."""
    know(monkeypatch, server.url, request.param)
    return server


def leave_part(cache: Path, content: bytes) -> Path:
    cache.mkdir()
    part = cache / f"{FILE}.part"
    part.write_bytes(content)
    return part


def check_failure(cache: Path, url: str, expected: str) -> None:
    """The download of "fake" fails as `expected` (a pattern), tells the way out and leaves no file behind."""
    with pytest.raises(WeightsError, match=expected) as caught:
        download.locate("fake", quiet=True)
    assert url in str(caught.value)
    assert str(cache / FILE) in str(caught.value)
    assert not (cache / FILE).exists()


def test_a_missing_file_is_downloaded_once(fake: Server, cache: Path) -> None:
    path = download.locate("fake", quiet=True)
    assert path == cache / FILE
    assert path.read_bytes() == CONTENT
    assert download.locate("fake", quiet=True) == download.download("fake", quiet=True) == path
    assert registry.verify("fake") == path
    assert fake.ranges == [None]
    assert not (cache / f"{FILE}.part").exists()


@pytest.mark.parametrize("quiet", [True, False])
def test_the_bar_goes_to_stderr(fake: Server, capfd: pytest.CaptureFixture[str], quiet: bool) -> None:
    download.download("fake", quiet=quiet)
    out, err = capfd.readouterr()
    assert fake.ranges == [None]
    assert out == ""
    assert ("100%" in err) is not quiet


def test_a_broken_off_connection_is_resumed(fake: Server) -> None:
    fake.answers = [breaks_off, breaks_off, right]
    assert download.locate("fake", quiet=True).read_bytes() == CONTENT
    assert fake.ranges == [None, f"bytes={HALF}-", f"bytes={HALF + HALF // 2}-"]


@pytest.mark.parametrize("hiccup", [hangs_up, refuses(500), refuses(503)])
def test_a_hiccup_of_the_server_is_tried_again(fake: Server, hiccup: Callable[[Handler], None]) -> None:
    fake.answers = [hiccup, right]
    assert download.locate("fake", quiet=True).read_bytes() == CONTENT
    assert fake.ranges == [None, None]


def test_an_earlier_broken_off_download_is_resumed(fake: Server, cache: Path) -> None:
    leave_part(cache, CONTENT[:HALF])
    assert download.locate("fake", quiet=True).read_bytes() == CONTENT
    assert fake.ranges == [f"bytes={HALF}-"]


def test_a_complete_part_is_not_fetched_again(fake: Server, cache: Path) -> None:
    leave_part(cache, CONTENT)
    assert download.locate("fake", quiet=True).read_bytes() == CONTENT
    assert fake.ranges == []


def test_a_download_is_resumed_through_a_redirection(fake: Server, cache: Path) -> None:
    leave_part(cache, CONTENT[:HALF])
    fake.answers = [redirects, right]
    assert download.locate("fake", quiet=True).read_bytes() == CONTENT
    assert fake.ranges == [f"bytes={HALF}-"] * 2


@pytest.mark.parametrize("answers", [[ignores_range], [resumes_elsewhere, right], [refuses(416), right]])
def test_a_server_that_cannot_resume_starts_over(
    fake: Server, cache: Path, answers: list[Callable[[Handler], None]]
) -> None:
    leave_part(cache, b"?" * HALF)
    fake.answers = answers[:]
    assert download.locate("fake", quiet=True).read_bytes() == CONTENT
    assert fake.ranges == [f"bytes={HALF}-", None][: len(answers)]


def test_a_part_longer_than_the_file_starts_over(fake: Server, cache: Path) -> None:
    leave_part(cache, CONTENT + b"more")
    assert download.locate("fake", quiet=True).read_bytes() == CONTENT
    assert fake.ranges == [f"bytes={SIZE + 4}-", None]


def test_a_length_need_not_be_announced(fake: Server) -> None:
    fake.answers = [promises_nothing]
    assert download.locate("fake", quiet=True).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("answer", "requests", "expected"),
    [
        (breaks_off, 4, r"connection was closed early \(so far: 96,000 of (about )?102,40[07] bytes\)"),
        (
            ignores_range_and_breaks_off,
            4,
            r"connection was closed early \(so far: 51,200 of (about )?102,40[07] bytes\)",
        ),
        (hangs_up, 4, r"closed connection"),
        (refuses(416), 4, r"answered 416"),
        (refuses(500), 4, r"answered 500 Internal Server Error"),
        (refuses(404), 1, r"answered 404 Not Found"),
        (promises_more, 1, r"offers 103,400 bytes instead of (about )?102,40[07]"),
        (promises_less, 1, r"offers 51,200 bytes instead of (about )?102,40[07]"),
        (gives_a_login_page, 1, r"offers 33 bytes instead of (about )?102,40[07]"),
        (gives_a_long_login_page, 1, r"sent a web page instead of the file"),
        (gives_a_chunked_login_page, 1, r"sent a web page instead of the file"),
        (gives_wrong_bytes, 1, r"failed verification and was deleted: the (md5|sha256) of .* instead of"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_download_that_fails_says_why_and_leaves_no_file(
    fake: Server, cache: Path, answer: Callable[[Handler], None], requests: int, expected: str
) -> None:
    fake.answers = [answer]
    check_failure(cache, fake.url, expected)
    assert len(fake.ranges) == requests


def test_a_part_of_another_file_is_not_resumed(fake: Server, cache: Path) -> None:
    leave_part(cache, CONTENT[:HALF])
    fake.answers = [resumes_a_longer_file]
    check_failure(cache, fake.url, r"offers 103,400 bytes instead of (about )?102,40[07]")
    assert fake.ranges == [f"bytes={HALF}-"]


def test_a_part_that_lacks_few_bytes_is_resumed(fake: Server, cache: Path) -> None:
    leave_part(cache, CONTENT[:-3])
    assert download.locate("fake", quiet=True).read_bytes() == CONTENT
    assert fake.ranges == [f"bytes={SIZE - 3}-"]


def test_a_complete_part_with_wrong_bytes_starts_over(fake: Server, cache: Path) -> None:
    leave_part(cache, bytes(SIZE))
    assert download.locate("fake", quiet=True).read_bytes() == CONTENT
    assert fake.ranges == [f"bytes={SIZE}-", None]


def test_wrong_bytes_are_not_resumed(fake: Server, cache: Path) -> None:
    part = leave_part(cache, b"?" * HALF)
    check_failure(cache, fake.url, "failed verification and was deleted")
    assert not part.exists()
    assert download.locate("fake", quiet=True).read_bytes() == CONTENT


def test_being_offline_tells_the_manual_way_out(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as reserved:  # bound but not listening: connections are refused
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/{FILE}"
        know(monkeypatch, url, EXACT)
        check_failure(cache, url, "refused")


def test_a_silent_server_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/{FILE}"
        know(monkeypatch, url, EXACT)
        check_failure(cache, url, "timed out")


def test_a_cache_that_cannot_be_written_is_an_error(fake: Server, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match="LIVE_SEG_CACHE sets another folder"):
        download.locate("fake", quiet=True)
    assert fake.ranges == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's always-full device")
def test_a_full_disk_is_an_error(fake: Server, cache: Path) -> None:
    cache.mkdir()
    (cache / f"{FILE}.part").symlink_to("/dev/full")
    check_failure(cache, fake.url, "No space left on device")
    assert len(fake.ranges) == 1


def test_a_cached_file_of_the_wrong_size_is_replaced(fake: Server, cache: Path) -> None:
    cache.mkdir()
    (cache / FILE).write_bytes(CONTENT[:HALF])
    assert registry.status("fake") == f"damaged at {cache / FILE}"
    with pytest.raises(
        WeightsError, match=r"51,200 bytes instead of (about )?102,40[07]\. Run: live-seg weights download"
    ):
        registry.verify("fake")

    assert download.locate("fake", quiet=True).read_bytes() == CONTENT
    assert fake.ranges == [None]
    assert registry.status("fake") == f"cached at {cache / FILE}"


def test_a_cached_file_with_wrong_bytes_is_found_by_verify_and_replaced_by_download(
    fake: Server, cache: Path
) -> None:
    cache.mkdir()
    (cache / FILE).write_bytes(bytes(SIZE))
    with pytest.raises(WeightsError, match=r"the (md5|sha256) of"):
        registry.verify("fake")
    assert download.download("fake", quiet=True).read_bytes() == CONTENT
    assert fake.ranges == [None]


def test_verify_says_when_nothing_was_downloaded(fake: Server, cache: Path) -> None:
    assert registry.status("fake") == "not downloaded"
    with pytest.raises(WeightsError, match=re.escape(f"there is no {cache / FILE}. Run: live-seg weights")):
        registry.verify("fake")
    assert fake.ranges == []


def test_two_downloads_at_once_fetch_one_file(
    fake: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_waits = threading.Event()

    def answer_once_another_waits(request: Handler) -> None:
        assert second_waits.wait(30)
        right(request)

    def notice(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("Waiting for another process"):
            second_waits.set()
        return True

    fake.answers = [answer_once_another_waits]
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(download.logger, "filters", [notice])
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: download.locate("fake", quiet=True), range(2))

    assert first == second
    assert first.read_bytes() == CONTENT
    assert fake.ranges == [None]


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system cannot refuse to follow links")
def test_the_lock_does_not_follow_links(fake: Server, cache: Path, tmp_path: Path) -> None:
    victim = tmp_path / "diary.txt"
    victim.write_text("dear diary")
    cache.mkdir(exist_ok=True)
    (cache / f"{FILE}.lock").symlink_to(victim)
    with pytest.raises(WeightsError, match="LIVE_SEG_CACHE sets another folder"):
        download.locate("fake", quiet=True)
    assert victim.read_text() == "dear diary"
    assert fake.ranges == []


def test_an_unknown_name_suggests_the_nearest() -> None:
    for look in LOOKS:
        with pytest.raises(WeightsError, match=r"no weights named 'persn'. Did you mean person\?"):
            look("persn")
    with pytest.raises(
        WeightsError, match=r"no model and no file called 'cocoa'. Did you mean coco or coco-v2\?"
    ):
        download.find("cocoa")


def test_a_model_is_a_name_or_a_file(fake: Server, tmp_path: Path) -> None:
    mine = tmp_path / "mine.h5"
    mine.touch()
    assert download.find(str(mine)) == mine
    assert download.find("fake", quiet=True).read_bytes() == CONTENT
    assert fake.ranges == [None]
    with pytest.raises(WeightsError, match="no model and no file"):
        download.find(str(tmp_path / "nothing"))


def test_the_cache_folder_is_the_users_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVE_SEG_CACHE", "~/elsewhere")
    assert files.cache_folder() == Path.home() / "elsewhere"
    monkeypatch.setenv("LIVE_SEG_CACHE", "")
    assert files.cache_folder() == platformdirs.user_cache_path("live_seg")
    monkeypatch.delenv("LIVE_SEG_CACHE")
    assert files.cache_folder() == platformdirs.user_cache_path("live_seg")


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a bundled model of a few bytes and its card; a wheel's folder does not exist."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "small.weights.h5").write_bytes(CONTENT)
    (folder / "small.json").write_text(json.dumps({"sha256": hashlib.sha256(CONTENT).hexdigest()}))
    monkeypatch.setattr(registry, "BUNDLED_FOLDERS", (tmp_path / "bundled", folder))
    return folder


def test_the_bundled_model_is_found_and_verified(bundle: Path) -> None:
    path = bundle / "small.weights.h5"
    assert registry.status("small") == "bundled"
    assert download.locate("small") == download.download("small") == download.find("small") == path
    assert registry.verify("small") == path
    assert download.find("person") == registry.verify("person") == path


def test_the_installed_bundle_comes_before_the_checkouts(bundle: Path) -> None:
    installed = bundle.parent / "bundled"
    installed.mkdir()
    (installed / "small.weights.h5").touch()
    assert download.locate("small") == installed / "small.weights.h5"


def test_a_damaged_bundled_model_is_an_error(bundle: Path) -> None:
    (bundle / "small.weights.h5").write_bytes(b"?")
    with pytest.raises(WeightsError, match=r"the sha256 of .*small.weights.h5 is .* Reinstall live_seg"):
        registry.verify("small")


def test_a_missing_bundled_model_names_the_folders(bundle: Path) -> None:
    (bundle / "small.weights.h5").unlink()
    assert registry.status("small") == "missing"
    for look in (download.locate, download.download, registry.verify):
        with pytest.raises(WeightsError, match=re.escape(str(bundle))):
            look("small")


@pytest.mark.parametrize("card", [None, "{", "[]"])
def test_a_card_that_cannot_be_read_is_an_error(bundle: Path, card: str | None) -> None:
    (bundle / "small.json").unlink()
    if card is not None:
        (bundle / "small.json").write_text(card)
    with pytest.raises(WeightsError, match=r"card .*small.json is (missing|invalid)"):
        registry.verify("small")


def test_a_card_without_a_hash_is_only_warned_about(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    (bundle / "small.json").write_text("{}")
    assert registry.verify("small") == bundle / "small.weights.h5"
    assert "gives no sha256" in caplog.text


def test_the_known_weights_are_complete() -> None:
    assert list(registry.WEIGHTS) == ["small", "person", "coco", "coco-v2"]
    small, person = registry.WEIGHTS["small"], registry.WEIGHTS["person"]
    assert small.file == person.file == "small.weights.h5"
    assert small.classes == person.classes == COCO_CLASSES
    assert (small.restricted_to, person.restricted_to) == (None, ("person",))
    coco = registry.WEIGHTS["coco"]
    assert coco.classes == COCO_CLASSES
    assert (coco.size, coco.md5) == (257_557_808, "e98aaff6f99e307b5e2a8a3ff741a518")
    newer = registry.WEIGHTS["coco-v2"]
    assert newer.url == f"https://download.pytorch.org/models/{newer.file}"
    assert newer.file == f"maskrcnn_resnet50_fpn_v2_coco-{newer.sha256}.pth"
    assert newer.sha256 == "73cbd019"
    assert abs(newer.size / 2**20 - 177.219) < 0.0005  # type: ignore[operator]
    assert (newer.classes, newer.restricted_to) == (COCO_CLASSES, COCO_CLASSES[1:])
    for name, known in registry.WEIGHTS.items():
        assert known.name == name
        assert known.classes[0] == "background"
        assert known.origin
        assert (known.url is None) == (known.size is None) == ((known.md5 or known.sha256) is None)
