"""Write zip files of stored members. The same input gives the same bytes.

Replaces zipfile, which writes the directory of a file that was abandoned when it is collected, and stamps no alignment.
Source: APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 to 4.3.16, 4.5.3."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import IO

from convert.errors import ConvertError

from .base import shown, write_all
from .checksum import crc32
from .zips import CENTRAL, END, END64, FULL, LOCAL, LOCATOR64, MAX_DIRECTORY, MAX_MEMBERS

UTF8 = 0x800  # a flag
_DATE = 0x21  # 1980-01-01, the earliest: the same input gives the same bytes
_UNIX, _MODE = 3 << 8, 0o600 << 16
_VERSION, _VERSION64 = 20, 45


class ZipWriter:
    """Members are written one after another: begin, add, end; then finish.

    Raises: ConvertError where the names make a directory that is not read back.
    """

    def __init__(self, file: IO[bytes], names: Sequence[str]):
        self.file, self._directory, self._count, self._at = file, bytearray(), 0, 0
        try:
            size = sum(CENTRAL.size + len(name.encode()) + 28 for name in names)
        except UnicodeEncodeError as error:
            raise ConvertError(f"{shown(error.object)} is not valid Unicode: rename it") from None
        if size > MAX_DIRECTORY or len(names) > MAX_MEMBERS:
            raise ConvertError(
                f"{len(names)} tensors need a zip directory over {MAX_DIRECTORY} bytes: split into shards"
            )

    def begin(self, name: str, size: int) -> None:
        """Start a member of `size` bytes."""
        self._name, self._size, self._header, self._crc = name.encode(), size, self._at, 0
        self._put(self._local())

    def _local(self) -> bytes:
        extra = struct.pack("<2H2Q", 1, 16, self._size, self._size) if self._size >= FULL else b""
        size = min(self._size, FULL)
        version = _VERSION64 if extra else _VERSION
        fields = (version, self._flags(), 0, 0, _DATE, self._crc, size, size, len(self._name), len(extra))
        return LOCAL.pack(b"PK\3\4", *fields) + self._name + extra

    def _flags(self) -> int:
        return 0 if self._name.isascii() else UTF8

    def add(self, data: bytes | memoryview) -> None:
        self._crc = crc32(data, self._crc)
        self._put(data)

    def _put(self, data: bytes | bytearray | memoryview) -> None:
        write_all(self.file, data)
        self._at += len(data)

    def end(self) -> None:
        """Complete the member: its CRC goes into the header in front of it."""
        self.file.seek(self._header)
        write_all(self.file, self._local())
        self.file.seek(self._at)
        self._directory += self._central()
        self._count += 1

    def _central(self) -> bytes:
        wide = [value for value in (self._size, self._size, self._header) if value >= FULL]
        extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        version, size = _VERSION64 if wide else _VERSION, min(self._size, FULL)
        fields = (_UNIX | version, version, self._flags(), 0, 0, _DATE, self._crc, size, size)
        lengths = (len(self._name), len(extra), 0, 0, 0, _MODE, min(self._header, FULL))
        return CENTRAL.pack(b"PK\1\2", *fields, *lengths) + self._name + extra

    def finish(self) -> None:
        """Write the directory."""
        start, size, count = self._at, len(self._directory), self._count
        self._put(self._directory)
        if start >= FULL or count >= 0xFFFF:
            end64 = self._at
            self._put(END64.pack(b"PK\6\6", 44, _UNIX | _VERSION64, _VERSION64, 0, 0, count, count, size, start))
            self._put(LOCATOR64.pack(b"PK\6\7", 0, end64, 1))
        short = min(count, 0xFFFF)
        self._put(END.pack(b"PK\5\6", 0, 0, short, short, size, min(start, FULL), 0))
