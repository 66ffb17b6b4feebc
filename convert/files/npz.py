"""Read and write npz: a zip of .npy members, as `np.savez` and `np.savez_compressed` write it.

Replaces np.load, which reads every array as a whole and bounds neither names nor what a member expands to. A .npy
header is matched against the one form that numpy writes, not evaluated.
Members are plain arrays of a dtype on the allow-list; texts are set aside; objects (pickles) and records are
refused, as are big-endian arrays. '<V2' and '|V2' are bfloat16: two opaque bytes are what numpy makes of ml_dtypes'
bfloat16, and of no other dtype of ours; '<V1' and '<f1' could be any float8 and are refused. A member's size
must be what its header describes, and the file may expand to 100 times its size (or 64 MiB): more is a bomb.
A CRC is checked when a payload is read from its beginning to its end. Numpy is imported for arrays in Fortran
order alone, each of which is in memory as a whole, once, while it is read.
Source: NEP 1; numpy/lib/_format_impl.py.
"""

import itertools
import operator
import os
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import IO, NamedTuple

from convert.errors import ConvertError, FormatError, option

from .base import DESCR, ITEMSIZE, MAX_DIMS, MAX_NAME, MAX_TENSORS, File, Reader, Tensor, Writer, shown
from .checksum import crc32
from .zips import DEFLATED, STORED, Inflated, Member, ZipDirectory

DTYPES = {descr: dtype for dtype, descr in DESCR.items()} | {"<V2": "bfloat16", "|V2": "bfloat16"}

TEXT = r"[<>|=]?[US]\d{1,9}"  # dtypes of texts and of bytes

MAX_HEADER = 10_000  # characters; numpy's own limit
CHANGED = "the file is damaged: copy or download it again"  # of a checksum that does not fit
DAMAGED = "numpy does not write it so: is it the right file, and all of it?"

# No possessive quantifier stands behind a group whose inside backtracks: Python 3.11.2 loses matches of these.
_FIELD = r"\s*+'(?:descr|fortran_order|shape)'\s*+:\s*+(?:'[^'\\]{0,32}'|True|False|\([\d\sL,]*+\))\s*+"
_HEADER = rf"(?a:\{{{_FIELD}(?:,{_FIELD}){{2}},?\s*+\}}\s*+)"
_DESCR = r"(?s:'descr'\s*+:\s*+('[^'\\]*+'|\[.{0,60}))"
_ORDER = r"'fortran_order'\s*+:\s*+(True|False)"
_SHAPE = r"'shape'\s*+:\s*+\(\s*+((?:\d{1,19}L?\s*+,\s*+)*(?:\d{1,19}L?\s*+)?)\)"


class NpyError(ValueError):
    """(problem, remedy): what is wrong with a header, for the reader to say in which member of which file."""


def header_length(data: bytes) -> int:
    """Return bytes before the payload, from the first 12 of the array. Raises: NpyError."""
    version = {b"\1\0": "<H", b"\2\0": "<L", b"\3\0": "<L"}.get(data[6:8])
    if data[:6] != b"\x93NUMPY" or version is None or len(data) < 12:
        raise NpyError("is no .npy array of version 1 to 3", "write it with np.savez")
    (length,) = struct.unpack_from(version, data, 8)
    if length > MAX_HEADER:
        raise NpyError(f"has a .npy header of {length} bytes, over {MAX_HEADER}", DAMAGED)
    return int(8 + struct.calcsize(version) + length)


def parse_header(name: str, header: bytes) -> tuple[Tensor, bool] | None:
    """Return (tensor, is it in Fortran order) of everything before the payload; None of texts. Raises: NpyError."""
    text = header[10 if header[6] == 1 else 12 :].decode("latin-1")
    descr, order, shape = (re.search(pattern, text) for pattern in (_DESCR, _ORDER, _SHAPE))
    if descr and descr[1].strip("'") not in DTYPES:
        if re.fullmatch(TEXT, descr[1].strip("'")) and re.fullmatch(_HEADER, text):
            return None
        what = "a dtype of records" if descr[1].startswith("[") else f"dtype {descr[1][:40]!a}"
        raise NpyError(f"has {what}", _dtype_remedy(descr[1]))
    if not re.fullmatch(_HEADER, text) or not (descr and order and shape):
        raise NpyError(f"has the .npy header {text[:80].rstrip()!a}{_odd_byte(text)}", DAMAGED)
    sizes = tuple(int(size.strip().rstrip("L")) for size in shape[1].split(",") if size.strip())
    if len(sizes) > MAX_DIMS or (len(sizes) == 1 and "," not in shape[1]):
        raise NpyError(f"has the shape ({shape[1][:80]})", DAMAGED)
    tensor = Tensor(name, sizes, DTYPES[descr[1].strip("'")])
    if not tensor.addressable:
        raise NpyError(f"has the shape ({shape[1][:80]}), over 2^63 bytes", DAMAGED)
    return tensor, order[1] == "True"


def _odd_byte(text: str) -> str:
    """Name the first byte of a header that is no printable ASCII, which numpy writes alone; "" if there is none."""
    at, byte = next(((at, c) for at, c in enumerate(text.rstrip("\n")) if not " " <= c <= "~"), (0, ""))
    return f", whose byte {at} is 0x{ord(byte):02x} where numpy writes printable ASCII alone" if byte else ""


def _dtype_remedy(descr: str) -> str:
    if descr[1:2] == ">":
        return "it is big-endian: save array.astype(array.dtype.newbyteorder('<'))"
    if "O" in descr:
        return "it holds pickled objects, which can run code: save plain arrays"
    return "save the file without it, or it with one of " + " ".join(DTYPES)


def write_header(tensor: Tensor) -> bytes:
    """Return the bytes before the payload, as numpy writes them: room for the first axis to grow, and to align."""
    text = f"{{'descr': '{DESCR[tensor.dtype]}', 'fortran_order': False, 'shape': {tensor.shape}, }}"
    if tensor.shape:
        text += " " * (21 - len(str(tensor.shape[0])))
    text += " " * (64 - (10 + len(text) + 1) % 64) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode("latin-1")


MAX_EXPANSION, FREE_EXPANSION = 100, 64 << 20  # times the file's size, or bytes
MAX_HEADERS = 16 << 20  # bytes in front of all payloads; numpy writes 128 each


def sniff(head: bytes, path: str) -> bool:
    """Tell whether this is npz: a zip whose directory lists .npy members and no pickle of torch's."""
    if head[:4] not in (b"PK\3\4", b"PK\5\6"):
        return False
    try:
        file = File(path)
    except FormatError:
        return False
    try:
        names = ZipDirectory(file).names
    except FormatError:
        return False
    finally:
        file.close()
    return any(name.endswith(b".npy") for name in names) and not any(name.endswith(b"data.pkl") for name in names)


class _Array(NamedTuple):
    """A .npy member: where its payload is and how it is stored."""

    member: Member
    offset: int  # of the member's content in the file
    header: int  # bytes before its payload
    header_sum: int  # their CRC
    fortran: bool


class _Sum(NamedTuple):
    """The checksum of a payload that is being read from its beginning."""

    name: str = ""
    stop: int = 0  # bytes so far
    crc: int = 0  # of the header and of these bytes


class NpzReader(Reader):
    """An npz file; tensors in the order of the zip's directory, named as their members without .npy."""

    format = "npz"

    def __init__(self, path: str | os.PathLike[str]):
        self.file = File(path)
        self.path = self.file.path
        self.tensors, self.metadata = {}, {}
        self._arrays: dict[str, _Array] = {}
        self._headers = 0  # bytes
        self._sum = _Sum()
        self._inflated: Inflated | None = None
        self._turned = ("", memoryview(b""))  # the last Fortran-ordered payload, in C order
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        directory = ZipDirectory(self.file)
        if sum(name.endswith(".npy") for name in directory.members) > MAX_TENSORS:
            raise self._bad(f"holds more than {MAX_TENSORS} arrays", "split it into several files")
        budget = max(MAX_EXPANSION * self.file.size, FREE_EXPANSION)
        if (total := sum(member.size for member in directory.members.values())) > budget:
            raise self._bad(f"expands from {self.file.size} to {total} bytes", "a zip bomb: do not trust it")
        for name, member in directory.members.items():
            if not (name.endswith("/") and member.size == 0):
                self._add(directory, name, member)
        if self.skipped.counts and not self.tensors:
            raise self._bad("holds texts, and no array of numbers", "save the arrays of a model with np.savez")

    def _add(self, directory: ZipDirectory, name: str, member: Member) -> None:
        if not name.endswith(".npy"):
            raise self._bad(f"has a member {shown(name)} that is no .npy", "write it with np.savez")
        if member.method not in (STORED, DEFLATED):
            raise self._bad(f"{shown(name)} is compressed by method {member.method}", "write it with np.savez")
        if member.method == STORED and member.compressed != member.size:
            raise self._bad(f"{shown(name)} is stored, yet of sizes {member.compressed} and {member.size}", DAMAGED)
        try:
            offset, header = self._header(directory, member)
            parsed = parse_header(name.removesuffix(".npy"), header)
        except NpyError as error:
            raise self._bad(f"{shown(name)} {error.args[0]}", error.args[1]) from None
        if parsed is None:
            self.skipped.add(name.removesuffix(".npy"), "a text")
            return
        tensor, fortran = parsed
        self._headers += len(header)
        if self._headers > MAX_HEADERS:
            raise self._bad(f"has over {MAX_HEADERS} bytes of .npy headers", "write it with np.savez")
        if len(header) + tensor.nbytes != member.size:
            size = member.size - len(header)
            problem = f"{shown(name)} of {tensor.dtype} {str(tensor.shape)[:80]} has {size:,} bytes"
            raise self._bad(problem, DAMAGED)
        self.tensors[tensor.name] = tensor
        self._arrays[tensor.name] = _Array(
            member, offset, len(header), zlib.crc32(header), fortran and len(tensor.shape) > 1
        )

    def _header(self, directory: ZipDirectory, member: Member) -> tuple[int, bytes]:
        """Return (content's offset, the .npy header in front of the payload)."""
        need = 256  # enough for nearly all
        while True:
            offset, data = directory.local(member, need)
            if member.method == DEFLATED:
                data = Inflated(self.file, member, offset).read(min(need, member.size))
            length = header_length(data)
            if length <= len(data):
                return offset, data[:length]
            if need >= length:
                raise self._bad(f"{shown(member.name)} ends within its .npy header", DAMAGED)
            need = length

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | memoryview:
        stop = self.tensors[name].nbytes if stop is None else stop
        whole = self.whole(name)
        return self._stored_bytes(name, start, stop) if whole is None else whole[start:stop]

    def whole(self, name: str) -> memoryview | None:
        if not self._arrays[name].fortran:
            return None
        if self._turned[0] != name:
            self._turned = (name, memoryview(b""))  # frees the last one first
            self._turned = (name, self._in_c_order(name))
        return self._turned[1]

    def _in_c_order(self, name: str) -> memoryview:
        """Return a payload that is in Fortran order, read from its first byte to its last, window by window."""
        from .strided import gather

        tensor = self.tensors[name]
        strides = tuple(itertools.accumulate(tensor.shape[:-1], operator.mul, initial=1))
        return gather(partial(self._stored_bytes, name), tensor.shape, strides, ITEMSIZE[tensor.dtype])

    def _stored_bytes(self, name: str, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of the payload as the file has it, the CRC checked once the last is read."""
        array = self._arrays[name]
        begin, size = array.header + start, stop - start
        if array.member.method == STORED:
            data = self.file.read(size, array.offset + begin)
        else:
            if not self._inflated or self._inflated.member != array.member or self._inflated.at > begin:
                self._inflated = Inflated(self.file, array.member, array.offset)
            self._inflated.skip(begin - self._inflated.at)
            data = self._inflated.read(size)
        self._check_sum(name, start, data)
        return data

    def _check_sum(self, name: str, start: int, data: bytes) -> None:
        array = self._arrays[name]
        if start == 0:
            self._sum = _Sum(name, 0, array.header_sum)
        if (self._sum.name, self._sum.stop) != (name, start):
            return  # read out of order: nothing to compare with
        self._sum = _Sum(name, start + len(data), crc32(data, self._sum.crc))
        if self._sum.stop == self.tensors[name].nbytes and self._sum.crc != array.member.crc:
            problem = f"{shown(name)} has CRC {self._sum.crc:08x}, the zip says {array.member.crc:08x}"
            raise self._bad(problem, CHANGED)

    def _bad(self, problem: str, remedy: str) -> FormatError:
        return FormatError(self.path, problem, remedy)

    def close(self) -> None:
        self.file.close()


class NpzWriter(Writer):
    """What `np.savez` writes, dated 1980-01-01: stored members in the order announced."""

    def __init__(self, file: IO[bytes], tensors: Sequence[Tensor], metadata: dict[str, str]):
        super().__init__(file, tensors, metadata)
        for tensor in self.tensors:
            if tensor.dtype not in DESCR:
                problem = f"npz cannot hold {tensor.dtype} ({shown(tensor.name)}): numpy has no {tensor.dtype}"
                remedy = f"convert to .safetensors or .msgpack, or give {option('dtype', 'float32')}"
                raise ConvertError(f"{problem}; {remedy}")
            if len(tensor.name) > MAX_NAME - 4 or "\0" in tensor.name or len(tensor.shape) > MAX_DIMS:
                raise ConvertError(f"{shown(tensor.name)}: npz cannot hold this name or shape")
        names = {tensor.name for tensor in self.tensors}
        if clash := next((name for name in sorted(names) if f"{name}.npy" in names), None):
            both = f"{shown(clash)} and {shown(clash + '.npy')}"
            raise ConvertError(f"{both}: numpy reads one array by both names; convert to .safetensors or .msgpack")
        from .zip_writer import ZipWriter  # which reading does not need

        self._zip = ZipWriter(file, [tensor.name + ".npy" for tensor in self.tensors])

    def write(self, tensor: Tensor, chunks: Iterable[bytes | bytearray | memoryview]) -> None:
        header = write_header(tensor)
        self._zip.begin(tensor.name + ".npy", len(header) + tensor.nbytes)
        self._zip.add(header)
        for piece in self.pieces(tensor, chunks):
            self._zip.add(piece)
        self._zip.end()

    def finish(self) -> None:
        self.complete()
        self._zip.finish()
