"""OCDBT databases: keys and values in a folder, as tensorstore writes them and Orbax uses them. Read without either.

`manifest.ocdbt` says where the root of the newest version lies; the leaves of its B+tree hold keys, and values or where
these lie. All nodes are read when it is opened: their checksums, order and sizes, and that every value is there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from convert.errors import FormatError
from convert.files.base import File, shown
from convert.files.folders.ocdbt_format import MANIFEST_MAGIC, NODE_MAGIC, Where, interior, leaf, newest, unpack
from convert.files.folders.store import REMEDY, Store, Value

MANIFEST = "manifest.ocdbt"
MAX_MANIFEST = 1 << 20  # bytes; of each of the last 16 versions it has a hundred
MAX_TREE = 32 << 20  # bytes of all nodes, expanded
MAX_LONG = 32 << 20  # bytes of all keys: in nodes they share what they begin with
MAX_KEYS = 300_000
MAX_HEIGHT = 16  # levels of nodes; a million entries fit one of tensorstore's


class Database(Store):
    """All keys of the newest version; `used` names the files in which they lie.

    Raises: FormatError, also where there is more than the limits above.
    """

    def __init__(self, folder: str):
        super().__init__(folder)
        self._values: dict[bytes, Value] = {}
        self._sizes: dict[bytes, tuple[str, int]] = {}  # of files
        self._last, self._tree, self._long = b"", MAX_TREE, MAX_LONG
        try:
            if root := self._manifest():
                self._read(*root, b"")
        finally:
            self.used = {name for name, _ in self._sizes.values()}
            self._sizes = {}
            self.close()

    def find(self, key: str) -> Value | None:
        return self._values.get(key.encode())

    def keys(self) -> Iterator[str]:
        """Every key, in order."""
        return (os.fsdecode(key) for key in self._values)

    def _manifest(self) -> tuple[Where, int] | None:
        file = File(self.files.path(MANIFEST))
        try:
            if file.size > MAX_MANIFEST:
                raise FormatError(file.path, f"is {file.size:,} bytes long, over {MAX_MANIFEST:,}", REMEDY)
            return newest(unpack(file.read(file.size, 0), MANIFEST_MAGIC, MAX_MANIFEST))
        except ValueError as error:
            raise FormatError(file.path, str(error), REMEDY) from None
        finally:
            file.close()

    def _read(self, node: Where, height: int, prefix: bytes) -> None:
        """A node and all below it, where every key begins with `prefix`."""
        if height > MAX_HEIGHT:
            raise FormatError(self.files.folder, f"holds a tree of {height} levels, over {MAX_HEIGHT}", REMEDY)
        try:
            below = self._node(node, height, prefix)
        except ValueError as error:
            problem = f"the node at byte {node.offset:,} of {shown(os.fsdecode(node.path))} {error}"
            raise FormatError(self.files.folder, problem, REMEDY) from None
        for shared, child in below:
            self._read(child, height - 1, prefix + shared)

    def _node(self, node: Where, height: int, prefix: bytes) -> list[tuple[bytes, Where]]:
        """What is below a node; the keys and values of a leaf are kept. Raises: ValueError, FormatError."""
        name = self._place(node)
        if node.length > self._tree:
            raise ValueError(f"is too long: all of them go over {MAX_TREE:,} bytes")
        cursor = unpack(self.files.read(name, node.length, node.offset), NODE_MAGIC, self._tree)
        self._tree -= len(cursor.data)
        if cursor.number() != height:  # no node is below itself
            raise ValueError("is not at the height that it should be")
        most = MAX_KEYS - len(self._values)
        if height:
            return interior(cursor, node.base, most)
        for key, value in leaf(cursor, node.base, most):
            self._keep(prefix + key, value)
        return []

    def _keep(self, key: bytes, value: bytes | Where) -> None:
        if key <= self._last and self._values:
            raise ValueError("holds keys out of order")
        self._long -= len(key)
        if self._long < 0:
            raise ValueError(f"holds keys that are too long: all of them go over {MAX_LONG:,} bytes")
        self._last = key
        self._values[key] = value if isinstance(value, bytes) else (self._place(value), value.offset, value.length)

    def _place(self, where: Where) -> str:
        """The name of the file. Raises: FormatError where it is not in this folder, missing or too short."""
        if where.path not in self._sizes:
            name = os.fsdecode(where.path)
            size = self.files.size(name)
            if size is None:
                raise FormatError(self.files.folder, f"lacks its file {shown(name)}", REMEDY)
            self._sizes[where.path] = name, size
        name, size = self._sizes[where.path]
        if where.offset + where.length > size:
            problem = f"{shown(name)} ends before byte {where.offset + where.length:,}, which it should hold"
            raise FormatError(self.files.folder, problem, f"it is truncated: {REMEDY}")
        return name
