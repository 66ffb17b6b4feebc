"""Batch counters (torch's num_batches_tracked): what a file stores for one, also where it was cast with the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from . import report

if TYPE_CHECKING:
    from .files.base import Reader, Tensor

# The first count that each dtype rounds: from there on it does not hold every integer.
ROUNDED = {
    "float64": 2**53, "float32": 2**24, "float16": 2**11, "bfloat16": 2**8, "float8_e4m3fn": 2**4, "float8_e5m2": 2**3,
}  # fmt: skip


class Counter(NamedTuple):
    """A counter as a file stores it.

    Args:
      value: the count; None where it is none: a fraction, negative, NaN or infinite.
      remark: what is doubtful about it; "" if nothing is.
    """

    value: int | None
    remark: str = ""


def read(reader: Reader, tensor: Tensor) -> Counter:
    """Read a counter of any dtype."""
    data = bytes(reader.read(tensor.name))
    number: float | int
    if tensor.dtype in ROUNDED:
        import numpy as np

        from .casting import NARROW

        values = NARROW[tensor.dtype](data) if tensor.dtype in NARROW else np.frombuffer(data, tensor.dtype)
        number = float(values.item()) if values.size == 1 else math.nan
    elif tensor.dtype.startswith(("int", "uint")):
        number = int.from_bytes(data, "little", signed=tensor.dtype.startswith("int"))
    else:
        return Counter(None, f"is {tensor.dtype}: no count, so it is left out")
    if not (math.isfinite(number) and number >= 0 and number == int(number) and number < 2**63):
        return Counter(None, f"is {number} in {tensor.dtype}: no count, so it is left out")
    if int(number) >= ROUNDED.get(tensor.dtype, 2**63):
        return Counter(int(number), f"is {tensor.dtype}, which rounds so large a count: {int(number):,} is carried")
    return Counter(int(number))


def carried(reader: Reader, tensors: Mapping[str, Tensor]) -> tuple[dict[str, int], list[str]]:
    """Return the counters by our name, without values that are no counts, and a remark for each kind of doubt."""
    counters = {name: read(reader, tensor) for name, tensor in tensors.items()}
    doubtful = [(tensors[name].name, counter.remark) for name, counter in counters.items() if counter.remark]
    return {n: c.value for n, c in counters.items() if c.value is not None}, report.misfits(doubtful)
