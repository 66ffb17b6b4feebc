"""Read and write batch counters (torch's num_batches_tracked), also where one was cast together with the weights."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from convert import folding
from convert.files.base import Reader, Tensor
from specs.notation.dtype_kinds import SIGNIFICANT

COUNTER = "num_batches_tracked"  # of torch's batch norms: no other framework stores batch counters


class Counter(NamedTuple):
    """A counter as a file stores it.

    Args:
      value: the count; None where it is none: a fraction, negative, NaN or infinite.
      doubt: what is doubtful about it; "" if nothing is.
    """

    value: int | None
    doubt: str = ""

    def remark(self, copied: bool) -> str:
        """Tell what a user should know of it, and what becomes of it; "" if nothing is doubtful."""
        fate = "copied as it is" if copied else "left out" if self.value is None else f"{self.value:,} is carried"
        return f"{self.doubt}: {fate}" if self.doubt else ""


def is_count(value: object) -> bool:
    """Tell whether a number can be a count of batches or steps."""
    return type(value) in (int, float) and 0 <= value < 2**63 and value == int(value)  # type: ignore[operator,call-overload]


def read(reader: Reader, tensor: Tensor) -> Counter:
    """Read a counter of any dtype."""
    data = bytes(reader.read(tensor.name))
    number: float | int
    if tensor.dtype in SIGNIFICANT:
        import numpy as np

        from .casting import NARROW

        values = NARROW[tensor.dtype](data) if tensor.dtype in NARROW else np.frombuffer(data, tensor.dtype)
        number = float(values.item()) if values.size == 1 else math.nan
    elif tensor.dtype.startswith(("int", "uint")):
        number = int.from_bytes(data, "little", signed=tensor.dtype.startswith("int"))
    else:
        return Counter(None, f"is {tensor.dtype}, no count")
    if not is_count(number):
        return Counter(None, f"is {number} in {tensor.dtype}, no count")
    if int(number) >= 2 ** SIGNIFICANT.get(tensor.dtype, 63):
        return Counter(int(number), f"is {tensor.dtype}, which rounds so large a count")
    return Counter(int(number))


def carried(
    reader: Reader, carried: Mapping[str, Tensor], copied: Iterable[Tensor] = ()
) -> tuple[dict[str, int], list[str]]:
    """Return the counters that a record carries, by our name, without values that are no counts; and remarks on doubts.

    Args:
      carried: our name -> counter that the target does not store.
      copied: counters that the target stores as they are.
    """
    counters = {name: read(reader, tensor) for name, tensor in carried.items()}
    doubts = [(carried[name].name, counter.remark(copied=False)) for name, counter in counters.items()]
    doubts += [(tensor.name, read(reader, tensor).remark(copied=True)) for tensor in copied]
    remarks = folding.misfits((name, remark) for name, remark in doubts if remark)
    return {name: counter.value for name, counter in counters.items() if counter.value is not None}, remarks
