"""Changes of floating-point dtype, a piece of payload at a time, bit by bit as the frameworks round."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from .errors import ConvertError
from .formats.base import Tensor
from .planning import FLOATS

if TYPE_CHECKING:
    import numpy as np


def cast(piece: Any, held: str, tensor: Tensor) -> bytes:
    """A piece of payload in another floating-point dtype, rounded to nearest even.

    Raises: ConvertError where a finite value has no finite counterpart.
    """
    import numpy as np

    if held not in (*FLOATS, *NARROW):
        raise ConvertError(f"{tensor.name} is {held}: only floating-point tensors change dtype")
    with np.errstate(over="ignore"):
        wide = NARROW[held](piece) if held in NARROW else np.frombuffer(piece, held)
        bits = to_bfloat16(wide) if tensor.dtype == "bfloat16" else wide.astype(tensor.dtype)
        back = from_bfloat16(bits) if tensor.dtype == "bfloat16" else bits
        lost = np.isfinite(wide) & ~np.isfinite(back)
    if lost.any():
        raise ConvertError(
            f"{tensor.name} holds {wide[lost][0]:.6g}, too large for {tensor.dtype}: keep the source's dtype"
        )
    return bits.tobytes()


def from_bfloat16(bits: Any) -> np.ndarray:
    """float32 of bfloat16's bits, exactly."""
    import numpy as np

    return (np.frombuffer(bits, np.uint16).astype(np.uint32) << 16).view(np.float32)


def from_float8_e4m3fn(bits: Any) -> np.ndarray:
    """float32 of sign, 4 bits of exponent (bias 7), 3 of mantissa, exactly: no infinities, NaN where all are ones."""
    import numpy as np

    values: np.ndarray = _float8_e4m3fn()[np.frombuffer(bits, np.uint8)]
    return values


@cache
def _float8_e4m3fn() -> np.ndarray:
    """float32 of each of the 256 codes."""
    import numpy as np

    code = np.arange(256, dtype=np.int64)
    exponent, mantissa = code >> 3 & 15, code & 7
    size = np.ldexp(np.where(exponent, 8 + mantissa, mantissa), np.maximum(exponent, 1) - 10)
    return np.where(code & 127 == 127, np.nan, np.where(code < 128, size, -size)).astype(np.float32)


def from_float8_e5m2(bits: Any) -> np.ndarray:
    """float32 of the upper halves of float16, exactly."""
    import numpy as np

    return (np.frombuffer(bits, np.uint8).astype(np.uint16) << 8).view(np.float16).astype(np.float32)


# Dtypes that numpy lacks, as float32.
NARROW = {"bfloat16": from_bfloat16, "float8_e4m3fn": from_float8_e4m3fn, "float8_e5m2": from_float8_e5m2}


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Upper halves of float32, rounded to nearest even; NaNs stay NaNs. Doubles first go to float32, rounded to odd."""
    import numpy as np

    single = values.astype(np.float32)
    bits = single.view(np.uint32)
    if values.dtype == np.float64:  # a sticky last bit keeps the second rounding from seeing a false tie
        inexact = (single != values) & np.isfinite(single)
        toward_zero = np.where(np.abs(single) > np.abs(values), bits - 1, bits)
        bits = np.where(inexact, toward_zero | 1, bits)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) >> 16
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype(np.uint16)
