"""Read the weights files of PyTorch (`.pth`, the zip archive of `torch.save`) without PyTorch.

No code of the file runs: its pickle is interpreted as data, see `torch_pickle`. Nothing is extracted to disk,
and memory is bounded by the size of the file: members must be stored uncompressed, and twice that size is
needed only for elements of 16 bits, which are converted.
"""

import contextlib
import io
import struct
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from live_seg.errors import WeightsError
from live_seg.maskrcnn.torch_pickle import Storage, Tensor, read_state

LARGEST_PICKLE = 1 << 20
"""Bytes: that of a Mask R-CNN has 0.06 million, with the state of an optimizer three times that."""

LARGEST_DIRECTORY = 4 << 20
"""Bytes of the zip directory: 100 for each tensor."""

DTYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",  # NumPy has no bfloat16: the bits
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""NumPy's type of the elements of each storage class."""

ZIP_START = b"PK\x03\x04"
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The magic number of `torch.save` before PyTorch 1.6, pickled."""


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of the state dict in the file `path` by name, in the order of the file.

    The state dict is the whole content of the file or nested below "model" or "state_dict". Arrays are
    read-only, and views of one array where tensors share a storage. Elements of type float16 and bfloat16 are
    converted to float32, others keep their type. Raises WeightsError when the file is damaged or holds
    anything but tensors.
    """
    with _archive(path) as archive:
        tensors = archive.state()
        storages = {tensor.storage for tensor in tensors.values()}
        if len({storage.key for storage in storages}) < len(storages):
            raise ValueError("one of its storages has two types or sizes")
        arrays = {storage: archive.elements(storage) for storage in storages}
        return {name: _view(arrays[tensor.storage], tensor) for name, tensor in tensors.items()}


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that `read_tensors` returns, without reading their elements."""
    with _archive(path) as archive:
        return {name: tensor.shape for name, tensor in archive.state().items()}


@contextlib.contextmanager
def _archive(path: Path) -> "Iterator[_Archive]":
    """Open the file `path`. Errors of file, zip archive, pickle and tensors become WeightsError."""
    try:
        with _File(path) as file:
            _check_start(file.read(len(LEGACY_START)))
            with zipfile.ZipFile(file) as opened:
                file.limit = None
                yield _Archive(opened, path.stat().st_size)
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, struct.error) as error:
        reason = textwrap.shorten(str(error) or "it ends too early", 300)
        raise WeightsError(
            f"{path} cannot be read as PyTorch weights: {reason}. Expected the complete file that "
            "torch.save(model.state_dict(), PATH) writes."
        ) from error


def _check_start(start: bytes) -> None:
    """Check the first bytes of a file. Raises ValueError unless a zip archive begins with them."""
    if start.startswith(ZIP_START):
        return
    if start == LEGACY_START:
        raise ValueError(
            "it has the format of PyTorch before 1.6. Convert it with a newer PyTorch: "
            "torch.save(torch.load(PATH, weights_only=True), NEW_PATH)"
        )
    if start.lstrip().startswith(b"<"):
        raise ValueError("it is a web page. Download the weights again, past any login or consent page")
    raise ValueError("it is no zip archive" if start else "it is empty")


class _File(io.FileIO):
    """A file to read with a limit to the bytes read at once, while zipfile reads the zip directory."""

    limit: int | None = LARGEST_DIRECTORY

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes. Raises ValueError above the limit."""
        if self.limit is not None and size is not None and size > self.limit:
            raise ValueError(f"its zip directory claims {size:,} bytes, more than {self.limit:,}")
        return super().read(size)


class _Archive:
    """The members of a zip archive of `torch.save`: ROOT/data.pkl, ROOT/byteorder, ROOT/data/0, ..."""

    def __init__(self, opened: zipfile.ZipFile, size: int) -> None:
        """Check the members of `opened`, whose file has `size` bytes. Raises ValueError."""
        self._opened = opened
        self._members = _checked_members(opened.infolist(), size)
        roots = [name.partition("/")[0] for name in self._members if name.partition("/")[2] == "data.pkl"]
        if len(roots) != 1 or any(not name.startswith(f"{roots[0]}/") for name in self._members):
            raise ValueError("its zip archive is not one folder with a file data.pkl")
        self._root = roots[0]

    def state(self) -> dict[str, Tensor]:
        """Return the tensors by name. Raises ValueError when the pickle holds anything else."""
        return read_state(self._read("data.pkl", most=LARGEST_PICKLE))

    def elements(self, storage: Storage) -> NDArray[Any]:
        """Return the elements (N,) of `storage`, of a type that NumPy has. Raises ValueError."""
        dtype = np.dtype(DTYPES[storage.kind]).newbyteorder(self._byte_order())
        name = f"data/{storage.key}"
        found = self._member(name).file_size
        if found != storage.count * dtype.itemsize:
            raise ValueError(f"{name} has {found:,} bytes instead of {storage.count * dtype.itemsize:,}")
        array = np.frombuffer(self._read(name), dtype)
        if storage.kind == "BFloat16Storage":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        elif storage.kind == "HalfStorage":
            array = array.astype(np.float32)
        else:
            array = array.astype(dtype.newbyteorder("="), copy=False)
        array.flags.writeable = False
        return array

    def _byte_order(self) -> Literal["<", ">"]:
        if f"{self._root}/byteorder" not in self._members:
            return "<"  # PyTorch before 2.1
        match self._read("byteorder", most=16):
            case b"little":
                return "<"
            case b"big":
                return ">"
            case other:
                raise ValueError(f"its byte order is {other!r} instead of little or big")

    def _member(self, name: str) -> zipfile.ZipInfo:
        if f"{self._root}/{name}" not in self._members:
            raise ValueError(f"{name} is missing in its zip archive")
        return self._members[f"{self._root}/{name}"]

    def _read(self, name: str, most: int | None = None) -> bytes:
        member = self._member(name)
        if most is not None and member.file_size > most:
            raise ValueError(f"{name} has {member.file_size:,} bytes, more than {most:,}")
        return self._opened.read(member)


def _checked_members(members: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the `members` of a zip archive of `size` bytes by name. Raises ValueError for an unsafe one."""
    for member in members:
        name = repr(member.orig_filename[:80])
        parts = member.filename.removesuffix("/").split("/")
        if member.orig_filename != member.filename or "\\" in member.filename or {"", ".", ".."} & set(parts):
            raise ValueError(f"its zip archive has a member with the unsafe path {name}")
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise ValueError(f"its member {name} is compressed, which torch.save never does")
    by_name = {member.filename: member for member in members}
    if len(by_name) < len(members):
        raise ValueError("its zip archive has two members of the same name")
    total = sum(member.file_size for member in members)
    if total > size:
        raise ValueError(f"its members claim {total:,} bytes, the file has {size:,}")
    return by_name


def _view(elements: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """Return the part of `elements` that `tensor` describes. Raises ValueError when it has no such part."""
    if 0 in tensor.shape:
        return np.empty(tensor.shape, elements.dtype)
    size = elements.itemsize
    strides = [stride * size for stride in tensor.strides]
    return np.ndarray(tensor.shape, elements.dtype, elements, tensor.offset * size, strides)
