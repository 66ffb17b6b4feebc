"""Read zip files: members are listed through `zipfile` within our limits, and read by position; zip_writer writes them.

`zipfile` parses the directory. Before it does, the end records are read here: a directory over 8 MiB or 80,000 members
would take it seconds and hundreds of megabytes. Afterwards, members that overlap, are encrypted, split over disks or
called the same are refused; zipfile lets all of them pass. Local headers are read here, as payloads are read at their
offsets. `Inflated` is written by hand too: zipfile's reader cannot be told to stop at the size that a member claims,
and does not read by position.
Source: APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 to 4.3.16, 4.5.3.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

from convert.errors import FormatError

from .base import MAX_NAME, PIECE, File, shown

STORED, DEFLATED = 0, 8
ENCRYPTED = 0x1  # a flag
MAX_DIRECTORY = 8 << 20  # bytes
MAX_MEMBERS = 80_000
DAMAGED = "it is truncated or damaged: save or download it again"

LOCAL = struct.Struct("<4s5H3L2H")
CENTRAL = struct.Struct("<4s6H3L5H2L")
END = struct.Struct("<4s4H2LH")
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR64 = struct.Struct("<4sLQL")
FULL = 0xFFFFFFFF  # a 32-bit field whose value stands in the zip64 extra field


class Member(NamedTuple):
    """One file in the zip, as the central directory describes it."""

    name: str
    method: int
    crc: int
    compressed: int  # bytes in the zip
    size: int  # bytes when expanded
    header: int  # offset of the local header


class ZipDirectory:
    """The members of a zip file, in the order of its directory.

    Attributes:
      names: of the members, as the directory spells them: what the zip holds, before `members` parses the rest.
    Raises: FormatError where the directory is damaged, misleading or beyond the limits; so does `members`.
    """

    def __init__(self, file: File):
        self.file = file
        self.start, size = self._locate()
        if size > MAX_DIRECTORY:
            raise self.bad(f"has a zip directory of {size} bytes, over {MAX_DIRECTORY}", "split it into several files")
        if self.start + size > file.size:
            raise self.bad(f"has a zip directory that claims bytes {self.start} to {self.start + size}")
        self.names = self._names(file.read(size, self.start))

    @cached_property
    def members(self) -> dict[str, Member]:
        members: dict[str, Member] = {}
        for info in self._listed():
            member = self._member(info)
            if member.name in members:
                raise self.bad(f"has two members called {shown(member.name)}", "one of them hides: do not trust it")
            members[member.name] = member
        self._check_layout(members.values())
        return members

    def bad(self, problem: str, remedy: str = DAMAGED) -> FormatError:
        return FormatError(self.file.path, problem, remedy)

    def _locate(self) -> tuple[int, int]:
        """Return (offset, bytes) of the central directory."""
        begin = max(0, self.file.size - END.size - 0xFFFF)  # a comment of up to 64 KiB may follow the end record
        tail = self.file.read(self.file.size - begin, begin)
        at = tail.rfind(b"PK\5\6")
        if at < 0 or len(tail) - at < END.size:
            raise self.bad("has no zip directory at its end")
        _, disk, first_disk, _, _, size, offset, comment = END.unpack_from(tail, at)
        if at + END.size + comment != len(tail):
            raise self.bad("has bytes after its zip directory, or is cut within it")
        if disk or first_disk:
            raise self.bad(
                "is one part of a zip split over several disks",
                "join them: zip -s 0 parts.zip --out whole.zip",
            )
        if at >= LOCATOR64.size and tail[at - LOCATOR64.size :][:4] == b"PK\6\7":
            return self._locate64(LOCATOR64.unpack_from(tail, at - LOCATOR64.size)[2])
        if FULL in (size, offset):
            raise self.bad("lacks the zip64 record that its directory announces")
        return offset, size

    def _locate64(self, offset: int) -> tuple[int, int]:
        if offset + END64.size > self.file.size:
            raise self.bad("has a zip64 record outside the file")
        signature, *_, disk, first_disk, here, entries, size, start = END64.unpack(self.file.read(END64.size, offset))
        if signature != b"PK\6\6":
            raise self.bad(f"has no zip64 record at byte {offset}")
        if disk or first_disk or here != entries:
            raise self.bad(f"has a damaged zip64 record at byte {offset}")
        return start, size

    def _names(self, directory: bytes) -> list[bytes]:
        """Check that the lengths in its entries fill the directory: zipfile takes less than they say. Return names."""
        at, names = 0, list[bytes]()
        while at < len(directory) and len(names) <= MAX_MEMBERS:
            if len(directory) - at < CENTRAL.size or directory[at : at + 4] != b"PK\1\2":
                raise self.bad(f"has a damaged zip directory at byte {self.start + at}")
            name, extra, comment = struct.unpack_from("<3H", directory, at + 28)
            at += CENTRAL.size
            names.append(directory[at : at + name])
            at += name + extra + comment
        if len(names) > MAX_MEMBERS:
            raise self.bad(f"has more than {MAX_MEMBERS} members", "split it into several files")
        if at > len(directory):
            raise self.bad(f"has a zip directory cut at byte {self.start + len(directory)}")
        return names

    def _listed(self) -> list[zipfile.ZipInfo]:
        try:
            with zipfile.ZipFile(_Stream(self.file)) as archive:
                members, start = archive.infolist(), archive.start_dir
        except UnicodeDecodeError:
            raise self.bad("has a member whose name is not UTF-8") from None
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError) as error:
            raise self.bad(f"has a damaged zip directory: {shown(str(error))[1:-1]}") from None
        if start != self.start:
            raise self.bad(f"has a zip directory at byte {start}, its end record says {self.start}")
        return members

    def _member(self, info: zipfile.ZipInfo) -> Member:
        name = info.orig_filename  # as the directory has it: `filename` ends at a zero byte
        if info.flag_bits & ENCRYPTED:
            raise self.bad(f"has an encrypted member {shown(name)}", "decrypt it: 7z x, then zip -0 -r")
        if len(name) > MAX_NAME or "\0" in name:
            raise self.bad(f"has a member whose name {shown(name)} is over {MAX_NAME} characters or holds a zero byte")
        if info.volume not in (0, 0xFFFF):
            raise self.bad(f"has a member {shown(name)} on another disk", "join the parts first")
        member = Member(name, info.compress_type, info.CRC, info.compress_size, info.file_size, info.header_offset)
        if FULL in (member.compressed, member.size, member.header):
            raise self.bad(f"lacks the zip64 sizes of {shown(name)}")
        return member

    def _check_layout(self, members: Iterable[Member]) -> None:
        """Check that members lie before the directory and apart: overlapping ones are how zip bombs are made."""
        end = 0
        for member in sorted(members, key=lambda member: member.header):
            if member.header < end:
                raise self.bad(f"has a member {shown(member.name)} that overlaps another", "do not trust this file")
            end = member.header + LOCAL.size + member.compressed
        if end > self.start:
            raise self.bad("has members that reach beyond the beginning of its directory")

    def local(self, member: Member, ahead: int) -> tuple[int, bytes]:
        """Return (payload's offset, at most `ahead` of its first bytes), by the local header, which must name it."""
        names = 4 * len(member.name) + 64  # the extra field of a stored member is short
        data = self.file.read(min(LOCAL.size + names + ahead, self.file.size - member.header), member.header)
        signature, *_, name, extra = LOCAL.unpack_from(data)
        if signature != b"PK\3\4" or not self._agrees(member, data[LOCAL.size : LOCAL.size + name]):
            raise self.bad(f"has a header at byte {member.header} that does not belong to {shown(member.name)}")
        offset = member.header + LOCAL.size + name + extra
        if offset + member.compressed > self.start:
            raise self.bad(f"has a member {shown(member.name)} that reaches into the directory")
        begin = offset - member.header
        payload = (
            data[begin:] if begin + ahead <= len(data) else self.file.read(min(ahead, self.start - offset), offset)
        )
        return offset, payload[: min(ahead, member.compressed)]

    def _agrees(self, member: Member, raw: bytes) -> bool:
        """Tell whether a local header has the member's name, in either encoding: the directory's or the other."""
        return raw in (member.name.encode("utf-8", "replace"), member.name.encode("cp437", "replace"))


class _Stream(io.RawIOBase):
    """A File as zipfile reads it."""

    def __init__(self, file: File):
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        at = (0, self._at, self._file.size)[whence] + offset
        if at < 0:
            raise OSError("there is nothing before a file")  # which zipfile expects of short ones
        self._at = at
        return at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = min(len(buffer), max(self._file.size - self._at, 0))
        buffer[:size] = self._file.read(size, self._at)
        self._at += size
        return size


class Inflated:
    """The content of a deflated member, expanded a piece at a time."""

    def __init__(self, file: File, member: Member, offset: int):
        self.file, self.member, self.at = file, member, 0
        self._next, self._end = offset, offset + member.compressed
        self._zlib, self._input = zlib.decompressobj(-zlib.MAX_WBITS), b""

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes. Raises: FormatError where the member holds fewer, or more than it said."""
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
        """Return between 1 and `limit` bytes, or none at the end of the member's size."""
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
