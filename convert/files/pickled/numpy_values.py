"""Represent pickled numpy and jax arrays: where their bytes lie, what dtype and shape they have."""

from __future__ import annotations

import math
from typing import Any

from convert.files.base import ITEMSIZE, shown

from .sources import Inline, Joined, Latin1, Refused, Source, Stored
from .values import BYTES, MALFORMED, Handlers, Ignored, Symbol, ignored, unexpected

MAX_DIMENSIONS = 64  # numpy's own limit


# numpy's type codes. Objects (O), texts (S, U), records (V) and dates (M, m) are no tensors.
DTYPES = {
    "b1": "bool", "u1": "uint8", "i1": "int8", "u2": "uint16", "i2": "int16", "u4": "uint32", "i4": "int32",
    "u8": "uint64", "i8": "int64", "f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64",
    "c16": "complex128",
}  # fmt: skip

# Those of texts and dates, by the first letter of their type codes.
NOT_NUMBERS = {"U": "texts", "S": "texts", "M": "dates", "m": "dates"}

# Those of the package ml_dtypes, by their class.
ML_DTYPES = {f"ml_dtypes.{name}": name for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")}
ARRAYS = (  # classes whose pickles state the same; the last two as numpy before 2 names them
    "numpy.ndarray", "numpy.matrix", "numpy.memmap", "numpy.matrixlib.defmatrix.matrix", "numpy.core.memmap.memmap",
)  # fmt: skip
GENERATOR = "a generator of random numbers"
_GENERATORS = (
    *(f"_pickle.__{name}_ctor" for name in ("generator", "randomstate", "bit_generator")),
    "bit_generator.__pyx_unpickle_SeedSequence",
)
PLAIN_DTYPES = DTYPES | ML_DTYPES


class Dtype:
    """numpy.dtype: `name` is set once its state says that it is little-endian and plain.

    Of any code: numpy's scalars may have codes that no array here has; these scalars are skipped.
    """

    __slots__ = ("code", "name", "refused")

    def __init__(self, code: str):
        self.code, self.name = code, ""
        self.refused = Refused("has an incomplete dtype", MALFORMED)

    def build(self, state: Any) -> None:
        if self.code not in PLAIN_DTYPES:
            return
        match state:
            case (3 | 4, "<" | "|", None, None, None, int(), int(), int(), *_):
                self.name = PLAIN_DTYPES[self.code]
            case (_, ">", *_):
                self.refused = Refused(f"is big-endian (>{self.code})", "save it again as little-endian")
            case _:
                self.refused = Refused(f"has a structured dtype (based on {self.code})", "save plain arrays")


class Array:
    """numpy.ndarray: `source` holds its bytes, in C order unless `fortran`.

    `what` says of an array of texts or dates what it is; `refused` is set on an array that cannot be read.
    """

    __slots__ = ("dtype", "fortran", "refused", "shape", "source", "what")

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.dtype, self.fortran, self.what = "", False, ""
        self.refused: Refused | None = None
        self.source: Source = Inline(b"")

    def build(self, state: Any) -> None:
        match state:
            case (1, tuple() as shape, Dtype() as dtype, bool() | 0 | 1 as fortran, data):
                self.fill(shape, dtype, bool(fortran), data)
            case _:
                self.refused = Refused("has an unknown layout of numpy's", MALFORMED)

    def fill(self, shape: tuple[Any, ...], dtype: Dtype, fortran: bool, data: Any) -> Array:
        try:
            return self._fill(shape, dtype, fortran, data)
        except Refused as refused:
            self.refused = refused
            return self

    def _fill(self, shape: tuple[Any, ...], dtype: Dtype, fortran: bool, data: Any) -> Array:
        if dtype.code not in PLAIN_DTYPES and (what := NOT_NUMBERS.get(dtype.code[:1])):
            self.what = f"an array of {what}"
            return self
        if dtype.code not in PLAIN_DTYPES:
            raise Refused(f"has numpy's dtype {shown(dtype.code)}, which is no plain number", "save numbers only")
        if not dtype.name:
            raise dtype.refused
        self.shape, self.dtype, self.fortran = checked_shape(shape), dtype.name, fortran
        nbytes = math.prod(self.shape) * ITEMSIZE[self.dtype]
        self.source = source_of(data, nbytes)
        if self.source.size != nbytes:
            problem = f"has shape {list(self.shape)}, dtype {self.dtype} and {self.source.size:,} bytes"
            raise Refused(f"{problem} instead of {nbytes:,}", MALFORMED)
        return self


def checked_shape(shape: Any) -> tuple[int, ...]:
    """Return a shape, strides or the like: a few whole numbers, none negative. Raises: Refused."""
    few = isinstance(shape, tuple) and len(shape) <= MAX_DIMENSIONS
    if not few or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise Refused("has a shape that is not a tuple of a few whole numbers", MALFORMED)
    return tuple(shape)


def source_of(data: Any, nbytes: int) -> Source:
    """Return array bytes, however a pickler wrote them. Raises: Refused."""
    match data:
        case bytes():
            return Inline(data)
        case str():
            return Inline(latin1(data))
        case Latin1() if nbytes <= data.length <= 2 * nbytes:
            return Latin1(data.offset, data.length, nbytes)
        case Stored() | Inline() | Joined():
            return data
    raise Refused(f"has not the {nbytes:,} bytes that its shape and dtype need", MALFORMED)


def latin1(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeError:
        raise Refused(f"has text where bytes should be: {shown(text)}", MALFORMED) from None


def _reconstruct(args: tuple[Any, ...]) -> Array:
    match args:
        case (Symbol(name=name), tuple(), b"b" | "b") if name in ARRAYS:
            return Array()
    raise unexpected("numpy's array constructor")


def _jax_array(args: tuple[Any, ...]) -> Array:
    """Return a jax array: numpy's constructor, its arguments and the array's state, in one call."""
    match args:
        case (Symbol(name="numpy.core.multiarray._reconstruct"), tuple() as inner, state, *_):
            array = _reconstruct(inner)
            array.build(state)
            return array
    raise unexpected("jax's array constructor")


def _from_buffer(args: tuple[Any, ...]) -> Array:
    match args:
        case (data, Dtype() as dtype, tuple() as shape, "C" | "F" as order):
            return Array().fill(shape, dtype, order == "F", data)
    raise unexpected("numpy's array constructor")


def _dtype(args: tuple[Any, ...]) -> Dtype:
    match args:
        case (str() as code, False | 0, True | 1) if code not in ML_DTYPES:
            return Dtype(code)
        case (Symbol(name=name), False | 0, True | 1) if name in ML_DTYPES:
            return Dtype(name)
    raise unexpected("numpy.dtype")


def _encode(args: tuple[Any, ...]) -> bytes | Latin1:
    match args:
        case (str() as text, "latin1" | "latin-1"):
            return latin1(text)
        case (Latin1() as text, "latin1" | "latin-1"):
            return text
    raise unexpected("_codecs.encode")


def _bytes(args: tuple[Any, ...]) -> bytes | Ignored:
    return Ignored(BYTES) if args else b""


def _scalar(args: tuple[Any, ...]) -> Array | Ignored:
    """Return a numpy scalar as an array of shape (): its dtype says exactly what it is."""
    match args:
        case (Dtype() as dtype, data):
            return (
                Array().fill((), dtype, False, data)
                if dtype.code in PLAIN_DTYPES
                else Ignored("a text, date or object")
            )
    raise unexpected("numpy's scalar constructor")


NUMPY: Handlers = {
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.dtype": _dtype,
    **dict.fromkeys(ML_DTYPES, None),
    **dict.fromkeys(
        ["jax._src.array._reconstruct_array", "jax._src.device_array.reconstruct_device_array"], _jax_array
    ),
    **dict.fromkeys(ARRAYS, None),
    **{f"numpy.random.{name}": ignored(GENERATOR) for name in _GENERATORS},
    "_codecs.encode": _encode,
    "builtins.bytes": _bytes,
}
