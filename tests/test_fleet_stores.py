"""Sources and outputs on object stores: a real server for S3, file:// and http://."""

import functools
import http.server
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from live_seg.cli.options import Options
from live_seg.errors import SourceError, UsageError
from live_seg.fleet import stores
from live_seg.fleet.stores import expand_urls, identity, is_store, local, upload, url_of
from tests.clips import clip, probe
from tests.test_cli import invoke
from tests.test_fleet import Bright


@pytest.fixture
def short(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return clip(tmp_path / "in" / "a.mp4", rate="10", seconds=0.5)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVE_SEG_CACHE", str(tmp_path / "cache"))


class Server:
    """An S3 server that answers 503 to the next `refusals` requests."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        app: Callable[..., Iterable[bytes]] = DomainDispatcherApplication(create_backend_app)
        self.refusals = 0

        def refusing(environ: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
            if self.refusals > 0:
                self.refusals -= 1
                respond("503 Slow Down", [("Content-Length", "0")])
                return [b""]
            return app(environ, respond)

        self._server = make_server("127.0.0.1", 0, refusing, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for package in ("moto", "s3fs", "flask", "flask_cors"):
        pytest.importorskip(package, reason="needs live-seg[ray] and moto[s3]")
    import fsspec

    server = Server()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    files.mkdir("bucket")
    monkeypatch.setattr(stores, "WAITS", (0.01,) * 30)
    yield server
    fsspec.filesystem("s3").clear_instance_cache()
    server.close()


@pytest.mark.slow
def test_from_s3_to_s3(short: Path, s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Options, "load", lambda _: Bright())
    for name in ("a", "b"):
        upload(short, f"s3://bucket/in/{name}.mp4")
    command = ("video", "s3://bucket/in/*.mp4", "-o", "s3://bucket/out/")
    s3.refusals = 7
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    assert s3.refusals == 0
    assert result.stdout.count("-> s3://bucket/out/") == 2
    assert expand_urls("s3://bucket/out/*") == ["s3://bucket/out/a.mp4", "s3://bucket/out/b.mp4"]
    assert len(probe(local("s3://bucket/out/b.mp4")).times) == 5
    assert invoke(*command).stdout.count("complete since an earlier run") == 2
    stores._opened("s3://bucket/out/a.mp4")[0].rm_file("bucket/out/a.mp4")
    assert invoke(*command).stdout.count("complete since an earlier run") == 1


def test_file_urls(short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec", reason="needs live-seg[ray]")
    monkeypatch.setattr(Options, "load", lambda _: Bright())
    result = invoke("video", f"file://{short}", "-o", f"file://{tmp_path / 'out'}", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert len(probe(tmp_path / "out" / "a.mp4").times) == 5


def test_a_web_server(short: Path) -> None:
    pytest.importorskip("aiohttp", reason="needs live-seg[ray]")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=short.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/a.mp4"
            assert local(url).read_bytes() == short.read_bytes()
        finally:
            server.shutdown()
            thread.join()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="needs live-seg[ray]")
    with pytest.raises(SourceError, match=r"Cannot read file://.*/none.mp4"):
        identity(f"file://{tmp_path}/none.mp4")
    with pytest.raises(SourceError, match="No file matches"):
        expand_urls(f"file://{tmp_path}/*.mp4")


def test_copies_are_kept_for_a_while(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="needs live-seg[ray]")
    paths = []
    for number in range(4):
        (tmp_path / f"{number}.mp4").write_text(str(number))
        paths.append(local(f"file://{tmp_path}/{number}.mp4"))
        assert local(f"file://{tmp_path}/{number}.mp4") == paths[-1]
    assert [path.exists() for path in paths] == [False, False, True, True]
    (tmp_path / "3.mp4").write_text("changed")
    assert local(f"file://{tmp_path}/3.mp4").read_text() == "changed"


def test_a_store_that_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "WAITS", (0.0,) * 3)
    left = [OSError("busy")] * 3

    def act() -> str:
        if left:
            raise left.pop()
        return "done"

    assert stores._repeated(act, "Cannot read it", SourceError) == "done"
    left += [OSError("busy")] * 4
    with pytest.raises(SourceError, match="Cannot read it: busy"):
        stores._repeated(act, "Cannot read it", SourceError)


def test_urls() -> None:
    assert url_of(Path("s3://bucket/out/")) == "s3://bucket/out"
    assert url_of(Path("file:///tmp/out")) == "file:///tmp/out"
    assert [url_of(Path(text)) for text in ("out/a.mp4", "/out", "C:/out")] == [None] * 3
    assert [is_store(text) for text in ("s3://b/a.mp4", "gs://b/a", "rtsp://c/1", "a.mp4")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"no {name}.")

    monkeypatch.setattr(stores, "import_module", missing)
    with pytest.raises(UsageError, match=r"live-seg\[ray\]"):
        identity("s3://bucket/a.mp4")
