"""The layout of an OCDBT database: its manifest, and the nodes of its B+tree. Bytes in, values out.

A column holds one field of all entries; numbers are varints. All of it raises ValueError for what is damaged.
Source: tensorstore/kvstore/ocdbt/index.rst, "Storage format", and the code beside it where that says too little.
"""

from __future__ import annotations

from typing import NamedTuple

from convert.files.folders.extras import orbax_needs
from convert.files.folders.zstd import PIECE, expanded

MANIFEST_MAGIC, NODE_MAGIC = 0x0CDB3A2A, 0x0CDB20DE
MAX_LONG = 32 << 20  # bytes of all paths or keys in a node: each may repeat the one before it
MAX_FILES = 100_000  # that a node lists
MAX_KEY = 1 << 16  # bytes of one key, or of one path
NOWHERE = 2**64 - 1  # the offset and length of the root of an empty version


class Where(NamedTuple):
    """A node or a value."""

    base: bytes  # what paths in the node begin with
    path: bytes
    offset: int
    length: int


Table = list[tuple[bytes, bytes]]  # of data files: what paths in them begin with, path


class Cursor:
    """Bytes read from first to last. Raises: ValueError where they end too early."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise ValueError("ends too early")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int = 1) -> int:
        return int.from_bytes(self.take(size), "little")

    def varint(self) -> int:
        """Seven bits a byte, the lowest first; the highest bit says that there is more."""
        value = shift = 0
        while shift < 64:
            byte = self.number()
            value |= (byte & 127) << shift
            if byte < 128:
                if value < 2**64:
                    return value
                break
            shift += 7
        raise ValueError("holds a number over 64 bits")

    def varints(self, count: int) -> list[int]:
        ahead = self.data[self.at : self.at + count]
        if len(ahead) < count:  # each takes a byte at least
            raise ValueError("ends too early")
        if ahead.isascii():  # one byte each
            self.at += count
            return list(ahead)
        return [self.varint() for _ in range(count)]

    def end(self) -> None:
        if self.at < len(self.data):
            raise ValueError("goes on after its end")


def unpack(data: bytes, magic: int, limit: int) -> Cursor:
    """What is inside a manifest or node, of at most `limit` bytes. Raises: ValueError where it is damaged."""
    head = Cursor(data)
    if head.take(4) != magic.to_bytes(4, "big"):
        raise ValueError("does not begin as it should")
    if head.number(8) != len(data) or len(data) < 18:
        raise ValueError("is not as long as it says")
    body, checksum = memoryview(data)[:-4], 0
    for at in range(0, len(body), PIECE):  # it takes bytes only, and a copy of all of them would be large
        checksum = orbax_needs("google_crc32c").extend(checksum, bytes(body[at : at + PIECE]))
    if checksum != int.from_bytes(data[-4:], "little"):
        raise ValueError("does not have its checksum")
    version, compression = head.varint(), head.varint()
    if version != 0 or compression > 1:
        raise ValueError(f"is of an unknown version {version} or compression {compression}")
    return Cursor(b"".join(expanded([body[head.at :]], limit)) if compression else bytes(body[head.at :]))


def file_table(cursor: Cursor, base: bytes) -> Table:
    """(base path, whole path) of each data file; each shares a prefix with the one before it."""
    count = cursor.varint()
    if count > MAX_FILES:
        raise ValueError(f"lists {count:,} files, of which {MAX_FILES:,} are allowed")
    prefixes = [0, *cursor.varints(count - 1)] if count else []
    suffixes, bases = cursor.varints(count), cursor.varints(count)
    found, path, left = [], b"", MAX_LONG
    for prefix, suffix, own in zip(prefixes, suffixes, bases, strict=True):
        if prefix > len(path):
            raise ValueError("shares more of a path than there is")
        path = path[:prefix] + cursor.take(suffix)
        left -= len(base) + len(path)
        if own > len(path) or len(base) + len(path) > MAX_KEY or left < 0:
            raise ValueError("holds paths that are too long")
        found.append((base + path[:own], base + path))
    return found


def wheres(files: Table, numbers: list[int], offsets: list[int], lengths: list[int]) -> list[Where]:
    if any(number >= len(files) for number in numbers):
        raise ValueError("names a file that it does not list")
    return [Where(*files[number], at, size) for number, at, size in zip(numbers, offsets, lengths, strict=True)]


def newest(cursor: Cursor) -> tuple[Where, int] | None:
    """(root, its height) of the newest version in a manifest; None if it is empty."""
    cursor.take(16)  # uuid
    if cursor.number():
        raise ValueError("keeps its versions in numbered files, which are not read here")
    cursor.varint(), cursor.varint()  # the most bytes of a value in a node, and of a node
    arity = cursor.number()
    if cursor.varint():
        cursor.take(4)  # level of compression
    files = file_table(cursor, b"")
    count = cursor.varint()
    if not 1 <= arity <= 16 or not 1 <= count <= 1 << arity:
        raise ValueError(f"lists {count} versions")
    cursor.varints(count)  # generations, the newest last
    heights = cursor.take(count)
    found = wheres(files, cursor.varints(count), cursor.varints(count), cursor.varints(count))
    for _ in range(3):
        cursor.varints(count)  # statistics
    cursor.take(8 * count)  # times
    older = cursor.varint()
    for _ in range(5):  # generations, then nodes that list older versions
        cursor.varints(older)
    cursor.take(9 * older)  # times and heights
    cursor.end()
    empty = found[-1].offset == found[-1].length == NOWHERE
    return None if empty else (found[-1], heights[-1])


def keys(cursor: Cursor, count: int, interior: bool) -> tuple[list[bytes], list[int]]:
    """(keys, and of each how many bytes all keys below share): each key shares a prefix with the one before it."""
    prefixes, suffixes = [0, *cursor.varints(count - 1)], cursor.varints(count)
    shared = cursor.varints(count) if interior else []
    found, key, left = [], b"", MAX_LONG
    for prefix, suffix in zip(prefixes, suffixes, strict=True):
        if prefix > len(key):
            raise ValueError("shares more of a key than there is")
        key = key[:prefix] + cursor.take(suffix)
        left -= len(key)
        if len(key) > MAX_KEY or left < 0:
            raise ValueError("holds keys that are too long")
        found.append(key)
    return found, shared


def leaf(cursor: Cursor, base: bytes, most: int) -> list[tuple[bytes, bytes | Where]]:
    """(key, value or where it lies) of at most so many entries, after the height."""
    files, count = file_table(cursor, base), entries(cursor, most)
    names, _ = keys(cursor, count, interior=False)
    lengths, kinds = cursor.varints(count), cursor.take(count)
    far = [size for size, kind in zip(lengths, kinds, strict=True) if kind == 1]
    if len(far) + kinds.count(0) < count:
        raise ValueError("holds values of an unknown kind")
    outside = iter(wheres(files, cursor.varints(len(far)), cursor.varints(len(far)), far))
    values = [next(outside) if kind else cursor.take(size) for size, kind in zip(lengths, kinds, strict=True)]
    cursor.end()
    return list(zip(names, values, strict=True))


def interior(cursor: Cursor, base: bytes, most: int) -> list[tuple[bytes, Where]]:
    """(what all keys below begin with, node) of each child, after the height."""
    files, count = file_table(cursor, base), entries(cursor, most)
    names, shared = keys(cursor, count, interior=True)
    if any(size > len(name) for name, size in zip(names, shared, strict=True)):
        raise ValueError("shares more of a key than there is")
    children = wheres(files, cursor.varints(count), cursor.varints(count), cursor.varints(count))
    for _ in range(3):
        cursor.varints(count)  # statistics
    cursor.end()
    return [(name[:size], child) for name, size, child in zip(names, shared, children, strict=True)]


def entries(cursor: Cursor, most: int) -> int:
    count = cursor.varint()
    if not 1 <= count <= most:
        raise ValueError(f"lists {count:,} entries, of which {most:,} are allowed")
    return count
