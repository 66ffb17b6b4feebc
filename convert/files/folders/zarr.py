"""Zarr 2 arrays: a header `.zarray`, and a chunk for each cell of a grid, as it is or zstd; all chunks of one size.

Source: the Zarr 2 specification, "Arrays"; tensorstore's names of dtypes that it lacks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from convert.files import bounded_json
from convert.files.base import ITEMSIZE, Tensor
from convert.files.folders.store import Store, Value, length
from convert.files.folders.zstd import PIECE, expanded
from convert.files.npy import DESCR, MAX_DIMS

HEADER = ".zarray"
MAX_HEADER = 1 << 16  # bytes
DTYPES = {descr: dtype for dtype, descr in DESCR.items()}
DTYPES |= {dtype: dtype for dtype in ITEMSIZE if dtype not in DESCR}  # bfloat16 and float8
ZEROS = (None, 0, 0.0, False)


@dataclass(frozen=True, slots=True)
class Header:
    """What a `.zarray` says."""

    tensor: Tensor
    chunk: Tensor  # of the shape of a chunk
    separator: str  # of the numbers of a chunk
    compressed: bool


def parse(name: str, data: bytes) -> Header | None:
    """None for what is read elsewhere: other dtypes, orders, filters and compressors. Raises: ValueError."""
    about = bounded_json.loads(data)
    if not isinstance(about, dict) or about.get("zarr_format") != 2:
        raise ValueError("its header is not that of a Zarr 2 array")
    shape, chunks = _sizes(about, "shape", 0), _sizes(about, "chunks", 1)
    separator = about.get("dimension_separator", ".")
    if len(shape) != len(chunks) or separator not in (".", "/"):
        raise ValueError("its header contradicts itself")
    dtype, compressor = about.get("dtype"), about.get("compressor")
    zstandard = isinstance(compressor, dict) and compressor.get("id") == "zstd"
    if not isinstance(dtype, str) or dtype not in DTYPES or not (compressor is None or zstandard):
        return None
    if about.get("order") != "C" or about.get("filters"):
        return None
    fill = about.get("fill_value")
    if fill not in ZEROS or str(fill) == "-0.0":
        return None
    tensor = Tensor(name, shape, DTYPES[dtype])
    if not tensor.addressable:
        raise ValueError("its shape takes over 2^63 bytes")
    return Header(tensor, Tensor(name, chunks, tensor.dtype), separator, zstandard)


def _sizes(about: dict[str, Any], field: str, least: int) -> tuple[int, ...]:
    match about.get(field):
        case [*sizes] if len(sizes) <= MAX_DIMS and all(type(n) is int and least <= n < 2**63 for n in sizes):
            return tuple(sizes)
    raise ValueError(f"its header gives no {field}")


class ZarrArray:
    """An array in a store. Its methods raise ValueError, and FormatError for files that are missing or too short."""

    __slots__ = ("chunk", "direct", "grid", "header", "one_each", "path", "rows", "store", "tensor", "zeros")

    def __init__(self, store: Store, path: str, header: Header, zeros: bool):
        self.store, self.path, self.header, self.zeros = store, path, header, zeros
        self.tensor, self.chunk = header.tensor, header.chunk
        self.grid = tuple(-(-n // size) for n, size in zip(self.tensor.shape, self.chunk.shape, strict=True))
        self.rows = self.chunk.shape[0] if self.chunk.shape else 1  # of a band
        self.one_each = self.tensor.shape[1:] == self.chunk.shape[1:]  # does a band lie in one chunk?
        self.direct = self.one_each and not header.compressed  # may ranges of it be read?

    def check(self) -> None:
        """Whether all chunks are there, and none too long."""
        for index in product(*map(range, self.grid)) if self.tensor.size else ():
            self._find(index)

    def read(self, band: int, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of a band, where that is `direct`."""
        value = self._find(self._first(band))
        return bytes(stop - start) if value is None else self.store.read(value, start, stop)

    def band(self, band: int) -> memoryview:
        """All bytes of a band."""
        if self.one_each:
            return memoryview(self._chunk(self._first(band)))[: math.prod(self._extent(band)) * self._itemsize]
        import numpy as np

        bits = f"V{self._itemsize}"
        out = np.empty(self._extent(band), bits)
        for rest in product(*map(range, self.grid[1:])):
            place = tuple(slice(i * n, (i + 1) * n) for i, n in zip(rest, self.chunk.shape[1:], strict=True))
            part = out[:, *place]
            chunk = np.frombuffer(self._chunk((band, *rest)), bits).reshape(self.chunk.shape)
            part[...] = chunk[tuple(map(slice, part.shape))]  # the last ones reach beyond the array
        return out.reshape(-1).view(np.uint8).data

    @property
    def _itemsize(self) -> int:
        return ITEMSIZE[self.tensor.dtype]

    def _first(self, band: int) -> tuple[int, ...]:
        """The first chunk of a band."""
        return (band, *[0] * (len(self.grid) - 1)) if self.grid else ()

    def _extent(self, band: int) -> tuple[int, ...]:
        """The shape of a band; the last one may have fewer rows."""
        shape = self.tensor.shape
        return (min(self.rows, shape[0] - band * self.rows), *shape[1:]) if shape else ()

    def _find(self, index: tuple[int, ...]) -> Value | None:
        """A chunk; None for one of zeros that was left out."""
        number, size = self.header.separator.join(map(str, index)) or "0", self.chunk.nbytes
        value = self.store.find(f"{self.path}/{number}")
        if value is None:
            if not self.zeros:
                raise ValueError(f"it has no chunk {number}")
        elif length(value) != size if not self.header.compressed else length(value) > size + size // 64 + 1024:
            raise ValueError(f"its chunk {number} is {length(value):,} bytes long, for {size:,}")
        return value

    def _chunk(self, index: tuple[int, ...]) -> bytes | bytearray:
        value, size = self._find(index), self.chunk.nbytes
        if value is None:
            return bytes(size)
        if not self.header.compressed:
            return self.store.read(value, 0, size)
        out, at = bytearray(size), 0
        for part in expanded(self._pieces(value), size):
            out[at : at + len(part)] = part
            at += len(part)
        if at < size:
            raise ValueError(f"a chunk of {size:,} bytes expands to {at:,}")
        return out

    def _pieces(self, value: Value) -> Iterator[bytes]:
        for start in range(0, length(value), PIECE):
            yield self.store.read(value, start, min(start + PIECE, length(value)))
