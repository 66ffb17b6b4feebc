"""Locate a tensor's bytes in a file: byte ranges that are read only when somebody asks for them."""

from __future__ import annotations

from collections.abc import Sequence

from convert.files.base import PIECE, File, shown
from convert.files.checksum import crc32


class Refused(Exception):
    """A file asks for something no checkpoint needs; the reader that knows its path turns this into FormatError."""

    def __init__(self, problem: str, remedy: str = ""):
        self.problem, self.remedy = problem, remedy
        super().__init__(problem)

    def of(self, tensor: str) -> Refused:
        """Return the same about a tensor, which the message names."""
        return Refused(f"tensor {shown(tensor)}: {self.problem}", self.remedy)


class Stored:
    """Bytes kept as they are at [offset, offset + size) of the file."""

    __slots__ = ("offset", "size")

    def __init__(self, offset: int, size: int):
        self.offset, self.size = offset, size

    def read(self, file: File, start: int, stop: int) -> bytes:
        return file.read(stop - start, self.offset + start)


class Checked(Stored):
    """Stored bytes with a CRC32: verified on the fly where they are read in order, else by a pass of its own before.

    `in_order` is False where the file's tensors are only parts of these bytes.
    """

    __slots__ = ("_position", "_running", "_verified", "crc", "in_order")

    def __init__(self, offset: int, size: int, crc: int):
        super().__init__(offset, size)
        self.crc, self.in_order = crc, True
        self._position, self._running, self._verified = 0, 0, False

    def read(self, file: File, start: int, stop: int) -> bytes:
        if not self._verified and not (self.in_order and start in (0, self._position)):
            self.verify(file)
        data = super().read(file, start, stop)
        if not self._verified:
            self._advance(start, data)
        return data

    def verify(self, file: File) -> None:
        """Check that the bytes match their CRC32. Raises: Refused."""
        for start in range(0, max(self.size, 1), PIECE):
            self._advance(start, super().read(file, start, min(start + PIECE, self.size)))

    def _advance(self, start: int, data: bytes) -> None:
        self._running = crc32(data, self._running if start else 0)
        self._position = start + len(data)
        if self._position < self.size:
            return
        if self._running != self.crc:
            problem = f"the {self.size:,} bytes at byte {self.offset} fail their CRC32 check: damaged"
            raise Refused(
                problem,
                "download or copy it again; a file that torch saved after torch.serialization.set_crc32_options(False) "
                "has no CRC32: load it in torch, call set_crc32_options(True), and save it",
            )
        self._verified = True


class Latin1:
    """Bytes that a protocol 2 pickle stores as UTF-8 text of Latin-1 characters: one or two bytes each.

    Sequential reads decode each character once; going back starts over.
    """

    __slots__ = ("_at", "_done", "length", "offset", "size")

    def __init__(self, offset: int, length: int, size: int = 0):
        self.offset, self.length = offset, length  # the encoded text
        self.size = size  # bytes it stands for; known once an array says how many it needs
        self._done, self._at = 0, 0  # characters decoded, and the encoded bytes they took

    def read(self, file: File, start: int, stop: int) -> bytes:
        if start < self._done:
            self._done, self._at = 0, 0
        out = bytearray()
        while self._done < stop:
            first, data = self._done, self._decode(file, stop - self._done)
            out += data[max(start - first, 0) :]
        if stop == self.size and self._at != self.length:
            raise Refused(f"the text at byte {self.offset} holds more than the {self.size:,} bytes of its array")
        return bytes(out)

    def _decode(self, file: File, most: int) -> bytes:
        """Return the next characters: at least one, at most `most`."""
        encoded = file.read(min(PIECE, most, self.length - self._at), self.offset + self._at)
        if encoded and encoded[-1] >= 0xC0:  # the first half of a character: leave it, or fetch its other half
            encoded = encoded[:-1] or file.read(min(2, self.length - self._at), self.offset + self._at)
        try:
            data = encoded.decode("utf-8").encode("latin-1")
        except UnicodeError:
            raise Refused(f"the text at byte {self.offset} is not bytes stored as Latin-1 text") from None
        if not data:
            raise Refused(f"the text at byte {self.offset} holds fewer than the {self.size:,} bytes of its array")
        self._done += len(data)
        self._at += len(encoded)
        return data


class Inline:
    """A few bytes already read, with the directory around them."""

    __slots__ = ("data", "size")

    def __init__(self, data: bytes):
        self.data, self.size = data, len(data)

    def read(self, file: File, start: int, stop: int) -> bytes:
        return self.data[start:stop]


class Joined:
    """Several sources, one after the other."""

    __slots__ = ("pieces", "size")

    def __init__(self, pieces: Sequence[Source]):
        self.pieces = list(pieces)
        self.size: int = sum(piece.size for piece in pieces)

    def read(self, file: File, start: int, stop: int) -> bytes:
        out, base = bytearray(), 0
        for piece in self.pieces:
            first, last = max(start - base, 0), min(stop - base, piece.size)
            if first < last:
                out += piece.read(file, first, last)
            base += piece.size
        return bytes(out)


Source = Stored | Latin1 | Inline | Joined


class Cursor:
    """Reads small pieces of [start, end) of a file in order; steps over large ones."""

    WINDOW = 8192

    def __init__(self, file: File, start: int, end: int):
        self.file, self.position, self.end = file, start, end
        self._window, self._base = b"", start

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes. Raises: Refused at the end."""
        at = self.position - self._base
        data = self._window[at : at + size]
        if len(data) < size:
            data = self._refill(size)
        self.position += size
        return data

    def byte(self) -> int:
        """Return the next byte. Raises: Refused at the end."""
        at = self.position - self._base
        if at >= len(self._window):
            self._refill(1)
            at = 0
        self.position += 1
        return self._window[at]

    def skip(self, size: int) -> int:
        """Step over `size` bytes, unread; return where they begin."""
        start = self.position
        if size > self.end - start:
            raise Refused(f"ends at byte {self.end}, in the middle of its data: truncated", "copy or save it again")
        self.position += size
        return start

    def line(self, limit: int = 256) -> bytes:
        """Read up to the next newline, which is dropped. Raises: Refused if it is further away than `limit` bytes."""
        start, most = self.position, min(limit, self.end - self.position)
        text, newline, _ = self.take(most).partition(b"\n")
        if not newline and most < limit:
            raise Refused(f"ends at byte {self.end}, in the middle of a name: truncated", "copy or save it again")
        if not newline:
            raise Refused(f"a name at byte {start} has no end")
        self.position = start + len(text) + 1
        return text

    def _refill(self, size: int) -> bytes:
        if size > self.end - self.position:
            raise Refused(
                f"ends at byte {self.end}, in the middle of its directory: truncated", "copy or save it again"
            )
        wanted = min(max(size, self.WINDOW), self.end - self.position)
        self._window, self._base = self.file.read(wanted, self.position), self.position
        return self._window[:size]
