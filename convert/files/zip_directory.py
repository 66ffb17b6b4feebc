"""The directory of a zip file, read strictly and without reading any member.

The central directory is what counts. Members that overlap, are encrypted, split over disks or called the same
are refused, as is a directory over 8 MiB or 80,000 members, which would take seconds and hundreds of
megabytes to list.
Source: APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 to 4.3.16, 4.5.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from convert.errors import FormatError
from convert.files.base import MAX_NAME, File, shown

STORED, DEFLATED = 0, 8
ENCRYPTED, UTF8 = 0x1, 0x800  # flags
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

    Raises: FormatError where the directory is damaged, misleading or beyond the limits.
    """

    def __init__(self, file: File):
        self.file = file
        self.start, size = self._locate()
        if size > MAX_DIRECTORY:
            raise self.bad(f"has a zip directory of {size} bytes, over {MAX_DIRECTORY}", "split it into several files")
        if self.start + size > file.size:
            raise self.bad(f"has a zip directory that claims bytes {self.start} to {self.start + size}")
        self.members: dict[str, Member] = {}
        for member in self._entries(file.read(size, self.start)):
            if member.name in self.members:
                raise self.bad(f"has two members called {shown(member.name)}", "one of them hides: do not trust it")
            if len(self.members) == MAX_MEMBERS:
                raise self.bad(f"has more than {MAX_MEMBERS} members", "split it into several files")
            self.members[member.name] = member
        self._check_layout()

    def bad(self, problem: str, remedy: str = DAMAGED) -> FormatError:
        return FormatError(self.file.path, problem, remedy)

    def _locate(self) -> tuple[int, int]:
        """(offset, bytes) of the central directory."""
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
        signature, *_, size, start = END64.unpack(self.file.read(END64.size, offset))
        if signature != b"PK\6\6":
            raise self.bad(f"has no zip64 record at byte {offset}")
        return start, size

    def _entries(self, data: bytes) -> Iterator[Member]:
        at = 0
        while at < len(data):
            if len(data) - at < CENTRAL.size or data[at : at + 4] != b"PK\1\2":
                raise self.bad(f"has a damaged zip directory at byte {self.start + at}")
            fields = CENTRAL.unpack_from(data, at)
            (
                _,
                _,
                _,
                flags,
                method,
                _,
                _,
                crc,
                compressed,
                size,
                name,
                extra,
                comment,
                disk,
                _,
                _,
                header,
            ) = fields
            begin, at = at + CENTRAL.size, at + CENTRAL.size + name + extra + comment
            if at > len(data) or disk not in (0, 0xFFFF):
                raise self.bad(f"has a zip directory cut at byte {self.start + begin}")
            title = self._name(data[begin : begin + name], flags)
            wide = self._zip64(title, data[begin + name : begin + name + extra], [size, compressed, header])
            yield Member(title, method, crc, wide[1], wide[0], wide[2])

    def _name(self, raw: bytes, flags: int) -> str:
        try:
            name = raw.decode("utf-8" if flags & UTF8 else "cp437")
        except UnicodeDecodeError:
            raise self.bad("has a member whose name is not UTF-8") from None
        if flags & ENCRYPTED:
            raise self.bad(f"has an encrypted member {shown(name)}", "decrypt it: 7z x, then zip -0 -r")
        if len(name) > MAX_NAME or "\0" in name:
            raise self.bad(f"has a member whose name {shown(name)} is over {MAX_NAME} characters or holds a zero byte")
        return name

    def _zip64(self, name: str, extra: bytes, values: list[int]) -> list[int]:
        """The sizes and offset, taken from the zip64 extra field where they do not fit into 32 bits."""
        while FULL in values and len(extra) >= 4:
            tag, length = struct.unpack_from("<2H", extra)
            field, extra = extra[4 : 4 + length], extra[4 + length :]
            if tag == 1 and len(field) >= 8 * values.count(FULL):
                wide = iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
                return [next(wide) if value == FULL else value for value in values]
        if FULL in values:
            raise self.bad(f"lacks the zip64 sizes of {shown(name)}")
        return values

    def _check_layout(self) -> None:
        """Members lie before the directory and apart: overlapping ones are how zip bombs are made."""
        end = 0
        for member in sorted(self.members.values(), key=lambda member: member.header):
            if member.header < end:
                raise self.bad(f"has a member {shown(member.name)} that overlaps another", "do not trust this file")
            end = member.header + LOCAL.size + member.compressed
        if end > self.start:
            raise self.bad("has members that reach beyond the beginning of its directory")

    def local(self, member: Member, ahead: int) -> tuple[int, bytes]:
        """(payload's offset, at most `ahead` of its first bytes), by the local header, which must name it."""
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
        """A local header may use the other encoding, so both are tried."""
        return raw in (member.name.encode("utf-8", "replace"), member.name.encode("cp437", "replace"))
