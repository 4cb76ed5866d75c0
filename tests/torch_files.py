"""Files as `torch.save` writes them, made without PyTorch: valid ones, and parts to make invalid ones."""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = {
    "<f4": "FloatStorage",
    "<f8": "DoubleStorage",
    "<f2": "HalfStorage",
    "<i8": "LongStorage",
    "<i4": "IntStorage",
    "|b1": "BoolStorage",
}

ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def write(path: Path, tensors: Mapping[str, NDArray[Any]], *, inside: str | None = None) -> Path:
    """Write the state dict `tensors`, as the value of the key `inside` of a dict if given. -> `path`"""
    arrays = [np.ascontiguousarray(array).reshape(np.shape(array)) for array in tensors.values()]
    records = {
        name: tensor(str(i), array.size, array.shape, kind=KINDS[array.dtype.str])
        for i, (name, array) in enumerate(zip(tensors, arrays, strict=True))
    }
    state = state_dict(records)
    if inside is not None:
        state = b"}(" + text(inside) + state + text("epoch") + integer(3) + b"u"
    return archive(path, finished(state), {str(i): array.tobytes() for i, array in enumerate(arrays)})


def archive(
    path: Path,
    pickled: bytes,
    storages: Mapping[str, bytes],
    *,
    byteorder: bytes | None = b"little",
    more: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Write a zip archive with the members of `torch.save`; `more` are further members by path. -> `path`"""
    members = {"weights/data.pkl": pickled}
    if byteorder is not None:
        members["weights/byteorder"] = byteorder
    members |= {f"weights/data/{key}": raw for key, raw in storages.items()}
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, raw in (members | {"weights/version": b"3\n"} | dict(more or {})).items():
            file.writestr(zipfile.ZipInfo(name), raw, compression)
    return path


def finished(value: bytes) -> bytes:
    """Return a complete pickle of protocol 2 from the opcodes of its content."""
    return b"\x80\x02" + value + b"."


def state_dict(records: Mapping[str, bytes], metadata: bytes = b"") -> bytes:
    """Return the opcodes of an OrderedDict; `metadata` are those that follow its items."""
    items = b"".join(text(name) + record for name, record in records.items())
    return ORDERED_DICT + b"(" + items + b"u" + metadata


def tensor(
    key: str,
    count: int,
    shape: tuple[int, ...],
    *,
    offset: int = 0,
    strides: tuple[int, ...] | None = None,
    kind: str = "FloatStorage",
) -> bytes:
    """Return the opcodes of a tensor in the storage `key` of `count` elements, contiguous by default."""
    if strides is None:
        strides = tuple(int(np.prod(shape[i + 1 :], dtype=object)) for i in range(len(shape)))
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage(key, count, kind=kind)
        + integer(offset)
        + integers(shape)
        + integers(strides)
        + b"\x89"
        + ORDERED_DICT
        + b"tR"
    )


def storage(key: str, count: int, *, kind: str = "FloatStorage") -> bytes:
    """Return the opcodes of a reference to a storage."""
    name = f"ctorch\n{kind}\n".encode()
    return b"(" + text("storage") + name + text(key) + text("cpu") + integer(count) + b"tQ"


def text(value: str) -> bytes:
    """Return the opcodes of a text."""
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    """Return the opcodes of an integer below 256 bytes."""
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def integers(values: tuple[int, ...]) -> bytes:
    """Return the opcodes of a tuple of integers."""
    return b"(" + b"".join(map(integer, values)) + b"t"
