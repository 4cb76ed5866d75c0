"""Read the pickle of a PyTorch state dict as data, without importing or calling anything it names.

`read_state` interprets the few opcodes that `torch.save` writes for a dict of tensors. The names in such a
pickle stand for the records `Tensor` and `Storage`; every other opcode and name is refused. Memory and time
are proportional to the length of the pickle.
"""

import pickletools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

STORAGES = tuple(
    f"{kind}Storage"
    for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
)
"""Storage classes of module `torch`, by element type."""

LARGEST = 1 << 63
"""Upper bound of counts, offsets, sizes and strides."""

NESTED_IN = ("model", "state_dict")
"""Keys of training checkpoints that hold the state dict."""

DEEPEST = 3
"""Dicts that may enclose a state dict."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A file of raw elements in the archive."""

    kind: str
    """One of STORAGES."""
    key: str
    """Decimal digits: the name of the file in the archive's folder `data`."""
    count: int
    """Elements."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as a view of a storage. Offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Name:
    """A class or function that the pickle names: a record, never the object itself."""

    name: str


def read_state(pickled: bytes) -> dict[str, Tensor]:
    """Return the tensors by name of the state dict that `pickled` holds.

    The state dict is the whole content or nested below "model" or "state_dict". Raises ValueError for any
    other content, for a damaged pickle, and for tensors that exceed or repeat parts of their storage.
    """
    state = _Machine().run(pickled)
    for _ in range(DEEPEST):
        if isinstance(state, dict):
            state = next((state[key] for key in NESTED_IN if isinstance(state.get(key), dict)), state)
    if not isinstance(state, dict):
        raise ValueError(f"it holds {_kind(state)} instead of a dict of tensors")
    if not state:
        raise ValueError("its dict of tensors is empty")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"its dict holds {_kind(value)} as {_short(name)} where a tensor is expected")
    return state


class _Machine:
    """Stack machine for the opcodes of pickled state dicts. Raises ValueError for any other opcode."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, pickled: bytes) -> Any:
        """Interpret `pickled` up to its opcode STOP, and return the object left on the stack."""
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name in _CONSTANTS:
                self._stack.append(_CONSTANTS[opcode.name])
            elif opcode.name in _LITERALS:
                self._stack.append(argument)
            elif opcode.name in _ACTIONS:
                _ACTIONS[opcode.name](self, argument)
            elif opcode.name not in _IGNORED:
                raise ValueError(f"its pickle uses the opcode {opcode.name}, which no state dict needs")
        return self.pop()

    def push(self, value: object) -> None:
        """Put `value` on the stack."""
        self._stack.append(value)

    def pop(self) -> Any:
        """Take the top of the stack."""
        if not self._stack:
            raise ValueError("its pickle is damaged: the stack is empty")
        return self._stack.pop()

    def last(self, count: int) -> tuple[Any, ...]:
        """Take the top `count` objects of the stack, lowest first."""
        return tuple(reversed([self.pop() for _ in range(count)]))

    def mark(self, _: object) -> None:
        """Begin a group of objects."""
        self._outer.append(self._stack)
        self._stack = []

    def since_mark(self) -> list[Any]:
        """Take all objects above the last mark, and the mark."""
        if not self._outer:
            raise ValueError("its pickle is damaged: a mark is missing")
        items, self._stack = self._stack, self._outer.pop()
        return items

    def extend(self, items: Iterable[Any]) -> None:
        """Append `items` to the list on top of the stack."""
        self._top(list).extend(items)

    def fill(self, items: Sequence[Any]) -> None:
        """Set `items`, keys and values in turn, in the dict on top of the stack."""
        target = self._top(dict)
        if len(items) % 2:
            raise ValueError("its pickle is damaged: a dict has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise ValueError(f"its pickle has {_kind(key)} as the key of a dict")
            if key in target:
                raise ValueError(f"its pickle has two values for the key {_short(key)}")
            target[key] = value

    def memoize(self, index: int | None) -> None:
        """Store the top of the stack as object `index`, by default the next one."""
        self.push(value := self.pop())
        self._memo[len(self._memo) if index is None else index] = value

    def recall(self, index: int) -> None:
        """Put the stored object `index` on the stack."""
        if index not in self._memo:
            raise ValueError(f"its pickle is damaged: it stores no object {index}")
        self.push(self._memo[index])

    def build(self, _: object) -> None:
        """Drop the attribute `_metadata` (versions of modules) of a state dict; refuse any other."""
        attributes = self.pop()
        self._top(dict)
        if not isinstance(attributes, dict) or attributes.keys() != {"_metadata"}:
            raise ValueError("its pickle sets attributes other than _metadata")

    def _top(self, kind: type) -> Any:
        if not self._stack or type(self._stack[-1]) is not kind:
            raise ValueError(f"its pickle is damaged: it fills no {kind.__name__}")
        return self._stack[-1]


def _called(callee: object, arguments: object) -> object:
    """Return the record for a call of one of _BUILDERS."""
    if not isinstance(callee, _Name) or callee.name not in _BUILDERS or not isinstance(arguments, tuple):
        raise ValueError(f"its pickle calls {_kind(callee)}, which no state dict needs")
    return _BUILDERS[callee.name](arguments)


def _known(module: object, name: object) -> _Name:
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("its pickle is damaged: a name is no text")
    full = f"{module}.{name}"
    if full not in _BUILDERS and full not in _STORAGE_NAMES:
        raise ValueError(f"its pickle names {_short(full)}, which no state dict needs")
    return _Name(full)


def _storage(identity: object) -> Storage:
    """Check a persistent id: ("storage", class, key, device, elements)."""
    match identity:
        case ("storage", _Name(name=name), str(key), str(), int(count)) if name in _STORAGE_NAMES:
            if not (key.isascii() and key.isdigit()) or not _is_count(count):
                raise ValueError(
                    f"its pickle refers to the storage {_short(key)}, which has no valid name or size"
                )
            return Storage(_STORAGE_NAMES[name], key, count)
    raise ValueError("its pickle refers to a storage of unknown type")


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise ValueError("its pickle gives OrderedDict arguments")
    return {}


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    """Check the arguments of `_rebuild_tensor_v2`; the optional seventh holds flags such as conjugation."""
    match arguments[:6]:
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), bool(), {}) if (
            not any(arguments[6:]) and len(arguments) <= 7
        ):
            return _checked(Tensor(storage, offset, shape, strides))
    raise ValueError("its pickle has a tensor with unknown arguments")


def _parameter(arguments: tuple[Any, ...]) -> Tensor:
    """Check the arguments of `_rebuild_parameter`: the tensor, requires_grad, and hooks."""
    match arguments:
        case (Tensor() as tensor, bool(), {}):
            return tensor
    raise ValueError("its pickle has a parameter with unknown arguments")


def _checked(tensor: Tensor) -> Tensor:
    """Check that the elements of `tensor` are distinct elements of its storage."""
    numbers = (tensor.offset, *tensor.shape, *tensor.strides)
    if not all(map(_is_count, numbers)) or len(tensor.shape) != len(tensor.strides):
        raise ValueError(f"a tensor in storage {tensor.storage.key} has an invalid shape, stride or offset")
    spans = sorted((s, n) for s, n in zip(tensor.strides, tensor.shape, strict=True) if n != 1)
    if 0 in tensor.shape:
        return tensor
    last = 0  # offset of the last element
    for stride, length in spans:
        if stride <= last:
            raise ValueError(f"elements of a tensor in storage {tensor.storage.key} overlap")
        last += stride * (length - 1)
    if tensor.offset + last >= tensor.storage.count:
        raise ValueError(
            f"a tensor in storage {tensor.storage.key} needs {tensor.offset + last + 1:,} elements, "
            f"the storage has {tensor.storage.count:,}"
        )
    return tensor


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < LARGEST


def _kind(value: object) -> str:
    return _short(value.name) if isinstance(value, _Name) else f"an object of type {type(value).__name__}"


def _short(text: object) -> str:
    """Return the beginning of `text` with escapes for control characters."""
    return repr(text[:80] if isinstance(text, str) else text)


_STORAGE_NAMES = {f"torch.{kind}": kind for kind in STORAGES}

_BUILDERS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}

_IGNORED = {"PROTO", "FRAME", "STOP"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_LITERALS |= {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.push(machine.last(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.last(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.last(3)),
    "APPEND": lambda machine, _: machine.extend(machine.last(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.fill(machine.last(2)),
    "SETITEMS": lambda machine, _: machine.fill(machine.since_mark()),
    "BINPUT": _Machine.memoize,
    "LONG_BINPUT": _Machine.memoize,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "GLOBAL": lambda machine, name: machine.push(_known(*name.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.push(_known(*machine.last(2))),
    "BINPERSID": lambda machine, _: machine.push(_storage(machine.pop())),
    "REDUCE": lambda machine, _: machine.push(_called(*machine.last(2))),
    "BUILD": _Machine.build,
}
