"""No password of a URL, and no control character, in any output of any command."""

import contextlib
import email.message
import io
import itertools
import logging
import os
import re
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from live_seg.cli.commands import loaded
from live_seg.cli.main import app
from live_seg.cli.messages import clean
from live_seg.cli.options import Options
from live_seg.cli.streams import Stream, stream_on
from live_seg.errors import LiveSegError
from live_seg.sources.image_files import open_images
from live_seg.sources.opening import open_source
from live_seg.urls import redacted, without_secrets
from tests.clips import clip
from tests.live import FakeCapture, put_captures, served
from tests.stand_ins import ROOT, TINY, StandIn
from tests.test_bench import measurement

SECRET = "hunter2"

URLS = (f"http://user:{SECRET}@127.0.0.1:9/a.mp4?token={SECRET}#{SECRET}", f"rtmp:/127.0.0.1:9/live/{SECRET}")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://user:pass@host/path", "rtsp://***@host/path"),
        ("rtsp://host:554/path", "rtsp://host:554/path"),
        ("rtsp://a:b@c/d@host/path", "rtsp://***@host/path"),
        ("rtsp://a:b?c@host/path", "rtsp://***"),
        ("http://host/path?mail=a@b", "http://***"),
        ("rtsp:/user:pass@host", "rtsp:/***@host"),
        ("http://host/path?key=1#top", "http://host/path?***"),
        ("http://host/path#access_token=1", "http://host/path#***"),
        ("rtmp://host/live/key", "rtmp://host/live/***"),
        ("rtmps://u:p@host:1/key/", "rtmps://***@host:1/***"),
        ("RTMP://host/live/key playpath=x", "RTMP://host/live/*** ***"),
        ("rtmp://host/live/k@y", "rtmp://***"),
        ("rtmp://host", "rtmp://host"),
        ("C:/user@home/a#1.mp4", "C:/user@home/a#1.mp4"),
        ("/user@home/a?b.mp4", "/user@home/a?b.mp4"),
        ("0", "0"),
    ],
)
def test_redacted_urls(url: str, shown: str) -> None:
    assert redacted(url) == shown == redacted(shown)


def test_urls_in_text() -> None:
    text = "Cannot open 'http://u:p@h/a?b=1': see https://host/page#top, or C:/a@b.\nrtmp://h/live/key."
    shown = "Cannot open 'http://***@h/a?***': see https://host/page#***, or C:/a@b.\nrtmp://h/live/***."
    assert without_secrets(text) == shown


def commands() -> Iterator[tuple[str, ...]]:
    """Every command with a URL in place of each argument and option, of any type."""
    group: Any = typer.main.get_command(app)
    top = {name: loaded(command) for name, command in group.commands.items()}
    weights = {("weights", name): command for name, command in top["weights"].commands.items()}
    for words, command in ({(name,): command for name, command in top.items()} | weights).items():
        yield *words, "{url}", "{url}"
        yield *words, "--{url}"
        needed = {one.name: (*flag(one), "x") for one in command.params if one.required}
        for one in command.params:
            if one.name != "help" and not getattr(one, "is_flag", False):
                given = needed | {one.name: (*flag(one), "{url}")}
                given |= (
                    {"reconnect": ("--no-reconnect",)} if (*words, one.name) == ("webcam", "source") else {}
                )
                yield *words, *itertools.chain.from_iterable(given.values())


def flag(parameter: Any) -> tuple[str, ...]:
    """Return the option's name; nothing for an argument."""
    return tuple(name for name in parameter.opts[-1:] if name.startswith("-"))


QUICK = re.compile(r"(video|image|bench --video|webcam --source|--output) {url}( --no-reconnect)?$")
"""Options in the quick tests; the others are in the slow ones."""


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, marks=() if QUICK.search(" ".join(words)) else pytest.mark.slow)
        for words in commands()
    ],
    ids=" ".join,
)
def test_every_option_of_every_command(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    put_captures(monkeypatch, FakeCapture(opens=False))
    for url in URLS:
        with caplog.at_level(logging.INFO):
            done = CliRunner().invoke(app, [word.format(url=url) for word in words])
        assert done.exit_code != 0, done.output
        assert SECRET not in re.sub(r"\n|│| ", "", done.output)
    assert SECRET not in "".join(map(clean, caplog.messages))
    assert [path for path in tmp_path.rglob("*") if SECRET in str(path)] == []


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a clip with user, password and token. The current folder is empty."""
    monkeypatch.setattr(Options, "load", lambda _: StandIn())
    for name in ("served", "out"):
        (tmp_path / name).mkdir()
    clip(tmp_path / "served" / "a.mp4", rate="10", seconds=0.5, encode=("-movflags", "+faststart"))
    monkeypatch.chdir(tmp_path / "out")
    with served(tmp_path / "served") as server:
        yield server.replace("//", f"//user:{SECRET}@") + f"/a.mp4?token={SECRET}#{SECRET}"


@pytest.mark.parametrize(
    "words",
    [
        ("video", "{url}", "-o", "out.mp4", "--json", "out.jsonl"),
        ("video", "{url}", "-o", "frames"),
        ("video", "{url}", "../served/a.mp4", "-o", "many/", "--json", "many/"),
        ("video", "{url}", "missing.mp4", "-o", "many/"),
        ("webcam", "--source", "{url}", "--show", "none", "--record", "out.mp4"),
        ("webcam", "--source", "{url}", "--show", "none", "--json", "out.jsonl"),
    ],
    ids=" ".join,
)
def test_the_outputs_of_a_stream(words: tuple[str, ...], address: str) -> None:
    (Path.cwd().parent / "served" / "b.mp4").hardlink_to(Path.cwd().parent / "served" / "a.mp4")
    done = CliRunner().invoke(app, [word.format(url=address.replace("/a.mp4", "/b.mp4")) for word in words])
    assert done.exit_code == ("missing" in " ".join(words)), done.output
    written = [path for path in Path.cwd().rglob("*") if path.is_file()]
    assert written
    for content in (done.output.encode(), *(path.read_bytes() for path in written)):
        assert SECRET.encode() not in content
    assert SECRET not in "".join(map(str, written))


def test_the_report_of_a_benchmark(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = SimpleNamespace(segment=SimpleNamespace(config=TINY))
    monkeypatch.setattr("live_seg.cli.bench._candidate", lambda *_: candidate)
    monkeypatch.setattr("live_seg.benchmark.benchmark.benchmark", lambda *_, **__: [measurement()])
    done = CliRunner().invoke(app, ["bench", "--video", address, "--json", "out.json"])
    assert done.exit_code == 0, done.output
    assert "a.mp4?***" in done.output
    assert SECRET not in done.output + Path("out.json").read_text("utf-8")


@pytest.mark.parametrize("url", URLS)
def test_errors_of_the_library(url: str) -> None:
    with pytest.raises(LiveSegError) as refused:
        open_images([url])
    assert SECRET not in str(refused.value)
    with pytest.raises(LiveSegError) as refused:
        open_source(url, start=1)
    assert SECRET not in str(refused.value)


# Control characters.

HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\r\x00\u202egnp"


def test_messages_have_no_control_characters() -> None:
    assert clean(f"{HOSTILE}\nnext") == (r"\x1b]0;title\x07\x1b[2J\x9b31m\r\x00\u202egnp" + "\nnext")
    name = HOSTILE.replace("\x00", "")
    for words in (
        ["image", name, "-o", "a.png"],
        ["video", name],
        ["image", "--size", name],
        [name],
        [f"--{name}"],
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code != 0
        assert not {"\x1b", "\x9b", "\x07", "\u202e", "\r"} & set(done.output), words


def test_streams_escape_control_characters_but_colours_and_returns(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "a.txt", os.O_CREAT | os.O_WRONLY)
    stream: Stream = stream_on(descriptor)
    stream.write(f"\x1b[1;31mred\x1b[0m\r100%\t{HOSTILE}\udcff\n")
    os.close(descriptor)
    shown = r"\x1b]0;title\x07\x1b[2J\x9b31m{}\x00\u202egnp\udcff".format("\r")
    assert (tmp_path / "a.txt").read_bytes().decode() == f"\x1b[1;31mred\x1b[0m\r100%\t{shown}\n"


def test_file_names_on_a_terminal(tmp_path: Path) -> None:
    """The real program, whose output is a terminal."""
    if sys.platform == "win32":
        pytest.skip("names have no control characters there")
    import pty

    name = tmp_path / HOSTILE.replace("\x00", "")
    name.mkdir()
    (name / os.fsdecode(b"\xff.png")).write_bytes(b"no image")
    program = [sys.executable, "-c", "from live_seg.cli.main import main; main()"]
    parent, child = pty.openpty()
    with subprocess.Popen(
        [*program, "image", str(name), "-o", str(name / "out")], cwd=ROOT, stdout=child, stderr=child
    ):
        os.close(child)
        output = b""
        with open(parent, "rb", buffering=0) as terminal, contextlib.suppress(OSError):  # noqa: PTH123
            while more := terminal.read(4096):
                output += more
    text = output.decode().replace("\r\n", "\n")
    assert r"\xff.png" in text or r"\udcff.png" in text
    assert not {"\x1b", "\x9b", "\x07", "\u202e", "\r"} & set(text)


def test_reasons_of_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVE_SEG_CACHE", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.HTTPError("http://host", 404, HOSTILE, email.message.Message(), io.BytesIO())

    monkeypatch.setattr("live_seg.models.download.urlopen", refuse)
    done = CliRunner().invoke(app, ["weights", "download", "coco"])
    assert done.exit_code == 4
    assert r"404 \x1b]0;title" in done.output
    assert "\x1b" not in done.output
