"""The content of a deflated zip member, expanded a piece at a time and no further than it said."""

from __future__ import annotations

import zlib

from convert.errors import FormatError
from convert.files.base import PIECE, File, shown
from convert.files.zip_directory import DAMAGED, Member


class Inflated:
    """The content of a deflated member, expanded a piece at a time."""

    def __init__(self, file: File, member: Member, offset: int):
        self.file, self.member, self.at = file, member, 0
        self._next, self._end = offset, offset + member.compressed
        self._zlib, self._input = zlib.decompressobj(-zlib.MAX_WBITS), b""

    def read(self, size: int) -> bytes:
        """The next `size` bytes. Raises: FormatError where the member holds fewer, or more than it said."""
        parts = []
        while size:
            part = self._expand(min(size, PIECE))
            parts.append(part)
            size -= len(part)
            self.at += len(part)
        if self.at == self.member.size and (self._expand(1) or not self._zlib.eof):
            raise self._bad("expands to more than its size")
        return b"".join(parts)

    def skip(self, size: int) -> None:
        while size:
            size -= len(self.read(min(size, PIECE)))

    def _expand(self, limit: int) -> bytes:
        """Between 1 and `limit` bytes, or none at the end of the member's size."""
        while not self._zlib.eof:
            if not self._input and self._next < self._end:
                self._input = self.file.read(min(PIECE, self._end - self._next), self._next)
                self._next += len(self._input)
            starved = not self._input
            try:
                data = self._zlib.decompress(self._input, limit)
            except zlib.error as error:
                raise self._bad(f"cannot be expanded: {error}") from None
            self._input = self._zlib.unconsumed_tail
            if data:
                return data
            if starved:
                break
        if self.at < self.member.size:
            raise self._bad(f"expands to {self.at} bytes, the zip says {self.member.size}")
        return b""

    def _bad(self, problem: str) -> FormatError:
        return FormatError(self.file.path, f"{shown(self.member.name)} {problem}", DAMAGED)
