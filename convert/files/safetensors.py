"""Read and write safetensors: 8 bytes of header length, a JSON header, then payloads that tile the rest of the file.

Replaces the library safetensors, which makes a tensor of numpy or a framework whole where we stream it in pieces, maps
the file into memory (one that is cut short meanwhile ends the process), and parses headers of 100 MB. Limits here: a
header of 16 MiB, 50,000 tensors, 64 dimensions, no key twice. Of the format's dtypes, those narrower than a byte and
F8_E8M0 are refused.
Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import IO, Any

from convert.errors import ConvertError, FormatError

from . import bounded_json
from .base import ITEMSIZE, MAX_DIMS, MAX_NAME, MAX_TENSORS, File, Reader, Tensor, Writer, shown, write_all

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
    "I32": "int32", "U64": "uint64", "I64": "int64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "C64": "complex64",
}  # fmt: skip
CODES = {dtype: code for code, dtype in DTYPES.items()}

MAX_HEADER = 16 << 20  # bytes; the official limit is 100 MB, which takes seconds and gigabytes to parse
MAX_VALUES = 750_000  # in it, 200 MB at most; 50,000 tensors of 4 dimensions take 500,000
METADATA = "__metadata__"
METADATA_KEYS = ("format", "triptych", "triptych_part")  # of it: the framework, our record, and a shard's index
MAX_FIELDS = 9  # of a tensor, those that the format does not define included
FIELDS = ("dtype", "shape", "data_offsets")
DAMAGED = "no safetensors library writes it so: is it the right file, and all of it?"


def sniff(head: bytes, path: str) -> bool:
    """Tell whether this is safetensors: a { after eight bytes of length, and no text or msgpack that has a { there."""
    text = head[:8].isascii() and head[:8].decode().isprintable()
    plausible = int.from_bytes(head[:8], "little") < 2**40 or path.endswith(".safetensors")
    return head[8:9] == b"{" and plausible and not text


class SafetensorsReader(Reader):
    """A safetensors file; tensors in the order of its header."""

    format = "safetensors"

    def __init__(self, path: str | os.PathLike[str]):
        self.file = File(path)
        self.path = self.file.path
        self.tensors, self.metadata = {}, {}
        self._offsets: dict[str, int] = {}
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        text = self._header_text()
        if text.count('"data_offsets"') > MAX_TENSORS:  # at once; within a name its quotes would be escaped
            raise self._bad(f"it names more than {MAX_TENSORS} tensors", "split it into shards")
        try:
            header = bounded_json.loads(text, MAX_VALUES)
        except ValueError as error:
            if "holds over" in str(error):
                raise self._bad(str(error), "split it into shards") from None
            raise self._bad(f"it is not valid JSON: {error}") from None
        if not isinstance(header, dict):
            raise self._bad("it is no object")
        self.metadata = self._texts(header.pop(METADATA, None))
        for name, entry in header.items():
            self._add(name, entry)
        self._check_tiling()
        for key in self.metadata:
            if key not in METADATA_KEYS:
                self.skipped.add(key, "a text in the metadata")

    def _bad(self, problem: str, remedy: str = DAMAGED) -> FormatError:
        return FormatError(self.path, f"header: {problem}", remedy)

    def _texts(self, metadata: object) -> dict[str, str]:
        """Check that `__metadata__` holds texts. Raises: FormatError."""
        if metadata is None:
            return {}
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise self._bad(f"{METADATA} is no object of strings")
        for text in (*metadata, *metadata.values()):
            self._check_unicode(text)
        return metadata

    def _check_unicode(self, text: str) -> None:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self._bad(f"not a string: a lone surrogate in {shown(text)}") from None

    def _header_text(self) -> str:
        if self.file.size < 8:
            raise FormatError(self.path, f"has {self.file.size:,} bytes, too few for a header length", DAMAGED)
        (length,) = struct.unpack("<Q", self.file.read(8, 0))
        if length > self.file.size - 8:
            problem = f"its header claims {length} bytes, {self.file.size - 8} follow"
            raise FormatError(self.path, problem, "it is truncated or damaged: download it again")
        if length > MAX_HEADER:
            raise FormatError(self.path, f"its header of {length} bytes exceeds {MAX_HEADER}", "split it into shards")
        self._data = 8 + length
        try:
            return self.file.read(length, 8).decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(self.path, f"its header is not UTF-8 at byte {8 + error.start}", DAMAGED) from None

    def _add(self, name: str, entry: Any) -> None:
        self._check_unicode(name)
        if len(name) > MAX_NAME:
            raise self._bad(f"{shown(name)} is longer than {MAX_NAME} characters")
        match entry:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(stop)]} if all(
                type(n) is int and 0 <= n < 2**64 for n in (*shape, start, stop)
            ):
                pass
            case _:
                raise self._bad(f"{shown(name)} needs dtype, shape and two data_offsets of whole numbers >= 0")
        if len(entry) > MAX_FIELDS or any(isinstance(value, dict) for value in entry.values()):
            raise self._bad(f"{shown(name)} has more than {MAX_FIELDS} fields, or an object in one")
        if dtype not in DTYPES:
            raise self._bad(f"{shown(name)} has dtype {shown(dtype)}", "it must be one of " + " ".join(DTYPES))
        if len(shape) > MAX_DIMS:
            raise self._bad(f"{shown(name)} has no shape of at most {MAX_DIMS} dimensions")
        tensor = Tensor(name, tuple(shape), DTYPES[dtype])
        if stop - start != tensor.nbytes:
            need = tensor.nbytes if tensor.nbytes < 2**64 else "more than 2^64"
            raise self._bad(f"{shown(name)} takes {need} bytes, its data_offsets are [{start}, {stop}]")
        if not tensor.addressable:
            raise self._bad(f"{shown(name)} has the shape {str(shape)[:80]}, over 2^63 bytes but for its zeros")
        self.tensors[name], self._offsets[name] = tensor, start
        if len(entry) > len(FIELDS):
            for field in entry:
                if field not in FIELDS:
                    self.skipped.add(f"{name}: {field}", "a field of the header that the format does not define")

    def _check_tiling(self) -> None:
        """Check that payloads follow one another without holes or overlaps and fill the file: nothing hides in it."""
        end = 0
        for name in sorted(self._offsets, key=lambda name: (self._offsets[name], self.tensors[name].nbytes)):
            if self._offsets[name] != end:
                problem = f"{shown(name)} begins at data byte {self._offsets[name]}, the one before ends at {end}"
                raise FormatError(self.path, problem, "holes and overlaps are refused: " + DAMAGED)
            end += self.tensors[name].nbytes
        if self._data + end != self.file.size:
            problem = f"has {self.file.size:,} bytes, but its header describes {self._data + end:,}"
            cut = self._data + end > self.file.size
            remedy = (
                "it is truncated: copy or download it again" if cut else "bytes follow its last tensor: save it again"
            )
            raise FormatError(self.path, problem, remedy)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        stop = self.tensors[name].nbytes if stop is None else stop
        return self.file.read(stop - start, self._data + self._offsets[name] + start)

    def close(self) -> None:
        self.file.close()


class SafetensorsWriter(Writer):
    """Header in the order announced, payloads by falling element size, as the official writer lays them out.

    So each begins at a multiple of its element: readers map them into memory.
    """

    keeps_metadata = True

    def __init__(self, file: IO[bytes], tensors: Sequence[Tensor], metadata: dict[str, str]):
        super().__init__(file, tensors, metadata)
        self._offsets = self._layout()
        header = self._header()
        self._data = 8 + len(header)
        write_all(file, struct.pack("<Q", len(header)) + header)

    def _layout(self) -> dict[str, int]:
        """Return where each payload begins, counted from the end of the header."""
        for tensor in self.tensors:
            if tensor.dtype not in CODES:
                problem = f"safetensors cannot hold {tensor.dtype} ({shown(tensor.name)})"
                raise ConvertError(f"{problem}: convert to .msgpack or .npz instead")
            if tensor.name == METADATA or len(tensor.name) > MAX_NAME or len(tensor.shape) > MAX_DIMS:
                raise ConvertError(f"{shown(tensor.name)}: safetensors cannot hold this name or shape")
        order = sorted(self.tensors, key=lambda tensor: -ITEMSIZE[tensor.dtype])
        starts = accumulate((tensor.nbytes for tensor in order), initial=0)
        return {tensor.name: start for tensor, start in zip(order, starts, strict=False)}

    def _header(self) -> bytes:
        entries: dict[str, object] = {METADATA: dict(sorted(self.metadata.items()))} if self.metadata else {}
        for tensor in self.tensors:
            start = self._offsets[tensor.name]
            span = [start, start + tensor.nbytes]
            entries[tensor.name] = {"dtype": CODES[tensor.dtype], "shape": tensor.shape, "data_offsets": span}
        try:
            text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
        except UnicodeEncodeError:
            raise ConvertError("a tensor's name or the metadata is not valid Unicode: rename it") from None
        text += b" " * (-len(text) % 8)
        if len(text) > MAX_HEADER:
            raise ConvertError(f"{len(self.tensors)} tensors need a header over {MAX_HEADER} bytes: split into shards")
        return text

    def write(self, tensor: Tensor, chunks: Iterable[bytes | bytearray | memoryview]) -> None:
        self.file.seek(self._data + self._offsets.get(tensor.name, 0))
        for piece in self.pieces(tensor, chunks):
            write_all(self.file, piece)

    def annotate(self, metadata: dict[str, str]) -> None:
        self.metadata = metadata
        header = self._header()
        room = self._data - 8
        if len(header) > room:
            raise ConvertError(f"the metadata outgrew the {room} bytes reserved for the header")
        self.file.seek(8)
        write_all(self.file, header + b" " * (room - len(header)))

    def finish(self) -> None:
        self.complete()
        self.file.seek(0, os.SEEK_END)
