"""Keys and values: in a folder a file each, or in a database. Nothing outside the folder is read, links followed."""

from __future__ import annotations

import os

from convert.errors import FormatError
from convert.files.base import File, shown

Place = tuple[str, int, int]  # file in the folder, offset, bytes
Value = bytes | Place  # a value itself, or where it lies
REMEDY = "copy the whole folder again"


class Files:
    """The files of a folder, read by position; one is open at a time: there may be more than a process may open."""

    def __init__(self, folder: str):
        self.folder, self._root = folder, os.path.realpath(folder)
        self._file: tuple[str, File | None] = ("", None)

    def path(self, name: str) -> str:
        """Raises: FormatError where a name, "/" between its parts, leads out of the folder."""
        parts = name.split("/")
        path = os.path.join(self.folder, name)
        if "\0" in name or {"", ".", ".."} & set(parts):
            raise FormatError(self.folder, f"names a file {shown(name)}: outside the folder", "do not trust it")
        if not os.path.realpath(path).startswith(os.path.join(self._root, "")):
            raise FormatError(
                self.folder, f"has a link {shown(name)}: outside the folder", "copy the file itself there"
            )
        return path

    def size(self, name: str) -> int | None:
        """Bytes; None where there is no such file."""
        path = self.path(name)
        return os.path.getsize(path) if os.path.isfile(path) else None

    def read(self, name: str, size: int, offset: int) -> bytes:
        """Raises: FormatError where the file is missing or ends too early."""
        if self._file[0] != name or self._file[1] is None:
            self.close()
            self._file = name, File(self.path(name))
        assert self._file[1] is not None
        return self._file[1].read(size, offset)

    def close(self) -> None:
        if self._file[1] is not None:
            self._file[1].close()
        self._file = "", None


class Store:
    """A folder in which each key is a file."""

    def __init__(self, folder: str):
        self.files = Files(folder)

    def find(self, key: str) -> Value | None:
        size = self.files.size(key)
        return None if size is None else (key, 0, size)

    def read(self, value: Value, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of a value. Raises: FormatError."""
        if isinstance(value, bytes):
            return value[start:stop]
        return self.files.read(value[0], stop - start, value[1] + start)

    def close(self) -> None:
        self.files.close()


def length(value: Value) -> int:
    return len(value) if isinstance(value, bytes) else value[2]
