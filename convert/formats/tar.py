"""The members of a tar and where they lie, read without unpacking any.

Source: POSIX.1-1988 (ustar) and POSIX.1-2001 (pax).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from convert.formats.base import File, shown
from convert.formats.pickle_values import MALFORMED
from convert.formats.sources import Refused

BLOCK = 512  # a tar's headers are that long, and members begin at multiples of it
PADDING = 20 * BLOCK  # zeros at its end, at most, beside the two blocks that mark it
EXTENDED = b"x"  # a header that adds to the one behind it
MAX_EXTENDED = 65536  # bytes in it
FILES = (b"0", b"\0")  # headers of what is neither link, folder, device nor sparse

_HEADER = struct.Struct("100s 24x 12s 12x 8s c 100x 6s 82x 155s 12x")
_NUMBER = re.compile(rb" *([0-7]{1,12})[ \0]*")
_RECORD = re.compile(rb"(\d{1,5}) (size|mtime|atime|ctime|[ug]id|[ug]name|comment|hdrcharset)=([^\n]*)\n")


class Entry(NamedTuple):
    """One member of a tar: what kind of header it has, and where its bytes are."""

    name: str
    kind: bytes
    offset: int
    size: int


def entries(file: File) -> Iterator[Entry]:
    """A tar's members in file order. Raises: Refused, FormatError where it is damaged or truncated."""
    position, extended = 0, None  # the records of an extended header, that belong to the next entry
    while any(header := _block(file, position)):
        entry = _entry(header, position, extended or {})
        end = entry.offset + entry.size
        if end > file.size:
            problem = f"ends at byte {file.size}, in the middle of its member {shown(entry.name)}: truncated"
            raise Refused(problem, "fetch it again")
        if entry.kind != EXTENDED:
            yield entry
        elif extended is not None or entry.size > MAX_EXTENDED:
            raise Refused(f"has a bad extended tar header at byte {position}", MALFORMED)
        extended = _records(file.read(entry.size, entry.offset), position) if entry.kind == EXTENDED else None
        position = end + -end % BLOCK
    if extended is not None:
        raise Refused(f"ends at byte {position} with a header that belongs to nothing", MALFORMED)
    _check_end(file, position)


def _block(file: File, position: int) -> bytes:
    """The next header, or zeros. Raises: Refused where the file ends before."""
    if position + BLOCK > file.size:
        problem = f"is a tar that ends at byte {file.size}, without the mark of its end: truncated"
        raise Refused(problem, "fetch it again")
    return file.read(BLOCK, position)


def _entry(header: bytes, position: int, extended: dict[bytes, bytes]) -> Entry:
    """What a header says, `extended` having the last word."""
    name, size, checksum, kind, magic, prefix = _HEADER.unpack(header)
    numbers = _NUMBER.fullmatch(checksum), _NUMBER.fullmatch(size)
    blanked = sum(header) - sum(checksum) + 8 * ord(" ")
    if not numbers[0] or int(numbers[0][1], 8) != blanked or magic[:5] != b"ustar":
        raise Refused(f"the tar header at byte {position} fails its check: damaged, or no file of torch 0.1", MALFORMED)
    if not numbers[1]:
        raise Refused(f"the tar header at byte {position} has a size that is no octal number", MALFORMED)
    length = int(extended.get(b"size", b"-1"))
    path = b"/".join(part.partition(b"\0")[0] for part in (prefix, name) if part[0])
    return Entry(path.decode("latin-1"), kind, position + BLOCK, int(numbers[1][1], 8) if length < 0 else length)


def _records(text: bytes, position: int) -> dict[bytes, bytes]:
    """The records ("LENGTH KEY=VALUE" and a newline) of an extended header. Raises: Refused."""
    records, at = {}, 0
    while at < len(text):
        record = _RECORD.match(text, at)
        if not record or int(record[1]) != len(record[0]) or (record[2] == b"size" and not _is_size(record[3])):
            raise Refused(f"has an extended tar header at byte {position} that torch 0.1 does not write", MALFORMED)
        records[record[2]], at = record[3], record.end()
    return records


def _is_size(text: bytes) -> bool:
    return re.fullmatch(rb"\d{1,19}", text) is not None


def _check_end(file: File, position: int) -> None:
    """Raises: Refused where anything but zeros follows the last member, or none do."""
    left = file.size - position
    _block(file, position + BLOCK)
    if left > 2 * BLOCK + PADDING or any(file.read(left, position)):
        raise Refused(f"has {left:,} bytes after its last member that are not just zeros", "fetch it again")
