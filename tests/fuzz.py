"""Random input for everything that reads files, requests and options of others.

    python -m tests.fuzz TARGET COUNT

runs a target of TARGETS in a process of its own. A target reads one damaged input: it succeeds or raises the
errors it is documented to raise. Anything else, such as another exception, a crash or a hang, is a fault.
"""

import contextlib
import functools
import io
import json
import logging
import math
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import cv2
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from live_seg.errors import SourceError, UsageError, WeightsError
from live_seg.evaluation.ground_truth import GroundTruth
from live_seg.exports.formats import FORMATS, convert
from live_seg.files import read_image
from live_seg.image_headers import declared_size
from live_seg.maskrcnn import matterport
from live_seg.maskrcnn.config import SMALL
from live_seg.maskrcnn.torch_file import read_tensors
from live_seg.maskrcnn.torch_pickle import read_state
from live_seg.models.card import read_card
from live_seg.sinks import matroska
from live_seg.sinks.file_names import FileNames
from live_seg.sinks.recorder import parse_duration
from live_seg.sources.cameras import parse_size
from live_seg.sources.colour import parse_format
from live_seg.sources.excerpt import parse_time
from live_seg.sources.opening import open_source
from live_seg.training.photos import read_coco
from live_seg.types import Frame, Instances
from live_seg.ui.web.address import parse_address
from live_seg.ui.web.page import WebPage
from live_seg.urls import redacted, without_secrets
from tests import torch_files
from tests.clips import clip

FOLDER = Path(tempfile.gettempdir())

# Damage.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NUMBERS = st.sampled_from([0, -1, 1, 0.5, 2**31, 2**63, 2**64, 10**400, 1e308, -1e308, math.nan, math.inf])


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Return `whole` with up to four changes: bits flipped, bytes replaced, inserted, removed, cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["flip", "flip", "write", "insert", "remove", "cut"])):
            case "flip" if data:
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "write":
                new = draw(st.binary(max_size=8) | st.sampled_from([b"\xff" * 4, b"\x80", bytes(8)]))
                data[place : place + len(new)] = new
            case "insert":
                data[place:place] = draw(st.binary(max_size=8))
            case "remove":
                del data[place : place + draw(st.integers(1, 64))]
            case _:
                del data[place:]
    return bytes(data)


@st.composite
def changed(draw: st.DrawFn, whole: Any) -> Any:
    """Return a JSON value with up to three values in it replaced, removed or repeated."""
    value = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 3))):
        inside, key = draw(st.sampled_from(list(places(value)) or [([value], 0)]))
        how = draw(st.sampled_from(["number", "other", "remove", "repeat"]))
        if how == "remove":
            del inside[key]
        elif how == "repeat" and isinstance(inside, list):
            inside.append(inside[key])
        else:
            inside[key] = draw(NUMBERS if how == "number" else JSON)
    return value


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each list or object in a JSON value with each of its keys."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from places(value[key])


def text_of(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


# Valid files, made once.


@functools.cache
def image_files() -> tuple[bytes, ...]:
    image = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    suffixes = (".png", ".jpg", ".webp", ".tif", ".bmp", ".ppm")
    return tuple(cv2.imencode(suffix, image)[1].tobytes() for suffix in suffixes)


@functools.cache
def videos() -> tuple[tuple[str, bytes], ...]:
    with tempfile.TemporaryDirectory() as folder:
        names = ("a.mp4", "a.mkv", "a.avi", "a.ts")
        made = [clip(Path(folder) / name, rate="10", seconds=0.5, size="64x48", audio=1) for name in names]
        return tuple((path.suffix, path.read_bytes()) for path in made)


@functools.cache
def torch_weights() -> bytes:
    tensors: dict[str, Any] = {"a.weight": np.ones((2, 3), np.float32), "b": np.arange(4)}
    return torch_files.write(FOLDER / "a.pth", tensors, inside="model").read_bytes()


@functools.cache
def keras_weights() -> bytes:
    import h5py

    with h5py.File(FOLDER / "a.h5", "w") as file:
        root = file.create_group("model_weights")
        layers = {"conv1": (3, 3, 3, 8), "mrcnn_class_logits": (16, 3)}
        root.attrs["layer_names"] = [name.encode() for name in layers]
        for name, shape in layers.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [f"{name}/kernel:0".encode()]
            group[f"{name}/kernel:0"] = np.ones(shape, np.float32)
    return (FOLDER / "a.h5").read_bytes()


CARD = {"class_names": ["background", *"ab"], "config": asdict(SMALL), "sha256": "0" * 64, "origin": {}}

SQUARE = [5.0, 5.0, 15.0, 5.0, 15.0, 15.0, 5.0, 15.0]
RUNS = {"size": [24, 32], "counts": [100, 50, 618]}
PACKED = {"size": [24, 32], "counts": coco_mask.frPyObjects(RUNS, 24, 32)["counts"].decode()}
ANNOTATIONS = {
    "images": [{"id": 1, "file_name": "a.png", "height": 24, "width": 32}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 10, 10], "segmentation": [SQUARE]},
        {"id": 2, "image_id": 1, "category_id": 7, "bbox": [1, 1, 9, 9], "segmentation": RUNS, "iscrowd": 1},
        {"id": 3, "image_id": 1, "category_id": 7, "bbox": [2, 2, 9, 9], "segmentation": PACKED, "area": 5},
    ],
}

LINE = {
    "index": 0,
    "seconds": 0.0,
    "size": [32, 24],
    "instances": [
        {"box": [1.0, 2.0, 9.0, 8.0], "score": 0.5, "class": "cat", "track_id": track, "mask": PACKED}
        for track in (1, None)
    ],
}

LISTING = """Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'a.mp4':
  Duration: 00:00:01.00, start: 0.000000, bitrate: 20 kb/s
  Stream #0:0: Video: hevc (Main 10), yuv420p10le(tv, bt2020nc/bt2020/smpte2084), 64x48 [SAR 4:3 DAR 16:9]
"""


# Targets.


def write(name: str, data: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(data)
    return path


def pth(data: st.DataObject) -> None:
    path = write("b.pth", data.draw(damaged(torch_weights())))
    with contextlib.suppress(WeightsError):
        read_tensors(path)


OPCODES = st.sampled_from(
    [
        *(bytes([code]) for code in b"(.0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWX]^_`abcdefghijlopqrstu}"),
        *(b"\x85", b"\x86", b"\x87", b"\x88", b"\x89", b"\x93", b"\x94", torch_files.ORDERED_DICT),
        *(torch_files.tensor("0", 6, (2, 3)), torch_files.storage("0", 6), torch_files.text("a")),
        *(torch_files.integer(5), torch_files.integers((1, 2)), b"ctorch._utils\n_rebuild_parameter\n"),
    ]
)


def pickle(data: st.DataObject) -> None:
    words = data.draw(st.lists(OPCODES | st.binary(max_size=3), max_size=12))
    with contextlib.suppress(ValueError):
        read_state(torch_files.finished(b"".join(words)))


def keras_file(data: st.DataObject) -> None:
    path = write("b.h5", data.draw(damaged(keras_weights())))
    with contextlib.suppress(WeightsError):
        matterport.describe_file(path)
    with contextlib.suppress(WeightsError):
        matterport.read(path)


def card(data: st.DataObject) -> None:
    valid = text_of(CARD)
    content = data.draw(damaged(valid) | changed(CARD).map(text_of) | JSON.map(text_of))
    write("c.json", content)
    with contextlib.suppress(WeightsError):
        read_card(FOLDER / "c.weights.h5")


def annotations(data: st.DataObject) -> None:
    write("a.png", image_files()[0])
    content = data.draw(changed(ANNOTATIONS).map(text_of) | damaged(text_of(ANNOTATIONS)))
    path = write("a.json", content)
    with contextlib.suppress(SourceError):
        read_coco(FOLDER, path)
    with contextlib.suppress(SourceError):
        truth = GroundTruth(FOLDER, path)
        truth.boxes(), truth.masks(), truth.counts()


def json_lines(data: st.DataObject) -> None:
    content = data.draw(changed(LINE).map(text_of) | damaged(text_of(LINE)))
    path = write("a.jsonl", text_of(LINE) + b"\n" + content)
    for to in FORMATS:
        with contextlib.suppress(SourceError):
            convert(path, to, FOLDER / "a.out", overwrite=True)


def image(data: st.DataObject) -> None:
    content = data.draw(st.sampled_from(image_files()).flatmap(damaged))
    size = declared_size(content)
    assert size is None or (len(size) == 2 and min(size) >= 0)
    with contextlib.suppress(SourceError):
        pixels = read_image(write("b.png", content))
        assert pixels.ndim == 3


def video(data: st.DataObject) -> None:
    suffix, whole = data.draw(st.sampled_from(videos()))
    path = write(f"b{suffix}", data.draw(damaged(whole)))
    with contextlib.suppress(SourceError), open_source(path) as source:
        last = 0.0
        for frame in source:
            assert frame.seconds >= last
            last = frame.seconds


def matroska_stream(data: st.DataObject) -> None:
    """The stream is read back by an EBML reader of its own."""
    width, height, channels = (data.draw(st.integers(1, most)) for most in (2**16, 2**16, 2))
    rate = data.draw(st.fractions(Fraction(1, 1000), 1000))
    begin, seconds = data.draw(st.floats(0, 10**7)), data.draw(st.floats(0, 10**5))
    size = data.draw(st.integers(0, 99))
    stream = matroska.header(width, height, channels + 2, rate) + matroska.block(begin, seconds, size)
    found = dict(elements(io.BytesIO(stream + bytes(size))))
    assert (found[0xB0], found[0xBA]) == (width.to_bytes(8, "big"), height.to_bytes(8, "big"))
    assert int.from_bytes(found[0xE7], "big") == round(begin * matroska.MICROSECONDS)
    assert len(found[0xA1]) == 4 + size


def elements(stream: io.BytesIO) -> Iterator[tuple[int, bytes]]:
    """Yield id and content of each EBML element that holds no others."""
    while first := stream.read(1):
        identifier = first + stream.read(8 - first[0].bit_length())
        first = stream.read(1)
        raw = first + stream.read(8 - first[0].bit_length())
        length = int.from_bytes(raw, "big") ^ 1 << 7 * len(raw)
        number = int.from_bytes(identifier, "big")
        if number in (0x1A45DFA3, 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0, 0x1F43B675, 0xA0):
            continue  # its elements follow
        content = stream.read(length)
        assert len(content) == length
        yield number, content


REQUEST = b"POST /key HTTP/1.0\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nContent-Length: 1\r\n\r\nm"


METHODS = st.sampled_from([b"GET", b"POST", b"HEAD", b"\x16\x03"])
PATHS = st.sampled_from([b"/", b"/images", b"/states", b"/key", b"//", b"*", b"http://a/"])
REQUESTS = st.tuples(METHODS, PATHS | st.binary(max_size=9)).map(
    lambda words: b"%b %b HTTP/1.0\r\nHost: localhost\r\n\r\n" % words
)


ANSWER_SECONDS = 0.2
"""Seconds to wait for an answer: to half a request there is none."""


@contextlib.contextmanager
def http() -> Iterator[Callable[[st.DataObject], None]]:
    """Each request is answered or refused, and the page still works after it."""
    with WebPage(address="127.0.0.1:0") as page:
        port = int(page.url.rpartition(":")[2].strip("/"))
        pixels = np.zeros((8, 8, 3), np.uint8)

        def request(data: st.DataObject) -> None:
            content = data.draw(damaged(REQUEST) | REQUESTS | st.binary(max_size=80))
            answer = exchange(port, content)
            assert not answer or re.match(rb"HTTP/\d\.\d \d{3} ", answer), answer
            page.write(Frame(0, 0.0, pixels), pixels, Instances.empty())
            page._controls.ended = False
            with urlopen(page.url, timeout=20) as found:
                assert found.status == 200

        yield request


def exchange(port: int, request: bytes) -> bytes:
    """Send a request; return the start of the answer, empty if there is none within a moment."""
    with (
        contextlib.suppress(ConnectionError, TimeoutError),
        socket.create_connection(("127.0.0.1", port), 20) as client,
    ):
        client.sendall(request)
        client.settimeout(ANSWER_SECONDS)
        return client.recv(200)
    return b""


WORDS = st.text(max_size=12) | st.text("0123456789:.-+xXeEsmh{}%d ", max_size=12)


def options(data: st.DataObject) -> None:
    word = data.draw(WORDS)
    for parse in (parse_time, parse_duration, parse_size, parse_address, FileNames):
        with contextlib.suppress(UsageError):
            parse(word)
    parse_format(word)


def listing(data: st.DataObject) -> None:
    content = data.draw(damaged(LISTING.encode())).decode(errors="replace")
    found = parse_format(content)
    if found is not None:
        found.filters()


URLS = ("rtsp://u:{}@host/p", "http:/{}@h", "http://h/p?{}", "http://h#{}", "rtmp://h/live/{}")


def urls(data: st.DataObject) -> None:
    form, secret = data.draw(st.sampled_from(URLS)), data.draw(st.text("ab@:?#%.,;)&=", max_size=9))
    url = form.format(f"zq{secret}zq")
    for shown in (redacted(url), without_secrets(f"Cannot open '{url}': no video.")):
        assert "zq" not in shown


Target = Callable[[st.DataObject], None]


@contextlib.contextmanager
def ready(target: Target) -> Iterator[Target]:
    """Yield `target`, which needs no preparation."""
    yield target


TARGETS: dict[str, Callable[[], contextlib.AbstractContextManager[Target]]] = {
    one.__name__: functools.partial(ready, one)
    for one in (
        *(pth, pickle, keras_file, card, annotations, json_lines, image),
        *(video, matroska_stream, options, listing, urls),
    )
}
TARGETS["http"] = http


def fuzz(name: str, count: int, *, random: bool = False) -> int:
    """Run a target `count` times, with the same input each time unless `random`. Return the cases run."""
    global FOLDER
    cases = 0
    with contextlib.ExitStack() as stack:
        FOLDER = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        target = stack.enter_context(TARGETS[name]())

        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            derandomize=not random,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def run(data: st.DataObject) -> None:
            nonlocal cases
            cases += 1
            target(data)

        run()
    return cases


if __name__ == "__main__":
    logging.disable()
    print(fuzz(sys.argv[1], int(sys.argv[2]), random=True), "cases")
