"""Find the arrays of a flax msgpack file, reading a small window at a time and seeking over payloads.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md; flax/serialization.py.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import TypeVar

from convert.errors import FormatError
from specs.words import count

from .base import ITEMSIZE, MAX_DEPTH, MAX_DIMS, MAX_NAME, MAX_TENSORS, File, Tensor, shown
from .skipped import MAX_SKIPPED, Skipped

CHUNKED = "__msgpack_chunked_array__"
NDARRAY, COMPLEX, SCALAR = 1, 2, 3  # flax's extension types

PLACEHOLDERS = (b"PLACEHOLDER://", b"AGGREGATED://", b"//GDAPlaceholder:")  # of Orbax, of its precursor, of flax

MAX_ITEMS = 1_000_000  # keys and values of one file: a second's work
MAX_NAMES = 16 << 20  # characters of all keys and names together
WINDOW = 4096  # bytes read ahead
DAMAGED = "flax does not write it so: is it the right file, and all of it?"

# First byte -> (kind, bytes of the number that follows, that number where it is in the byte itself). The
# number is the value of an int or bool, the length of others; "signed" becomes "int". 0xC1 has no meaning.
_TOKENS: dict[int, tuple[str, int, int]] = {
    0xC0: ("nil", 0, 0), 0xC2: ("bool", 0, 0), 0xC3: ("bool", 0, 1), 0xC4: ("bin", 1, 0), 0xC5: ("bin", 2, 0),
    0xC6: ("bin", 4, 0), 0xC7: ("ext", 1, 0), 0xC8: ("ext", 2, 0), 0xC9: ("ext", 4, 0), 0xCA: ("single", 4, 0),
    0xCB: ("float", 8, 0), 0xCC: ("int", 1, 0), 0xCD: ("int", 2, 0), 0xCE: ("int", 4, 0), 0xCF: ("int", 8, 0),
    0xD0: ("signed", 1, 0), 0xD1: ("signed", 2, 0), 0xD2: ("signed", 4, 0), 0xD3: ("signed", 8, 0),
    0xD9: ("str", 1, 0), 0xDA: ("str", 2, 0), 0xDB: ("str", 4, 0), 0xDC: ("array", 2, 0),
    0xDD: ("array", 4, 0), 0xDE: ("map", 2, 0), 0xDF: ("map", 4, 0),
}  # fmt: skip
_TOKENS |= {0xD4 + power: ("ext", 0, 1 << power) for power in range(5)}
_TOKENS |= {byte: ("int", 0, byte) for byte in range(0x80)} | {
    byte: ("int", 0, byte - 256) for byte in range(0xE0, 256)
}
_TOKENS |= {0x80 + n: ("map", 0, n) for n in range(16)} | {0x90 + n: ("array", 0, n) for n in range(16)}
_TOKENS |= {0xA0 + n: ("str", 0, n) for n in range(32)}

Segments = tuple[tuple[int, int], ...]  # (offset in the file, bytes) of a payload's parts
T = TypeVar("T")


class Tokens:
    """The tokens of a file, one after another."""

    def __init__(self, file: File):
        self.file, self.at = file, 0
        self._window, self._start = b"", 0

    def bad(self, problem: str, remedy: str = DAMAGED) -> FormatError:
        return FormatError(self.file.path, f"byte {self.at}: {problem}", remedy)

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes, which stay few: tokens and names."""
        begin = self.at - self._start
        if begin + size > len(self._window):
            self.room(size)
            self._start, begin = self.at, 0
            self._window = self.file.read(min(max(size, WINDOW), self.file.size - self.at), self.at)
        self.at += size
        return self._window[begin : begin + size]

    def room(self, size: int) -> None:
        """Check that the file has `size` more bytes. Raises: FormatError."""
        if size > self.file.size - self.at:
            problem = f"needs {count(size, 'more byte')}, of which the file has {self.file.size - self.at:,}"
            raise self.bad(problem, "the file is cut short, or flax did not write it")

    def skip(self, size: int) -> None:
        self.room(size)
        self.at += size

    def token(self) -> tuple[str, int]:
        """Return (kind, number): the value of an int or bool, else the length; what follows is not read."""
        begin = self.at - self._start
        if begin < len(self._window):  # the common case, without a call
            byte, self.at = self._window[begin], self.at + 1
        else:
            byte = self.take(1)[0]
        if byte not in _TOKENS:
            raise self.bad("0xc1 is no msgpack")
        kind, width, number = _TOKENS[byte]
        if width:
            number = int.from_bytes(self.take(width), "big", signed=kind == "signed")
            kind = "int" if kind == "signed" else kind
        return kind, number

    def expect(self, kind: str, what: str, number: int | None = None) -> int:
        """Return the number of the next token, which must be of this kind (and number)."""
        got, value = self.token()
        if got != kind or (number is not None and value != number):
            raise self.bad(f"{what} is {got} {value} where {kind}{'' if number is None else f' {number}'} belongs")
        return value


def _number(kind: str, number: int) -> float | int | bool:
    """Return the value of a number's token; the token of a float has its bits."""
    if kind in ("float", "single"):
        layout, size = (">d", 8) if kind == "float" else (">f", 4)
        value: float = struct.unpack(layout, number.to_bytes(size, "big"))[0]
        return value
    return bool(number) if kind == "bool" else number


class MsgpackTree(Tokens):
    """The arrays of a flax tree.

    Args:
      skipped: records every leaf that is no array.
    Attributes:
      arrays: in file order, "/"-joined name -> (tensor, its payload's segments).
      placeholders: "/"-joined name -> text of each leaf that stands for an array in another file.
    """

    def __init__(self, file: File, skipped: Skipped):
        super().__init__(file)
        self.skipped = skipped
        self.arrays: dict[str, tuple[Tensor, Segments]] = {}
        self.placeholders: dict[str, str] = {}
        self._items = self._characters = 0
        self._value(None, 0)
        if self.at < file.size:
            raise self.bad(f"{file.size - self.at} bytes follow the end of the tree")

    def _value(self, path: str | None, depth: int) -> None:
        self._count()
        kind, number = self.token()
        if kind in ("map", "array") and depth == MAX_DEPTH:
            raise self.bad(f"it is nested more than {MAX_DEPTH} deep", "no model is: do not trust this file")
        if kind == "map":
            self._map(path, number, depth)
        elif kind == "array":
            for index in range(number):
                self._value(self._join(path, str(index)), depth + 1)
        elif kind == "ext":
            self._extension(path, number)
        elif kind == "str":
            self._text(path or "", number)
        elif kind == "bin":
            self.skip(number)
            self.skipped.add(path or "", "bytes")
        elif kind != "nil":
            self.skipped.add(path or "", "plain numbers", _number(kind, number))
        elif len(self.skipped.none) < MAX_SKIPPED:
            self.skipped.none.append(path or "")

    def _text(self, name: str, size: int) -> None:
        """Read a string: a placeholder, or no part of a model."""
        if size > 4 * MAX_NAME:
            self.skip(size)
        elif (text := self.take(size)).startswith(PLACEHOLDERS):
            self._characters += size
            self.placeholders[name] = text.decode("utf-8", "replace")
            return
        self.skipped.add(name, "a text")

    def _map(self, path: str | None, entries: int, depth: int) -> None:
        seen: set[str] = set()
        for index in range(entries):
            key = self._key()
            if key in seen:
                raise self.bad(f"the key {shown(self._join(path, key))} appears twice")
            seen.add(key)
            if key == CHUNKED:
                self.expect("bool", CHUNKED, 1)
                if index or entries != 3:
                    raise self.bad("a chunked array needs its mark, shape and chunks in this order")
                return self._add(path, *self._chunked())
            self._value(self._join(path, key), depth + 1)

    def _count(self) -> None:
        self._items += 1
        if self._items > MAX_ITEMS or self._characters > MAX_NAMES:
            problem = f"it has more than {MAX_ITEMS} entries or {MAX_NAMES} characters of names"
            raise self.bad(problem, "no model has: do not trust this file")

    def _key(self) -> str:
        self._count()
        kind, size = self.token()
        if kind == "int":  # of a list in a pure dict of nnx
            return str(size)
        if kind != "str":
            raise self.bad(
                f"a key is {kind}, not str", "flax.serialization.to_bytes writes str keys: save it with that"
            )
        if size > 4 * MAX_NAME:
            raise self.bad(f"a key has {size:,} bytes, over {4 * MAX_NAME}", DAMAGED)
        try:
            key = self.take(size).decode("utf-8")
        except UnicodeDecodeError:
            raise self.bad("a key is not UTF-8") from None
        if "/" in key:
            remedy = "nest the tree first, by flax.traverse_util: unflatten_dict(flatten_dict(tree, sep='/'), sep='/')"
            raise self.bad(f"the key {shown(key)} contains a /", remedy)
        self._characters += size
        return key

    def _join(self, path: str | None, key: str) -> str:
        name = key if path is None else f"{path}/{key}"
        if len(name) > MAX_NAME:
            raise self.bad(f"the name {shown(name)} is longer than {MAX_NAME} characters")
        return name

    def _extension(self, path: str | None, size: int) -> None:
        code = int.from_bytes(self.take(1), "big", signed=True)
        self.room(size)
        if code in (NDARRAY, SCALAR):
            shape, dtype, segment = self._array(size, path)
            self._add(path, shape, dtype, (segment,))
        elif code == COMPLEX:
            self.skip(size)
            self.skipped.add(path or "", "plain numbers")
        else:
            raise self.bad(f"{shown(path or '')} is of extension type {code}, which flax does not write")

    def _array(self, size: int, path: str | None = None) -> tuple[tuple[int, ...], str, tuple[int, int]]:
        """Return (shape, dtype, (offset, bytes)) of an array's inner message, which takes `size` bytes.

        Args:
          path: of the array, for messages.
        """
        end = self.at + size
        self.expect("array", "an array's content", 3)
        rank = self.expect("array", "a shape")
        self._check_rank(rank)
        shape = tuple(self._dimension() for _ in range(rank))
        dtype = self.take(min(self.expect("str", "a dtype"), MAX_NAME)).decode("latin-1")
        if dtype not in ITEMSIZE:
            which = shown(path) if path else "an array"
            remedy = f"save it as another one, as by array.astype('float32'): {' '.join(ITEMSIZE)}"
            raise self.bad(f"{which} has dtype {shown(dtype)}, which is not read", remedy)
        payload = self.expect("bin", "a payload")
        if self.at + payload != end:
            raise self.bad(f"a payload of {payload} bytes in an array that has {end - self.at} left")
        if payload != math.prod(shape) * ITEMSIZE[dtype]:
            raise self.bad(f"an array of {dtype} {str(shape)[:80]} has {payload:,} bytes")
        self.at = end
        return shape, dtype, (end - payload, payload)

    def _check_rank(self, rank: int) -> None:
        if rank > MAX_DIMS:
            raise self.bad(f"an array has {rank} dimensions, over {MAX_DIMS}")

    def _dimension(self) -> int:
        size = self.expect("int", "a dimension")
        if size < 0:
            raise self.bad(f"an array has a dimension of {size}")
        return size

    def _chunked(self) -> tuple[tuple[int, ...], str, Segments]:
        """Return (shape, dtype, segments) of a chunked array, after its mark."""
        shape = tuple(self._numbered("shape", self._dimension))
        self._check_rank(len(shape))
        chunks = self._numbered("chunks", self._chunk)
        dtypes = {dtype for dtype, _ in chunks}
        segments = tuple(segment for _, segment in chunks)
        if len(dtypes) != 1:
            raise self.bad(f"the chunks of an array have dtypes {sorted(dtypes)}")
        (dtype,) = dtypes
        if sum(size for _, size in segments) != math.prod(shape) * ITEMSIZE[dtype]:
            raise self.bad(f"the chunks of an array do not add up to {dtype} {str(shape)[:80]}")
        return shape, dtype, segments

    def _numbered(self, name: str, item: Callable[[], T]) -> list[T]:
        """Return the map under the key `name`, whose own keys are "0", "1", ... in any order."""
        if self._key() != name:
            raise self.bad(f"a chunked array has no {name} here")
        count = self.expect("map", name)
        items = {self._key(): item() for _ in range(count)}
        if items.keys() != {str(index) for index in range(count)}:
            raise self.bad(f"the keys of the {name} of a chunked array are not numbered from 0")
        return [items[str(index)] for index in range(count)]

    def _chunk(self) -> tuple[str, tuple[int, int]]:
        size = self.expect("ext", "a chunk")
        code = self.take(1)[0]
        self.room(size)
        shape, dtype, segment = self._array(size)
        if code != NDARRAY or len(shape) != 1:
            raise self.bad("a chunk is not an array of one dimension")
        return dtype, segment

    def _add(self, path: str | None, shape: tuple[int, ...], dtype: str, segments: Segments) -> None:
        if path is None:
            raise self.bad("it is one array without a name", "save a tree: to_bytes({'name': array})")
        if len(self.arrays) == MAX_TENSORS:
            raise self.bad(f"it has more than {MAX_TENSORS} arrays", "split it")
        tensor = Tensor(path, shape, dtype)
        if not tensor.addressable:
            raise self.bad(f"{shown(path)} has the shape {str(shape)[:80]}, over 2^63 bytes but for its zeros")
        self._characters += len(path)
        self.arrays[path] = tensor, segments
