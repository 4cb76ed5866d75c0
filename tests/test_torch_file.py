"""PyTorch's files: genuine ones are read exactly; damaged and malicious ones are an error and run nothing."""

import base64
import copyreg
import io
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from live_seg.errors import WeightsError
from live_seg.maskrcnn.torch_file import read_shapes, read_tensors
from live_seg.maskrcnn.torch_pickle import read_state
from tests import torch_files
from tests.torch_files import archive, finished, integer, integers, state_dict, storage, tensor, text, write

WRITTEN_BY_TORCH = base64.b64decode(
    "eNrFlstvG1UUxq/tZOJMUtJAKCmFAgVap7TO2B6/SvNgSIfCFJpMGxgCkjW2p55RnXHOzHUqkCJFQqnEAoRgwY4V/wPsQGLNAiSk"
    "IhVYZAUbNqxYcR9+zEzStCmRcqORnev7/b5zH+fcWdQSAwglk2hHE9EkakzXTWym1242VWUCrezSNuMbgFLGIBGstupWE2K1WqvZ"
    "tGrYabm+eNWrW55VX3BqWIT4lA6JlDFCxtZa7nr6luU0bAwDNdzyana60sZO0xcrnlVtO816BVuu3/Iq61kRBlMpY4jIfDLSbFgg"
    "cImoNlsmvsY7RRgyYmSMBEkjQS3W2jCsxTGISxpKaXEtRv8wjKT4N/p99GObBnUEwyM6jBnD3ciqjunDUZvY2oLNsRkYtxnuUYLT"
    "4lvwmBbbggkOeBzDMR2eYFNzW95qd2qTIUQWjnPEkx3ECYp4iiOexnBSh2dYDAzBYng2BMjBcxxwqgN4ngJe4IAXMZzW4Ywx3gV4"
    "bdd13EZl1TJdSIVAMkxx0NkO6CUKOsdB5zGkdZg2jkZB66YHUoiThwznZDucHOXInJPHUNChaEx2OW57tVI1cc22/Ar2zNpNqw4l"
    "zuvs55WW2+htZ5lZFOACsSB79TKxmJri6IsYZnSYNcjRRbbZvAFzIcxl0tXDzDNMEV4hGAGDQiNNaPHb8Co5A4nbsMCRlzCoOrzG"
    "TnLVMx0XLoeYCjtrmUKP+zrjluANvgJaZwWu0BV4kzPfwnBVh8X2BiyxfSVbgU2aUaCz36+lDJppcH0Dltn5Xrc8n+QNvK3FfDY5"
    "ehrhnQ0w7F4XXUp4dwNWSFfcb/tVFrK11qrZ8J6WaKcXtaHk6ffPbH5BsoA+i/dM8XGUJimevkGIJq50zFXl7K6ZvnvLULdv/r77"
    "EV0M+tzbbQLNULdODlfMptNwVy0Xq0p5H4aRVpBpAHO34M84sYjvGcAIGiQBVD/AVouWJVWJoZWmg3HTooytme3jAhkl7MlIooFO"
    "VZyWVIV1zZHne0r4NFv8LcnG7E1QuoSMqsw+/NRZQ2iT+M/PU3//L/X3fflnD8p/c476f7Yk/LIv/9xB+PNG/Z0/Tln78pcP2T9/"
    "yOtfOOT5Fw/E/yKaJ8gFdInG8O+JH78eJZ2j94lhthtDSVUu/I8YyOp/R32/tP75llbngT19h1kF6hVaUn9yIlX/9FVj+f71axKV"
    "aAFlYfuW55AK+qFJ37MqTl1V5IeahZQpF4ulgpTL53KFclbKyHJOkjNlScqV5TLpl/KSXJDzNMpff9iWUySOFIsyFmcr2YkzeOGI"
    "OyLvv0dGdcGrYzyk2U6gnZdTVB4s/BMh+dIA2vW2iRKCZX8kRPiZEXrXRVQYrPbhzTo2iHp3RFQVrNFhldFXZaKqYGaHVXf6qmxU"
    "FczHiJfQU+UeXHWnr5IfPEL6YtOtd/vw6qsKUVUwxyNeyZ6qGFUFMzSsuttXlaKqYGYOh1TXh1E/l6OyYKpMhmSfM9nuSbyoCcK5"
    "zriTifM9zVjkcznBP0tit/gK9O0RfXKE/8/fwwYFrhlj4/nY/wCyiO8F"
)
"""`{"model": state dict, "epoch": 3}` as torch.save of PyTorch 2.14.1 wrote it, compressed.

It holds a convolution, a normalization, a transposed float16 tensor and a bfloat16 tensor.
"""

FOUR = np.arange(4, dtype=np.float32)
RAW = FOUR.tobytes()
MEMORY = 8 << 20
"""Bytes that reading any of the invalid files may take, the interpreter's own objects included."""

EXTENSION = 0xE7
"""A code of pickle's extension registry."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Path]:
    """A folder that malicious pickles create when they run."""
    copyreg.add_extension("os", "mkdir", EXTENSION)
    yield tmp_path / "executed"
    copyreg.remove_extension("os", "mkdir", EXTENSION)


def f32(values: Any) -> NDArray[Any]:
    return np.asarray(values, np.float32)


def one(record: bytes, metadata: bytes = b"") -> bytes:
    """The pickle of a state dict with one tensor "a"."""
    return finished(state_dict({"a": record}, metadata))


def simple(path: Path, pickled: bytes | None = None, **options: Any) -> Path:
    """A file of one tensor "a" with the elements FOUR, or of another pickle."""
    return archive(path, one(tensor("0", 4, (4,))) if pickled is None else pickled, {"0": RAW}, **options)


def refused(path: Path, reason: str) -> None:
    """Reading `path` is an error that names the file, and takes little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=reason) as caught:
            read_tensors(path)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 700 + len(str(path))
    assert str(caught.value).isprintable()


# Genuine files


def test_a_file_of_pytorch_is_read(path: Path) -> None:
    path.write_bytes(zlib.decompress(WRITTEN_BY_TORCH))
    tensors = read_tensors(path)
    expected: dict[str, NDArray[Any]] = {
        "conv.weight": f32([0.5, -2]).reshape(2, 1, 1, 1),
        "conv.bias": f32([1, 3]),
        "norm.weight": np.ones(2, np.float32),
        "norm.bias": np.zeros(2, np.float32),
        "norm.running_mean": np.zeros(2, np.float32),
        "norm.running_var": np.ones(2, np.float32),
        "norm.num_batches_tracked": np.array(0),
        "half": f32([[0, 3], [1, 4], [2, 5]]),
        "brain": f32([1, -0.5]),
    }
    assert list(tensors) == list(expected)
    for name, values in expected.items():
        assert tensors[name].dtype == values.dtype
        np.testing.assert_array_equal(tensors[name], values, strict=True)
    assert read_shapes(path) == {name: values.shape for name, values in expected.items()}


@pytest.mark.parametrize("inside", [None, "model", "state_dict"])
def test_tensors_keep_their_types_names_and_order(path: Path, inside: str | None) -> None:
    stored: dict[str, NDArray[Any]] = {
        "z": f32([[1, 2, 3], [4, 5, 6]]),
        "double": np.array([1 / 3]),
        "count": np.array(1000),
        "int": np.array([-1, 1 << 30], np.int32),
        "bool": np.array([True, False]),
        "empty": np.empty((0, 3), np.float32),
        "a.b": f32(7),
    }
    tensors = read_tensors(write(path, stored, inside=inside))
    assert list(tensors) == list(stored)
    for name, values in stored.items():
        np.testing.assert_array_equal(tensors[name], values, strict=True)
        assert not tensors[name].flags.writeable or tensors[name].size == 0


def test_a_state_dict_may_be_nested_twice(path: Path) -> None:
    state = b"}" + text("model") + b"}" + text("state_dict") + state_dict({"a": tensor("0", 4, (4,))}) + b"ss"
    np.testing.assert_array_equal(read_tensors(simple(path, finished(state)))["a"], FOUR)


def test_views_of_a_storage_are_followed(path: Path) -> None:
    elements = np.arange(60, dtype=np.float32)
    block = elements.reshape(3, 4, 5)
    views = {
        "transposed": (block.transpose(2, 0, 1), (5, 3, 4), 0, (1, 20, 5)),
        "part": (block[1:, ::2, 1:4], (2, 2, 3), 21, (20, 10, 1)),
        "scalar": (block[2, 3, 4], (), 59, ()),
        "all": (elements, (60,), 0, (1,)),
        "one": (block[:1, :1, :1], (1, 1, 1), 0, (20, 5, 1)),
    }
    records = {
        name: tensor("7", 60, shape, offset=offset, strides=strides)
        for name, (_, shape, offset, strides) in views.items()
    }
    tensors = read_tensors(archive(path, finished(state_dict(records)), {"7": elements.tobytes()}))
    for name, (values, *_) in views.items():
        np.testing.assert_array_equal(tensors[name], np.asarray(values))
    assert np.shares_memory(tensors["transposed"], tensors["all"])


def test_half_precision_becomes_float32(path: Path) -> None:
    half = np.array([1, -0.1, np.inf, 6e-8], np.float16)
    brain = f32([1, -3.140625, -np.inf, 1e-40])
    records = {
        "half": tensor("0", 4, (4,), kind="HalfStorage"),
        "brain": tensor("1", 4, (4,), kind="BFloat16Storage"),
    }
    upper_bits = (brain.view(np.uint32) >> 16).astype(np.uint16)
    raw = {"0": half.tobytes(), "1": upper_bits.tobytes()}
    tensors = read_tensors(archive(path, finished(state_dict(records)), raw))
    assert {values.dtype for values in tensors.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(tensors["half"], half.astype(np.float32))
    np.testing.assert_array_equal(tensors["brain"], (brain.view(np.uint32) & 0xFFFF0000).view(np.float32))


def test_big_endian_files_are_converted(path: Path) -> None:
    records = {
        "float": tensor("0", 4, (4,)),
        "brain": tensor("1", 2, (2,), kind="BFloat16Storage"),
        "count": tensor("2", 1, (), kind="LongStorage"),
    }
    raw = {"0": FOUR.astype(">f4").tobytes(), "1": b"\x3f\x80\xbf\x00", "2": struct.pack(">q", 1000)}
    tensors = read_tensors(archive(path, finished(state_dict(records)), raw, byteorder=b"big"))
    np.testing.assert_array_equal(tensors["float"], FOUR)
    np.testing.assert_array_equal(tensors["brain"], [1, -0.5])
    assert tensors["count"] == 1000
    assert all(values.dtype.isnative for values in tensors.values())


def test_older_files_without_byte_order_are_little_endian(path: Path) -> None:
    np.testing.assert_array_equal(read_tensors(simple(path, byteorder=None))["a"], FOUR)


def test_parameters_and_versions_of_modules_are_accepted(path: Path) -> None:
    parameter = (
        b"ctorch._utils\n_rebuild_parameter\n("
        + tensor("0", 4, (4,))
        + b"\x88"
        + torch_files.ORDERED_DICT
        + b"tR"
    )
    versions = b"}(" + text("_metadata") + torch_files.ORDERED_DICT + b"ub"
    np.testing.assert_array_equal(read_tensors(simple(path, one(parameter, versions)))["a"], FOUR)


def test_storages_outside_the_state_dict_are_not_read(path: Path) -> None:
    optimizer = tensor("99", 1 << 40, (1 << 40,))
    state = state_dict({"a": tensor("0", 4, (4,))})
    pickled = finished(b"}(" + text("model") + state + text("optimizer") + optimizer + b"u")
    np.testing.assert_array_equal(read_tensors(simple(path, pickled))["a"], FOUR)


def test_reading_takes_no_more_memory_than_the_file(path: Path) -> None:
    write(path, {f"{i}": np.full((256, 1024), i, np.float32) for i in range(16)})
    tracemalloc.start()
    try:
        tensors = read_tensors(path)
        assert tracemalloc.get_traced_memory()[1] < 1.1 * path.stat().st_size
    finally:
        tracemalloc.stop()
    assert [values[0, 0] for values in tensors.values()] == list(range(16))


# Pickles that run code


def global_reduce(path: str) -> bytes:
    return b"cos\nmkdir\n" + text(path) + b"\x85R"


GOOD = state_dict({"a": tensor("0", 4, (4,))})
MKDIR = b"cos\nmkdir\n"

MALICIOUS: dict[str, Callable[[str], bytes]] = {
    "GLOBAL": global_reduce,
    "os.system": lambda path: b"cos\nsystem\n" + text(f'mkdir "{path}"') + b"\x85R",
    "eval": lambda path: b"cbuiltins\neval\n" + text(f"__import__('os').mkdir({path!r})") + b"\x85R",
    "STACK_GLOBAL": lambda path: text("os") + text("mkdir") + b"\x93" + text(path) + b"\x85R",
    "INST": lambda path: b"(" + text(path) + b"ios\nmkdir\n",
    "OBJ": lambda path: b"(" + MKDIR + text(path) + b"o",
    "EXT1": lambda path: bytes([0x82, EXTENSION]) + text(path) + b"\x85R",
    "EXT2": lambda path: b"\x83" + struct.pack("<H", EXTENSION) + text(path) + b"\x85R",
    "EXT4": lambda path: b"\x84" + struct.pack("<I", EXTENSION) + text(path) + b"\x85R",
    "NEWOBJ": lambda path: b"cfunctools\npartial\n(" + MKDIR + text(path) + b"t\x81)R",
    "NEWOBJ_EX": lambda path: b"cfunctools\npartial\n(" + MKDIR + text(path) + b"t}\x92)R",
    "BUILD": lambda path: (
        b"ctypes\nSimpleNamespace\n)R}" + text("__setstate__") + MKDIR + b"sb" + text(path) + b"b"
    ),
    "inside a dict": lambda path: b"}" + text("model") + global_reduce(path) + b"s",
    "after the tensors": lambda path: (
        b"}(" + text("model") + GOOD + text("args") + global_reduce(path) + b"u"
    ),
    "before the tensors": lambda path: global_reduce(path) + b"0" + GOOD,
    "in the metadata": lambda path: GOOD + b"}" + text("_metadata") + global_reduce(path) + b"sb",
    "as hooks": lambda path: (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage("0", 4) + integer(0) + integers((4,)) + integers((1,)) + b"\x89" + global_reduce(path)
        + b"tR"
    ),
    "as a storage": lambda path: global_reduce(path) + b"Q",
    "in a list": lambda path: b"](" + GOOD + global_reduce(path) + b"e",
}  # fmt: skip
"""Pickles that create the folder given."""


class _Careless(pickle.Unpickler):
    """What a reader without restrictions does."""

    def find_class(self, module: str, name: str) -> Any:
        return (lambda *_: None) if module.startswith("torch") else super().find_class(module, name)

    def persistent_load(self, _: object) -> None:
        return None


@pytest.mark.parametrize("attack", MALICIOUS)
def test_malicious_pickles_do_run_in_an_ordinary_unpickler(attack: str, sentinel: Path) -> None:
    pickled = finished(MALICIOUS[attack](str(sentinel)))
    try:
        _Careless(io.BytesIO(pickled)).load()
    except Exception as error:  # after its code ran
        print(error)
    assert sentinel.is_dir()


@pytest.mark.parametrize("attack", MALICIOUS)
def test_malicious_pickles_run_nothing(attack: str, path: Path, sentinel: Path) -> None:
    pickled = finished(MALICIOUS[attack](str(sentinel)))
    refused(simple(path, pickled), "which no state dict needs|attributes|damaged|unknown arguments")
    assert not sentinel.exists()


# Pickles that hold something else, are damaged or exhaust memory


def chain(count: int) -> bytes:
    """Tuples of two references to the previous one: a hash or a message of it would take 2**count steps."""
    return b"()q\x00" + b"h\x00h\x00\x86q\x00" * count + b"t"


OTHER: dict[str, tuple[bytes, str]] = {
    "no dict": (
        finished(tensor("0", 4, (4,))),
        "holds an object of type Tensor instead of a dict of tensors",
    ),
    "list": (finished(b"]" + tensor("0", 4, (4,)) + b"a"), "type list instead of a dict of tensors"),
    "empty dict": (finished(torch_files.ORDERED_DICT), "its dict of tensors is empty"),
    "text as tensor": (one(text("hello")), "holds an object of type str as 'a' where a tensor is expected"),
    "storage as tensor": (one(storage("0", 4)), "an object of type Storage as 'a'"),
    "class as tensor": (one(b"ctorch\nFloatStorage\n"), "'torch.FloatStorage' as 'a'"),
    "number as name": (finished(b"}" + integer(1) + tensor("0", 4, (4,)) + b"s"), "type Tensor as 1"),
    "nested too deep": (
        finished((b"}" + text("model")) * 5 + state_dict({"a": tensor("0", 4, (4,))}) + b"s" * 5),
        "type dict as 'model'",
    ),
    "dict in itself": (finished(b"}q\x00" + text("model") + b"h\x00s"), "type dict as 'model'"),
    "two tensors of one name": (
        finished(b"}(" + (text("a") + tensor("0", 4, (4,))) * 2 + b"u"),
        "two values for the key 'a'",
    ),
    "other classes": (one(b"cargparse\nNamespace\n)\x81"), "names 'argparse.Namespace'"),
    "name split elsewhere": (one(b"ctorch._utils _rebuild\nx\n"), "names 'torch._utils._rebuild x'"),
    "number as class": (one(integer(1) + integer(2) + b"\x93"), "a name is no text"),
    "complex elements": (one(tensor("0", 4, (4,), kind="ComplexFloatStorage")), "ComplexFloatStorage"),
    "quantized elements": (one(tensor("0", 4, (4,), kind="QInt8Storage")), "QInt8Storage"),
    "call of a storage": (one(b"ctorch\nFloatStorage\n)R"), "calls 'torch.FloatStorage'"),
    "call of a text": (one(text("os.system") + b")R"), "calls an object of type str"),
    "arguments no tuple": (one(b"ccollections\nOrderedDict\n]R"), "calls 'collections.OrderedDict'"),
    "OrderedDict of pairs": (finished(b"ccollections\nOrderedDict\n]\x85R"), "gives OrderedDict arguments"),
    "other attributes": (
        one(tensor("0", 4, (4,)), b"}" + text("__class__") + integer(1) + b"sb"),
        "sets attributes other than _metadata",
    ),
    "more attributes": (
        one(tensor("0", 4, (4,)), b"}(" + text("_metadata") + b"}" + text("x") + b"}ub"),
        "sets attributes other than _metadata",
    ),
    "attributes of slots": (one(tensor("0", 4, (4,)), b"N}\x86b"), "sets attributes other than _metadata"),
    "attributes of a tensor": (
        one(tensor("0", 4, (4,)) + b"}" + text("_metadata") + b"}sb"),
        "damaged: it fills no dict",
    ),
    "too few arguments": (
        one(b"ctorch._utils\n_rebuild_tensor_v2\n" + storage("0", 4) + b"\x85R"),
        "unknown arg",
    ),
    "no storage": (
        one(tensor("0", 4, (4,)).replace(storage("0", 4), text("0"))),
        "a tensor with unknown arguments",
    ),
    "parameter of nothing": (
        one(b"ctorch._utils\n_rebuild_parameter\n)R"),
        "a parameter with unknown arguments",
    ),
    "storage of other kind": (one(b"(" + text("module") + text("0") + b"tQ"), "storage of unknown type"),
    "class as storage": (one(storage("0", 4).replace(b"ctorch\nFloatStorage\n", text("x"))), "unknown type"),
    "path as storage": (
        one(tensor("../../etc/passwd", 4, (4,))),
        "'../../etc/passwd', which has no valid name",
    ),
    "absolute storage": (one(tensor("/0", 4, (4,))), "'/0', which has no valid name"),
    "digit of another script": (one(tensor("\u0661", 4, (4,))), "which has no valid name"),
    "negative elements": (one(tensor("0", -4, (4,))), "no valid name or size"),
    "elements beyond 64 bits": (one(tensor("0", 1 << 70, (4,))), "no valid name or size"),
    "true elements": (one(storage("0", 4).replace(integer(4), b"\x88")), "no valid name or size"),
    "missing storage": (one(tensor("5", 4, (4,))), "data/5 is missing"),
    "short storage": (one(tensor("0", 5, (4,))), "data/0 has 16 bytes instead of 20"),
    "long storage": (one(tensor("0", 3, (3,))), "data/0 has 16 bytes instead of 12"),
    "wider elements": (one(tensor("0", 4, (4,), kind="DoubleStorage")), "16 bytes instead of 32"),
    "shape beyond storage": (one(tensor("0", 4, (5,))), "needs 5 elements, the storage has 4"),
    "huge shape": (one(tensor("0", 4, (1 << 62, 1 << 62))), "invalid shape|needs"),
    "huge sizes": (one(tensor("0", 4, (1 << 40,))), "needs 1,099,511,627,776 elements, the storage has 4"),
    "huge empty shape": (
        one(tensor("0", 4, (0, 1 << 62, 1 << 62), strides=(1, 1, 1))),
        "array is too big|dimension",
    ),
    "negative size": (one(tensor("0", 4, (-1,), strides=(1,))), "invalid shape, stride or offset"),
    "float size": (
        one(tensor("0", 4, (4,)).replace(integers((4,)), b"G" + b"\x40\x10" + bytes(6) + b"\x85")),
        "invalid shape",
    ),
    "too many dimensions": (one(tensor("0", 4, (1,) * 100)), "dimension"),
    "fewer strides": (one(tensor("0", 4, (2, 2), strides=(1,))), "invalid shape, stride or offset"),
    "negative stride": (
        one(tensor("0", 4, (4,), offset=3, strides=(-1,))),
        "invalid shape, stride or offset",
    ),
    "overlapping strides": (one(tensor("0", 4, (2, 2), strides=(1, 1))), "elements .* overlap"),
    "repeated element": (one(tensor("0", 4, (1 << 40,), strides=(0,))), "elements .* overlap"),
    "stride beyond storage": (one(tensor("0", 4, (2, 2), strides=(3, 1))), "needs 5 elements"),
    "offset beyond storage": (one(tensor("0", 4, (2,), offset=3)), "needs 5 elements"),
    "scalar beyond storage": (one(tensor("0", 4, (), offset=4)), "needs 5 elements"),
    "negative offset": (one(tensor("0", 4, (2,), offset=-1)), "invalid shape, stride or offset"),
    "huge offset": (one(tensor("0", 4, (2,), offset=1 << 2000)), "invalid shape, stride or offset"),
    "control characters": (one(b"cos\x1b[2J\nsystem\x07\n"), r"names 'os\\x1b\[2J.system\\x07'"),
    "lone surrogate": (finished(state_dict({"\ud800": text("x")})), r"\\ud800"),
    "endless name": (one(b"c" + b"a" * 100_000 + b"\nb\n"), "names 'a{80}'"),
    "tuple as key": (finished(b"}" + chain(60) + integer(1) + b"s"), "type tuple as the key of a dict"),
    "chain as tensor": (one(chain(60)), "type tuple as 'a'"),
    "chain as storage": (one(chain(60) + b"Q"), "storage of unknown type"),
    "nested tuples": (one(b")" + b"\x85" * 50_000), "type tuple as 'a'"),
    "nested lists": (finished(b"]" * 10_000 + b"a" * 9_999), "type list"),
    "nested marks": (finished(b"(" * 20_000), "the stack is empty"),
    "pop": (finished(b"]0" + torch_files.ORDERED_DICT), "opcode POP"),
    "duplicate": (finished(b"]2"), "opcode DUP"),
    "text of protocol 0": (finished(b"S'hello'\n"), "opcode STRING"),
    "number of protocol 0": (finished(b"I" + b"9" * 5000 + b"\n"), "Exceeds the limit|opcode INT"),
    "huge number": (finished(b"\x8b\xff\xff\xff\x7f"), "not enough data"),
    "huge bytes": (finished(b"\x8e" + struct.pack("<Q", 1 << 60)), "expected 1152921504606846976 bytes"),
    "huge text": (finished(b"\x8d" + struct.pack("<Q", 1 << 62)), "expected 4611686018427387904 bytes"),
    "huge buffer": (finished(b"\x96" + struct.pack("<Q", 1 << 60)), "expected 1152921504606846976 bytes"),
    "huge memo": (finished(b"]r\xff\xff\xff\xff" + b"0"), "opcode POP"),
    "full memo": (finished(b"]" + b"\x94" * 20_000), "type list instead of a dict"),
    "unset memo": (finished(b"h\x07"), "stores no object 7"),
    "no mark": (finished(b"t"), "a mark is missing"),
    "nothing": (finished(b""), "the stack is empty"),
    "no value": (finished(b"}(" + text("a") + b"u"), "a key without a value"),
    "items of no dict": (finished(b"](" + text("a") + integer(1) + b"u"), "it fills no dict"),
    "entries of no list": (finished(b"}(" + integer(1) + b"e"), "it fills no list"),
    "unknown opcode": (b"\x80\x02\xff.", "opcode b'\\\\xff' unknown"),
    "cut off": (one(tensor("0", 4, (4,)))[:-10], "no newline|exhausted"),
    "empty pickle": (b"", "pickle exhausted"),
    "no pickle": (b"<html>", "unknown|opcode"),
    "too long": (b"]" * (2 << 20), "data.pkl has 2,097,152 bytes, more than 1,048,576"),
}


@pytest.mark.parametrize("case", OTHER)
def test_other_pickles_are_an_error(case: str, path: Path) -> None:
    pickled, reason = OTHER[case]
    refused(simple(path, pickled), reason)


def test_flags_of_tensors_are_refused(path: Path) -> None:
    conjugate = b"}" + text("conj") + b"\x88s"
    record = tensor("0", 4, (4,))
    refused(simple(path, one(record.removesuffix(b"tR") + conjugate + b"tR")), "unknown arguments")
    np.testing.assert_array_equal(
        read_tensors(simple(path, one(record.removesuffix(b"tR") + b"NtR")))["a"], FOUR
    )


def test_a_storage_has_one_type(path: Path) -> None:
    records = {"a": tensor("0", 4, (4,)), "b": tensor("0", 4, (4,), kind="IntStorage")}
    refused(simple(path, finished(state_dict(records))), "storages has two types or sizes")


# Zip archives


def stretched(path: Path, *, field: int, value: int) -> Path:
    """A file with a number of 4 bytes in its end record replaced; `field` counts from its beginning."""
    raw = bytearray(simple(path).read_bytes())
    raw[len(raw) - 22 + field : len(raw) - 18 + field] = struct.pack("<I", value)
    path.write_bytes(raw)
    return path


def claiming(path: Path, size: int) -> Path:
    """A file whose directory claims `size` bytes for the storage."""
    raw = simple(path).read_bytes()
    true = struct.pack("<II", len(RAW), len(RAW))
    before, after = raw.rsplit(true, 1)
    path.write_bytes(before + struct.pack("<II", size, size) + after)
    return path


def overlapping(path: Path) -> Path:
    """A file of a hundred members with the same large content, stored once."""
    names = [f"weights/data/{i:02}" for i in range(100)]
    big = archive(path, finished(b"}"), {"00": bytes(1 << 16)}, more=dict.fromkeys(names[1:], b""))
    with zipfile.ZipFile(big) as opened:
        first = opened.getinfo(names[0])
        infos = opened.infolist()
        start = opened.start_dir
        for info in infos:
            if info.filename in names:
                info.header_offset, info.file_size, info.compress_size = first.header_offset, 1 << 16, 1 << 16
    content = path.read_bytes()[:start]
    with zipfile.ZipFile(path, "w") as rewritten:
        rewritten.fp.write(content)  # type: ignore[union-attr]
        rewritten.filelist, rewritten.start_dir = infos, start
        rewritten._didModify = True  # type: ignore[attr-defined]
    return path


def with_member(name: str, raw: bytes = b"x") -> Callable[[Path], Path]:
    return lambda path: simple(path, more={name: raw})


def renamed(old: bytes, new: bytes) -> Callable[[Path], Path]:
    """A file with all occurrences of a text replaced by one of the same length."""
    return lambda path: replaced(simple(path), old, new)


def replaced(path: Path, old: bytes, new: bytes) -> Path:
    raw = path.read_bytes()
    assert len(old) == len(new)
    assert old in raw
    path.write_bytes(raw.replace(old, new))
    return path


def repeated(path: Path) -> Path:
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(simple(path), "a") as file:
        file.writestr("weights/data/0", bytes(16))
    return path


def misnamed(path: Path) -> Path:
    """A file whose directory gives a storage another name than the member itself."""
    raw = simple(path, one(tensor("1", 4, (4,)))).read_bytes()
    before, after = raw.rsplit(b"weights/data/0", 1)
    path.write_bytes(before + b"weights/data/1" + after)
    return path


def holding(raw: bytes) -> Callable[[Path], Path]:
    def write_raw(path: Path) -> Path:
        path.write_bytes(raw)
        return path

    return write_raw


def encrypted(path: Path) -> Path:
    raw = bytearray(simple(path).read_bytes())
    for start, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = raw.find(start)
        while at >= 0:
            raw[at + flags] |= 1
            at = raw.find(start, at + 1)
    path.write_bytes(raw)
    return path


DAMAGED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (holding(b""), "it is empty"),
    "web page": (holding(b"\n<!DOCTYPE html><html>Sign in</html>"), "it is a web page"),
    "text": (holding(b"version https://git-lfs"), "it is no zip archive"),
    "HDF5": (holding(b"\x89HDF\r\n\x1a\n" + bytes(100)), "it is no zip archive"),
    "bare pickle": (holding(one(tensor("0", 4, (4,)))), "it is no zip archive"),
    "legacy": (
        holding(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."),
        r"PyTorch before 1.6. Convert it with a newer PyTorch: torch.save\(torch.load",
    ),
    "start alone": (holding(b"PK\x03\x04" + bytes(100)), "not a zip file"),
    "zip behind a script": (
        lambda path: holding(b"#!/bin/sh\n" + simple(path).read_bytes())(path),
        "it is no zip archive",
    ),
    "compressed": (lambda path: simple(path, compression=zipfile.ZIP_DEFLATED), "is compressed"),
    "bomb": (
        lambda path: archive(
            path,
            one(tensor("0", 1 << 24, (1 << 24,))),
            {"0": bytes(1 << 26)},
            compression=zipfile.ZIP_DEFLATED,
        ),
        "is compressed",
    ),
    "bzip2": (lambda path: simple(path, compression=zipfile.ZIP_BZIP2), "is compressed"),
    "encrypted": (encrypted, "encrypted"),
    "storage of claimed size": (
        lambda path: claiming(path, 1 << 31),
        "claim 2,147,483,831 bytes, the file has",
    ),
    "storage of other size": (lambda path: claiming(path, 20), "Bad CRC|20 bytes instead of 16"),
    "overlapping members": (overlapping, "claim 6,553,.* bytes, the file has"),
    "huge directory": (
        lambda path: stretched(path, field=12, value=1 << 31),
        "not a zip file|Bad offset|claims",
    ),
    "directory elsewhere": (
        lambda path: stretched(path, field=16, value=1 << 31),
        "Bad offset|not a zip|Invalid argument|negative",
    ),
    "wrong storage": (renamed(RAW, bytes(16)), "Bad CRC-32"),
    "no data.pkl": (renamed(b"data.pkl", b"data.txt"), "not one folder with a file data.pkl"),
    "script": (with_member("weights/../data.pkl"), r"unsafe path 'weights/\.\./data.pkl'"),
    "parent": (with_member("../../tmp/evil"), r"unsafe path '\.\./\.\./tmp/evil'"),
    "absolute": (with_member("/etc/passwd"), "unsafe path '/etc/passwd'"),
    "backslash": (renamed(b"weights/version", b"weights\\version"), r"unsafe path 'weights\\\\version'"),
    "drive": (with_member("C:/windows"), "not one folder"),
    "null byte": (renamed(b"weights/version", b"weights/data\0on"), r"unsafe path 'weights/data\\x00on'"),
    "empty part": (with_member("weights//data/1"), "unsafe path"),
    "two folders": (with_member("other/data.pkl"), "not one folder"),
    "file outside": (with_member("evil"), "not one folder"),
    "repeated member": (repeated, "two members of the same name"),
    "other names in the directory": (misnamed, "differ"),
    "unknown byte order": (lambda path: simple(path, byteorder=b"middle"), "byte order is b'middle'"),
    "long byte order": (lambda path: simple(path, byteorder=b"little" * 99), "byteorder has 594 bytes"),
    "directory": (lambda path: path.parent, "directory|denied"),
    "missing": (lambda path: path, "No such file|cannot find"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_and_unsafe_archives_are_an_error(case: str, path: Path) -> None:
    make, reason = DAMAGED[case]
    refused(make(path), reason)
    assert {file.name for file in path.parent.iterdir()} <= {path.name}


def test_a_file_truncated_anywhere_is_an_error(path: Path) -> None:
    raw = zlib.decompress(WRITTEN_BY_TORCH)
    for length in (*range(0, len(raw), 53), *range(len(raw) - 30, len(raw))):
        path.write_bytes(raw[:length])
        with pytest.raises(WeightsError):
            read_tensors(path)


def test_a_changed_byte_is_an_error_or_harmless(path: Path) -> None:
    raw = simple(path).read_bytes()
    errors = 0
    for at in range(len(raw)):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x41]) + raw[at + 1 :])
        try:
            np.testing.assert_array_equal(read_tensors(path)["a"], FOUR)
        except WeightsError:
            errors += 1
    assert errors > len(raw) / 2


PICKLED = one(tensor("0", 4, (4,)), b"}" + text("_metadata") + torch_files.ORDERED_DICT + b"sb")


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")  # of pickletools
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_change_of_a_pickle_is_an_error_or_tensors(data: st.DataObject) -> None:
    pickled = bytearray(PICKLED)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(pickled) - 1))
        pickled[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        state = read_state(bytes(pickled))
    except ValueError:
        return
    assert all(
        record.offset + int(np.prod(record.shape)) <= record.storage.count for record in state.values()
    )


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")  # of pickletools
@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_an_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_state(raw + b".")
