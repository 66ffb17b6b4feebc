"""Define what every file format offers: names, shapes and dtypes first, then payload bytes, a range at a time.

A `Reader` parses the file's directory without touching its payloads and without importing numpy or a
framework. A `Writer` is told every tensor before the first byte, so that headers and offsets are final when
written and the same input gives byte-identical output. Payloads are C-order and little-endian on both sides;
bfloat16 and float8 travel as bits. Nested containers (flax trees, {"state_dict": {...}}) appear as "/"-joined
names.
"""

import math
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import IO, Any, NamedTuple, Self

from convert.errors import ConvertError, FormatError, MissingFile

from .modules import Module
from .skipped import Skipped

# Bytes per element of every dtype that may travel; anything else (objects, strings, records) is refused.
ITEMSIZE = {
    "bool": 1, "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4, "uint64": 8,
    "int64": 8, "float8_e4m3fn": 1, "float8_e5m2": 1, "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
    "complex64": 8, "complex128": 16,
}  # fmt: skip
# How numpy describes those that it knows; little-endian.
DESCR = {
    "bool": "|b1", "uint8": "|u1", "int8": "|i1", "uint16": "<u2", "int16": "<i2", "uint32": "<u4",
    "int32": "<i4", "uint64": "<u8", "int64": "<i8", "float16": "<f2", "float32": "<f4", "float64": "<f8",
    "complex64": "<c8", "complex128": "<c16",
}  # fmt: skip
# Paddle stores bfloat16 as uint16 and does not say so: a file's uint16 may be either.
PADDLE_BFLOAT16 = "uint16"
MAX_DIMS = 64  # axes of an array: numpy's own limit

PDOPT = ".pdopt"  # suffix of the file of an optimizer's state that paddle.save writes beside the weights
URL = re.compile(r"[a-z][a-z0-9+.-]*://")  # of an Orbax folder, as tensorstore reads them: gs://, s3://, file://
MAX_TENSORS = 50_000  # names in one file, a second and 50 MB to list: more is an attack or needs shards
MAX_DEPTH = 64  # nesting of containers
PIECE = 1 << 18  # bytes moved at once: larger writes are several times slower on common virtual disks
MAX_NAME = 4096  # characters in one tensor's name
INCOMPLETE = "copy the whole folder again"  # the remedy for a folder that lacks a part
MAX_RECORD = 8 << 20  # bytes of a record of ours; 10,000 tensors take 3 MB

State = list[tuple[int, int]]  # size and time of change of every file of a checkpoint


def meant(dtype: str) -> str:
    """Return the dtype of weights that a file gives as `dtype`: Paddle's spelling of bfloat16 undone."""
    return "bfloat16" if dtype == PADDLE_BFLOAT16 else dtype


class Tensor(NamedTuple):
    """One array in a file: its name, shape and dtype (a key of ITEMSIZE)."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Return the bytes of the payload."""
        return self.size * ITEMSIZE[self.dtype]

    @property
    def addressable(self) -> bool:
        """Tell whether numpy and the frameworks can create it: they count bytes in 63 bits, axes of 0 aside."""
        return math.prod(axis or 1 for axis in self.shape) * ITEMSIZE[self.dtype] < 2**63


class Reader(ABC):
    """One open checkpoint file. Opening it validates the whole directory; errors are `FormatError`."""

    format: str  # "safetensors", "msgpack", "npz", "torch", "pdparams"
    path: str
    tensors: dict[str, Tensor]  # in file order
    metadata: dict[str, str]  # what the format itself stores beside tensors (safetensors only); else empty
    on_disk = True  # else the arrays of a model in memory, and `path` only names it in messages
    remarks: tuple[str, ...] = ()  # how it is read otherwise than it is stored, for people
    opened: Mapping[str, State] = {}  # of each checkpoint that is read, by its path, when it was opened
    filled: frozenset[str] = frozenset()  # tensors with elements that the file does not store: read as its fill value

    @property
    def called(self) -> str:
        """Return what people call it: "torch file", "orbax folder"."""
        return f"{self.format} {'folder' if os.path.isdir(self.path) else 'file'}"

    @cached_property
    def parameter_names(self) -> dict[str, str]:
        """Return {tensor: the framework's own second name of the parameter}; paddle alone has one."""
        return {}

    @cached_property
    def skipped(self) -> Skipped:
        """Return every entry of the file that is neither a tensor nor the format's own bookkeeping."""
        return Skipped()

    @cached_property
    def shared(self) -> frozenset[str]:
        """Return tensors that are the same elements of the file as an earlier one: tied weights of a pickle."""
        return frozenset()

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Return {tensor: the first one that is the very same view of the file}: tied weights of a pickle."""
        return {}

    def ties(self, tensors: Mapping[str, Tensor]) -> list[tuple[str, str]]:
        """Return pairs (later name, first name) of those of these tensors of the file that are one array in it.

        Args:
          tensors: by the names of the result.
        """
        first: dict[str, str] = {}
        pairs = ((name, first.setdefault(self.aliases.get(t.name, t.name), name)) for name, t in tensors.items())
        return [(name, one) for name, one in pairs if one != name]

    @cached_property
    def modules(self) -> list[Module]:
        """Return modules whose settings can be read: of models that were pickled whole, or of one in memory."""
        return []

    @abstractmethod
    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | bytearray | memoryview:
        """Return payload bytes [start, stop) of one tensor, by pread: C-order, little-endian.

        Raises: FormatError where the file is shorter than it said when opened (truncated meanwhile).
        """

    def whole(self, name: str) -> memoryview | None:
        """Return the payload of a tensor that is stored in another order, which reading puts in memory as a whole."""
        return None

    def pieces(self, name: str) -> Iterator[bytes | bytearray | memoryview]:
        """Yield one tensor's payload from its first byte to its last."""
        size = self.tensors[name].nbytes
        for start in range(0, size, PIECE):
            yield self.read(name, start, min(start + PIECE, size))

    def stored_name(self, name: str) -> str:
        """Return the name that the file itself has for one tensor."""
        return self.tensors[name].name

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Wrapped(Reader):
    """A file that is read otherwise than it is stored: all that a subclass does not change is the file's own.

    Args:
      reader: the file, which this one closes.
      tensors: what it is read as. remarks: how, for people.
    """

    def __init__(self, reader: Reader, tensors: dict[str, Tensor], remarks: Iterable[str] = ()):
        self.reader, self.tensors, self.remarks = reader, tensors, (*reader.remarks, *remarks)
        self.format, self.path = reader.format, reader.path
        self.metadata, self.on_disk, self.filled = reader.metadata, reader.on_disk, reader.filled
        self.opened = reader.opened

    @cached_property
    def parameter_names(self) -> dict[str, str]:
        return self.reader.parameter_names

    @cached_property
    def skipped(self) -> Skipped:
        return self.reader.skipped

    @cached_property
    def shared(self) -> frozenset[str]:
        return self.reader.shared & self.tensors.keys()

    @cached_property
    def aliases(self) -> dict[str, str]:
        return {name: first for name, first in self.reader.aliases.items() if name in self.tensors}

    @cached_property
    def modules(self) -> list[Module]:
        return self.reader.modules

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | bytearray | memoryview:
        return self.reader.read(name, start, stop)

    def whole(self, name: str) -> memoryview | None:
        return self.reader.whole(name)

    def pieces(self, name: str) -> Iterator[bytes | bytearray | memoryview]:
        return self.reader.pieces(name)

    def stored_name(self, name: str) -> str:
        return self.reader.stored_name(name)

    def close(self) -> None:
        self.reader.close()


class Writer(ABC):
    """Writes one checkpoint file, tensor after tensor in the order announced.

    Args:
      file: binary, unbuffered, seekable, empty; the caller opens, fsyncs and renames or removes it.
      tensors: everything the file will hold, in order. Raises ConvertError where the format cannot hold it.
      metadata: str -> str, kept by formats that can (safetensors); the caller writes a .json beside others.
      tree: nested dicts, lists and tuples of these tensors and of plain values, for formats that nest such; a tensor's
        name joins the keys above it by "/". None: the format nests or not as it usually does with names.
    """

    keeps_metadata = False
    nests = False  # whether it takes a tree
    ties = False  # whether it takes `tied`: {tensor: an earlier one, of which it is another name}, without a payload
    one_file = True  # else a folder, with `file` in it
    own: tuple[str, ...] = ()  # of a folder: patterns of the paths in it that the writer writes

    def __init__(self, file: IO[bytes], tensors: Sequence[Tensor], metadata: dict[str, str], tree: Any = None):
        assert tree is None or self.nests
        self.file, self.tensors, self.metadata = file, list(tensors), metadata
        self.written = 0  # tensors written so far
        if len({tensor.name for tensor in self.tensors}) < len(self.tensors):
            raise ConvertError("two tensors of one name cannot go into one file")
        if len(self.tensors) > MAX_TENSORS:
            raise ConvertError(f"{len(self.tensors)} tensors are too many for one file: split into shards")

    @abstractmethod
    def write(self, tensor: Tensor, chunks: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write the payload of the next tensor.

        Args:
          chunks: pieces of any size, of tensor.nbytes in all.
        """

    def annotate(self, metadata: dict[str, str]) -> None:
        """Replace the metadata, once the payloads are known: no longer than what the writer was made with."""
        self.metadata = metadata

    @abstractmethod
    def finish(self) -> None:
        """Write what follows the last payload: directories, checksums."""

    def pieces(self, tensor: Tensor, chunks: Iterable[bytes | bytearray | memoryview]) -> Iterator[memoryview]:
        """Yield the chunks as plain bytes.

        Raises: ConvertError where it is not this tensor's turn or the chunks do not add up.
        """
        if self.written >= len(self.tensors) or self.tensors[self.written] != tensor:
            raise ConvertError(f"{shown(tensor.name)} was not announced as the next tensor to be written")
        left = tensor.nbytes
        for chunk in chunks:
            if size := memoryview(chunk).nbytes:
                left -= size
                if left < 0:
                    break
                yield memoryview(chunk).cast("B")
        if left:
            problem = f"{shown(tensor.name)} has {tensor.nbytes:,} bytes, its payload {tensor.nbytes - left:,}"
            raise ConvertError(problem)
        self.written += 1

    def complete(self) -> None:
        """Check that every tensor that was announced is written. Raises: ConvertError."""
        if self.written < len(self.tensors):
            raise ConvertError(f"{shown(self.tensors[self.written].name)} was announced and never written")


def pread(fd: int, size: int, offset: int) -> bytes:
    """Read as os.pread does, but all of it: a short read is retried, an early end returns fewer bytes."""
    data = os.pread(fd, size, offset)
    while len(data) < size:
        more = os.pread(fd, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def write_all(file: IO[bytes], data: bytes | bytearray | memoryview) -> None:
    """Write as file.write does, but all of it: an unbuffered file may take less than it is given."""
    view = memoryview(data).cast("B")
    while view.nbytes:
        view = view[file.write(view[:PIECE]) :]


def shown(name: str) -> str:
    """Return a name out of a stranger's file as a message shows it: short, on one line, without terminal codes."""
    return ascii(name if len(name) <= 80 else name[:77] + "...")


def record_at(path: str) -> str:
    """Return the text of a record of ours; "" where there is none, or what is too long for one. Raises: FormatError."""
    if not os.path.isfile(path) or os.path.getsize(path) > MAX_RECORD:
        return ""
    file = File(path)
    try:
        return file.read(file.size, 0).decode(errors="replace")
    finally:
        file.close()


class File:
    """An input file, read by position. Regular files only: a pipe or a device could hang or have effects.

    Raises: FormatError where it is missing, not a regular file, unreadable, or shorter than what is asked.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = os.fspath(path)
        try:
            self._check(os.stat(self.path).st_mode)
            self.fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise MissingFile(self.path) from None
        except PermissionError:
            raise FormatError(self.path, "may not be read by this user", "chmod +r it, or copy it") from None
        except (OSError, ValueError) as error:
            raise FormatError(self.path, f"cannot be opened: {error}", "check the path") from None
        self.size = os.fstat(self.fd).st_size
        try:
            self._check(os.fstat(self.fd).st_mode)  # what was opened may not be what was looked at
        except FormatError:
            self.close()
            raise

    def _check(self, mode: int) -> None:
        if stat.S_ISDIR(mode):
            raise FormatError(self.path, "is a folder", "give a checkpoint file inside it")
        if not stat.S_ISREG(mode):
            raise FormatError(self.path, "is a pipe, socket or device", "give a regular file")

    def read(self, size: int, offset: int) -> bytes:
        """Return exactly `size` bytes from `offset`."""
        try:
            data = pread(self.fd, size, offset)
        except OSError as error:
            problem = f"cannot be read at byte {offset}: {error}"
            raise FormatError(self.path, problem, "check the disk") from None
        if len(data) < size:
            problem = f"ends at byte {offset + len(data)}, {size - len(data)} bytes too early"
            raise FormatError(self.path, problem, "it is truncated: copy or download it again")
        return data

    def close(self) -> None:
        """Close the file; a second time is harmless."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1
