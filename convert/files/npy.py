"""The header of a .npy array: magic, version, then the literal of a dict with descr, fortran_order and shape.

It is matched against the one form that numpy writes, not evaluated. Source: NEP 1; numpy/lib/_format_impl.py.
"""

from __future__ import annotations

import re
import struct

from convert.files.base import ITEMSIZE, Tensor

DESCR = {
    "bool": "|b1", "uint8": "|u1", "int8": "|i1", "uint16": "<u2", "int16": "<i2", "uint32": "<u4",
    "int32": "<i4", "uint64": "<u8", "int64": "<i8", "float16": "<f2", "float32": "<f4", "float64": "<f8",
    "complex64": "<c8", "complex128": "<c16",
}  # fmt: skip
DTYPES = {descr: dtype for dtype, descr in DESCR.items()} | {"<V2": "bfloat16", "|V2": "bfloat16"}

MAX_HEADER = 10_000  # characters; numpy's own limit
MAX_DIMS = 64
DAMAGED = "numpy does not write it so: is it the right file, and all of it?"

_FIELD = r"\s*+'(?:descr|fortran_order|shape)'\s*+:\s*+(?:'[^'\\]{0,32}'|True|False|\([\d\sL,]*+\))\s*+"
_HEADER = re.compile(rf"\{{{_FIELD},{_FIELD},{_FIELD},?\s*+\}}\s*+", re.ASCII)
_DESCR = re.compile(r"'descr'\s*+:\s*+('[^'\\]*+'|\[.{0,60})", re.DOTALL)
_ORDER = re.compile(r"'fortran_order'\s*+:\s*+(True|False)")
_SHAPE = re.compile(r"'shape'\s*+:\s*+\(\s*+((?:\d{1,19}L?\s*+,\s*+)*+(?:\d{1,19}L?\s*+)?)\)")


class NpyError(ValueError):
    """(problem, remedy): what is wrong with a header, for the reader to say in which member of which file."""


def header_length(data: bytes) -> int:
    """Bytes before the payload, from the first 12 of the array. Raises: NpyError."""
    version = {b"\1\0": "<H", b"\2\0": "<L", b"\3\0": "<L"}.get(data[6:8])
    if data[:6] != b"\x93NUMPY" or version is None or len(data) < 12:
        raise NpyError("is no .npy array of version 1 to 3", "write it with np.savez")
    (length,) = struct.unpack_from(version, data, 8)
    if length > MAX_HEADER:
        raise NpyError(f"has a .npy header of {length} bytes, over {MAX_HEADER}", DAMAGED)
    return int(8 + struct.calcsize(version) + length)


def parse_header(name: str, header: bytes) -> tuple[Tensor, bool]:
    """(tensor, is it in Fortran order) of everything before the payload. Raises: NpyError."""
    text = header[10 if header[6] == 1 else 12 :].decode("latin-1")
    descr, order, shape = _DESCR.search(text), _ORDER.search(text), _SHAPE.search(text)
    if descr and descr[1].strip("'") not in DTYPES:
        raise NpyError(f"has dtype {descr[1][:40]!a}", _dtype_remedy(descr[1]))
    if not _HEADER.fullmatch(text) or not (descr and order and shape):
        raise NpyError(f"has the .npy header {text[:80]!a}", DAMAGED)
    sizes = tuple(int(size.strip().rstrip("L")) for size in shape[1].split(",") if size.strip())
    if len(sizes) > MAX_DIMS or (len(sizes) == 1 and "," not in shape[1]):
        raise NpyError(f"has the shape ({shape[1][:80]})", DAMAGED)
    tensor = Tensor(name, sizes, DTYPES[descr[1].strip("'")])
    if not tensor.addressable:
        raise NpyError(f"has the shape ({shape[1][:80]}), over 2^63 bytes", DAMAGED)
    return tensor, order[1] == "True"


def _dtype_remedy(descr: str) -> str:
    if descr[1:2] == ">":
        return "it is big-endian: save array.astype(array.dtype.newbyteorder('<'))"
    if "O" in descr:
        return "it holds pickled objects, which can run code: save plain arrays"
    return "it must be one of " + " ".join(DTYPES)


def to_c_order(data: bytes, tensor: Tensor) -> bytes:
    """A payload in Fortran order, turned."""
    import numpy as np  # the one case that needs it

    bits = f"u{size}" if (size := ITEMSIZE[tensor.dtype]) <= 8 else "c16"
    return np.frombuffer(data, bits).reshape(tensor.shape, order="F").tobytes("C")


def write_header(tensor: Tensor) -> bytes:
    """The bytes before the payload, as numpy writes them: room for the first axis to grow, and to align."""
    text = f"{{'descr': '{DESCR[tensor.dtype]}', 'fortran_order': False, 'shape': {tensor.shape}, }}"
    if tensor.shape:
        text += " " * (21 - len(str(tensor.shape[0])))
    text += " " * (64 - (10 + len(text) + 1) % 64) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode("latin-1")
