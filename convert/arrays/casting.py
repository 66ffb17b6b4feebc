"""Cast payloads between floating-point dtypes, a piece at a time, rounding bit by bit as the frameworks do."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from convert.errors import ConvertError
from convert.files.base import Tensor
from specs.notation.dtype_kinds import SIGNIFICANT, misfit
from specs.numbers import measured

from .dtypes import FLOATS, LOSSES, is_exact

if TYPE_CHECKING:
    import numpy as np


SMALLEST = {"float64": 2.0**-1022, "float32": 2.0**-126, "bfloat16": 2.0**-126, "float16": 2.0**-14}  # normal numbers

# Below its smallest normal number a dtype has fewer bits the smaller a value is, and in the end none. A value is crude
# where it is off by over one part in 16: then it is worse than in float8 (e4m3), the coarsest dtype that weights are
# stored in. A tensor of normally distributed weights has one crude value in 20 where its standard deviation is about
# 60 steps of the dtype's smallest number: beyond that, it does not fit the dtype as a whole, while a few strays (a dead
# channel, a bias that is almost zero) harm nothing. An infinity spoils every output: not even one is accepted.
CRUDE = 1 / 16  # of the value itself
SHARE = 1 / 20  # of a tensor's values that may become crude; those that become zero are among them


class Tally:
    """Counts what becomes of one tensor's finite values that are not zero while its payload is cast.

    Args:
      values: all of them.
      zeros, infinities: those that became zero or infinite.
      imprecise: others that are off by more than the dtype's normal rounding: below its smallest normal number.
      crude: those of `zeros` and `imprecise` that are off by more than CRUDE.
      largest: the value of largest size that became infinite.
      example: an imprecise value that is crude, before and after.
    """

    values: int = 0
    zeros: int = 0
    infinities: int = 0
    imprecise: int = 0
    crude: int = 0
    largest: float = 0.0
    example: tuple[float, float] = (0.0, 0.0)

    def add(self, before: np.ndarray, after: np.ndarray, dtype: str) -> None:
        """Count a piece; `after` holds the same values once they were cast to the dtype."""
        import numpy as np

        before, after = before.reshape(-1), after.reshape(-1)
        finite = int(np.count_nonzero(np.isfinite(before)))
        odd = before.size - finite
        nonzero = int(np.count_nonzero(before)) - odd  # NaNs and infinities count as not zero
        self.values += nonzero
        infinities = finite - int(np.count_nonzero(np.isfinite(after)))
        zeros = nonzero + odd - int(np.count_nonzero(after))
        self.zeros, self.crude = self.zeros + zeros, self.crude + zeros
        if infinities:
            self.infinities += infinities
            lost = before[np.isfinite(before) & ~np.isfinite(after)]
            self.largest = max((self.largest, *map(float, (lost.min(), lost.max()))), key=abs)
        small = (np.abs(before) < SMALLEST[dtype]) & (after != 0)
        if small.any():
            self._add_small(before[small].astype(np.float64), after[small].astype(np.float64), dtype)

    def _add_small(self, before: np.ndarray, after: np.ndarray, dtype: str) -> None:
        """Count values below the smallest normal number that did not become zero."""
        import numpy as np

        error = np.abs(after - before) / np.abs(before)
        self.imprecise += int(np.count_nonzero(error > 2.0 ** -SIGNIFICANT[dtype]))
        crude = np.flatnonzero(error > CRUDE)
        self.crude += crude.size
        if crude.size:
            self.example = float(before[crude[0]]), float(after[crude[0]])

    def lost(self) -> dict[str, int]:
        """Return {"zeros": ..., "infinities": ..., "imprecise": ...}, of those that are not 0."""
        counts = {kind: getattr(self, kind) for kind in LOSSES}
        return {kind: count for kind, count in counts.items() if count}

    def problem(self, dtype: str) -> str:
        """Return why so much was lost that only --lossy accepts it; "" if it was not."""
        if self.infinities:
            largest, counted = measured(self.largest, 6), f"{self.infinities:,} of {self.values:,} values"
            return f"has {largest}, too large for {dtype} ({counted})"
        if self.zeros > SHARE * self.values:
            return f"loses {self.zeros:,} of its {self.values:,} values that are not zero: they are zero in {dtype}"
        if self.crude > SHARE * self.values:
            (before, after), least = self.example, SMALLEST[dtype]
            what = f"{self.crude:,} of its {self.values:,} values that are not zero are off by over 1/16 in {dtype}"
            example = f"{measured(before)} becomes {measured(after)}"
            return f"is too small: {what}, whose normal numbers begin at {measured(least, 2)}: {example}"
        return ""


def cast(piece: Any, own: str, tensor: Tensor, tally: Tally) -> bytes:
    """Cast a piece of payload to another floating-point dtype, rounded to nearest even; count in `tally` what is lost.

    Raises: ConvertError where the source is not floating-point.
    """
    import numpy as np

    if own not in (*FLOATS, *NARROW):
        raise ConvertError(f"{tensor.name} is {own}: only floating-point tensors change dtype")
    with np.errstate(over="ignore", invalid="ignore"):
        wide = NARROW[own](piece) if own in NARROW else np.frombuffer(piece, own)
        bits = to_bfloat16(wide) if tensor.dtype == "bfloat16" else wide.astype(tensor.dtype)
    if not is_exact(own, tensor.dtype):
        tally.add(wide, from_bfloat16(bits) if tensor.dtype == "bfloat16" else bits, tensor.dtype)
    return bits.tobytes()


def tally(array: np.ndarray, dtype: str) -> Tally:
    """Return what an array's values lose in a dtype."""
    import numpy as np

    lost = Tally()
    if array.dtype.kind == "f" and not is_exact(array.dtype.name, dtype):
        with np.errstate(over="ignore", invalid="ignore"):
            after = from_bfloat16(to_bfloat16(array)) if dtype == "bfloat16" else array.astype(dtype)
        lost.add(array, after, dtype)
    return lost


def decoded(piece: Any, dtype: str) -> np.ndarray:
    """Return a piece of payload as an array that numpy computes with; bfloat16 and float8 as float32, exactly."""
    import numpy as np

    return NARROW[dtype](piece) if dtype in NARROW else np.frombuffer(piece, dtype)


def count_negative(piece: Any, dtype: str) -> int:
    """Count negative numbers in a piece of payload; of complex ones each part."""
    import numpy as np

    values = decoded(piece, dtype)
    return int(np.count_nonzero((values.view(values.real.dtype) if values.dtype.kind == "c" else values) < 0))


def encoded(value: float, tensor: Tensor) -> bytes:
    """Return one element of a tensor. Raises: ConvertError where its dtype does not hold the value."""
    import numpy as np

    if tensor.dtype in FLOATS:
        lost = Tally()
        bits = cast(np.array([value], np.float64), "float64", tensor, lost)
        if problem := lost.problem(tensor.dtype):
            raise ConvertError(f"{tensor.name}: the constant {value}: {problem}")
        return bits
    if not value:
        return bytes(tensor.nbytes // tensor.size)
    if tensor.dtype in NARROW or misfit(value, tensor.dtype):
        raise ConvertError(f"{tensor.name} is {tensor.dtype}, which does not hold the constant {value}")
    return np.array([value], tensor.dtype).tobytes()


def from_bfloat16(bits: Any) -> np.ndarray:
    """Return float32 of bfloat16's bits, exactly."""
    import numpy as np

    return (np.frombuffer(bits, np.uint16).astype(np.uint32) << 16).view(np.float32)


def from_float8_e4m3fn(bits: Any) -> np.ndarray:
    """Return float32 of sign, 4 bits of exponent (bias 7), 3 of mantissa, exactly: no infinities, all ones are NaN."""
    import numpy as np

    values: np.ndarray = _float8_e4m3fn()[np.frombuffer(bits, np.uint8)]
    return values


@cache
def _float8_e4m3fn() -> np.ndarray:
    """Return the float32 value of each code (256): a mantissa m of 3 bits and exponent e are (8 + m) * 2 ** (e - 10).

    10 is the bias, 7, and the 3 bits of the mantissa.
    """
    import numpy as np

    code = np.arange(256, dtype=np.int64)
    exponent, mantissa = code >> 3 & 15, code & 7
    size = np.ldexp(np.where(exponent, 8 + mantissa, mantissa), np.maximum(exponent, 1) - 10)
    return np.where(code & 127 == 127, np.nan, np.where(code < 128, size, -size)).astype(np.float32)


def from_float8_e5m2(bits: Any) -> np.ndarray:
    """Return float32 of the upper halves of float16, exactly."""
    import numpy as np

    return (np.frombuffer(bits, np.uint8).astype(np.uint16) << 8).view(np.float16).astype(np.float32)


# Dtypes that numpy lacks, as float32.
NARROW = {"bfloat16": from_bfloat16, "float8_e4m3fn": from_float8_e4m3fn, "float8_e5m2": from_float8_e5m2}


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Round float32 to nearest even, to its upper half; NaNs stay NaNs. Doubles first go to float32, rounded to odd."""
    import numpy as np

    single = values.astype(np.float32)
    bits = single.view(np.uint32)
    if values.dtype == np.float64:  # a sticky last bit keeps the second rounding from seeing a false tie
        inexact = (single != values) & np.isfinite(single)
        toward_zero = np.where(np.abs(single) > np.abs(values), bits - 1, bits)
        bits = np.where(inexact, toward_zero | 1, bits)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) >> 16
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype(np.uint16)
