"""Count steps by powers of betas as paddle stores them: multiplied once a step, and rounded each time.

Source: paddle/phi/kernels/cpu/adam_kernel.cc, where beta1_pow_out is beta1 times beta1_pow in the dtype of the moments.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

MOST = 1 << 21  # powers of one beta that are computed, 16 MiB: those of 0.9999 last 880,000 steps in float32
NEAR = 0.1  # steps: how far a power may be from a whole number of them
SURE = 0.01  # the same, of a beta that nobody states


@cache
def powers(beta: float, dtype: str) -> Any:
    """Return the powers of a beta after 0, 1, ... steps, until they are too small to tell steps apart."""
    tiny = float(np.finfo(dtype).tiny)
    count = min(MOST, math.ceil(math.log(tiny) / math.log(beta))) if 0 < beta < 1 else 0
    return np.multiply.accumulate(np.full(count, beta, dtype)) if count else np.zeros(0, dtype)


def power(beta: float, steps: int, dtype: str) -> float:
    """Return the power of a beta that paddle stores after some steps."""
    every = powers(beta, dtype)
    if steps < len(every):
        return float(every[steps])
    rest, value = steps - len(every) + 1, every[-1] if len(every) else np.array(beta, dtype)[()]
    for _ in range(min(rest, MOST) if len(every) else steps):
        last, value = value, value * np.array(beta, dtype)[()]
        if value == last:
            break
    return float(value)


def shows(value: float, dtype: str) -> bool:
    """Tell whether a stored power is large enough to tell steps apart."""
    return float(np.finfo(dtype).tiny) < value < 1


def steps_of(value: float, beta: float, dtype: str) -> float | None:
    """Return the number of steps after which a power is stored, which is whole if it is one of this beta; else None.

    A power may also be one that was computed at once, as other programs write it.
    """
    if not shows(value, dtype) or not 0 < beta < 1:
        return None
    found = [math.log(value) / math.log(beta) - 1]
    every = powers(beta, dtype)
    if len(every):
        at = min(int(np.searchsorted(-every, -value)), len(every) - 1)
        found += [k + math.log(value / float(every[k])) / math.log(beta) for k in {max(at - 1, 0), at}]
    return min(found, key=lambda steps: abs(steps - round(steps)))
