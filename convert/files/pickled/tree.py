"""Flatten a nested pickle into named tensors and their bytes: what the torch and the paddle reader share."""

from __future__ import annotations

import itertools
import math
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

from convert.errors import FormatError
from convert.files.base import ITEMSIZE, MAX_DEPTH, MAX_NAME, MAX_TENSORS, File, Reader, Tensor, shown
from convert.files.modules import ATTRIBUTES, MAX_MODULES, Module, is_read
from convert.files.skipped import MAX_SKIPPED, NAMELESS, SETTINGS, Skipped
from convert.files.strided import gather, is_contiguous
from specs.words import with_article

from .interpreter import MAX_OPCODES
from .numpy_values import Array
from .sources import Inline, Joined, Latin1, Refused, Source, Stored
from .values import BYTES, MALFORMED, NUMBER, Ignored, Object, Pairs, Symbol, refusal

MAX_SHARING = 64  # times that a file's bytes may be used by its tensors: tied weights share, bombs share more
NESTED = (list, tuple)  # Pairs is a list
NONE = type(None)
PLAIN = (int, float, str, bytes, NONE)  # values that are no tensors and contain none
TOO_MANY, SAVE_LESS = "holds too many values, or the same ones too often", "save only the model's state_dict"
UNPACKED = "save plain, dense tensors: state_dict() of the model before quantization"
NO_TENSORS = "holds no tensors"
OF_MODULES = {"_parameters", "_modules"}  # attributes of every torch module, also of a class of the user's
OF_STATE = OF_MODULES | {"_buffers"}  # those that have what its state_dict does
TRANSIENT = "_non_persistent_buffers_set"  # the names of a module's buffers that its state_dict lacks
NO_STATE = "tensors of pickled modules that are in no state_dict"
# A module with weights that torch packs when it is quantized: no tensor shows them.
PACKED = re.compile(r"torch\.(?:ao\.)?nn\.(?:\w+\.)*quantized\.(?:\w+\.)*\w*PackedParam\w*")
ROOT = "tensor"  # the name of a tensor that is the whole file


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor's elements are: from byte `offset` of `source`, `strides` elements apart."""

    source: Source
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


class Budget:
    """Bounds how many values are looked at.

    Args:
      left: values that may still be met.
    """

    def __init__(self, left: int):
        self.left = left

    def spend(self, values: int) -> None:
        """Count values that were looked at. Raises: Refused if they are too many."""
        self.left -= values
        if self.left < 0:
            raise Refused(TOO_MANY, SAVE_LESS)


def leaves(
    root: Any, leaf: Callable[[Any], T | None], skipped: Skipped, modules: list[Module] | None = None
) -> Iterator[tuple[str, T]]:
    """Yield ("/"-joined name, leaf) of all in nested dicts and lists that `leaf` does not answer None to, in order.

    Args:
      root: of the nested dicts and lists.
      leaf: turns a value into a leaf; returns None for what is none.
      skipped: records every other value; a list of numbers or texts is one entry.
      modules: receives the modules whose settings are read.
    Raises: Refused beyond the limits: depth, and the number of values met, which shared containers multiply.
    """
    todo: list[tuple[tuple[Any, ...], Any]] = [((), root)]
    budget, torch_modules = Budget(MAX_OPCODES), set[tuple[Any, ...]]()  # their paths
    while todo:
        path, value = todo.pop()
        if (content := leaf(value)) is not None:
            yield joined(path), content
            continue
        if len(path) >= MAX_DEPTH:
            raise Refused(f"nests more than {MAX_DEPTH} containers", "save only the model's state_dict")
        if not isinstance(value, NESTED):
            skipped.add(partial(spelt, path), reason(value), value if isinstance(value, PLAIN) else None)
            continue
        if isinstance(value, Object):
            if PACKED.fullmatch(value.name):
                where = "/".join(str(key) for key in path if key != "_modules")
                raise Refused(f"{shown(where)}, of {value.name}: is quantized", UNPACKED)
            if modules is not None:
                _read_settings(path, value, modules)
            keys = {key for key, _ in value if isinstance(key, str)}
            if value.name.startswith("torch.nn.modules.") or keys >= OF_MODULES:
                torch_modules.add(path)
            if not _has_tensors(path, value, leaf, budget, skipped, path in torch_modules):
                continue
            value = _state(path, value, leaf, budget, skipped) if keys >= OF_MODULES else value
        if getattr(value, "attributes", None):
            skipped.add(partial(spelt, path), "attributes of a dict object")
        items = value if isinstance(value, Pairs) else list(enumerate(value))
        if not items and isinstance(value, Pairs) and len(skipped.empty) < MAX_SKIPPED:
            skipped.empty.append(spelt(path))
        inner = [((*path, key), item) for key, item in items if not isinstance(item, PLAIN)]
        budget.spend(len(items) + 8 * len(inner))  # a container costs about as much time as 8 numbers
        if len(inner) < len(items):
            _skip_plain(path, value, items, skipped, SETTINGS if torch_modules & {path, path[:-1]} else "")
        todo += reversed(inner)


def _read_settings(path: tuple[Any, ...], value: Object, modules: list[Module]) -> None:
    """Add a module whose settings say how it computes."""
    if is_read(value.name) and len(modules) < MAX_MODULES:
        plain = {key: item for key, item in value if key in ATTRIBUTES and isinstance(item, (int, float, str))}
        modules.append(Module(spelt(path) if path else "", value.name, plain))


def _has_tensors(
    path: tuple[Any, ...], value: Object, leaf: Callable[[Any], T | None], budget: Budget, skipped: Skipped,
    of_torch: bool,
) -> bool:  # fmt: skip
    """Tell whether tensors lie in an object; record in `skipped` what of it is not read.

    Args:
      of_torch: whether it is a module of torch.
    Raises: Refused for an object that code would build, and beyond the budget.
    """
    if value.called and not value:
        raise refusal(value.name, {})
    inside, looked = _contains(value, leaf)
    budget.spend(looked)
    if not inside:
        skipped.add(partial(spelt, path), SETTINGS if of_torch else f"an object of {value.name}")
    elif not value.called and any(type(key) is int for key, _ in value):
        skipped.add(partial(spelt, path), NAMELESS)
    return inside


def _state(
    path: tuple[Any, ...], module: Object, leaf: Callable[[Any], T | None], budget: Budget, skipped: Skipped
) -> Pairs:
    """Return a torch module's attributes without the tensors that its state_dict lacks, which `skipped` records."""
    named = [names for key, names in module if key == TRANSIENT and isinstance(names, list)]
    transient = {name for names in named for name in names if isinstance(name, str)}
    kept = Pairs()
    for key, item in module:
        if key == "_buffers" and isinstance(item, Pairs):
            buffers = Pairs((name, each) for name, each in item if not (isinstance(name, str) and name in transient))
            kept.append((key, buffers))
            lacking = sorted(transient) if len(buffers) < len(item) else []
        else:
            inside, looked = (False, 1) if isinstance(key, str) and key in OF_STATE else _contains([item], leaf)
            budget.spend(looked)
            lacking = [key] if inside else []
            kept += [] if inside else [(key, item)]
        for name in lacking:
            skipped.add(partial(spelt, (*path, name)), NO_STATE)
    return kept


def _contains(root: Any, leaf: Callable[[Any], T | None]) -> tuple[bool, int]:
    """Return (whether a leaf lies in a container, values looked at): these may form rings."""
    todo: list[Any] = [root]
    seen = {id(root)}
    looked = 0
    while todo:
        value = todo.pop()
        items = [item for _, item in value] if isinstance(value, Pairs) else value
        looked += 1 + len(items)
        if looked > MAX_OPCODES:
            return True, looked  # over any budget
        for item in items:
            if isinstance(item, NESTED) and id(item) not in seen:
                seen.add(id(item))
                todo.append(item)
            if leaf(item) is not None or (isinstance(item, Object) and PACKED.fullmatch(item.name)):
                return True, looked
    return False, looked


def _skip_plain(
    path: tuple[Any, ...], value: Any, items: Sequence[tuple[Any, Any]], skipped: Skipped, why: str
) -> None:
    """Record the plain values of a container: of a dict each, of a list of nothing else the list.

    Args:
      why: the reason for all of them; "" takes what each one is.
    """
    plain = [(key, item) for key, item in items if isinstance(item, PLAIN) and item is not None]
    none = (key for key, item in items if item is None) if len(plain) < len(items) else ()
    skipped.none += [spelt((*path, key)) for key in itertools.islice(none, MAX_SKIPPED - len(skipped.none))]
    if plain and not isinstance(value, Pairs) and len(plain) == len(items):
        return skipped.add(partial(spelt, path), why or "a list of numbers or texts", [item for _, item in plain])
    for key, item in plain:
        skipped.add(partial(spelt, (*path, key)), why or reason(item), item)


def spelt(path: tuple[Any, ...]) -> str:
    """Return the name of an entry that is no tensor: of any keys, and cut where it is too long."""
    name = "/".join(str(key) if isinstance(key, (str, int, float, NONE)) else type(key).__name__ for key in path)
    return name[:MAX_NAME].encode("utf-8", "replace").decode() or ROOT


def reason(value: Any) -> str:
    """Return what a value without elements is, for reports."""
    match value:
        case str() | Latin1():
            return "a text"
        case int() | float():
            return NUMBER
        case bytes() | Stored() | Inline() | Joined():
            return BYTES
        case Ignored() | Array():
            return value.what
        case Symbol():
            return "a name of Python code"
    return f"{with_article(type(value).__name__.lower())} without a tensor"


def joined(path: tuple[Any, ...]) -> str:
    """Return a tensor's name: its keys joined, and those inside a key that is a tuple, as flax's flatten_dict makes.

    Raises: Refused where it is none.
    """
    levels = [level for part in path for level in (part[: MAX_DEPTH + 1] if type(part) is tuple and part else (part,))]
    if not all(isinstance(level, (str, int)) for level in levels):
        known = list(itertools.takewhile(lambda level: isinstance(level, (str, int)), levels))
        where = f" in {shown(spelt(tuple(known)))}" if known else ""
        long = f"names a tensor{where} by something that is neither a text of up to {MAX_NAME:,} bytes nor a number"
        remedy = "name tensors by short texts; of an optimizer, whose own state is named by tensors, save state_dict()"
        raise Refused(long, remedy)
    if len(levels) > MAX_DEPTH:
        raise Refused(f"has a tensor's name of more than {MAX_DEPTH} levels", "save only the model's state_dict")
    name = "/".join(map(str, levels)) if levels else ROOT
    if len(name) > MAX_NAME:
        raise Refused(f"has a tensor's name of {len(name):,} characters", f"use {MAX_NAME} at most")
    try:
        name.encode()
    except UnicodeError:
        raise Refused(f"has a tensor's name that is no Unicode text: {shown(name)}", "rename it") from None
    return name


class PickleReader(Reader):
    """A checkpoint whose directory is a pickle. Raises: FormatError for anything that is not plainly a checkpoint."""

    def __init__(self, path: str | os.PathLike[str]):
        self.file = File(path)
        self.path, self.metadata = self.file.path, {}
        self.tensors: dict[str, Tensor] = {}
        self._places: dict[str, Place] = {}
        self._gathered: tuple[str | None, memoryview] = (
            None,
            memoryview(b""),
        )  # the last tensor that did not lie in order
        try:
            self._open()
        except (Refused, FormatError) as error:
            self.close()
            raise (self._bad(error) if isinstance(error, Refused) else error) from None

    def _open(self) -> None:
        used = 0
        for name, place in self._parse():
            tensor = Tensor(name, place.shape, place.dtype)
            if name in self.tensors:
                raise Refused(f"names two tensors {shown(name)}", "save it again: one of the two would be lost")
            if len(self.tensors) >= MAX_TENSORS:
                raise Refused(f"holds more than {MAX_TENSORS:,} tensors", "split it into several files")
            self.tensors[name], self._places[name] = tensor, place
            used += tensor.nbytes
            if used > MAX_SHARING * self.file.size:
                raise Refused(f"would grow to more than {MAX_SHARING} times its size", "do not trust this file")
        if not self.tensors:
            entries = itertools.chain.from_iterable(self.skipped.names.values())
            is_state = any(name.startswith("param_groups/") for name in entries)
            of_state = "it is the state of an optimizer that stores no arrays: the weights are in another file"
            raise Refused(NO_TENSORS, of_state if is_state else "is it the right file?")

    @cached_property
    def aliases(self) -> dict[str, str]:
        return self._repeated(lambda place: (place.shape, place.strides))

    def _repeated(self, kind: Callable[[Place], Any]) -> dict[str, str]:
        """Return {tensor: the first one of the same kind that begins at the same place of the file}."""
        first: dict[Any, str] = {}
        keys = {name: (id(place.source), place.offset, kind(place)) for name, place in self._places.items()}
        return {name: first[key] for name, key in keys.items() if first.setdefault(key, name) != name}

    @abstractmethod
    def _parse(self) -> Iterator[tuple[str, Place]]:
        """Return every tensor's name and place. Raises: Refused, FormatError."""

    @cached_property
    def shared(self) -> frozenset[str]:
        return frozenset(self._repeated(lambda place: math.prod(place.shape)))

    def _bad(self, refused: Refused, name: str = "") -> FormatError:
        where = f"tensor {shown(name)}: " if name else ""
        return FormatError(self.path, where + refused.problem, refused.remedy)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | memoryview:
        tensor, place = self.tensors[name], self._places[name]
        stop = tensor.nbytes if stop is None else stop
        if not 0 <= start <= stop <= tensor.nbytes:
            raise ValueError(f"bytes {start} to {stop} of {tensor.nbytes}")
        try:
            if is_contiguous(place.shape, place.strides):
                return place.source.read(self.file, place.offset + start, place.offset + stop) if start < stop else b""
            return self._gather(name, place)[start:stop]
        except Refused as refused:
            raise self._bad(refused, name) from None

    def whole(self, name: str) -> memoryview | None:
        place = self._places[name]
        try:
            return None if is_contiguous(place.shape, place.strides) else self._gather(name, place)
        except Refused as refused:
            raise self._bad(refused, name) from None

    def _gather(self, name: str, place: Place) -> memoryview:
        """Return all bytes of a tensor that lies scattered; kept, because its reader comes back for the next range."""
        if self._gathered[0] != name:

            def fetch(start: int, stop: int) -> bytes:
                return place.source.read(self.file, place.offset + start, place.offset + stop)

            self._gathered = name, gather(fetch, place.shape, place.strides, ITEMSIZE[place.dtype])
        return self._gathered[1]

    def close(self) -> None:
        self._gathered = (None, memoryview(b""))
        self.file.close()


def numbers(value: Any) -> Array | None:
    """Return a numpy array, other than of texts or dates; None for any other value."""
    return value if isinstance(value, Array) and not value.what else None


def place_of(array: Array) -> Place:
    """Return where a numpy array's elements are. Raises: Refused where it has other ones, or was never filled."""
    if array.refused:
        raise array.refused
    if not array.dtype:
        raise Refused("holds a numpy array without contents", MALFORMED)
    strides = fortran_strides(array.shape) if array.fortran else c_strides(array.shape)
    return Place(array.source, 0, array.shape, strides, array.dtype)


def fortran_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return elements between neighbours along each axis where the first axis is the fastest."""
    return tuple(math.prod(shape[:axis]) for axis in range(len(shape)))


def c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return elements between neighbours along each axis where the last axis is the fastest."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
