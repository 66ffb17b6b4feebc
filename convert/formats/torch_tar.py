"""The tar files of torch 0.1: members `sys_info`, `pickle`, `tensors` and `storages`, read without unpacking them.

`storages` is a count, as many times (key, location, type) and the elements, and the list of storages that are parts of
others. `tensors` is a count and as many times (key, storage's key, type) and sizes, strides and offset as integers.
`pickle` is the object, which refers to both by key. All counts and tuples are pickles of their own.
Source: torch/serialization.py, `legacy_load`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any

from convert.formats.base import ITEMSIZE, MAX_TENSORS, File, shown
from convert.formats.inert import Handlers, Pairs, Symbol
from convert.formats.pickle_values import MALFORMED, MAX_DIMENSIONS, Array, unexpected
from convert.formats.pickles import Unpickler
from convert.formats.sources import Cursor, Refused, Stored
from convert.formats.tar import FILES, Entry, entries
from convert.formats.torch_values import HANDLERS, STORAGE_DTYPES, UNSUPPORTED, Storage, View, view

MEMBERS = ("sys_info", "pickle", "tensors", "storages")
PROTOCOL = 1000
BUDGET = 1_500_000  # opcodes in all pickles, a second at most; torch needs some 150 a tensor, with those below
PER_OPCODE = 8  # copied values that take as long as an opcode
PER_PICKLE = 40  # opcodes that take as long as what each of the many small pickles takes beside its own

TENSOR_DTYPES = {name.removesuffix("Storage") + "Tensor": dtype for name, dtype in STORAGE_DTYPES.items()}

Objects = dict[int, Storage | View]
Payloads = dict[str, Stored]


class Variable:
    """What torch 0.1 wrapped tensors in, parameters among them; what it knew beside the tensor is of no use here."""

    __slots__ = ("data",)

    def __init__(self, data: View | None):
        self.data = data

    def build(self, state: Any) -> None:
        match state:
            case (bool(), bool(), _):  # requires_grad, volatile, hooks
                return
            case (View() as data, _, _, bool(), bool()):  # before that: data, gradient, hooks, requires_grad, volatile
                self.data = data
            case _:
                raise unexpected("the state of a variable")


def _variable(args: tuple[Any, ...]) -> Variable:
    match args:
        case ():
            return Variable(None)
        case (View() as data, *_):
            return Variable(data)
    raise unexpected("torch's parameter constructor")


TAR_HANDLERS: Handlers = {
    **HANDLERS,
    **dict.fromkeys(TENSOR_DTYPES, None),
    **dict.fromkeys(["torch.nn.parameter.Parameter", "torch.autograd.variable.Variable"], _variable),
}


def is_torch_tar(file: File) -> bool:
    """Whether the first member of a tar is one of torch's. Raises: Refused, FormatError where that is damaged."""
    first = next(entries(file), None)
    return first is not None and first.name in MEMBERS


def read_tar(file: File) -> tuple[Any, Payloads]:
    """The object, whose tensors are views of storages, and each storage's bytes.

    Raises: Refused, FormatError.
    """
    members = _members(file)
    budget = iter(range(BUDGET))  # for all pickles together
    system, pickle, tensors, storages = (_Member(file, members[name], budget) for name in MEMBERS)
    _check_system(system)
    objects, payloads = _storages(storages)
    _tensors(tensors, objects, payloads)

    def persistent(identity: Any) -> Storage | View:
        key = int(identity) if isinstance(identity, str) and re.fullmatch("[0-9]{1,20}", identity) else None
        if key not in objects:
            raise Refused("refers to a tensor that it does not hold", "it is incomplete: fetch it again")
        return objects[key]

    return pickle.load(persistent, last=True), payloads


def leaf(value: Any) -> View | Array | None:
    """The tensor or array that a value is, if it is one. Raises: Refused."""
    if isinstance(value, Variable):
        if value.data is None:
            raise unexpected("a variable without data")
        return value.data
    return value if isinstance(value, (View, Array)) else None


def _members(file: File) -> dict[str, Entry]:
    """Torch's members by name, all of them and no others. Raises: Refused, FormatError."""
    members: dict[str, Entry] = {}
    for entry in entries(file):
        if entry.name not in MEMBERS:
            problem = f"is a tar archive with a member {shown(entry.name)}, which torch 0.1 does not write"
            raise Refused(problem, "unpack it first, then convert what was inside")
        if entry.kind not in FILES:
            raise Refused(f"has a member {entry.name!r} that is no plain file (kind {entry.kind!r})", MALFORMED)
        if entry.name in members:
            raise Refused(f"has two members {entry.name!r}", "save it again: one of the two would be lost")
        members[entry.name] = entry
    if missing := [name for name in MEMBERS if name not in members]:
        raise Refused(f"lacks its member {missing[0]!r}", "it is incomplete: fetch it again")
    return members


class _Member(Cursor):
    """A member's bytes in order: pickles, and integers between them."""

    def __init__(self, file: File, entry: Entry, budget: Iterator[int]):
        super().__init__(file, entry.offset, entry.offset + entry.size)
        self.name, self.budget = entry.name, budget

    def byte(self) -> int:
        """The next byte, which the unpickler asks for once an opcode."""
        if next(self.budget, None) is None:
            raise Refused("holds too many values", "save only the model's tensors")
        return super().byte()

    def load(self, persistent: Any = None, last: bool = False) -> Any:
        """The next pickle; the last one ends where the member does."""
        unpickler = Unpickler(self, TAR_HANDLERS, UNSUPPORTED, persistent)
        value = unpickler.load()
        cost = PER_PICKLE + unpickler.copies // PER_OPCODE
        next(islice(self.budget, cost, cost), None)  # takes that many away
        if last:
            self.finish()
        return value

    def finish(self) -> None:
        if self.position != self.end:
            problem = f"has {self.end - self.position:,} bytes after the last value in its member {self.name!r}"
            raise Refused(problem, "fetch it again")

    def count(self) -> range:
        count = self.load()
        if type(count) is not int or not 0 <= count <= MAX_TENSORS:
            raise Refused(f"holds no number of {self.name} up to {MAX_TENSORS:,} where one belongs", MALFORMED)
        return range(count)

    def longs(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}q", self.take(8 * count))


def _check_system(member: _Member) -> None:
    system = member.load(last=True)
    if not isinstance(system, Pairs) or ("protocol_version", PROTOCOL) not in system:
        raise Refused("is a torch tar of an unknown version", "save it again with torch.save")
    if ("little_endian", True) not in system:
        raise Refused("holds numbers in big-endian order", "load it with torch and save it again with torch.save")


def _storages(member: _Member) -> tuple[Objects, Payloads]:
    objects: Objects = {}
    payloads: Payloads = {}
    for _ in member.count():
        match member.load():
            case (int() as key, _, Symbol(name=kind)) if key not in objects and kind in STORAGE_DTYPES:
                dtype = STORAGE_DTYPES[kind]
            case _:
                raise Refused("describes a storage in an unknown way, or one twice", MALFORMED)
        (size,) = member.longs(1)
        if size < 0:
            raise Refused(f"has a storage of {size:,} elements", MALFORMED)
        payloads[str(key)] = Stored(member.skip(size * ITEMSIZE[dtype]), size * ITEMSIZE[dtype])
        objects[key] = Storage(str(key), dtype, 0, size, size)
    _parts(member.load(last=True), objects)
    return objects, payloads


def _parts(parts: Any, objects: Objects) -> None:
    """Adds the storages that are parts of others. Raises: Refused."""
    for part in parts if isinstance(parts, list) else [parts]:
        match part:
            case (int() as key, int() as root, int() as offset, int() as size) if key not in objects:
                whole = objects.get(root)
            case _:
                raise Refused("describes a part of a storage in an unknown way, or one twice", MALFORMED)
        if not isinstance(whole, Storage) or offset < 0 or not 0 <= size <= whole.size - offset:
            raise Refused("holds a storage that reaches outside another", MALFORMED)
        objects[key] = Storage(whole.key, whole.dtype, whole.offset + offset, size, whole.whole)


def _tensors(member: _Member, objects: Objects, payloads: Payloads) -> None:
    """Adds the tensors to the storages. Raises: Refused."""
    for _ in member.count():
        match member.load():
            case (int() as key, int() | None as root, Symbol(name=kind)) if (
                key not in objects and kind in TENSOR_DTYPES
            ):
                dtype = TENSOR_DTYPES[kind]
            case _:
                raise Refused("describes a tensor in an unknown way, or one twice", MALFORMED)
        storage = Storage("", dtype, 0, 0, 0) if root is None else objects.get(root)
        if not isinstance(storage, Storage) or storage.dtype != dtype:
            raise Refused("holds a tensor without a storage of its type", "it is incomplete: fetch it again")
        objects[key] = _tensor(member, storage)
    payloads[""] = Stored(0, 0)
    member.finish()


def _tensor(member: _Member, storage: Storage) -> View:
    """One tensor within its storage. Raises: Refused.

    Without axes it was empty to torch 0.1 and is a number to its successors: that, where its storage has one.
    """
    (axes,) = struct.unpack("<i4x", member.take(8))  # torch 0.1 wrote 8 bytes of a struct, of which 4 are the number
    if not 0 <= axes <= MAX_DIMENSIONS:
        raise Refused(f"holds a tensor of {axes:,} dimensions", MALFORMED)
    shape, strides, (offset,) = member.longs(axes), member.longs(axes), member.longs(1)
    if not axes and not storage.size:
        return view(storage, 0, (0,), (1,))
    return view(storage, offset, shape, strides)
