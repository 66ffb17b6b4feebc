"""Read tensors whose elements are not in C order: transposed, sliced, Fortran. Strides count elements."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    Elements = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

WINDOW = 16 * 1024 * 1024  # bytes fetched at a time
CODES = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}  # any numpy type of that size: only bits are moved


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Tell whether the elements lie in C order without gaps."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step:
            return 0 in shape
        step *= size
    return True


def span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Return elements from the first to the last, both included."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def gather(
    fetch: Callable[[int, int], bytes], shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int
) -> memoryview:
    """Return the elements' bytes in C order.

    Args:
      fetch: bytes [start, stop), counted from the tensor's first element.
      itemsize: bytes per element.
    """
    import numpy as np

    out = np.empty(shape, CODES[itemsize])
    steps = tuple(stride * itemsize for stride in strides)

    def fill(out: Elements, start: int) -> None:
        reach = span(out.shape, steps) - 1 + itemsize
        if reach <= WINDOW or out.size == 1:
            data = np.frombuffer(fetch(start, start + reach), np.uint8)
            out[...] = np.ndarray(out.shape, out.dtype, data, 0, steps)
            return
        axis = max(range(out.ndim), key=lambda axis: (out.shape[axis] - 1) * steps[axis])
        half = out.shape[axis] // 2
        first, second = np.split(out, [half], axis)
        fill(first, start)
        fill(second, start + half * steps[axis])

    if math.prod(shape):
        fill(out, 0)
    return out.reshape(-1).view(np.uint8).data
