"""Writes an OCDBT database: one data file of values and then nodes, and the manifest. Nothing in it is random.

Source: tensorstore/kvstore/ocdbt/index.rst, "Storage format". Nodes are not compressed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

import xxhash

from convert.files.base import write_all
from convert.files.folders.extras import orbax_needs
from convert.files.folders.ocdbt import MANIFEST
from convert.files.folders.ocdbt_format import MANIFEST_MAGIC, NODE_MAGIC

DATA = "d/values"  # the data file, until it is named by a hash of its contents, where tensorstore takes 16 random bytes
MAX_NODE = 8 << 20  # bytes, tensorstore's own default
MAX_INLINE = 1024  # bytes of a value that lies in a node, as Orbax sets it
ENTRY = 64  # bytes of an entry beside its key and value, at most

Stored = bytes | tuple[int, int]  # a value itself, or its offset and length in the data file
T = TypeVar("T")


class Node(NamedTuple):
    """One that was written, as its parent lists it."""

    key: bytes  # its first
    offset: int
    length: int
    keys: int  # below it
    tree: int  # bytes of it and the nodes below it
    values: int  # bytes of the values below it that are in the data file


class DatabaseWriter:
    """Values are appended as they come; their keys are given at the end."""

    def __init__(self, folder: str):
        self.folder, self.path, self.size = folder, os.path.join(folder, DATA), 0
        self._checksum, self._hash = orbax_needs("google_crc32c").value, xxhash.xxh3_128()
        self._name = DATA
        os.mkdir(os.path.dirname(self.path))

    def append(self, pieces: Iterable[bytes | memoryview]) -> int:
        """Where they begin in the data file."""
        start = self.size
        with open(self.path, "ab", buffering=0) as file:
            for piece in pieces:
                write_all(file, piece)
                self._hash.update(piece)
                self.size += len(piece)
        return start

    def finish(self, values: Sequence[tuple[bytes, Stored]]) -> None:
        """The nodes, of one key or more in order, and the manifest."""
        self._hash.update(repr(values).encode())
        uuid = self._hash.digest()
        self._name = f"d/{uuid.hex()}"  # readers that keep nodes in memory know them by it
        level = [
            self._leaf(group) for group in grouped((len(key) + inline(value), (key, value)) for key, value in values)
        ]
        height = 0
        while len(level) > 1:
            height += 1
            groups = grouped((len(node.key), node) for node in level)
            level = [self._interior(height, group) for group in groups]
        with open(os.path.join(self.folder, MANIFEST), "xb") as file:
            file.write(self._packed(MANIFEST_MAGIC, manifest(level[0], height, self._name, uuid)))
        os.rename(self.path, os.path.join(self.folder, self._name))

    def _leaf(self, group: list[tuple[bytes, Stored]]) -> Node:
        keys = [key for key, _ in group]
        far = [value for _, value in group if not isinstance(value, bytes)]
        lengths = varints(len(value) if isinstance(value, bytes) else value[1] for _, value in group)
        kinds = bytes(not isinstance(value, bytes) for _, value in group)
        places = bytes(len(far)) + varints(offset for offset, _ in far)  # all in file 0
        near = b"".join(value for _, value in group if isinstance(value, bytes))
        prefixes, suffixes, rest = shared(keys)
        node = self._packed(
            NODE_MAGIC, header(0, len(group), self._name) + prefixes + suffixes + rest + lengths + kinds + places + near
        )
        return Node(keys[0], self.append([node]), len(node), len(group), len(node), sum(size for _, size in far))

    def _interior(self, height: int, group: list[Node]) -> Node:
        _, offsets, lengths, *statistics = zip(*group, strict=True)
        prefixes, suffixes, rest = shared([node.key for node in group])
        nothing = bytes(len(group))  # no prefix that keys below would leave out; all in file 0
        places = nothing + varints(offsets) + varints(lengths)
        columns = prefixes + suffixes + nothing + rest + places + b"".join(varints(column) for column in statistics)
        node = self._packed(NODE_MAGIC, header(height, len(group), self._name) + columns)
        keys, tree, values = (sum(column) for column in statistics)
        return Node(group[0].key, self.append([node]), len(node), keys, tree + len(node), values)

    def _packed(self, magic: int, body: bytes) -> bytes:
        whole = magic.to_bytes(4, "big") + (18 + len(body)).to_bytes(8, "little") + b"\0\0" + body
        return whole + int(self._checksum(whole)).to_bytes(4, "little")


def manifest(root: Node, height: int, name: str, uuid: bytes) -> bytes:
    """One version, the first, of no time."""
    place = varints([0, root.offset, root.length, root.keys, root.tree, root.values])
    config = uuid + b"\0" + varints([MAX_INLINE, MAX_NODE]) + b"\x04\0"  # one manifest; 16 versions in it; uncompressed
    return config + table(name) + b"\1\1" + bytes([height]) + place + bytes(8) + b"\0"


def header(height: int, count: int, name: str) -> bytes:
    return bytes([height]) + table(name) + varints([count])


def table(name: str) -> bytes:
    """Of one data file."""
    return b"\1" + varints([len(name), 0]) + name.encode()


def varints(numbers: Iterable[int]) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that there is more."""
    out = bytearray()
    for number in numbers:
        while number > 127:
            out.append(number & 127 | 128)
            number >>= 7
        out.append(number)
    return bytes(out)


def shared(keys: list[bytes]) -> tuple[bytes, bytes, bytes]:
    """The columns of how many bytes each key shares with the one before it, how many it adds, and these."""
    prefixes = [agreement(*pair) for pair in pairwise(keys)]
    suffixes = [key[size:] for key, size in zip(keys, [0, *prefixes], strict=True)]
    return varints(prefixes), varints(map(len, suffixes)), b"".join(suffixes)


def agreement(one: bytes, other: bytes) -> int:
    """Bytes that two keys begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def inline(value: Stored) -> int:
    return len(value) if isinstance(value, bytes) else 0


def grouped(items: Iterable[tuple[int, T]]) -> Iterator[list[T]]:
    """Items, of so many bytes each, in as many nodes as they need."""
    group, size = list[T](), 0
    for item_size, item in items:
        size += item_size + ENTRY
        if group and size > MAX_NODE:
            yield group
            group, size = [], item_size + ENTRY
        group.append(item)
    yield group
