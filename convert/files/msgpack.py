"""Read and write flax msgpack: nested maps of arrays (`flax.serialization.to_bytes`, `msgpack_serialize`).

Replaces the library msgpack, which cannot list names without reading every array into memory, nor write one in pieces.
An array is ExtType 1 around [shape, dtype name, bytes], a numpy scalar the same under code 3. Arrays over
2^30 bytes are maps {"__msgpack_chunked_array__": true, "shape": {"0": ..}, "chunks": {"0": array, ..}}. Keys
are joined by "/"; lists become "0", "1", ... as `to_bytes` writes them. A key that holds a "/" itself is
refused: {"a": {"b": x}} and {"a/b": x} would become one name. Numbers, booleans, strings and Python's complex
numbers (code 2) have no dtype, so they are no tensors and are reported as skipped. flax writes a big-endian array under
the little-endian name, unswapped: no reader can tell.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, TypeAlias

from convert.errors import ConvertError

from .base import ITEMSIZE, MAX_DEPTH, MAX_NAME, File, Reader, Tensor, Writer, shown, write_all
from .msgpack_scan import CHUNKED, MAX_DIMS, MAX_ITEMS, MAX_NAMES, NDARRAY, MsgpackTree, Segments

CHUNK = 2**30  # bytes of an array beyond which flax splits it

# Kind -> (first code and count of lengths that fit into the first byte, codes and widths of longer ones).
_HEADS: dict[str, tuple[int, int, tuple[tuple[int, int], ...]]] = {
    "int": (0x00, 128, ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8))),
    "map": (0x80, 16, ((0xDE, 2), (0xDF, 4))),
    "array": (0x90, 16, ((0xDC, 2), (0xDD, 4))),
    "str": (0xA0, 32, ((0xD9, 1), (0xDA, 2), (0xDB, 4))),
    "bin": (0x00, 0, ((0xC4, 1), (0xC5, 2), (0xC6, 4))),
    "ext": (0x00, 0, ((0xC7, 1), (0xC8, 2), (0xC9, 4))),
}
_FIXEXT = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}

Node: TypeAlias = "Tensor | dict[str, Node]"


def sniff(head: bytes, path: str) -> bool:
    """Take every file that begins as FORMATS says: nothing else tells msgpack apart."""
    return True


class MsgpackReader(Reader):
    """A flax msgpack file; tensors in file order.

    Args:
      path: the file.
      alone: record placeholders as skipped; False where the caller reads the arrays that they stand for.
    Attributes:
      placeholders: name -> text of each leaf that stands for an array in another file.
    """

    format = "msgpack"

    def __init__(self, path: str | os.PathLike[str], alone: bool = True):
        self.file = File(path)
        self.path, self.metadata = self.file.path, {}
        try:
            tree = MsgpackTree(self.file, self.skipped)
        except BaseException:
            self.close()
            raise
        arrays, self.placeholders = tree.arrays, tree.placeholders
        for name in self.placeholders if alone else ():
            self.skipped.add(name, "a placeholder of an array that lies outside this file")
        self.tensors = {name: tensor for name, (tensor, _) in arrays.items()}
        self._segments: dict[str, Segments] = {name: segments for name, (_, segments) in arrays.items()}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        stop = self.tensors[name].nbytes if stop is None else stop
        parts = []
        for offset, size in self._segments[name]:
            low, high = max(start, 0), min(stop, size)
            if low < high:
                parts.append(self.file.read(high - low, offset + low))
            start, stop = start - size, stop - size
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        self.file.close()


class MsgpackWriter(Writer):
    """The bytes of `flax.serialization.to_bytes` for the tree of these names, in order of first mention.

    A tree may have empty dicts, which `from_bytes` asks for: optax's states without content; tuples become dicts.

    A map's entries stand together whatever the order announced, so payloads are written to their places.
    """

    nests = True

    def __init__(self, file: IO[bytes], tensors: Sequence[Tensor], metadata: dict[str, str], tree: Any = None):
        super().__init__(file, tensors, metadata, tree)
        self._parts: dict[
            str, list[tuple[int, bytes, int]]
        ] = {}  # name -> (offset, header, payload bytes) of each part
        self._end, self._pending = 0, b""
        self._items = self._characters = 0
        for tensor in self.tensors:
            _check_name(tensor)
        self._place(nested(self.tensors) if tree is None else _dicts(tree))
        if self._items >= MAX_ITEMS or self._characters > MAX_NAMES:
            raise ConvertError("the names are too many or too long for one file: split it")
        if not self.tensors:
            write_all(file, self._pending)

    def _place(self, node: Node) -> None:
        """Give every payload below `node` its place, with what stands before it."""
        if isinstance(node, Tensor):
            self._characters += len(node.name)
            parts = self._parts[node.name] = []
            for header, size in _parts(node):
                parts.append((self._end, self._pending + header, size))
                self._end += len(self._pending) + len(header) + size
                self._pending = b""
            return
        self._pending += _head("map", len(node))
        for key, child in node.items():
            self._pending += _string(key)
            self._items += 2  # as the reader counts them: the key and its value
            self._characters += len(key.encode())
            self._place(child)

    def write(self, tensor: Tensor, chunks: Iterable[bytes | bytearray | memoryview]) -> None:
        parts = iter(self._parts.get(tensor.name, ()))
        room = self._begin(parts)
        for piece in self.pieces(tensor, chunks):  # which add up to the parts, so that no piece is left without one
            while piece.nbytes:
                room = room or self._begin(parts)
                now, piece = piece[:room], piece[room:]
                write_all(self.file, now)
                room -= now.nbytes

    def _begin(self, parts: Iterator[tuple[int, bytes, int]]) -> int:
        """Write the header of the next part; return how many payload bytes follow."""
        offset, header, size = next(parts, (self._end, b"", 0))
        self.file.seek(offset)
        write_all(self.file, header)
        return size

    def finish(self) -> None:
        self.complete()
        self.file.seek(self._end)
        if self.tensors:
            write_all(self.file, self._pending)  # what follows the last array
        self.file.seek(0, os.SEEK_END)


def nested(tensors: Iterable[Tensor]) -> dict[str, Node]:
    """Return the tree of dicts whose paths the names are. Raises: ConvertError where a tensor would hold others."""
    tree: dict[str, Node] = {}
    for tensor in tensors:
        *parents, leaf = tensor.name.split("/")
        node = tree
        for key in parents:
            child = node.setdefault(key, {})
            if isinstance(child, Tensor):
                raise ConvertError(f"{shown(child.name)} is a tensor and holds {shown(tensor.name)}: rename one")
            node = child
        if leaf in node:
            raise ConvertError(f"{shown(tensor.name)} is a tensor and holds others: rename it")
        node[leaf] = tensor
    return tree


def _dicts(tree: Any) -> Any:
    """Return a tree with dicts of "0", "1", ... in place of its tuples."""
    if isinstance(tree, Tensor):
        return tree
    items = tree.items() if isinstance(tree, dict) else ((str(at), child) for at, child in enumerate(tree))
    return {key: _dicts(child) for key, child in items}


def _check_name(tensor: Tensor) -> None:
    """Raises: ConvertError for a tensor that no reader would take."""
    keys = tensor.name.split("/")
    if len(tensor.name) > MAX_NAME or len(keys) > MAX_DEPTH or len(tensor.shape) > MAX_DIMS or CHUNKED in keys:
        raise ConvertError(f"{shown(tensor.name)}: msgpack cannot hold this name or shape: rename it")


def _parts(tensor: Tensor) -> Iterator[tuple[bytes, int]]:
    """Yield (header, payload bytes) of a tensor: one, or one for each chunk."""
    if tensor.nbytes <= CHUNK:
        yield _array_head(tensor.shape, tensor.dtype), tensor.nbytes
        return
    step = max(1, CHUNK // ITEMSIZE[tensor.dtype])
    head = _head("map", 3) + _string(CHUNKED) + b"\xc3" + _string("shape") + _head("map", len(tensor.shape))
    head += b"".join(_string(str(index)) + _head("int", size) for index, size in enumerate(tensor.shape))
    head += _string("chunks") + _head("map", -(-tensor.size // step))
    for index, start in enumerate(range(0, tensor.size, step)):
        count = min(step, tensor.size - start)
        yield head + _string(str(index)) + _array_head((count,), tensor.dtype), count * ITEMSIZE[tensor.dtype]
        head = b""


def _array_head(shape: tuple[int, ...], dtype: str) -> bytes:
    """Return everything of an array before its payload."""
    size = Tensor("", shape, dtype).nbytes
    inner = _head("array", 3) + _head("array", len(shape)) + b"".join(_head("int", length) for length in shape)
    inner += _string(dtype) + _head("bin", size)
    total = len(inner) + size
    head = bytes([_FIXEXT[total]]) if total in _FIXEXT else _head("ext", total)
    return head + bytes([NDARRAY]) + inner


def _string(text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise ConvertError(f"{shown(text)} is not valid Unicode: rename it") from None
    return _head("str", len(data)) + data


def _head(kind: str, number: int) -> bytes:
    """Return the shortest token of this kind and length (of an int: value)."""
    first, fixed, wider = _HEADS[kind]
    if number < fixed:
        return bytes([first + number])
    code, width = next((code, width) for code, width in wider if number < 1 << 8 * width)
    return bytes([code]) + number.to_bytes(width, "big")
